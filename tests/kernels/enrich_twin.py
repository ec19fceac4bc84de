"""The dimension join in plain Python."""

from __future__ import annotations

from typing import Any


def join(table: dict[str, tuple[Any, ...]], width: int, users: list[str | None]) -> list[tuple[Any, ...]]:
    """Each user's dimensions, nulls for strangers and nulls."""
    nothing = (None,) * width
    return [nothing if user is None else table.get(user, nothing) for user in users]


def flagged(table: dict[str, Any], users: list[str | None], flags: list[int], flag: int) -> list[int]:
    """``flag`` is set for strangers and cleared for everyone else."""
    strange = [user is not None and user not in table for user in users]
    return [old | flag if unknown else old & ~flag for unknown, old in zip(strange, flags, strict=True)]
