"""One member of the processors' consumer group.

Partitions come and go by cooperative rebalancing (KIP-429): those that stay are never stopped. A partition that comes is
paused until its state is there. A transaction carries the group's generation (KIP-447), so that one of a member that was
taken for dead fails, whatever its producer's id.

All of it belongs to one thread; callbacks are called by ``poll``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.errors import LogUnavailable, StateError
from eventmill.core.log import Count, StoredFrame
from eventmill.core.schema import Topic
from eventmill.log.kafka import messages, mirror
from eventmill.log.kafka.clients import OUT_OF_RANGE, asking, consumer, outside, producer
from eventmill.log.kafka.foreign import Foreign
from eventmill.log.kafka.outbox import Draft, Outbox
from eventmill.log.kafka.topics import LEDGER

_HEARTBEATS: Final = 4
_LOOK_S: Final = 0.05
#: What is taken at once of the messages of others: as small as they are, a call for each would cost as much as decoding it.
#: Frames are taken one by one, since each may hold all the events that are wanted.
_FOREIGN_MESSAGES: Final = 64
_NEVER: Final = 1 << 62


class Member:
    """See the module. ``name`` tells members of one group apart; with ``kafka.instance`` a restart takes its place back."""

    def __init__(
        self,
        config: Config,
        group: str,
        topic: Topic,
        name: str,
        *,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._prefix = config.log.prefix
        self._topic = topic
        self._mirror = config.kafka.mirror
        session_ms = parse_duration_ms(config.kafka.session_timeout)
        settings: dict[str, Any] = {
            **consumer(config.kafka, f"{self._prefix}.{group}"),
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": session_ms // _HEARTBEATS,
            "max.poll.interval.ms": max(session_ms, 300_000),
            "enable.partition.eof": False,
        }
        if config.kafka.instance:
            settings["group.instance.id"] = f"{self._prefix}.{group}.{config.kafka.instance}"
        self._settings = consumer(config.kafka, f"{self._prefix}.{group}")  # of one that joins nothing
        with asking("making a consumer"):
            self._consumer = Consumer(settings)
        self._outbox = Outbox(
            producer(config.kafka, f"{self._prefix}.{group}.{name}"),
            self._name,
            f"{self._prefix}.{LEDGER}",
            checkpoint=checkpoint,
        )
        self._assigned: Callable[[list[int]], None] = lambda _: None
        self._revoked: Callable[[list[int], bool], None] = lambda _partitions, _lost: None
        self._foreign = Foreign()
        self._gathered: dict[int, list[StoredFrame]] = {}
        self.held: set[int] = set()
        #: The offset from which on each partition that is not paused is wanted.
        self._following: dict[int, int] = {}

    def _name(self, topic: Topic) -> str:
        return f"{self._prefix}.{topic}"

    def start(self, assigned: Callable[[list[int]], None], revoked: Callable[[list[int], bool], None]) -> None:
        """Join the group. ``assigned`` hears of partitions that come (paused), ``revoked`` of those that go.

        ``revoked`` is told too whether they were lost: then another member may have them already.
        """
        self._assigned, self._revoked = assigned, revoked
        with asking("joining the group"):
            self._consumer.subscribe(
                [self._name(self._topic)],
                on_assign=self._on_assign,
                on_revoke=lambda consumer, partitions: self._on_gone(consumer, partitions, lost=False),
                on_lost=lambda consumer, partitions: self._on_gone(consumer, partitions, lost=True),
            )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        came = [each for each in partitions if each.partition not in self.held]
        # Where reading goes on is said by ``resume``. What is fetched before lies below, so that ``poll`` can tell it.
        consumer.incremental_assign([TopicPartition(each.topic, each.partition, OFFSET_BEGINNING) for each in came])
        consumer.pause([TopicPartition(each.topic, each.partition) for each in came])
        self.held |= {each.partition for each in came}
        self._assigned([each.partition for each in came])

    def _on_gone(self, consumer: Consumer, partitions: list[TopicPartition], *, lost: bool) -> None:
        # librdkafka may name partitions that are not ours.
        gone = [each for each in partitions if each.partition in self.held]
        numbers = [each.partition for each in gone]
        for number in numbers:
            self._gathered.pop(number, None)
            self._following.pop(number, None)
        self.held -= set(numbers)
        self._revoked(numbers, lost)
        if gone:
            consumer.incremental_unassign([TopicPartition(each.topic, each.partition) for each in gone])

    def pause(self, partitions: Iterable[int]) -> None:
        """Fetch nothing of these partitions until ``resume``."""
        chosen = [TopicPartition(self._name(self._topic), each) for each in partitions if each in self.held]
        for each in chosen:
            self._gathered.pop(each.partition, None)
            self._following.pop(each.partition, None)
        if chosen:
            with asking("pausing"):
                self._consumer.pause(chosen)

    def resume(self, partition: int, offset: int) -> None:
        """Fetch from that offset on."""
        if partition not in self.held:
            return
        name = self._name(self._topic)
        with asking("going on"):
            # Assigned anew: a seek may be overtaken by what has been fetched before.
            self._consumer.incremental_unassign([TopicPartition(name, partition)])
            self._consumer.incremental_assign([TopicPartition(name, partition, offset)])
            self._consumer.resume([TopicPartition(name, partition)])
        self._following[partition] = offset

    def poll(self, timeout_s: float, *, events_max: int, linger_s: float) -> dict[int, list[StoredFrame]]:
        """Frames by partition, in order: up to about ``events_max`` events, ``linger_s`` after the first one at the latest."""
        self._gathered, events, most = {}, 0, 1
        deadline = time.monotonic() + timeout_s
        while events < events_max:
            left = deadline - time.monotonic()
            fetched = self._fetched(min(max(left, 0.0), _LOOK_S), min(most, events_max - events))
            if not fetched and left <= 0:
                break
            for message in fetched:
                error = message.error()
                if error is not None:
                    self._hear(error, message.partition())
                    continue
                if not self._gathered:
                    deadline = min(deadline, time.monotonic() + linger_s)
                stored = self._taken(message)
                if stored is not None:
                    most = _FOREIGN_MESSAGES if stored.foreign else 1
                    events += max(stored.events, 1)  # what has none takes memory, too
        self._foreign.seal()
        gathered, self._gathered = self._gathered, {}
        return gathered

    def _fetched(self, timeout_s: float, most: int) -> list[Message]:
        """A message, if one comes in time, and those that have come already, at once. Should the group take a partition away
        meanwhile, ``_taken`` drops what is here of it."""
        with asking("reading raw"):
            first = self._consumer.poll(timeout_s)
            if first is None or most == 1:
                return [] if first is None else [first]
            return [first, *self._consumer.consume(most - 1, 0.0)]

    def _taken(self, message: Message) -> StoredFrame | None:
        partition, offset = message.partition(), message.offset()
        if partition is None or offset is None or offset < self._following.get(partition, _NEVER):
            return None
        stored = messages.stored(self._topic, message, self._foreign)
        self._following[partition] = offset + 1
        self._gathered.setdefault(partition, []).append(stored)
        return stored

    def _hear(self, error: KafkaError, partition: int | None) -> None:
        if error.code() in OUT_OF_RANGE and partition in self._following:
            outside(
                self._settings, self._name(self._topic), partition, self._following[partition],
                "the topic was made anew or its retention has passed. Restore the topic, or start with new topics "
                "(log.prefix) and empty state",
            )  # fmt: skip
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise StateError(f"Kafka has no topic {self._name(self._topic)}; `eventmill topics create` makes it")
        if error.fatal():
            raise LogUnavailable(f"Kafka: {error.str()}")

    def _generation(self) -> Any:
        """What the coordinator knows this member by. Raises ``LogUnavailable`` when it has been taken out of the group."""
        found = self._consumer.consumer_group_metadata()
        # Without a member's id the coordinator would take the offsets from anyone, as of a producer older than KIP-447.
        if not self._consumer.memberid():
            raise LogUnavailable("Kafka: this processor was taken out of its group; it joins again")
        return found

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Draft]:
        """All or nothing; fails when the group has moved on without this member."""
        draft = Draft()
        yield draft
        self._outbox.publish(draft, lambda _group: self._generation())

    def mirror(self, transaction: Draft, events: pa.RecordBatch) -> None:
        """Add processed events (EVENT) to the topic ``kafka.mirror``, if there is one."""
        if self._mirror:
            transaction.others += [(self._mirror, key, value) for key, value in mirror.messages(events)]

    def carried(self, frames: Sequence[StoredFrame]) -> list[Count]:
        """What the frames add to the ledger."""
        return messages.carried(frames)

    def close(self) -> None:
        """Leave the group (``revoked`` is called), let go of everything."""
        with contextlib.suppress(KafkaException):
            self._consumer.close()
        self._outbox.close()
