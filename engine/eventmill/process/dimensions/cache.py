"""A columnar cache of numbers by string, bounded, with an end for each entry.

Entries lie in segments, each a hash table of its own that never changes (the kernel of the join). New entries make a new
segment, and small segments are merged into larger ones, so that an entry is moved a number of times that grows as the
logarithm of the cache. What has ended goes when its segment is merged. A key is put only when it is not in force, so no key
is in force twice.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill._native import enrich as native
from eventmill.kernels.arrow import Int32s, strings
from eventmill.kernels.memory import zeroed

Float64s = npt.NDArray[np.float64]
#: Not in the cache; and a null.
ABSENT: Final = -3
NULL: Final = -4
#: A segment this many times larger than a new one is left alone.
_RATIO: Final = 3
_KEPT: Final = 0.75


class _Segment:
    def __init__(self, keys: pa.Array, numbers: Int32s, until: Float64s) -> None:
        self.keys, self.numbers, self.until = keys, numbers, until
        size = len(keys)
        # Behind the entries: what strangers find.
        self._numbers = np.append(numbers, np.int32(ABSENT))
        self._until = np.append(until, np.inf)
        self._slots = zeroed((size * 2 // native.LINE_SLOTS + 1) * native.LINE_SLOTS * native.SLOT_BYTES)
        rows = np.arange(size, dtype=np.int32)
        self._native = native.Dimension(*strings(keys), rows, self._slots, os.urandom(native.SECRET_BYTES))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        return int(self.keys.nbytes + self._slots.nbytes + 2 * (self.numbers.nbytes + self.until.nbytes))

    def find(self, keys: pa.Array, now: float) -> Int32s:
        rows = np.empty(len(keys), np.int32)
        self._native.find(*strings(keys), None, 0, len(self), rows)
        found: Int32s = self._numbers[rows]
        found[self._until[rows] <= now] = ABSENT
        return found


class Cache:
    """Not thread-safe. Times are seconds of one clock; one that goes back stands still here."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._segments: list[_Segment] = []
        self._now = -np.inf

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(segment.nbytes for segment in self._segments)

    def clear(self) -> None:
        """Forget all."""
        self._segments = []

    def find(self, keys: pa.Array, now: float) -> Int32s:
        """Each key's number (0 or more, or what was put), ``ABSENT``, or ``NULL`` for a null. ``keys`` are strings."""
        self._now = max(now, self._now)
        numbers = np.full(len(keys), ABSENT, np.int32)
        rows: npt.NDArray[np.int64] | None = None
        if keys.null_count:
            valid = np.asarray(keys.is_valid())
            numbers[~valid] = NULL
            rows = np.flatnonzero(valid)
            keys = keys.take(pa.array(rows))
        for segment in self._segments:  # the largest first
            if len(keys) == 0:
                break
            found = segment.find(keys, self._now)
            numbers[rows if rows is not None else slice(None)] = found
            absent = np.flatnonzero(found == ABSENT)
            rows = absent if rows is None else rows[absent]
            keys = keys.take(pa.array(absent))
        return numbers

    def put(self, keys: pa.Array, numbers: Int32s, until: Float64s) -> None:
        """Add distinct keys that ``find`` did not find. Beyond the bound those that end first go."""
        if len(keys) == 0:
            return
        parts = [(keys, numbers, until)]
        size = len(keys)
        full = len(self) + size > self._entries_max
        while self._segments and (full or len(self._segments[-1]) < _RATIO * size):
            segment = self._segments.pop()
            live = segment.until > self._now
            parts.append((segment.keys.filter(pa.array(live)), segment.numbers[live], segment.until[live]))
            size += len(parts[-1][0])
        keys = pa.concat_arrays([part[0] for part in parts])
        numbers, until = np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])
        if size > self._entries_max:
            kept = np.sort(np.argsort(until, kind="stable")[-max(int(self._entries_max * _KEPT), 1) :])
            keys, numbers, until = keys.take(pa.array(kept)), numbers[kept], until[kept]
        self._segments.append(_Segment(keys, numbers, until))
