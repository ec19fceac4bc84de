"""The processor that fits the log: for one partition in this process, or as a member of a group."""

from __future__ import annotations

import math
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from eventmill.core import groups
from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.log import Log
from eventmill.core.redact import Redaction
from eventmill.core.schema import Topic
from eventmill.core.tail import Tail
from eventmill.process.dimensions.source import Dimensions
from eventmill.process.group import GroupProcessor
from eventmill.process.partition import PartitionState
from eventmill.process.pipeline import Processor, build_stages
from eventmill.process.schemas.book import SchemaBook
from eventmill.serve.engine_log import on_kafka

#: Partitions are never equally full; each one's filter has so much more room than its share.
_HEADROOM: Final = 1.25


class Processing(Protocol):
    """Raw to enriched. One thread calls ``recover``, then ``step`` again and again."""

    def recover(self) -> object:
        """Build the state."""
        ...

    def step(self, timeout_s: float) -> int:
        """Process one batch."""
        ...

    def close(self, *, snapshot: bool = False) -> None:
        """Let go; with a last snapshot when the state is whole."""
        ...


def build_processing(
    config: Config,
    log: Log,
    book: SchemaBook,
    tail: Tail,
    dimensions: Dimensions,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> Processing:
    """As the configuration says; ``tail`` gets the newest batches of a single partition."""
    if on_kafka(config):
        return _group(config, log, book, dimensions, checkpoint)
    return Processor(
        log,
        lambda: build_stages(config, book, dimensions),
        config.state_dir,
        batch_events_max=config.process.batch_events_max,
        batch_interval_ms=parse_duration_ms(config.process.batch_interval),
        snapshot_interval_events=config.process.snapshot_interval_events,
        tail=tail,
        book=book,
        redaction=Redaction(config.dead.redact),
        checkpoint=checkpoint,
    )


def state_of(
    config: Config,
    log: Log,
    book: SchemaBook,
    dimensions: Dimensions,
    count: int,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> Callable[[int], PartitionState]:
    """What makes the empty state of a partition of raw, when raw has, or is about to have, ``count`` of them."""
    share = replace(config.dedup, capacity=math.ceil(config.dedup.capacity * _HEADROOM / count))
    each = replace(config, dedup=share)
    redaction = Redaction(config.dead.redact)

    def build(partition: int) -> PartitionState:
        mine = book.of(partition)
        return PartitionState(
            log,
            partition,
            lambda: build_stages(each, mine, dimensions),
            snapshots_of(config, partition),
            batch_events_max=config.process.batch_events_max,
            book=mine,
            redaction=redaction,
            checkpoint=checkpoint,
        )

    return build


def _group(
    config: Config, log: Log, book: SchemaBook, dimensions: Dimensions, checkpoint: Callable[[str], None]
) -> GroupProcessor:
    from eventmill.log.kafka.member import Member

    return GroupProcessor(
        Member(config, groups.PROCESS, Topic.RAW, config.kafka.instance or _unique(), checkpoint=checkpoint),
        state_of(config, log, book, dimensions, len(log.partitions(Topic.RAW)), checkpoint),
        lambda partition: log.committed(groups.PROCESS, Topic.RAW, partition),
        batch_events_max=config.process.batch_events_max,
        batch_interval_ms=parse_duration_ms(config.process.batch_interval),
        snapshot_interval_events=config.process.snapshot_interval_events,
        checkpoint=checkpoint,
    )


def snapshots_of(config: Config, partition: int) -> Path | str:
    """Where a partition's snapshots are: to hand it over, all members must see the same place."""
    name = f"{Topic.RAW}-{partition:05d}"
    place = config.process.snapshots
    if not place:
        return config.state_dir / name
    return f"{place.rstrip('/')}/{name}" if "://" in place else Path(place).expanduser().absolute() / name


def _unique() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
