"""Adding partitions to raw and what is derived from it, while no role runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from eventmill.core import groups
from eventmill.core.config import Config
from eventmill.core.errors import ConfigError, LogUnavailable, StateError
from eventmill.core.schema import Topic
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from eventmill.process.checkpoint import Checkpoints
from eventmill.process.dimensions.source import NoDimensions
from eventmill.process.growth import bequeath, heirs
from eventmill.process.origin import mark
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.sources import open_source
from eventmill.serve.processing import snapshots_of, state_of

T = TypeVar("T")
_PATIENCE_S: Final = 30.0


def grow(config: Config) -> Iterator[str]:
    """Give raw ``kafka.partitions`` partitions and each new one its state; tells what was done, step by step.

    It may be interrupted anywhere and run again: raw itself grows last. Raises ``ConfigError`` when something stands in the
    way, ``LogUnavailable`` when the brokers do not answer.
    """
    log = KafkaLog(config)
    try:
        old, new = len(log.partitions(Topic.RAW)), config.kafka.partitions
        if new > old:
            _require_rest(config, log, old)
            yield from _hand_over(config, log, old, new)
    finally:
        log.close()
    if new < old:
        raise ConfigError(
            f"raw has {old} partitions, and none can be taken away; set kafka.partitions to {old} or more"
        )
    raw = f"{config.log.prefix}.{Topic.RAW}"
    others = {topic.name for topic in topics.wanted(config)} - {raw}
    yield from topics.widen(config, others)
    if new > old:
        marking = KafkaLog(config)
        try:
            for partition in range(old):
                _patiently(functools.partial(_mark, marking, partition, old, new))
        finally:
            marking.close()
    yield from topics.widen(config, {raw})


def _mark(log: KafkaLog, partition: int, old: int, new: int) -> None:
    """Say where the partition's heirs begin; a broker may not know the new partitions yet, and marks may be there twice."""
    committed = log.committed(groups.PROCESS, Topic.RAW, partition)
    with log.transaction() as transaction:
        transaction.append([mark(log, partition, committed, heir) for heir in heirs(partition, old, new)])


def _require_rest(config: Config, log: KafkaLog, old: int) -> None:
    if not config.process.snapshots:
        raise ConfigError(
            "new partitions get their state by snapshots: name a place that all processors see by process.snapshots"
        )
    running = _patiently(lambda: topics.members(config, groups.PROCESS))
    if running:
        raise ConfigError(f"{running} processors are running; stop all roles first, ingest before the others")
    waiting = _patiently(lambda: sum(log.lag(groups.PROCESS, Topic.RAW, each) for each in range(old)))
    if waiting:
        raise ConfigError(
            f"{waiting:,} events of raw are not processed yet; stop ingest, let the processors finish, then stop them too"
        )


def _hand_over(config: Config, log: KafkaLog, old: int, new: int) -> Iterator[str]:
    # Enriching adds nothing to the state.
    build = state_of(config, log, SchemaBook(log, open_source(config), refresh_s=1.0), NoDimensions(), new)
    for partition in range(old):
        inheriting = list(heirs(partition, old, new))
        committed = log.committed(groups.PROCESS, Topic.RAW, partition)
        try:
            snapshot = bequeath(build(partition), committed)
        except StateError as error:
            raise ConfigError(
                f"the state of partition {partition} cannot be handed over: {error}. Filters keep their size when "
                f"dedup.capacity grows as the partitions do: multiply it by {new // old}"
            ) from error
        for heir in inheriting:
            Checkpoints(snapshots_of(config, heir)).save(snapshot)
        yield f"partitions {', '.join(map(str, inheriting))} begin with the state of {partition} at offset {committed}"


def _patiently(question: Callable[[], T]) -> T:
    """The answer; coordinators and leaders may be on the move."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return question()
        except LogUnavailable as error:
            if time.monotonic() > deadline:
                raise
            time.sleep(error.retry_after_s)
