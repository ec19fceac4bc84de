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
from eventmill.log.kafka.clients import REQUEST_S, Asked, common, consumer

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
        self._members: dict[str, Asked[Consumer]] = {}
        self._groups: dict[tuple[str, bool], Asked[Consumer]] = {}
        settings = consumer(config, "eventmill.asking")
        # Each sees as far as its isolation level.
        self._asking = {
            False: Asked(lambda: Consumer(settings)),
            True: Asked(lambda: Consumer({**settings, "isolation.level": "read_uncommitted"})),
        }

    def partitions(self, topic: str) -> list[int]:
        """The topic's partitions; none when it is not there."""
        found = self._admin.ask(
            f"asking for {topic}", lambda admin, patience_s: admin.list_topics(topic, timeout=patience_s).topics[topic]
        )
        return sorted(found.partitions) if found.error is None else []

    def ends(self, topic: str, partitions: Iterable[int], *, whole: bool = False) -> dict[int, int]:
        """Where readers of committed transactions come to an end; with ``whole``, where the next message goes."""
        return {each: self._watermarks(topic, each, whole)[1] for each in partitions}

    def starts(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The oldest retained offsets."""
        return {each: self._watermarks(topic, each, True)[0] for each in partitions}

    def _watermarks(self, topic: str, partition: int, whole: bool) -> tuple[int, int]:
        def question(client: Consumer, patience_s: float) -> tuple[int, int]:
            found = client.get_watermark_offsets(TopicPartition(topic, partition), patience_s, cached=False)
            if found is None or min(found) < 0:
                raise TimeoutError("its leader changes")
            return int(found[0]), int(found[1])

        return self._asking[whole].ask(f"asking for the offsets of {topic}/{partition}", question)

    def at(self, topic: str, partition: int, ms: int) -> int:
        """The first offset of a message of that time (ms since the epoch) or later; the end when there is none."""
        (found,) = self._asking[False].ask(
            f"asking for the offsets of {topic}/{partition}",
            lambda client, patience_s: client.offsets_for_times([TopicPartition(topic, partition, ms)], patience_s),
        )
        return found.offset if found.offset >= 0 else self.ends(topic, [partition])[partition]

    def committed(
        self, group: str, topic: str, partitions: Iterable[int], *, stable: bool = False
    ) -> dict[int, tuple[int, str]]:
        """Committed offsets and their metadata; -1 where there is none.

        ``stable``: such as no open transaction can change any more (KIP-447), waited for up to ``REQUEST_S``.
        """
        asked = [TopicPartition(topic, each) for each in partitions]
        deadline = time.monotonic() + REQUEST_S

        def question(client: Consumer, patience_s: float) -> list[TopicPartition] | None:
            """None while a transaction is open."""
            found = client.committed(asked, patience_s)
            errors = [each.error for each in found if each.error is not None]
            open_yet = all(error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT for error in errors)
            if errors and not (open_yet and time.monotonic() < deadline):
                raise KafkaException(errors[0])
            return None if errors else found

        while True:
            found = self._of_group(group, stable).ask(f"asking for the offsets of group {group}", question)
            if found is not None:
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

        def question(member: Consumer, _patience_s: float) -> None:
            for each in member.commit(offsets=entries, asynchronous=False) or []:
                if each.error is not None:
                    raise KafkaException(each.error)

        self._member(group).ask(f"committing offsets of group {group}", question)

    def _member(self, group: str) -> Asked[Consumer]:
        """A consumer that only commits."""
        settings = consumer(self._config, group)
        with self._lock:
            return self._members.setdefault(group, Asked(lambda: Consumer(settings)))

    def metadata(self, group: str) -> Any:
        """What a transaction needs to commit the group's offsets."""
        return self._member(group).ask(
            f"asking for group {group}", lambda member, _patience_s: member.consumer_group_metadata()
        )

    def close(self) -> None:
        """Let go of all consumers."""
        with self._lock:
            clients = (self._admin, *self._asking.values(), *self._groups.values(), *self._members.values())
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
