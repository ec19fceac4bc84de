"""Wall time, in one place. Stateful code never asks it: there time comes from the data."""

from __future__ import annotations

import time


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
