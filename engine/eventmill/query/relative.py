"""Relative times in ``from`` and ``to``: ``now``, ``-7d``, ``now/day``, so that a question stays useful.

They are whole minutes: "now" is the end of the minute that runs, so it leaves out nothing that has happened. What is asked
twice within a minute is then the same question, and the minute roll-up can answer it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from eventmill.core.errors import QueryError
from eventmill.query.render import iso

_MINUTE: Final = 60_000
_UNITS: Final = {"m": _MINUTE, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_ROUNDED: Final = {"minute": _MINUTE, "hour": 3_600_000, "day": 86_400_000}
FORM: Final = re.compile(r"(?:now)?(?:-(\d{1,6})([mhdw]))?(?:/(minute|hour|day))?")
_KEYS: Final = ("from", "to")
HOW: Final = "write a time like 2026-11-23T04:00:00Z, or a relative one like now, -7d, -24h/hour or now/day"


def absolute(body: Any, now: int) -> Any:
    """The body with its relative times as ISO 8601; ``now`` in ms since the epoch. Raises ``QueryError`` naming the key."""
    if not isinstance(body, dict):
        return body
    told = {key: _moment(body[key], key, now) for key in _KEYS if _is_relative(body.get(key))}
    return {**body, **told} if told else body


def _is_relative(given: Any) -> bool:
    return isinstance(given, str) and given.startswith(("now", "-"))


def _moment(given: str, where: str, now: int) -> str:
    match = FORM.fullmatch(given)
    if match is None:
        raise QueryError(f"{where} is {given[:100]!r}; {HOW}")
    number, unit, rounded = match.groups()
    back = int(number) * _UNITS[unit] if number else 0
    end_of_minute = (now // _MINUTE + 1) * _MINUTE
    at = (now - back) // _ROUNDED[rounded] * _ROUNDED[rounded] if rounded else end_of_minute - back
    if at < 0:
        raise QueryError(f"{where} is {given[:100]!r}, before 1970; {HOW}")
    return iso(at)
