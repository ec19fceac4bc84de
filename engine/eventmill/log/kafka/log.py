"""``core.log.Log`` on Apache Kafka.

Raw, enriched and schemas have as many partitions as ``kafka.partitions`` says, the other topics one. All events of a device are
in one partition of raw, placed by the hash of the Java client, and what is derived from a partition stays in its number.

A process that only takes events in opens it without a name: its producer is idempotent, and a transaction is durable once
all its frames are delivered with acks=all. With a name the producer is transactional under it. The sinks' intents are the
metadata of their groups' committed offsets.

The ledger is made of sums in a compacted topic (``outbox``), and of what frames carry in their headers: an ingest that is
killed between two frames has then counted what it has written. Processors take the counts of raw over into the sums.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from eventmill.core import groups
from eventmill.core.clock import now_ms
from eventmill.core.config import Config
from eventmill.core.errors import LogUnavailable, StateError
from eventmill.core.log import Count, Frame, Intent, StoredFrame
from eventmill.core.schema import Topic
from eventmill.core.threads import name_thread
from eventmill.log.kafka import messages
from eventmill.log.kafka.clients import consumer, producer
from eventmill.log.kafka.feed import Feed
from eventmill.log.kafka.offsets import Offsets, intent_of
from eventmill.log.kafka.outbox import Draft, Outbox
from eventmill.log.kafka.scans import Scans
from eventmill.log.kafka.sums import Sums
from eventmill.log.kafka.topics import LEDGER

_LOOK_S: Final = 0.1
logger = logging.getLogger(__name__)

#: Frames of a lag that are counted one by one; more are estimated from them.
_COUNTED_FRAMES: Final = 8
#: Events that are read together where all of a range is wanted.
_READ_EVENTS: Final = 1 << 16
_PRESSURE_FRESH_S: Final = 1.0
#: How long the mean size of a topic's frames is used again.
_MEAN_FRESH_S: Final = 5.0


class KafkaLog:
    """Safe to share between threads. ``name`` makes the producer transactional: one process at a time may have it."""

    def __init__(self, config: Config, *, name: str | None = None) -> None:
        self._kafka = config.kafka
        self._prefix = config.log.prefix
        self._backlog_events_max = config.log.backlog_events_max
        self._offsets = Offsets(self._kafka)
        identity = None if name is None else f"{self._prefix}.{name}"
        self._outbox = Outbox(producer(self._kafka, identity), self.topic_name, f"{self._prefix}.{LEDGER}")
        self._feeds: dict[tuple[Topic, int], Feed] = {}
        self._scans = Scans(lambda topic, settings: self._feed_of(topic, settings=settings))
        self._lock = threading.Lock()
        self._known: dict[Topic, list[int]] = {}
        self._sums = Sums(self._feed_of(Topic.RAW, f"{self._prefix}.{LEDGER}"), self._dead)
        self._pressure: tuple[float, str | None] = (-_PRESSURE_FRESH_S, None)
        self._asking = threading.Lock()
        self._mean: dict[Topic, tuple[float, float]] = {}
        self._closed = False

    def topic_name(self, topic: Topic) -> str:
        """The topic's full name, with the configured prefix."""
        return f"{self._prefix}.{topic}"

    def group_name(self, group: str) -> str:
        """The group's full name, with the configured prefix."""
        return f"{self._prefix}.{group}"

    def _feed_of(self, topic: Topic, name: str | None = None, settings: Mapping[str, int] | None = None) -> Feed:
        reader = {**consumer(self._kafka, f"{self._prefix}.reader"), **(settings or {})}
        return Feed(reader, topic, name or self.topic_name(topic))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Draft]:
        """All or nothing when the log has a name; else durable on return, but an error can leave a part of the frames."""
        draft = Draft()
        yield draft
        if self._closed:
            raise LogUnavailable("the log is closed")
        if draft.publishes:
            self._outbox.publish(draft, lambda group: self._offsets.metadata(self.group_name(group)))
            return
        by_topic: dict[tuple[str, Topic], dict[int, int]] = {}
        for (group, topic, partition), offset in draft.offsets.items():
            by_topic.setdefault((group, topic), {})[partition] = offset
        for (group, topic, partition), intent in draft.intents.items():
            if intent is not None:
                by_topic.setdefault((group, topic), {})[partition] = intent.from_offset
        for (group, topic), offsets in by_topic.items():
            intents = {each: draft.intents.get((group, topic, each)) for each in offsets}
            self._offsets.commit(self.group_name(group), self.topic_name(topic), offsets, intents)

    def settle(self) -> None:
        """See ``core.log.Log.settle``; the log must have a name."""
        self._outbox.settle()

    def read(
        self, topic: Topic, partition: int, from_offset: int, *, events_max: int, to_offset: int | None = None
    ) -> list[StoredFrame]:
        """See ``core.log.Log.read``. Each thread reads on where it was; whoever names an end may read anywhere."""
        if to_offset is None:
            return self._mine(topic).read(partition, from_offset, events_max=events_max, to_offset=None)
        return self._scans.read(topic, partition, from_offset, events_max=events_max, to_offset=to_offset)

    def _mine(self, topic: Topic) -> Feed:
        with self._lock:
            if self._closed:
                raise LogUnavailable("the log is closed")
            key = topic, threading.get_ident()
            if key not in self._feeds:
                self._feeds[key] = self._feed_of(topic)
            return self._feeds[key]

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
        """See ``core.log.Log.wait``."""
        feed = self._mine(topic)
        return feed.wait(positions, timeout_s, events_max=events_max, linger_s=linger_s, enough=enough)

    def wake(self) -> None:
        """See ``core.log.Log.wake``; sleepers look many times a second."""

    def wait_committed(self, group: str, topic: Topic, offsets: Mapping[int, int], timeout_s: float) -> bool:
        """See ``core.log.Log.wait_committed``."""
        return self._until(
            lambda: all(
                found >= offsets[each] or self._nothing(topic, each, found, offsets[each])
                for each, found in self._positions(group, topic, list(offsets)).items()
            ),
            timeout_s,
        )

    def wait_consumed(self, consumers: Iterable[tuple[str, Topic]], timeout_s: float) -> bool:
        """See ``core.log.Log.wait_consumed``."""
        pairs = list(consumers)
        return self._until(
            lambda: all(self.lag(group, topic, each) == 0 for group, topic in pairs for each in self.partitions(topic)),
            timeout_s,
        )

    def _until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not self._closed:
            if ready():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return False

    def start_offset(self, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.start_offset``."""
        return self._offsets.starts(self.topic_name(topic), [partition])[partition]

    def end_offset(self, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.end_offset``; where readers of committed transactions come to an end."""
        return self._offsets.ends(self.topic_name(topic), [partition])[partition]

    def next_offset(self, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.next_offset``."""
        return self._offsets.ends(self.topic_name(topic), [partition], whole=True)[partition]

    def _positions(
        self, group: str, topic: Topic, partitions: Sequence[int], *, stable: bool = False
    ) -> dict[int, int]:
        name = self.topic_name(topic)
        found = self._offsets.committed(self.group_name(group), name, partitions, stable=stable)
        absent = [each for each, (offset, _) in found.items() if offset < 0]
        starts = self._offsets.starts(name, absent) if absent else {}
        return {each: starts[each] if offset < 0 else offset for each, (offset, _) in found.items()}

    def committed(self, group: str, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.committed``; where the log begins, at first."""
        return self._positions(group, topic, [partition], stable=True)[partition]

    def intent(self, group: str, topic: Topic, partition: int) -> Intent | None:
        """See ``core.log.Log.intent``."""
        name = self.group_name(group)
        offset, metadata = self._offsets.committed(name, self.topic_name(topic), [partition], stable=True)[partition]
        return intent_of(group, topic, partition, offset, metadata)

    def lag(self, group: str, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.lag``; estimated from the size of frames when there are many."""
        begin = self._positions(group, topic, [partition])[partition]
        end, following = self.end_offset(topic, partition), self.next_offset(topic, partition)
        # Behind an open transaction nothing can be read, but there is something.
        return self._events(topic, partition, begin, end) + max(following - max(begin, end), 0)

    def _nothing(self, topic: Topic, partition: int, begin: int, end: int) -> bool:
        """Whether there are but marks in a range, and no open transaction."""
        return self.end_offset(topic, partition) >= end and self._events(topic, partition, begin, end) == 0

    def _events(self, topic: Topic, partition: int, begin: int, end: int) -> int:
        """Events of a range; marks of transactions are none. Of many frames the first and the middle ones are looked at."""
        if end - begin <= 2 * _COUNTED_FRAMES:
            return self._counted(topic, partition, begin, end)[0] if begin < end else 0
        counted_at, mean = self._mean.get(topic, (-_MEAN_FRESH_S, 0.0))
        if time.monotonic() - counted_at >= _MEAN_FRESH_S:
            looks = [self._counted(topic, partition, at, end) for at in (begin, (begin + end) // 2)]
            mean = sum(events for events, _ in looks) / max(sum(offsets for _, offsets in looks), 1)
            self._mean[topic] = time.monotonic(), mean
        return int(mean * (end - begin))

    def _counted(self, topic: Topic, partition: int, begin: int, end: int) -> tuple[int, int]:
        """The events of up to so many frames, and how many offsets they take."""
        frames: list[StoredFrame] = []
        while len(frames) < _COUNTED_FRAMES:
            following = frames[-1].offset + 1 if frames else begin
            found = self.read(topic, partition, following, events_max=1, to_offset=end)
            if not found:
                return sum(stored.events for stored in frames), end - begin
            frames += found
        return sum(stored.events for stored in frames), frames[-1].offset + 1 - begin

    def lag_seconds(self, group: str, topic: Topic, partition: int) -> float:
        """See ``core.log.Log.lag_seconds``."""
        begin, end = self._positions(group, topic, [partition])[partition], self.end_offset(topic, partition)
        first = self.read(topic, partition, begin, events_max=1, to_offset=end) if begin < end else []
        return max(0.0, (now_ms() - first[0].appended_at) / 1000) if first else 0.0

    def pressure(self) -> str | None:
        """See ``core.log.Log.pressure``; what was known about a second ago, for brokers may take long to answer."""
        asked, reason = self._pressure
        if time.monotonic() - asked >= _PRESSURE_FRESH_S and self._asking.acquire(blocking=False):
            threading.Thread(target=self._ask_pressure, name="pressure", daemon=True).start()
        return reason

    def _ask_pressure(self) -> None:
        name_thread("pressure")
        reason = self._pressure[1]
        try:
            partitions = self.partitions(Topic.RAW)
            there = len(self._offsets.partitions(self.topic_name(Topic.RAW)))
            if there != len(partitions):
                # Events would go where their device's state is not.
                reason = f"raw has {there} partitions now, {len(partitions)} when this process started; start it again"
                return
            ends = self._offsets.ends(self.topic_name(Topic.RAW), partitions)
            waiting = self._positions(groups.PROCESS, Topic.RAW, partitions)
            lag = int(sum(ends[each] - waiting[each] for each in partitions) * self._outbox.events_a_frame)
            most = f"{self._backlog_events_max:,} (log.backlog_events_max)"
            full = lag > self._backlog_events_max
            reason = f"{lag:,} events wait for the processors, at most {most} may" if full else None
        except LogUnavailable as error:
            # Whether frames can be stored is found out by storing them.
            logger.warning("how far raw is behind is not known: %s", error)
        except RuntimeError:
            if not self._closed:  # else the consumers are closed by now
                raise
        finally:
            self._pressure = time.monotonic(), reason
            self._asking.release()

    def size_bytes(self) -> int:
        """The brokers keep the log; how large it is, is theirs to tell."""
        return 0

    def ledger(self) -> list[Count]:
        """See ``core.log.Log.ledger``."""
        counts = self._sums.counts(
            self._offsets.ends(f"{self._prefix}.{LEDGER}", [0])[0], self.end_offset(Topic.DEAD, 0)
        )
        for partition, begin in self._positions(groups.PROCESS, Topic.RAW, self.partitions(Topic.RAW)).items():
            end = self.end_offset(Topic.RAW, partition)
            while frames := self.read(Topic.RAW, partition, begin, events_max=_READ_EVENTS, to_offset=end):
                counts += messages.carried(frames)
                begin = frames[-1].offset + 1
        return counts

    def _dead(self, begin: int, end: int) -> list[StoredFrame]:
        start = self.start_offset(Topic.DEAD, 0)
        return (
            self.read(Topic.DEAD, 0, max(begin, start), events_max=_READ_EVENTS, to_offset=end) if start < end else []
        )

    def partitions(self, topic: Topic) -> Sequence[int]:
        """See ``core.log.Log.partitions``; as they were when this log was opened."""
        if topic not in self._known:
            found = self._offsets.partitions(self.topic_name(topic))
            if not found:
                raise StateError(f"Kafka has no topic {self.topic_name(topic)}; `eventmill topics create` makes it")
            self._known[topic] = found
        return self._known[topic]

    def offsets_between(self, topic: Topic, partition: int, from_ms: int, to_ms: int) -> list[int]:
        """Offsets of the frames appended within a time range (ms since the epoch, both ends included)."""
        name = self.topic_name(topic)
        begin, end = self._offsets.at(name, partition, from_ms), self._offsets.at(name, partition, to_ms + 1)
        found: list[int] = []
        while frames := self.read(
            topic, partition, found[-1] + 1 if found else begin, events_max=_READ_EVENTS, to_offset=end
        ):
            found += [stored.offset for stored in frames]
        return found

    def trim(self, topic: Topic, partition: int, older_than_ms: int) -> int:
        """The brokers trim by the topics' retention: nothing is left to do here."""
        return 0

    def rewrite(self, topic: Topic, partition: int, end: int, change: Callable[[StoredFrame], Frame | None]) -> int:
        """A topic cannot be changed: its retention ends what it holds."""
        return 0

    def close(self) -> None:
        """See ``core.log.Log.close``; to be called when no thread uses the log any more."""
        if self._closed:
            return
        self._closed = True
        self._outbox.close()
        with self._lock:
            for feed in self._feeds.values():
                feed.close()
        self._scans.close()
        self._sums.close()
        self._offsets.close()
