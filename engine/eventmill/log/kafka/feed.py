"""Reading a topic's partitions in order, from positions of the caller's choice."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from eventmill.core.errors import LogUnavailable, StateError
from eventmill.core.log import StoredFrame
from eventmill.core.schema import Topic
from eventmill.log.kafka import messages
from eventmill.log.kafka.clients import OUT_OF_RANGE, REQUEST_S, asking, outside
from eventmill.log.kafka.foreign import Foreign

#: How soon a sleeper notices that it has enough, or that the log is closed.
_LOOK_S: Final = 0.05


class Feed:
    """One thread at a time. ``topic`` is read under ``name``; ``settings`` are a consumer's."""

    def __init__(self, settings: Mapping[str, Any], topic: Topic, name: str) -> None:
        self._topic, self._name, self._settings = topic, name, dict(settings)
        with asking("making a consumer"):
            self._consumer = Consumer(self._settings)
        self._foreign = Foreign()
        self._buffers: dict[int, deque[StoredFrame]] = {}
        #: Where the next frame of each partition is taken, and where the next one is fetched.
        self._taken: dict[int, int] = {}
        self._fetched: dict[int, int] = {}
        #: Partitions that had no more when they were last heard of.
        self._ended: set[int] = set()
        self.closed = False

    def wait(
        self,
        positions: Mapping[int, int],
        timeout_s: float,
        *,
        events_max: int,
        linger_s: float,
        enough: Callable[[], bool],
    ) -> bool:
        """See ``core.log.Log.wait``."""
        self._turn_to(positions)
        deadline = time.monotonic() + timeout_s
        while not any(self._buffers[each] for each in positions):
            left = deadline - time.monotonic()
            if left <= 0 or self.closed:
                return False
            self._poll(min(left, _LOOK_S))
        deadline = time.monotonic() + linger_s
        while self._waiting(positions) < events_max and not enough() and not self.closed:
            left = deadline - time.monotonic()
            # What has been fetched already costs no waiting.
            if not self._poll(min(max(left, 0.0), _LOOK_S)) and left <= 0:
                break
        return True

    def read(self, partition: int, from_offset: int, *, events_max: int, to_offset: int | None) -> list[StoredFrame]:
        """See ``core.log.Log.read``; waits until it knows whether the partition has frames there."""
        if to_offset is not None and self._taken.keys() != {partition}:
            # Whoever names an end wants nothing of other partitions, and what comes of them would only be in the way.
            self._leave()
        self._turn_to({**self._taken, partition: from_offset})
        buffer = self._buffers[partition]
        found: list[StoredFrame] = []
        events = 0
        deadline = time.monotonic() + REQUEST_S
        while events < events_max and (to_offset is None or self._taken[partition] < to_offset):
            if not buffer:
                # That it had no more is old news where the caller knows of more.
                ended = partition in self._ended if to_offset is None else self._fetched[partition] >= to_offset
                if ended or (found and to_offset is None):
                    break
                if time.monotonic() > deadline:
                    raise LogUnavailable(f"Kafka gives nothing of {self._name}/{partition}; it is tried again")
                self._poll(_LOOK_S)
                continue
            if to_offset is not None and buffer[0].offset >= to_offset:
                break
            found.append(buffer.popleft())
            events += max(found[-1].events, 1)  # what has none takes memory, too
            self._taken[partition] = found[-1].offset + 1
        self._foreign.seal()
        return found

    def _waiting(self, positions: Mapping[int, int]) -> int:
        return sum(max(stored.events, 1) for each in positions for stored in self._buffers[each])

    def _turn_to(self, positions: Mapping[int, int]) -> None:
        """Fetch from these positions; what is fetched already is kept where it fits."""
        moved = [each for each, offset in positions.items() if self._taken.get(each) != offset]
        for partition in moved:
            self._buffers[partition] = deque()
            self._taken[partition] = self._fetched[partition] = positions[partition]
            self._ended.discard(partition)
        if moved:
            # All of them: messages of an earlier assignment are never given after a new one.
            with asking(f"reading {self._name}"):
                self._consumer.assign(
                    [TopicPartition(self._name, each, offset) for each, offset in sorted(self._fetched.items())]
                )

    def _poll(self, timeout_s: float) -> bool:
        """Whether there was anything; that a partition had ended for a moment stands between the messages, and is something."""
        with asking(f"reading {self._name}"):
            message = self._consumer.poll(timeout_s)
        if message is None:
            return False
        error = message.error()
        if error is not None:
            self._hear(error, message)
            return True
        stored = messages.stored(self._topic, message, self._foreign)
        self._buffers[stored.partition].append(stored)
        self._fetched[stored.partition] = stored.offset + 1
        self._ended.discard(stored.partition)
        return True

    def _hear(self, error: KafkaError, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error.code() == KafkaError._PARTITION_EOF and partition is not None:
            self._ended.add(partition)
            if offset is not None:
                self._fetched[partition] = max(self._fetched[partition], offset)
        elif error.code() in OUT_OF_RANGE and partition in self._fetched:
            # Nothing more comes of it unless it is assigned anew.
            self._taken.pop(partition, None)
            outside(
                self._settings, self._name, partition, self._fetched[partition],
                "the topic was made anew or its retention has passed. Restore the topic, or start with new topics "
                "(log.prefix) and an empty --data",
            )  # fmt: skip
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise StateError(f"Kafka has no topic {self._name}; `eventmill topics create` makes it")
        elif not error.retriable() and error.fatal():
            raise LogUnavailable(f"Kafka: reading {self._name} failed: {error.str()}")

    def is_at(self, partition: int, offset: int) -> bool:
        """Whether it reads this partition alone, and its next frame is that at ``offset``."""
        return self._taken == {partition: offset}

    @property
    def resting(self) -> bool:
        """It has no place, and fetches nothing."""
        return not self._taken

    def rest(self) -> None:
        """Give up its place, and drop what has been fetched ahead."""
        self._leave()
        with asking(f"reading {self._name}"):
            self._consumer.unassign()

    def _leave(self) -> None:
        for places in (self._buffers, self._taken, self._fetched):
            places.clear()
        self._ended.clear()

    def close(self) -> None:
        """Let go of the consumer."""
        self.closed = True
        self._consumer.close()
