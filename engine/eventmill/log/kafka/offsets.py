"""Offsets of groups and of partitions, asked of the brokers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from eventmill.core.config import KafkaConfig
from eventmill.core.errors import LogUnavailable
from eventmill.core.log import Intent
from eventmill.core.schema import Topic
from eventmill.log.kafka.clients import REQUEST_S, Asked, asking, common, consumer

#: How the metadata of a committed offset says that everything up to another offset is being inserted.
_INTENT: Final = "intent:"
#: How soon to ask again while a transaction is open.
_UNSTABLE_S: Final = 0.02


class Offsets:
    """Safe to share between threads. Groups and topics are given by their full names."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._admin = Asked(lambda: AdminClient(common(config)))
        self._lock = threading.Lock()
        self._members: dict[str, Consumer] = {}
        self._groups: dict[tuple[str, bool], Asked[Consumer]] = {}
        settings = consumer(config, "eventmill.asking")
        # Each sees as far as its isolation level.
        self._asking = {
            False: Asked(lambda: Consumer(settings)),
            True: Asked(lambda: Consumer({**settings, "isolation.level": "read_uncommitted"})),
        }

    def partitions(self, topic: str) -> list[int]:
        """The topic's partitions; none when it is not there."""
        with self._admin.asking(f"asking for {topic}") as admin:
            found = admin.list_topics(topic, timeout=REQUEST_S).topics[topic]
        return sorted(found.partitions) if found.error is None else []

    def ends(self, topic: str, partitions: Iterable[int], *, whole: bool = False) -> dict[int, int]:
        """Where readers of committed transactions come to an end; with ``whole``, where the next message goes."""
        return {each: self._watermarks(topic, each, whole)[1] for each in partitions}

    def starts(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The oldest retained offsets."""
        return {each: self._watermarks(topic, each, True)[0] for each in partitions}

    def _watermarks(self, topic: str, partition: int, whole: bool) -> tuple[int, int]:
        with self._asking[whole].asking(f"asking for the offsets of {topic}/{partition}") as client:
            found = client.get_watermark_offsets(TopicPartition(topic, partition), REQUEST_S, cached=False)
            if found is None or min(found) < 0:
                raise TimeoutError("its leader changes")
        return int(found[0]), int(found[1])

    def at(self, topic: str, partition: int, ms: int) -> int:
        """The first offset of a message of that time (ms since the epoch) or later; the end when there is none."""
        with self._asking[False].asking(f"asking for the offsets of {topic}/{partition}") as client:
            (found,) = client.offsets_for_times([TopicPartition(topic, partition, ms)], REQUEST_S)
        return found.offset if found.offset >= 0 else self.ends(topic, [partition])[partition]

    def committed(
        self, group: str, topic: str, partitions: Iterable[int], *, stable: bool = False
    ) -> dict[int, tuple[int, str]]:
        """Committed offsets and their metadata; -1 where there is none.

        ``stable``: such as no open transaction can change any more (KIP-447), waited for up to ``REQUEST_S``.
        """
        asked = [TopicPartition(topic, each) for each in partitions]
        deadline = time.monotonic() + REQUEST_S
        while True:
            with self._of_group(group, stable).asking(f"asking for the offsets of group {group}") as client:
                found = client.committed(asked, REQUEST_S)
                errors = [each.error for each in found if each.error is not None]
                open_yet = all(error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT for error in errors)
                if errors and not (open_yet and time.monotonic() < deadline):
                    raise KafkaException(errors[0])
            if not errors:
                return {each.partition: (max(each.offset, -1), each.metadata or "") for each in found}
            time.sleep(_UNSTABLE_S)

    def _of_group(self, group: str, stable: bool) -> Asked[Consumer]:
        """Asks as the group. (The admin client's question for a group's offsets ends the process when the coordinator moves:
        librdkafka looks for the new one by the consumer group that an admin client has not.)"""
        settings = consumer(self._config, group)
        if not stable:
            settings["isolation.level"] = "read_uncommitted"
        with self._lock:
            return self._groups.setdefault((group, stable), Asked(lambda: Consumer(settings)))

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
            clients = (self._admin, *self._asking.values(), *self._groups.values())
        for client in clients:
            client.close()


def intent_of(group: str, topic: Topic, partition: int, offset: int, metadata: str) -> Intent | None:
    """The intent that a committed offset's metadata holds."""
    if not metadata.startswith(_INTENT):
        return None
    try:
        return Intent(group, topic, partition, offset, int(metadata.removeprefix(_INTENT)))
    except ValueError:
        raise LogUnavailable(f"group {group} has metadata that is not Eventmill's: {metadata!r}") from None
