"""Which snapshot last changed each date of the lake, from what the snapshots say of themselves."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable
from typing import Any, Final

from pyiceberg.table import Table

#: The entry of a snapshot's summary: the dates (days since the epoch) of which it has added or removed rows. It is said
#: of one snapshot only, so it is not copied forward as the entries that begin with ``offsets.PREFIX`` are.
DATES: Final = "changed-dates"


def changed(dates: Iterable[int]) -> dict[str, str]:
    """The entry."""
    return {DATES: ",".join(map(str, sorted(set(dates))))}


class DateVersions:
    """A fold over the table's snapshots. Safe to share between threads.

    A snapshot that names no dates may have changed all of them; so may those that nobody here has seen, because they
    expired between two looks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: int | None = None
        self._others: int | None = None
        self._dates: dict[int, int] = {}

    def of(self, table: Table, first: int, last: int) -> Hashable:
        """The version of the rows of these dates in the table's current snapshot."""
        with self._lock:
            self._fold(table)
            newest = {self._dates.get(date, self._others) for date in range(first, last + 1)}
            return frozenset(newest)

    def _fold(self, table: Table) -> None:
        at: Any = table.current_snapshot()
        current = None if at is None else at.snapshot_id
        if current == self._seen:
            return
        news = []
        while at is not None and at.snapshot_id != self._seen:
            news.append(at)
            at = None if at.parent_snapshot_id is None else table.snapshot_by_id(at.parent_snapshot_id)
        if at is None:  # what was seen last is none of these snapshots' ancestors, as far as they are known
            self._others, self._dates = current, {}
            news = []
        for snapshot in reversed(news):
            said = None if snapshot.summary is None else snapshot.summary.additional_properties.get(DATES)
            if said is None:
                self._others, self._dates = snapshot.snapshot_id, {}
            else:
                self._dates |= dict.fromkeys(map(int, filter(None, said.split(","))), snapshot.snapshot_id)
        self._seen = current
