"""The log's interface. ``log.local`` implements it on SQLite, ``log.kafka`` on Apache Kafka.

A topic has partitions, a partition is a sequence of frames with ascending offsets. Appends are durable when the
call returns. A transaction makes appended frames, consumer offsets and ledger counts visible together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa

from eventmill.core.schema import Hop, Topic


class Shared:
    """A batch whose rows belong to many frames. ``batch`` is set before anyone else sees one of them."""

    __slots__ = ("batch",)
    batch: pa.RecordBatch


class Rows(NamedTuple):
    """``size`` rows of a shared batch, from ``begin`` on."""

    shared: Shared
    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A message as read back. ``appended_at`` is in ms since the epoch.

    Its events are in ``payload``, an Arrow IPC stream; of a message that somebody else has written (``foreign``, and perhaps
    not where its devices belong) they are ``rows``, and ``rejects`` (of a batch of REJECT) are what could not be taken of it.
    """

    topic: Topic
    partition: int
    offset: int
    appended_at: int
    events: int
    key: bytes | None
    headers: Mapping[str, str]
    payload: bytes
    rows: Rows | None = None
    rejects: Rows | None = None

    @property
    def foreign(self) -> bool:
        """Whether somebody else has written it."""
        return self.rows is not None


@dataclass(frozen=True, slots=True)
class Count:
    """``events`` more at ``hop`` for the hour (``hour`` = ms since the epoch of its start) of ``received_at``."""

    hop: Hop
    hour: int
    events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """A message to append: many events as one Arrow IPC stream. ``counts`` enter the ledger together with it."""

    topic: Topic
    payload: bytes | memoryview
    events: int
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int = 0
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """A sink's declaration, written before it inserts: these offsets of one partition, from inclusive to exclusive.

    What it inserts at once are all its open intents.
    """

    group: str
    topic: Topic
    partition: int
    from_offset: int
    to_offset: int


class Transaction(Protocol):
    """All or nothing; leaving the ``with`` block by an exception rolls back."""

    def append(self, frames: Iterable[Frame]) -> list[int]:
        """Add frames; gives their offsets."""
        ...

    def commit_offset(self, group: str, topic: Topic, partition: int, offset: int) -> None:
        """``group`` has consumed everything below ``offset``."""
        ...

    def count(self, counts: Iterable[Count]) -> None:
        """Add to the ledger."""
        ...

    def put_intent(self, intent: Intent) -> None:
        """Replace the group's open intent for that partition."""
        ...

    def clear_intent(self, group: str, topic: Topic, partition: int) -> None:
        """The intent is done."""
        ...


class Log(Protocol):
    """Safe to share between threads. Every method may raise ``LogUnavailable``."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction; it is durable when the ``with`` block ends."""
        ...

    def settle(self) -> None:
        """What others had begun under this log's name is decided, and they can commit nothing more.

        A backend with one writer at a time has nothing to do.
        """
        ...

    def read(
        self, topic: Topic, partition: int, from_offset: int, *, events_max: int, to_offset: int | None = None
    ) -> list[StoredFrame]:
        """Frames from ``from_offset`` on (below ``to_offset``, if given), in order.

        Stops once ``events_max`` events are reached, after at least one frame if there is one. Raises ``StateError``
        when ``from_offset`` lies outside the log, ``FrameError`` when a checksum fails.
        """
        ...

    def wait(
        self,
        topic: Topic,
        positions: Mapping[int, int],
        timeout_s: float,
        *,
        events_max: int = 1,
        linger_s: float = 0.0,
        enough: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Sleep until a partition has a frame at or after its position; false on timeout or close.

        Then up to ``linger_s`` more, until there are ``events_max`` events in all or ``enough()`` holds: few large batches
        cost less than many small ones. ``enough`` is asked again at every commit and every ``wake``.
        """
        ...

    def wake(self) -> None:
        """Let all who sleep in this process look again."""
        ...

    def wait_committed(self, group: str, topic: Topic, offsets: Mapping[int, int], timeout_s: float) -> bool:
        """Sleep until the group has consumed each partition up to its offset; false on timeout or close."""
        ...

    def wait_consumed(self, consumers: Iterable[tuple[str, Topic]], timeout_s: float) -> bool:
        """Sleep until each (group, topic) has consumed all partitions to the end; false on timeout or close."""
        ...

    def start_offset(self, topic: Topic, partition: int) -> int:
        """The oldest retained offset."""
        ...

    def end_offset(self, topic: Topic, partition: int) -> int:
        """The offset below which everything can be read."""
        ...

    def next_offset(self, topic: Topic, partition: int) -> int:
        """The offset that the next frame gets: beyond ``end_offset`` while a transaction is open."""
        ...

    def committed(self, group: str, topic: Topic, partition: int) -> int:
        """The group's committed offset (0 at first)."""
        ...

    def intent(self, group: str, topic: Topic, partition: int) -> Intent | None:
        """The group's open intent, if any."""
        ...

    def lag(self, group: str, topic: Topic, partition: int) -> int:
        """Events that the group has not consumed yet."""
        ...

    def lag_seconds(self, group: str, topic: Topic, partition: int) -> float:
        """How long the oldest frame that the group has not consumed has stood in the log; 0.0 when there is none."""
        ...

    def pressure(self) -> str | None:
        """Why the log should take no more events now; ``None`` when all is well."""
        ...

    def ledger(self) -> list[Count]:
        """The whole ledger."""
        ...

    def partitions(self, topic: Topic) -> Sequence[int]:
        """The topic's partitions."""
        ...

    def offsets_between(self, topic: Topic, partition: int, from_ms: int, to_ms: int) -> list[int]:
        """Offsets of the frames appended within a time range (ms since the epoch, both ends included)."""
        ...

    def trim(self, topic: Topic, partition: int, older_than_ms: int) -> int:
        """Delete what every group has consumed of the frames appended before then; gives the number of frames deleted.

        A backend whose brokers do that by themselves deletes nothing.
        """
        ...

    def rewrite(self, topic: Topic, partition: int, end: int, change: Callable[[StoredFrame], Frame | None]) -> int:
        """Replace the frames below ``end`` for which ``change`` gives another one, with as many or fewer events, and leave
        nothing of the old ones on disk; gives how many. A backend whose log cannot be changed does nothing."""
        ...

    def size_bytes(self) -> int:
        """Bytes in use; 0 when only the brokers know."""
        ...

    def close(self) -> None:
        """Wakes all waiters and releases everything."""
        ...
