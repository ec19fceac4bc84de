"""Keys with names: what each may do, of which project, and how much.

A key of ``access.keys`` is one line (``web key=sha256:… project=shop scopes=read+write``); TOML may spell it as a table
``[access.keys.web]``. A key with a project sees and sends that project's events and nothing else.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Final

from eventmill.core.errors import ConfigError
from eventmill.net.keys import digest_of, fingerprint

WRITE: Final = "write"
READ: Final = "read"
ADMIN: Final = "admin"
SCOPES: Final = (WRITE, READ, ADMIN)
#: The header by which the engine learns whose request it answers. Only the door sets it: what a client sends is dropped.
CALLER: Final = "x-eventmill-caller"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What one key may do. ``project`` null: events of all projects; limits that are null are those of the configuration."""

    name: str
    key: str = field(repr=False)
    scopes: frozenset[str]
    project: str | None = None
    requests_per_minute: int | None = None
    concurrency_max: int | None = None
    seconds_max: int | None = None
    result_rows_max: int | None = None
    scan_rows_max: int | None = None
    memory_bytes_max: int | None = None


_LIMITS: Final = tuple(each.name for each in fields(Grant) if each.name.endswith(("_max", "_minute")))
_WORDS: Final = ("key", "project", "scopes", *_LIMITS)


def parse(entries: Iterable[str]) -> tuple[Grant, ...]:
    """The keys of ``access.keys``. Raises ``ConfigError`` naming the entry and what it takes; it never shows the key."""
    found: dict[str, Grant] = {}
    for entry in entries:
        name, *words = entry.split()
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"access.keys: {name[:70]!r} is no name; take small letters, digits, _ . and - (at most 63)"
            )
        if name in found:
            raise ConfigError(f"access.keys: there are two keys called {name!r}")
        found[name] = _grant(name, words)
    return tuple(found.values())


def _grant(name: str, words: list[str]) -> Grant:
    given: dict[str, str] = {}
    for word in words:
        what, equals, value = word.partition("=")
        if not equals or what not in _WORDS or what in given:
            raise ConfigError(
                f"access.keys.{name}: {what[:30]!r} does not fit; each of {', '.join(_WORDS)} may stand once"
            )
        given[what] = value
    scopes = frozenset(filter(None, given.get("scopes", "").split("+")))
    project = given.get("project") or None
    if not scopes or scopes - set(SCOPES):
        raise ConfigError(f"access.keys.{name}: scopes must be some of {', '.join(SCOPES)}")
    if project is not None and not _NAME.fullmatch(project):
        raise ConfigError(
            f"access.keys.{name}: project must be small letters, digits, _ . and -, at most 63, not {project[:70]!r}"
        )
    if project is not None and ADMIN in scopes:
        raise ConfigError(f"access.keys.{name}: an admin key acts on the whole server, so it has no project")
    digest_of(given.get("key", ""))
    limits = {what: _number(name, what, given[what]) for what in _LIMITS if what in given}
    return Grant(name, given["key"], scopes, project, **limits)


def _number(name: str, what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:18]) > 0):
        raise ConfigError(f"access.keys.{name}: {what} must be a whole number above zero, not {text[:30]!r}")
    return int(text[:18])


class Grants:
    """Finds the grant of a key. Safe to share between threads."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._known = [(digest_of(each.key), each) for each in grants]

    def __bool__(self) -> bool:
        return bool(self._known)

    def find(self, key: str | None, scope: str | None = None) -> Grant | None:
        """Compares with every key in constant time; ``scope``: only if the key has it, and an admin key has that of reading."""
        if key is None or not self._known:
            return None
        digest, found = fingerprint(key), None
        for known, grant in self._known:
            if hmac.compare_digest(digest, known):
                found = grant
        if found is None or scope is None or scope in found.scopes or (scope == READ and ADMIN in found.scopes):
            return found
        return None

    def scoped(self, scope: str) -> bool:
        """Whether any key has that scope."""
        return any(scope in grant.scopes for _, grant in self._known)
