"""Feeding a store from the enriched topic: what to write and when; how exactly-once is kept is each store's own.

The real-time store proves an insert by its token: intent records with the offsets are durable before the insert, and
a range whose fate is unknown after a crash is inserted again under the same token. The lake proves it by the offsets in
its snapshot summary: what the summary covers is not written again.

One insert may take frames of many partitions. Its place in the store's own order is the sum of all partitions' positions
before it, which only ever grows; frames follow one another from there by partition and offset (``Taken``). With one
partition that is the frame's offset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from eventmill.core import frame, groups, ledger
from eventmill.core.log import Intent, Log
from eventmill.core.schema import EVENT, Hop, Topic
from eventmill.core.tail import StoredBatch, Tail
from eventmill.core.tombstones import Tombstones

#: All that is left of a range.
_ALL: Final = 1 << 62


class TokenStore(Protocol):
    """A store that drops a second insert under the same token."""

    def insert(self, batch: pa.Table, token: str) -> None:
        """Store the rows (EVENT plus ``log_offset``) once, however often this is called with that token."""
        ...


class OffsetStore(Protocol):
    """A store that commits offsets together with rows."""

    def append(
        self, batch: pa.Table, *, group: str, ranges: Mapping[int, tuple[int, int]], forgotten: pa.Table | None = None
    ) -> None:
        """Store the rows, each partition's offset range, and how many rows of each hour are ``forgotten``, in one commit;
        what is stored already is passed over."""
        ...

    def committed_offset(self, partition: int) -> int:
        """The next offset to store."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """Frames for one insert: ``ranges`` by partition (from inclusive, to exclusive), ``base`` the place of the first one."""

    base: int
    ranges: Mapping[int, tuple[int, int]]
    batches: Mapping[int, list[StoredBatch]]

    def placed(self) -> list[StoredBatch]:
        """All batches in order, each with its place in the store's own order instead of the offset."""
        found, begin = [], self.base
        for partition in sorted(self.ranges):
            first, end = self.ranges[partition]
            found += [StoredBatch(begin + stored.offset - first, stored.events) for stored in self.batches[partition]]
            begin += end - first
        return found

    @property
    def token(self) -> str:
        """Names the insert for the store's own duplicate check."""
        return f"{Topic.ENRICHED}:{self.base}:{self.base + sum(end - first for first, end in self.ranges.values())}"


class SinkRunner:
    """Reads batches for one store. Not thread-safe: one thread calls ``recover``, then ``step`` again and again."""

    group: str

    def __init__(
        self,
        log: Log,
        *,
        events_max: int,
        interval_ms: int,
        tail: Tail | None = None,
        tombstones: Tombstones | None = None,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._tail = tail
        self._tombstones = tombstones or Tombstones()
        self._events_max = events_max
        self._interval_s = interval_ms / 1000
        self._checkpoint = checkpoint
        self._positions: dict[int, int] = {}
        self._first = 0

    def recover(self) -> None:
        """Finish what a crash left open, and find the positions to go on from."""
        raise NotImplementedError

    def write(self, taken: Taken) -> None:
        """Store the batches."""
        raise NotImplementedError

    def step(self, timeout_s: float, *, hurry: Callable[[], bool] = lambda: False) -> int:
        """Store one batch; gives its events.

        Waits up to ``timeout_s`` for input, then until the batch is full, the interval has passed, or ``hurry()`` holds.
        """
        if not self._log.wait(
            Topic.ENRICHED,
            self._positions,
            timeout_s,
            events_max=self._events_max,
            linger_s=self._interval_s,
            enough=hurry,
        ):
            return 0
        taken = self._take()
        if not taken.ranges:
            return 0
        self.write(taken)
        self._positions.update({partition: end for partition, (_, end) in taken.ranges.items()})
        return sum(stored.events.num_rows for stored in taken.placed())

    def _take(self) -> Taken:
        """Up to ``events_max`` events; another partition comes first each time."""
        partitions = sorted(self._positions)
        self._first = (self._first + 1) % len(partitions)
        left, batches = self._events_max, {}
        for partition in partitions[self._first :] + partitions[: self._first]:
            found = self._read(partition, self._positions[partition], left) if left > 0 else []
            if found:
                batches[partition] = found
                left -= sum(stored.events.num_rows for stored in found)
        ranges = {each: (self._positions[each], found[-1].offset + 1) for each, found in batches.items()}
        return Taken(sum(self._positions.values()), ranges, batches)

    def _read(
        self, partition: int, from_offset: int, events_max: int, to_offset: int | None = None
    ) -> list[StoredBatch]:
        if self._tail is not None and to_offset is None:
            batches = self._tail.read(self.group, from_offset, events_max=events_max)
            if batches:
                return batches
        frames = self._log.read(Topic.ENRICHED, partition, from_offset, events_max=events_max, to_offset=to_offset)
        return [StoredBatch(stored.offset, frame.conform(frame.decode(stored), EVENT)) for stored in frames]

    def _kept(self, rows: pa.Table) -> tuple[pa.Table, pa.Table | None]:
        """What is to be stored, and what has been forgotten (null: nothing)."""
        mask = self._tombstones.mask(rows)
        return (rows, None) if mask is None else (rows.filter(pa.array(~mask)), rows.filter(pa.array(mask)))

    def _committed(self) -> dict[int, int]:
        return {
            each: self._log.committed(self.group, Topic.ENRICHED, each) for each in self._log.partitions(Topic.ENRICHED)
        }


class RealtimeRunner(SinkRunner):
    """Feeds a ``TokenStore``."""

    group = groups.REALTIME

    def __init__(
        self,
        log: Log,
        store: TokenStore,
        *,
        events_max: int,
        interval_ms: int,
        tail: Tail | None = None,
        tombstones: Tombstones | None = None,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(
            log, events_max=events_max, interval_ms=interval_ms, tail=tail, tombstones=tombstones, checkpoint=checkpoint
        )
        self._store = store

    def recover(self) -> None:
        """Insert the open intents' ranges again under their token."""
        self._positions = self._committed()
        found = (self._log.intent(self.group, Topic.ENRICHED, partition) for partition in self._positions)
        intents = [intent for intent in found if intent is not None]
        if not intents:
            return
        ranges = {intent.partition: (intent.from_offset, intent.to_offset) for intent in intents}
        batches = {each: self._read(each, first, _ALL, end) for each, (first, end) in ranges.items()}
        self._insert(Taken(sum(self._positions.values()), ranges, batches))
        self._positions.update({partition: end for partition, (_, end) in ranges.items()})

    def write(self, taken: Taken) -> None:
        """Intent, insert, commit."""
        with self._log.transaction() as transaction:
            for partition, (first, end) in taken.ranges.items():
                transaction.put_intent(Intent(self.group, Topic.ENRICHED, partition, first, end))
        self._checkpoint("intent")
        self._insert(taken)

    def _insert(self, taken: Taken) -> None:
        rows, forgotten = self._kept(with_log_offset(taken.placed()))
        self._store.insert(rows, taken.token)
        self._checkpoint("inserted")
        with self._log.transaction() as transaction:
            if forgotten is not None:
                transaction.count(ledger.counts(Hop.FORGOTTEN, frame.to_batch(forgotten)))
            for partition, (_, end) in taken.ranges.items():
                transaction.commit_offset(self.group, Topic.ENRICHED, partition, end)
                transaction.clear_intent(self.group, Topic.ENRICHED, partition)
        self._checkpoint("committed")


class LakeRunner(SinkRunner):
    """Feeds an ``OffsetStore``."""

    group = groups.LAKE

    def __init__(
        self,
        log: Log,
        store: OffsetStore,
        *,
        events_max: int,
        interval_ms: int,
        tail: Tail | None = None,
        tombstones: Tombstones | None = None,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(
            log, events_max=events_max, interval_ms=interval_ms, tail=tail, tombstones=tombstones, checkpoint=checkpoint
        )
        self._store = store

    def recover(self) -> None:
        """The lake's own offsets are the truth; the log's copy follows them."""
        committed = self._committed()
        self._positions = {partition: self._store.committed_offset(partition) for partition in committed}
        self._commit({each: end for each, end in self._positions.items() if end != committed[each]})

    def write(self, taken: Taken) -> None:
        """Append with offsets, then tell the log."""
        events, forgotten = self._kept(pa.Table.from_batches([stored.events for stored in taken.placed()]))
        self._store.append(events, group=self.group, ranges=taken.ranges, forgotten=forgotten)
        self._checkpoint("appended")
        self._commit({partition: end for partition, (_, end) in taken.ranges.items()})

    def _commit(self, offsets: Mapping[int, int]) -> None:
        if offsets:
            with self._log.transaction() as transaction:
                for partition, offset in offsets.items():
                    transaction.commit_offset(self.group, Topic.ENRICHED, partition, offset)


def with_log_offset(batches: list[StoredBatch]) -> pa.Table:
    """The events with a uint64 column ``log_offset``: each row's place, which is its frame's."""
    events = pa.Table.from_batches([stored.events for stored in batches])
    offsets = np.array([stored.offset for stored in batches], np.uint64)
    return events.append_column("log_offset", pa.array(np.repeat(offsets, [len(stored.events) for stored in batches])))
