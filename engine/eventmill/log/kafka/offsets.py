"""Offsets of groups and of partitions, asked of the brokers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from eventmill.core.config import KafkaConfig
from eventmill.core.errors import LogUnavailable
from eventmill.core.log import Intent
from eventmill.core.schema import Topic
from eventmill.log.kafka.clients import REQUEST_S, asking, common, consumer

#: How the metadata of a committed offset says that everything up to another offset is being inserted.
_INTENT: Final = "intent:"
#: How soon to ask again while a transaction is open.
_UNSTABLE_S: Final = 0.02


class Offsets:
    """Safe to share between threads. Groups and topics are given by their full names."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._admin = AdminClient(common(config))
        self._lock = threading.Lock()
        self._members: dict[str, Consumer] = {}

    def partitions(self, topic: str) -> list[int]:
        """The topic's partitions; none when it is not there."""
        with asking(f"asking for {topic}"):
            found = self._admin.list_topics(topic, timeout=REQUEST_S).topics[topic]
        return sorted(found.partitions) if found.error is None else []

    def ends(
        self, topic: str, partitions: Iterable[int], spec: OffsetSpec | None = None, *, whole: bool = False
    ) -> dict[int, int]:
        """Where readers of committed transactions come to an end; with ``whole``, where the next message goes.

        With another ``spec`` what that one asks for.
        """
        isolation = IsolationLevel.READ_UNCOMMITTED if whole else IsolationLevel.READ_COMMITTED
        request = {TopicPartition(topic, each): spec or OffsetSpec.latest() for each in partitions}
        with asking(f"asking for the offsets of {topic}"):
            futures = self._admin.list_offsets(request, isolation_level=isolation, request_timeout=REQUEST_S)
            return {each.partition: future.result(REQUEST_S).offset for each, future in futures.items()}

    def starts(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The oldest retained offsets."""
        return self.ends(topic, partitions, OffsetSpec.earliest())

    def at(self, topic: str, partition: int, ms: int) -> int:
        """The first offset of a message of that time (ms since the epoch) or later; the end when there is none."""
        found = self.ends(topic, [partition], OffsetSpec.for_timestamp(ms))[partition]
        return self.ends(topic, [partition])[partition] if found < 0 else found

    def committed(
        self, group: str, topic: str, partitions: Iterable[int], *, stable: bool = False
    ) -> dict[int, tuple[int, str]]:
        """Committed offsets and their metadata; -1 where there is none.

        ``stable``: such as no open transaction can change any more (KIP-447), waited for up to ``REQUEST_S``.
        """
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, each) for each in partitions])
        deadline = time.monotonic() + REQUEST_S
        while True:
            with asking(f"asking for the offsets of group {group}"):
                future = self._admin.list_consumer_group_offsets(
                    [asked], require_stable=stable, request_timeout=REQUEST_S
                )[group]
                found = future.result(REQUEST_S).topic_partitions
                errors = [each.error for each in found if each.error is not None]
                open_yet = all(error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT for error in errors)
                if errors and not (open_yet and time.monotonic() < deadline):
                    raise KafkaException(errors[0])
            if not errors:
                return {each.partition: (max(each.offset, -1), each.metadata or "") for each in found}
            time.sleep(_UNSTABLE_S)

    def commit(self, group: str, topic: str, offsets: Mapping[int, int], intents: Mapping[int, Intent | None]) -> None:
        """Commit for a group without members; a partition's intent is kept in its metadata."""
        entries = []
        for partition, offset in offsets.items():
            intent = intents.get(partition)
            entries.append(
                TopicPartition(topic, partition, offset, metadata=f"{_INTENT}{intent.to_offset}" if intent else "")
            )
        with asking(f"committing offsets of group {group}"):
            answered = self.member(group).commit(offsets=entries, asynchronous=False)
            for each in answered or []:
                if each.error is not None:
                    raise KafkaException(each.error)

    def member(self, group: str) -> Consumer:
        """A consumer that only commits."""
        with self._lock:
            if group not in self._members:
                self._members[group] = Consumer(consumer(self._config, group))
            return self._members[group]

    def metadata(self, group: str) -> Any:
        """What a transaction needs to commit the group's offsets."""
        return self.member(group).consumer_group_metadata()

    def close(self) -> None:
        """Let go of all consumers."""
        with self._lock:
            for member in self._members.values():
                member.close()
            self._members.clear()


def intent_of(group: str, topic: Topic, partition: int, offset: int, metadata: str) -> Intent | None:
    """The intent that a committed offset's metadata holds."""
    if not metadata.startswith(_INTENT):
        return None
    try:
        return Intent(group, topic, partition, offset, int(metadata.removeprefix(_INTENT)))
    except ValueError:
        raise LogUnavailable(f"group {group} has metadata that is not Eventmill's: {metadata!r}") from None
