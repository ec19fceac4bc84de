"""The rescue lane: a suspect is thrown away only when its twin is found in the store, else it is put back.

Before a look-up the lane waits until everything that could be the twin stands in the store: all that it has put back
itself has been processed, and the real-time sink has passed the enriched topic's end as of that moment. So a look-up
that finds nothing proves a false positive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core import frame, groups, ledger
from eventmill.core.log import Log
from eventmill.core.schema import LOGGED, Flag, Hop, Topic
from eventmill.process.placing import raw_frames

PARTITION = 0


class Twins(Protocol):
    """An exact look-up of event ids in the store."""

    def contains(self, ids: pa.Array, events: pa.Array, timestamps: pa.Array) -> pa.BooleanArray:
        """Which ids are stored; event names and times are hints that narrow the search."""
        ...


class _Target(NamedTuple):
    """Suspects below ``barrier`` can be judged once the store has ``enriched`` up to these offsets."""

    barrier: int
    enriched: Mapping[int, int]


class Rescue:
    """Not thread-safe: one thread calls ``step`` again and again."""

    def __init__(
        self,
        log: Log,
        twins: Twins,
        *,
        batch_events_max: int,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._twins = twins
        self._batch_events_max = batch_events_max
        self._checkpoint = checkpoint
        self._position = log.committed(groups.RESCUE, Topic.SUSPECTS, PARTITION)
        # What an earlier run put back is not remembered, so all of raw counts as put back.
        self._put_back_through = {each: log.next_offset(Topic.RAW, each) for each in log.partitions(Topic.RAW)}
        self._target: _Target | None = None

    def step(self, timeout_s: float) -> int:
        """Judge one batch of suspects, waiting up to ``timeout_s`` for it; gives the number judged."""
        deadline = time.monotonic() + timeout_s
        # A full batch, if so many are there: frames of suspects are small, and each step asks and commits all the same.
        position = {PARTITION: self._position}
        if not self._log.wait(Topic.SUSPECTS, position, timeout_s, events_max=self._batch_events_max):
            return 0
        barrier = self._barrier(deadline)
        if barrier is None:
            return 0
        frames = self._log.read(Topic.SUSPECTS, PARTITION, self._position, events_max=self._batch_events_max)
        # Suspects that came after the barrier may have twins beyond it; those frames wait for the next step.
        frames = [stored for stored in frames if stored.offset < barrier]
        suspects = frame.decode_all(frames, LOGGED)
        found = self._twins.contains(
            suspects.column("event_id"), suspects.column("event"), suspects.column("timestamp")
        )
        put_back = pc.and_(pc.invert(found), _first_occurrences(suspects.column("event_id")))
        rescued = _flag(suspects.filter(put_back), Flag.RESCUED)
        duplicates = suspects.filter(pc.invert(put_back))
        counts = ledger.counts(Hop.DUPLICATE, duplicates) + ledger.counts(Hop.RESCUED, rescued)
        following = frames[-1].offset + 1
        frames_back = raw_frames(rescued, len(self._put_back_through))
        self._checkpoint("judged")
        with self._log.transaction() as transaction:
            offsets = transaction.append(frames_back)
            transaction.commit_offset(groups.RESCUE, Topic.SUSPECTS, PARTITION, following)
            transaction.count(counts)
        self._checkpoint("committed")
        self._position, self._target = following, None
        for back, offset in zip(frames_back, offsets, strict=True):
            self._put_back_through[back.partition] = offset + 1
        return int(suspects.num_rows)

    def _barrier(self, deadline: float) -> int | None:
        """The offset of suspects below which all that could be a twin is stored; None while the store is behind.

        What is waited for stays the same until it is there: a store that is always a little behind never reaches the end of
        this moment, only that of an earlier one.
        """

        def left() -> float:
            return max(deadline - time.monotonic(), 0.0)

        if self._target is None:
            if not self._log.wait_committed(groups.PROCESS, Topic.RAW, self._put_back_through, left()):
                return None
            barrier = self._log.end_offset(Topic.SUSPECTS, PARTITION)
            ends = {each: self._log.next_offset(Topic.ENRICHED, each) for each in self._log.partitions(Topic.ENRICHED)}
            self._target = _Target(barrier, ends)
        there = self._log.wait_committed(groups.REALTIME, Topic.ENRICHED, self._target.enriched, left())
        return self._target.barrier if there else None


def _first_occurrences(ids: pa.Array) -> pa.BooleanArray:
    """True where an id stands for the first time in the array."""
    raw = np.frombuffer(b"".join(ids.to_pylist()), dtype="V16")
    _, first = np.unique(raw, return_index=True)
    mask = np.zeros(len(raw), dtype=bool)
    mask[first] = True
    return pa.array(mask)


def _flag(batch: pa.RecordBatch, flag: Flag) -> pa.RecordBatch:
    position = batch.schema.get_field_index("flags")
    flags = pc.bit_wise_or(batch.column(position), pa.scalar(int(flag), pa.int32()))
    return batch.set_column(position, batch.schema.field(position), flags)
