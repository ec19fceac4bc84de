"""A producer that publishes transactions, or just frames.

After an error whose outcome is unclear nobody knows whether the transaction stands, and librdkafka cannot find out
(it lacks KIP-890). Then the producer is thrown away; the next one under the same ``transactional.id`` settles the old
transaction when it begins, and what is committed tells the truth.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from eventmill.core.errors import LogUnavailable
from eventmill.core.log import Count, Frame, Intent
from eventmill.core.schema import Hop, Topic
from eventmill.log.kafka import messages
from eventmill.log.kafka.clients import REQUEST_S, asking

_POLL_S: Final = 0.05
#: How much later than it should a call may come back.
_GRACE_S: Final = 2.0
#: How often a transaction is tried with the group's generation of that moment, and how soon again.
_GENERATION_TRIES: Final = 20
_GENERATION_S: Final = 0.05
#: Events of the ledger, summed: per hour, per (hop, reason).
Totals: TypeAlias = dict[int, dict[tuple[Hop, str], int]]


class Draft:
    """``core.log.Transaction``: collects, and is published at the end."""

    def __init__(self) -> None:
        self.frames: list[tuple[Frame, list[int], int]] = []
        self.offsets: dict[tuple[str, Topic, int], int] = {}
        self.intents: dict[tuple[str, Topic, int], Intent | None] = {}
        self.counts: list[Count] = []
        #: Messages for topics that are not ours: topic, key, value.
        self.others: list[tuple[str, bytes, bytes]] = []

    def append(self, frames: Iterable[Frame]) -> list[int]:
        """See ``core.log.Transaction.append``; the offsets are there once the transaction is."""
        given = list(frames)
        offsets = [-1] * len(given)
        self.frames += [(frame, offsets, place) for place, frame in enumerate(given)]
        return offsets

    def commit_offset(self, group: str, topic: Topic, partition: int, offset: int) -> None:
        """See ``core.log.Transaction.commit_offset``."""
        self.offsets[group, topic, partition] = offset

    def count(self, counts: Iterable[Count]) -> None:
        """See ``core.log.Transaction.count``."""
        self.counts += counts

    def put_intent(self, intent: Intent) -> None:
        """See ``core.log.Transaction.put_intent``."""
        self.intents[intent.group, intent.topic, intent.partition] = intent

    def clear_intent(self, group: str, topic: Topic, partition: int) -> None:
        """See ``core.log.Transaction.clear_intent``."""
        self.intents[group, topic, partition] = None

    @property
    def publishes(self) -> bool:
        """Whether there is anything but offsets."""
        return bool(self.frames or self.counts)


class Outbox:
    """Safe to share between threads; one transaction at a time. ``settings`` are a producer's."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        name: Callable[[Topic], str],
        ledger: str,
        *,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._checkpoint = checkpoint
        self._settings = dict(settings)
        self._transactional = "transactional.id" in settings
        # Longer than this no transaction lives.
        self._patience_s = settings.get("transaction.timeout.ms", 1000 * REQUEST_S) / 1000
        self._name, self._ledger = name, ledger
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._frames = self._events = 0
        self._run = ""
        self._totals: Totals = {}

    @property
    def events_a_frame(self) -> float:
        """The mean of what it has published into raw."""
        return self._events / self._frames if self._frames else 1.0

    def settle(self) -> None:
        """End what an earlier producer of this ``transactional.id`` had begun; from now on it is fenced."""
        with self._lock:
            self._ready()

    def publish(self, draft: Draft, metadata: Callable[[str], Any]) -> None:
        """Make all of it durable; ``metadata`` gives a group's. Raises ``LogUnavailable`` when it is not, or may not be."""
        with self._lock:
            producer = self._ready()
            if not self._transactional:
                if draft.offsets or draft.counts:
                    raise LogUnavailable("offsets and counts need a transactional producer")
                self._flush(producer, draft)
                return
            totals = self._settled(producer, draft, metadata)
            self._totals.update(totals)  # those of this run, which a try before may have begun anew

    def _settled(self, producer: Producer, draft: Draft, metadata: Callable[[str], Any]) -> Totals:
        """One transaction, tried again while a rebalance overtakes it."""
        for left in reversed(range(_GENERATION_TRIES)):
            try:
                with _fatal_as_it_is():
                    return self._in_transaction(producer, draft, metadata)
            except KafkaException as error:
                self._give_up(producer, error)
                # The group went on to its next generation between our question for it and the commit. Whoever is still in
                # it has what it had: partitions are given to others after ``poll`` has told so, and it is not called here.
                if _fenced(error):
                    name = self._settings["transactional.id"]
                    raise LogUnavailable(
                        f"Kafka: the transaction failed: another process has begun to write under the name {name}, "
                        "or it took longer than kafka.transaction_timeout"
                    ) from error
                if not (left and self._producer is producer and _of_old_generation(error)):
                    raise LogUnavailable(
                        f"Kafka: the transaction failed: {error.args[0]}; it is tried again"
                    ) from error
                time.sleep(_GENERATION_S)
            except TimeoutError as error:
                self._drop()
                raise LogUnavailable(f"Kafka: the transaction failed: {error}; it is tried again") from error
            except BaseException:
                self._drop()
                raise
        raise AssertionError("the last try returns or raises")

    def _ready(self) -> Producer:
        if self._producer is None:
            with asking("making a producer"):
                producer = Producer(self._settings)
                if self._transactional:
                    self._bounded(producer.init_transactions, patience_s=REQUEST_S)
            # Sums begin anew: nobody knows which of the old ones stand.
            self._run, self._totals = uuid.uuid4().hex, {}
            self._producer = producer
        return self._producer

    def _in_transaction(self, producer: Producer, draft: Draft, metadata: Callable[[str], Any]) -> Totals:
        producer.begin_transaction()
        failed = self._produce(producer, draft.frames)
        for topic, key, value in draft.others:
            self._send(producer, topic, key=key, value=value)
        totals = self._counted(producer, draft.counts)
        self._checkpoint("produced")
        # All is delivered before anything can fail for the group's sake: librdkafka leaves a gap in its sequence numbers where
        # it aborts what it has not sent yet, and the next transaction fails for that.
        producer.flush(REQUEST_S)
        by_group: dict[str, list[TopicPartition]] = defaultdict(list)
        for (group, topic, partition), offset in draft.offsets.items():
            by_group[group].append(TopicPartition(self._name(topic), partition, offset))
        for group, offsets in by_group.items():
            self._bounded(producer.send_offsets_to_transaction, offsets, metadata(group))
        self._checkpoint("offsets sent")
        self._bounded(producer.commit_transaction)
        self._checkpoint("committed")
        if failed:
            raise KafkaException(failed[0])
        return totals

    def _bounded(self, call: Callable[..., object], *arguments: object, patience_s: float | None = None) -> None:
        """A call of the transactional producer. Raises ``TimeoutError`` when it does not come back.

        librdkafka can lose a request whose connection is reset while it waits for its turn; the caller then waits for ever,
        whatever timeout it has given. The thread stays behind; its producer is fenced by the next one.
        """
        patience_s = patience_s or self._patience_s
        outcome: SimpleQueue[BaseException | None] = SimpleQueue()

        def run() -> None:
            try:
                call(*arguments, patience_s)
            except BaseException as error:
                outcome.put(error)
            else:
                outcome.put(None)

        threading.Thread(target=run, name="transaction", daemon=True).start()
        try:
            error = outcome.get(timeout=patience_s + _GRACE_S)
        except Empty:
            raise TimeoutError(f"no answer in {patience_s + _GRACE_S:g} s") from None
        if error is not None:
            raise error

    def _flush(self, producer: Producer, draft: Draft) -> None:
        try:
            with asking("producing"), _fatal_as_it_is():
                failed = self._produce(producer, draft.frames)
                left = producer.flush(self._settings["delivery.timeout.ms"] / 1000 + 1.0)
            if failed or left:
                why = failed[0].str() if failed else "no answer in time"
                raise LogUnavailable(
                    f"Kafka did not take {max(len(failed), left)} of {len(draft.frames)} frames: {why}"
                )
        except LogUnavailable:
            # It may be broken for good (a sequence out of order is fatal to an idempotent producer).
            self._drop()
            raise

    def _produce(self, producer: Producer, frames: Sequence[tuple[Frame, list[int], int]]) -> list[KafkaError]:
        failed: list[KafkaError] = []

        def delivered(offsets: list[int], place: int) -> Callable[[KafkaError | None, Message], None]:
            def hear(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    failed.append(error)
                offsets[place] = message.offset() or 0

            return hear

        for frame, offsets, place in frames:
            if frame.topic is Topic.RAW:
                self._frames, self._events = self._frames + 1, self._events + frame.events
            self._send(
                producer,
                self._name(frame.topic),
                value=bytes(frame.payload),
                key=frame.key,
                partition=frame.partition,
                headers=messages.headers(frame),
                on_delivery=delivered(offsets, place),
            )
        return failed

    def _counted(self, producer: Producer, counts: Sequence[Count]) -> Totals:
        """Send each touched hour's new sum under a key of this run, so that the topic can be compacted."""
        totals: Totals = {}
        for count in counts:
            sums = totals.setdefault(count.hour, dict(self._totals.get(count.hour, {})))
            sums[count.hop, count.reason] = sums.get((count.hop, count.reason), 0) + count.events
        for hour, sums in totals.items():
            lines = [Count(hop, hour, events, reason) for (hop, reason), events in sums.items()]
            self._send(
                producer,
                self._ledger,
                value=messages.dump(lines),
                key=f"{self._run}:{hour}".encode(),
                partition=0,
                headers=[(messages.EVENTS, b"1")],
            )
        return totals

    def _send(self, producer: Producer, topic: str, **message: Any) -> None:
        while True:
            try:
                producer.produce(topic, **message)
            except BufferError:
                producer.poll(_POLL_S)  # the queue is full until some of it is delivered
                continue
            producer.poll(0)
            return

    def _give_up(self, producer: Producer, error: KafkaException) -> None:
        cause = error.args[0]
        if isinstance(cause, KafkaError) and cause.txn_requires_abort():
            try:
                self._bounded(producer.abort_transaction)
            except (KafkaException, TimeoutError):
                self._drop()
            self._run, self._totals = uuid.uuid4().hex, {}
            return
        self._drop()

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaException):
                producer.purge()

    def close(self) -> None:
        """Let go of the producer; what is not published yet is lost."""
        with self._lock:
            self._drop()


@contextlib.contextmanager
def _fatal_as_it_is() -> Iterator[None]:
    """Fatal errors as ``KafkaException``.

    The client raises them out of ``poll`` and ``flush`` without stopping its delivery reports, and then the callback of the
    next one ends in a ``SystemError`` that they are the cause of.
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def _fenced(error: KafkaException) -> bool:
    cause = error.args[0]
    return isinstance(cause, KafkaError) and cause.code() in (
        KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH,
    )  # fmt: skip


def _of_old_generation(error: KafkaException) -> bool:
    cause = error.args[0]
    return isinstance(cause, KafkaError) and cause.code() == KafkaError.ILLEGAL_GENERATION
