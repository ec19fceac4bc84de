"""Figures of a running system that are asked of it as SQL."""

from __future__ import annotations

from typing import Any, Final, Protocol

_ROLLED_UP: Final = "SELECT toInt64(count()) - (SELECT toInt64(sum(events)) FROM events_1m) FROM events"


class Asked(Protocol):
    """Part of ``faults.scene.System``."""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the process that has the stores."""
        ...


def number(system: Asked, query: str) -> int:
    """The only value of an answer."""
    return int(system.ask("POST", "/v1/query/sql", {"query": query})["rows"][0][0])


def not_rolled_up(system: Asked) -> int:
    """By how many events the sum of the roll-up differs from the rows of the real-time store."""
    return abs(number(system, _ROLLED_UP))
