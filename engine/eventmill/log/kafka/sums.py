"""Reading the ledger: sums per run and hour, and what dead letters from ingest carry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from eventmill.core.log import Count, StoredFrame
from eventmill.log.kafka import messages
from eventmill.log.kafka.feed import Feed

_READ_EVENTS: Final = 1 << 16


class Sums:
    """Safe to share between threads. Reads on from where it was: ``feed`` is the ledger's, ``dead`` reads dead letters."""

    def __init__(self, feed: Feed, dead: Callable[[int, int], list[StoredFrame]]) -> None:
        self._lock = threading.Lock()
        self._feed, self._dead = feed, dead
        self._sums: dict[bytes, list[Count]] = {}
        self._refused: list[Count] = []
        self._at = 0
        self._dead_at = 0

    def counts(self, end: int, dead_end: int) -> list[Count]:
        """Everything below those offsets of the ledger and of the dead letters."""
        with self._lock:
            while frames := self._feed.read(0, self._at, events_max=_READ_EVENTS, to_offset=end):
                for stored in frames:
                    self._sums[stored.key or b""] = messages.load(stored.payload)
                self._at = frames[-1].offset + 1
            while letters := self._dead(self._dead_at, dead_end):
                self._refused += messages.carried(letters)
                self._dead_at = letters[-1].offset + 1
            return [count for sums in self._sums.values() for count in sums] + list(self._refused)

    def close(self) -> None:
        """Let go of the feed."""
        self._feed.close()
