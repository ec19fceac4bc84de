"""What a new version of a schema does to queries over properties that hold today."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

_TYPED: Final = ("null", "boolean", "object", "array", "string", "number", "integer")


def broken(before: Any, after: Any, paths: Iterable[str] | None = None) -> dict[str, str]:
    """Per dotted path below ``properties`` what happens to it: it may not be there any more, or be of another type.

    ``before`` is the newest schema, null when there is none. Without ``paths``, all that it names.
    """
    old, new = _columns(before), _columns(after)
    found = {}
    for path in sorted(old if paths is None else set(paths)):
        if path not in new:
            if _closed(after, path):
                found[path] = "may not be there any more"
        elif path in old and new[path] - old[path]:
            found[path] = f"was {_named(old[path])}, and may be {_named(new[path])}"
    return found


def _named(kinds: frozenset[str]) -> str:
    return " or ".join(kind for kind in _TYPED if kind in kinds)


def _columns(document: Any, prefix: str = "") -> dict[str, frozenset[str]]:
    columns: dict[str, frozenset[str]] = {}
    properties = document.get("properties", {}) if isinstance(document, dict) else {}
    for name, schema in properties.items():
        kinds = schema.get("type") if isinstance(schema, dict) else None
        listed = [kinds] if isinstance(kinds, str) else kinds or _TYPED
        # An integer is a number for every query.
        columns[prefix + name] = frozenset("number" if kind == "integer" else kind for kind in listed)
        columns |= _columns(schema, f"{prefix}{name}.")
    return columns


def _closed(document: Any, path: str) -> bool:
    """Whether the schema allows no member of that path."""
    for name in path.split("."):
        if not isinstance(document, dict):
            return False
        properties = document.get("properties", {})
        if name not in properties:
            return document.get("additionalProperties") is False
        document = properties[name]
    return False
