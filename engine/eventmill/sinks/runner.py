"""Feeding a store from the enriched topic: what to write and when; how exactly-once is kept is each store's own.

The real-time store proves an insert by its token: an intent record with the offset range is durable before the insert, and
a range whose fate is unknown after a crash is inserted again under the same token. The lake proves it by the offsets in
its snapshot summary: what the summary covers is not written again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
import pyarrow as pa

from eventmill.core import frame, groups
from eventmill.core.linger import linger
from eventmill.core.log import Intent, Log
from eventmill.core.schema import EVENT, Topic
from eventmill.core.tail import StoredBatch, Tail

PARTITION: Final = 0


class TokenStore(Protocol):
    """A store that drops a second insert under the same token."""

    def insert(self, batch: pa.Table, token: str) -> None:
        """Store the rows (EVENT plus ``log_offset``) once, however often this is called with that token."""
        ...


class OffsetStore(Protocol):
    """A store that commits offsets together with rows."""

    def append(self, batch: pa.Table, *, group: str, from_offset: int, to_offset: int) -> None:
        """Store the rows and the offset range in one commit; a range that is stored already is passed over."""
        ...

    def committed_offset(self) -> int:
        """The next offset to store."""
        ...


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
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._tail = tail
        self._events_max = events_max
        self._interval_s = interval_ms / 1000
        self._checkpoint = checkpoint
        self._position = 0

    def recover(self) -> None:
        """Finish what a crash left open, and find the position to go on from."""
        raise NotImplementedError

    def write(self, batches: list[StoredBatch], to_offset: int) -> None:
        """Store the batches, which end before ``to_offset``."""
        raise NotImplementedError

    def step(self, timeout_s: float, *, hurry: Callable[[], bool] = lambda: False) -> int:
        """Store one batch; gives its events.

        Waits up to ``timeout_s`` for input, then until the batch is full, the interval has passed, or ``hurry()`` holds.
        """
        if not self._log.wait(Topic.ENRICHED, PARTITION, self._position, timeout_s):
            return 0
        linger(
            self._log,
            self.group,
            Topic.ENRICHED,
            PARTITION,
            events_max=self._events_max,
            seconds=self._interval_s,
            enough=hurry,
        )
        batches = self._read(self._position, self._events_max)
        if not batches:
            return 0
        following = batches[-1].offset + 1
        self.write(batches, following)
        self._position = following
        return sum(stored.events.num_rows for stored in batches)

    def _read(self, from_offset: int, events_max: int, to_offset: int | None = None) -> list[StoredBatch]:
        if self._tail is not None and to_offset is None:
            batches = self._tail.read(self.group, from_offset, events_max=events_max)
            if batches:
                return batches
        frames = self._log.read(Topic.ENRICHED, PARTITION, from_offset, events_max=events_max, to_offset=to_offset)
        return [StoredBatch(stored.offset, frame.conform(frame.decode(stored), EVENT)) for stored in frames]


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
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(log, events_max=events_max, interval_ms=interval_ms, tail=tail, checkpoint=checkpoint)
        self._store = store

    def recover(self) -> None:
        """Insert an open intent's range again under its token."""
        self._position = self._log.committed(self.group, Topic.ENRICHED, PARTITION)
        intent = self._log.intent(self.group, Topic.ENRICHED, PARTITION)
        if intent is None:
            return
        self._insert(self._read(intent.from_offset, 1 << 62, intent.to_offset), intent)
        self._position = intent.to_offset

    def write(self, batches: list[StoredBatch], to_offset: int) -> None:
        """Intent, insert, commit."""
        intent = Intent(self.group, Topic.ENRICHED, PARTITION, batches[0].offset, to_offset)
        with self._log.transaction() as transaction:
            transaction.put_intent(intent)
        self._checkpoint("intent")
        self._insert(batches, intent)

    def _insert(self, batches: list[StoredBatch], intent: Intent) -> None:
        self._store.insert(with_log_offset(batches), intent.token)
        self._checkpoint("inserted")
        with self._log.transaction() as transaction:
            transaction.commit_offset(self.group, Topic.ENRICHED, PARTITION, intent.to_offset)
            transaction.clear_intent(self.group, Topic.ENRICHED, PARTITION)
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
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(log, events_max=events_max, interval_ms=interval_ms, tail=tail, checkpoint=checkpoint)
        self._store = store

    def recover(self) -> None:
        """The lake's own offsets are the truth; the log's copy follows them."""
        self._position = self._store.committed_offset()
        if self._position != self._log.committed(self.group, Topic.ENRICHED, PARTITION):
            self._commit()

    def write(self, batches: list[StoredBatch], to_offset: int) -> None:
        """Append with offsets, then tell the log."""
        events = pa.Table.from_batches([stored.events for stored in batches])
        self._store.append(events, group=self.group, from_offset=batches[0].offset, to_offset=to_offset)
        self._checkpoint("appended")
        self._position = to_offset
        self._commit()

    def _commit(self) -> None:
        with self._log.transaction() as transaction:
            transaction.commit_offset(self.group, Topic.ENRICHED, PARTITION, self._position)


def with_log_offset(batches: list[StoredBatch]) -> pa.Table:
    """The events with a uint64 column ``log_offset``: each row's offset in the enriched topic."""
    events = pa.Table.from_batches([stored.events for stored in batches])
    offsets = np.array([stored.offset for stored in batches], np.uint64)
    return events.append_column("log_offset", pa.array(np.repeat(offsets, [len(stored.events) for stored in batches])))
