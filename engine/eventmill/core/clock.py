"""Wall time, in one place. Stateful code never asks it: there time comes from the data."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from eventmill.core.errors import ConfigError


def now_ms() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def parse_duration_ms(text: str | int) -> int:
    """Milliseconds of ``"250ms"``, ``"30m"``, ``"24h"``, ``"7d"``; a plain number counts seconds.

    Raises ``ValueError`` naming the accepted spellings.
    """
    units = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    spelling = str(text).strip()
    digits = spelling.rstrip("msdh")
    unit = spelling[len(digits) :] or "s"
    try:
        value = float(digits) * units[unit]
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is not a duration; write for example 250ms, 90s, 30m, 24h or 7d") from None
    if not 0 < value < 1e15:
        raise ValueError(f"{text!r} is not a duration above zero; write for example 250ms, 90s, 30m, 24h or 7d")
    return int(value)


def moment_ms(text: str) -> int:
    """ISO 8601 (without an offset: UTC), or how long ago (``2h``), as ms since the epoch. Raises ``ConfigError``."""
    try:
        return now_ms() - parse_duration_ms(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time; write 2026-11-23T04:00:00Z, or 2h for two hours ago") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp() * 1000)
