"""Processing a time range of raw again, into a fresh data folder."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core import frame, groups, ledger
from eventmill.core.config import Config, KafkaConfig
from eventmill.core.errors import ConfigError, StateError
from eventmill.core.log import Log, StoredFrame
from eventmill.core.schema import LOGGED, Flag, Hop, Topic
from eventmill.core.tombstones import record, recorded
from eventmill.serve.engine import Engine
from eventmill.serve.engine_log import open_existing, open_log
from eventmill.serve.folder import DataFolder

logger = logging.getLogger(__name__)

_READ_EVENTS: Final = 50_000
_LOOK_S: Final = 0.25


def backfill(
    config: Config,
    into: Path,
    *,
    since_ms: int,
    until_ms: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Process the raw events that the log holds, received from ``since_ms`` inclusive to ``until_ms`` exclusive, into ``into``.

    They are judged by the settings and schemas of now. ``into`` becomes a whole data folder with an embedded log, wherever the
    events came from: ``serve`` can take it over. Gives the number of raw events. Raises ``ConfigError`` when ``into`` holds
    something already.
    """
    fresh = fresh_config(config, into)
    source = open_existing(config)
    with DataFolder(fresh.data):
        try:
            events = _copy(source, fresh, since_ms, until_ms)
        finally:
            source.close()
        engine = Engine(fresh)
        engine.start()
        try:
            while engine.fatal is None and not engine.wait_stored(_LOOK_S):
                progress(events - engine.stores.log.lag(groups.LAKE, Topic.ENRICHED, 0) - _waiting(engine), events)
        finally:
            done = engine.drain()
        if engine.fatal is not None or not done:
            raise StateError(
                f"the backfill is not whole: {engine.fatal or 'not all was stored'}; remove {into} and try again"
            )
    progress(events, events)
    return events


def fresh_config(config: Config, into: Path) -> Config:
    """The settings of a fresh data folder whose raw events those of ``config`` are. Raises ``ConfigError`` when ``into`` holds
    something already."""
    if into.exists() and any(into.iterdir()):
        raise ConfigError(f"{into} is not empty; name a fresh folder by --into")
    schemas = replace(config.schemas, folder=config.schemas.folder or str(config.data / "schemas"))
    # The stores that the settings name are those that are there already; a fresh folder has its own.
    lake = replace(config.lake, warehouse="", catalog="")
    realtime = replace(config.realtime, url="", cluster="")
    return replace(config, data=into.absolute(), schemas=schemas, lake=lake, realtime=realtime, kafka=KafkaConfig())


def _waiting(engine: Engine) -> int:
    return engine.stores.log.lag(groups.PROCESS, Topic.RAW, 0)


def _copy(source: Log, fresh: Config, since_ms: int, until_ms: int) -> int:
    target = open_log(fresh)
    total = 0
    try:
        for each in recorded(source).tombstones:  # what was forgotten stays so
            with target.transaction() as transaction:
                transaction.append([record(each)])
        for batch in _batches(source, since_ms, until_ms):
            total += batch.num_rows
            with target.transaction() as transaction:
                transaction.append([frame.encode(Topic.RAW, batch)])
                transaction.count(ledger.counts(Hop.RECEIVED, batch) + ledger.counts(Hop.ACCEPTED, batch))
    finally:
        target.close()
    return total


def _batches(log: Log, since_ms: int, until_ms: int) -> Iterator[pa.RecordBatch]:
    """Raw rows of the range, each partition's in order, and all of them by the time that they were appended: one filter takes
    them now. What was put back after a look-up stands in raw twice, and is looked up again.
    """
    partitions = [_frames(log, each) for each in log.partitions(Topic.RAW)]
    place = LOGGED.get_field_index("flags")
    for frames in _together(heapq.merge(*partitions, key=lambda stored: stored.appended_at)):
        batch = frame.decode_all(frames, LOGGED)
        received = batch.column("received_at").cast(pa.int64())
        batch = batch.filter(pc.and_(pc.greater_equal(received, since_ms), pc.less(received, until_ms)))
        if batch.num_rows:
            flags = pc.bit_wise_and(batch.column(place), pa.scalar(~int(Flag.RESCUED), pa.int32()))
            yield batch.set_column(place, LOGGED.field(place), flags)


def _frames(log: Log, partition: int) -> Iterator[StoredFrame]:
    position, end = log.start_offset(Topic.RAW, partition), log.end_offset(Topic.RAW, partition)
    while position < end:
        frames = log.read(Topic.RAW, partition, position, events_max=_READ_EVENTS, to_offset=end)
        if not frames:
            break  # what is left are the marks of transactions
        yield from frames
        position = frames[-1].offset + 1


def _together(frames: Iterable[StoredFrame]) -> Iterator[list[StoredFrame]]:
    """In groups of at least so many events, but for the last one."""
    group: list[StoredFrame] = []
    events = 0
    for stored in frames:
        group.append(stored)
        events += stored.events
        if events >= _READ_EVENTS:
            yield group
            group, events = [], 0
    if group:
        yield group
