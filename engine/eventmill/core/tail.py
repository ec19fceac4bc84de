"""The newest batches of a topic, kept as they were made.

A reader that keeps up and lives in the writer's process takes them from here; to read the frames back from the log and
inflate them would cost it more than most of what it does with them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """The events of one frame and its offset."""

    offset: int
    events: pa.RecordBatch


class Tail:
    """Of one partition. Safe to share between threads.

    A batch goes when every one of ``groups`` has asked for a later one, or when there are over ``bytes_max`` bytes of them:
    who comes too late reads the log.
    """

    def __init__(self, groups: Iterable[str], *, bytes_max: int = _BYTES_MAX) -> None:
        self._lock = threading.Lock()
        self._batches: deque[tuple[StoredBatch, int]] = deque()
        self._bytes = 0
        self._bytes_max = bytes_max
        self._positions = dict.fromkeys(groups, 0)

    def append(self, batches: Iterable[StoredBatch]) -> None:
        """Add batches whose frames are durable. A gap in the offsets empties the tail first."""
        with self._lock:
            for stored in batches:
                if self._batches and stored.offset != self._batches[-1][0].offset + 1:
                    self._batches.clear()
                    self._bytes = 0
                size = int(stored.events.get_total_buffer_size())
                self._batches.append((stored, size))
                self._bytes += size
            self._drop()

    def read(self, group: str, from_offset: int, *, events_max: int) -> list[StoredBatch]:
        """What ``Log.read`` would give; nothing when ``from_offset`` is not here. The group is done with what is below."""
        taken: list[StoredBatch] = []
        with self._lock:
            self._positions[group] = from_offset
            self._drop()
            begin = from_offset - self._batches[0][0].offset if self._batches else 0
            if begin < 0:
                return []
            events = 0
            for position in range(begin, len(self._batches)):
                taken.append(self._batches[position][0])
                events += taken[-1].events.num_rows
                if events >= events_max:
                    break
        return taken

    def _drop(self) -> None:
        done = min(self._positions.values(), default=0)
        while self._batches and (self._batches[0][0].offset < done or self._bytes > self._bytes_max):
            self._bytes -= self._batches.popleft()[1]
