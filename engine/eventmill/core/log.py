"""The log's interface. ``log.local`` implements it on SQLite; a Kafka backend fits behind the same methods.

A topic has partitions, a partition is a sequence of frames with ascending offsets. Appends are durable when the
call returns. A transaction makes appended frames, consumer offsets and ledger counts visible together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from eventmill.core.schema import Hop, Topic


@dataclass(frozen=True, slots=True)
class Frame:
    """A message to append: many events as one Arrow IPC stream."""

    topic: Topic
    payload: bytes | memoryview
    events: int
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int = 0


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A message as read back. ``appended_at`` is in ms since the epoch."""

    topic: Topic
    partition: int
    offset: int
    appended_at: int
    events: int
    key: bytes | None
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Count:
    """``events`` more at ``hop`` for the hour (``hour`` = ms since the epoch of its start) of ``received_at``."""

    hop: Hop
    hour: int
    events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """A sink's declaration, written before it inserts: these offsets, from inclusive to exclusive, under ``token``."""

    group: str
    topic: Topic
    partition: int
    from_offset: int
    to_offset: int

    @property
    def token(self) -> str:
        """Names the insert for the store's own duplicate check."""
        return f"{self.topic}:{self.partition}:{self.from_offset}:{self.to_offset}"


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
        partition: int,
        from_offset: int,
        timeout_s: float,
        enough: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Sleep until there is a frame at or after ``from_offset``; false on timeout or close.

        Also ends when ``enough()`` holds, which is asked again at every commit and every ``wake``.
        """
        ...

    def wake(self) -> None:
        """Let all who sleep in this process look again."""
        ...

    def wait_committed(self, group: str, topic: Topic, partition: int, offset: int, timeout_s: float) -> bool:
        """Sleep until the group has consumed everything below ``offset``; false on timeout or close."""
        ...

    def wait_consumed(self, consumers: Iterable[tuple[str, Topic]], timeout_s: float) -> bool:
        """Sleep until each (group, topic) has consumed all partitions to the end; false on timeout or close."""
        ...

    def start_offset(self, topic: Topic, partition: int) -> int:
        """The oldest retained offset."""
        ...

    def end_offset(self, topic: Topic, partition: int) -> int:
        """The offset that the next frame gets."""
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

    def close(self) -> None:
        """Wakes all waiters and releases everything."""
        ...
