"""Keys: what a request carries (HTTP Basic user name or Bearer token; write keys also in the body), and which are known."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from eventmill.core.errors import ConfigError

#: Before the SHA-256 of a key, where a configuration is not to hold the key itself.
HASHED: Final = "sha256:"


def key_of_header(authorization: str | None) -> str | None:
    """The key that an Authorization header carries; ``None`` without one, empty when it cannot be read."""
    if authorization is None:
        return None
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return _utf8(credentials.strip())
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[0]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _utf8(text: str) -> str:
    # Headers are read as Latin-1; a key beyond ASCII comes in UTF-8, as in a body.
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def fingerprint(key: str) -> bytes:
    """What is known of a key: its SHA-256."""
    return hashlib.sha256(key.encode()).digest()


def _known(entry: str) -> bytes:
    """The fingerprint of a configured key, which may be given as ``sha256:HEX`` instead."""
    if not entry.strip():
        raise ConfigError("a key is empty, so that anyone could send it; leave it out or give it a value")
    if not entry.startswith(HASHED):
        return fingerprint(entry)
    try:
        digest = bytes.fromhex(entry.removeprefix(HASHED))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ConfigError(
            f"a key begins with {HASHED}, but no 64 hex digits follow; `eventmill keys new` prints a right one"
        )
    return digest


class Keys:
    """A set of keys. Raises ``ConfigError`` for one that is empty, or hashed wrongly."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_known(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accepts(self, key: str | None) -> bool:
        """Compares digests with every key in constant time, so that neither content nor length leaks."""
        if key is None:
            return False
        digest = fingerprint(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


class WriteKeys(Keys):
    """The keys that events may come with. With none configured any key, or none, will do."""

    @property
    def open(self) -> bool:
        """Whether every key is accepted."""
        return not self

    def accepts(self, key: str | None) -> bool:
        """See ``Keys``."""
        return self.open or super().accepts(key)
