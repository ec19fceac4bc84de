"""Eventmill's topics: making them, and checking that they still are as they must be."""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.errors import ConfigError, LogUnavailable
from eventmill.core.schema import Topic
from eventmill.log.kafka.clients import MESSAGE_BYTES_MAX, REQUEST_S, asking, common

#: The ledger's sums; see ``outbox``.
LEDGER: Final = "ledger"
_LOOK_S: Final = 0.1
#: Topics with as many partitions as raw: what is derived from a partition of raw stays in its partition.
SPREAD: Final = (Topic.RAW, Topic.ENRICHED, Topic.SCHEMAS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as it must be."""

    name: str
    partitions: int
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One topic: what stands in the way of using it; ``problem`` is empty when nothing does."""

    name: str
    partitions: int
    problem: str


def wanted(config: Config) -> list[Wanted]:
    """All topics of a configuration."""
    copies = {"min.insync.replicas": str(config.kafka.min_insync), "max.message.bytes": str(MESSAGE_BYTES_MAX)}
    keep = {**copies, "cleanup.policy": "delete", "retention.ms": str(parse_duration_ms(config.log.retention))}
    forever = {**copies, "cleanup.policy": "delete", "retention.ms": "-1"}
    dead = {**keep, "retention.ms": str(parse_duration_ms(config.log.dead_retention))}
    newest = {**copies, "cleanup.policy": "compact"}
    settings = {Topic.DEAD: dead, Topic.SCHEMAS: forever, Topic.TOMBSTONES: forever, Topic.SAVED: newest}
    found = [
        Wanted(
            f"{config.log.prefix}.{topic}",
            config.kafka.partitions if topic in SPREAD else 1,
            settings.get(topic, keep),
        )
        for topic in Topic
    ]
    if config.kafka.mirror:
        found.append(Wanted(config.kafka.mirror, config.kafka.partitions, keep))
    return [*found, Wanted(f"{config.log.prefix}.{LEDGER}", 1, newest)]


def create(config: Config) -> list[str]:
    """Make the topics that are missing; gives what was done.

    Raises ``LogUnavailable`` when the brokers do not answer, ``ConfigError`` when they refuse.
    """
    admin = AdminClient(common(config.kafka))
    there = _there(admin)
    done = []
    for topic in wanted(config):
        if topic.name not in there:
            new = NewTopic(topic.name, topic.partitions, config.kafka.replication, config=topic.settings)
            _settle(admin.create_topics([new])[topic.name], f"making topic {topic.name}")
            done.append(f"made {topic.name} with {topic.partitions} partitions")
    return done


def widen(config: Config, names: Container[str]) -> list[str]:
    """Add partitions where these topics have fewer than they must; returns what was done once all have leaders."""
    admin = AdminClient(common(config.kafka))
    there = _there(admin)
    done = []
    for topic in wanted(config):
        before = there.get(topic.name, 0)
        if topic.name in names and 0 < before < topic.partitions:
            more = NewPartitions(topic.name, topic.partitions)
            _settle(admin.create_partitions([more])[topic.name], f"adding partitions to {topic.name}")
            _await_leaders(admin, topic)
            done.append(f"{topic.name} has {topic.partitions} partitions now, {before} before")
    return done


def _there(admin: AdminClient) -> dict[str, int]:
    """All topics with their partitions."""
    with asking("listing topics"):
        return {name: len(found.partitions) for name, found in admin.list_topics(timeout=REQUEST_S).topics.items()}


def _await_leaders(admin: AdminClient, topic: Wanted) -> None:
    deadline = time.monotonic() + REQUEST_S
    while True:
        with asking(f"asking for {topic.name}"):
            found = admin.list_topics(topic.name, timeout=REQUEST_S).topics[topic.name].partitions
        if len(found) >= topic.partitions and all(each.leader >= 0 for each in found.values()):
            return
        if time.monotonic() > deadline:
            raise LogUnavailable(f"Kafka: new partitions of {topic.name} have no leaders yet; run it again")
        time.sleep(_LOOK_S)


def members(config: Config, group: str) -> int:
    """How many members a group has now."""
    name = f"{config.log.prefix}.{group}"
    admin = AdminClient(common(config.kafka))
    with asking(f"asking for the members of {name}"):
        future = admin.describe_consumer_groups([name], request_timeout=REQUEST_S)[name]
        try:
            return len(future.result(REQUEST_S).members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise


def check(config: Config) -> list[Finding]:
    """What is wrong with the topics. Raises ``LogUnavailable`` when the brokers do not answer."""
    admin = AdminClient(common(config.kafka))
    there = _there(admin)
    return [_finding(admin, topic, there.get(topic.name)) for topic in wanted(config)]


def _finding(admin: AdminClient, topic: Wanted, partitions: int | None) -> Finding:
    if partitions is None:
        return Finding(topic.name, 0, "it is not there; `eventmill topics create` makes it")
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    with asking(f"asking for the settings of {topic.name}"):
        settings = admin.describe_configs([resource])[resource].result(REQUEST_S)
    wrong = [
        f"{name} is {settings[name].value}, {value} is wanted"
        for name, value in topic.settings.items()
        if name in settings and settings[name].value != value
    ]
    if partitions < topic.partitions:
        wrong.insert(
            0, f"it has {partitions} partitions, {topic.partitions} are wanted; `eventmill topics grow` adds them"
        )
    if partitions > topic.partitions:
        wrong.insert(
            0, f"it has {partitions} partitions, kafka.partitions says {topic.partitions}; set that to {partitions}"
        )
    return Finding(topic.name, partitions, "; ".join(wrong))


def _settle(future: object, what: str) -> None:
    try:
        future.result(REQUEST_S)  # type: ignore[attr-defined]
    except KafkaException as error:
        raise ConfigError(
            f"{what} was refused: {error.args[0].str()}; are there as many brokers as kafka.replication says?"
        ) from error
