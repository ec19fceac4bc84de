"""Backfill as a Spark job: what ``serve.backfill`` does with raw events, spread over a cluster, with the same kernels.

Executors read the log, decode and judge (``spark.raw``). Rows are brought together by event id (duplicates), by device
(sessions), and by the file that they go to. The lake gets all files in one commit. The fresh folder's log gets what an engine
that takes the folder over needs: dead letters, tombstones, the ledger, the events that questions ask the real-time store for,
and the raw events that the duplicate filter has to remember; nothing of it passes through the driver but as whole frames.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyiceberg.table import Table, Transaction

from eventmill.core import frame, groups
from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import Config, DimensionsConfig
from eventmill.core.log import Count, Log
from eventmill.core.schema import DEAD, EVENT, LOGGED, Hop, Topic
from eventmill.core.tombstones import Tombstone, record, recorded
from eventmill.kernels.partition import OVERFLOW
from eventmill.kernels.sessionize import device_hashes, sessions_of_hashes
from eventmill.lake import offsets
from eventmill.lake.duplicates import HOUR_MS, words
from eventmill.lake.files import DAY_MS, FILES_FEW, ROWS_FEW, FileWriter, require, uncommitted
from eventmill.lake.iceberg import DATE, FORGOTTEN, GROUP, added
from eventmill.lake.table import Lake
from eventmill.lake.versions import changed
from eventmill.process.dimensions.source import Dimensions, open_dimensions
from eventmill.process.schemas.sets import SchemaSet
from eventmill.serve.backfill import fresh_config
from eventmill.serve.engine_log import open_existing, open_log
from eventmill.serve.folder import DataFolder
from eventmill.spark.files import WRITTEN, described, ms, pack_writer
from eventmill.spark.raw import FRAMES, ROWS, Framer, Range, Reader, logged, plain, ranges

#: Rows that an executor's task compares at once, and rows of a file.
TASK_ROWS: Final = 2_000_000
FILE_ROWS: Final = 1_000_000
#: Rows that are framed by one task, in the order in which they were received.
_FRAMED_ROWS: Final = 500_000
#: Tasks for each core, so that they end together.
_WAVES: Final = 4
_PLACE: Final = ["partition", "row"]
_STORED: Final = pa.schema([*plain(EVENT), ROWS.field("partition"), ROWS.field("row")])


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """Raw ``events``, and what became of them. ``recent`` of those ``stored`` in the lake are on the log for the real-time
    store, too."""

    events: int = 0
    stored: int = 0
    duplicates: int = 0
    dead: int = 0
    forgotten: int = 0
    recent: int = 0
    files: int = 0

    def as_dict(self) -> dict[str, int]:
        """For machines."""
        return asdict(self)


def backfill(
    spark: Any, config: Config, into: Path, *, since_ms: int, until_ms: int, schemas: SchemaSet, now_ms: int
) -> BackfillReport:
    """Process the raw events that the log holds, received from ``since_ms`` inclusive to ``until_ms`` exclusive, into ``into``.

    The lake is that of ``serve.backfill`` once it is compacted, and ``serve`` can take the folder over. ``spark`` is a session
    whose executors reach the log and both folders. Raises ``ConfigError`` when ``into`` holds something already, and
    ``StoreError``; what it leaves then is to be removed.
    """
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    fresh = fresh_config(config, into)
    with closing(open_existing(config)) as source:
        tombstones = recorded(source).tombstones
        tasks = ranges(source, spark.sparkContext.defaultParallelism * _WAVES)
    reader = Reader(config, schemas.dump(), tuple(tombstones), since_ms, until_ms)
    with DataFolder(fresh.data), closing(open_log(fresh)) as log:
        lake = Lake(fresh.lake_dir, fresh.lake.partitions_max, settings=fresh.lake)
        try:
            if not tasks:
                _log(log, (), tombstones, [])
                return BackfillReport()
            with closing(_Events(spark, reader, tasks, parse_duration_ms(config.process.session_gap))) as events:
                return _store(events, fresh, log, lake, tombstones, now_ms)
        finally:
            lake.close()


def _store(
    events: _Events, config: Config, log: Log, lake: Lake, tombstones: list[Tombstone], now_ms: int
) -> BackfillReport:
    stored = events.stored(config.dimensions)
    window = parse_duration_ms(config.realtime.window)
    newest = events.newest()
    # Of older ones the lake answers.
    since = min(now_ms - window, newest) // DAY_MS * DAY_MS
    recent = events.recent(stored, since)
    retired = events.hours(stored) - events.hours(recent)
    remembered = max(parse_duration_ms(config.dedup.window), events.gap_ms)
    raw = events.received_since(now_ms - remembered)
    tally = events.tally()
    frames = [(Topic.DEAD, DEAD, events.letters()), (Topic.RAW, LOGGED, raw), (Topic.ENRICHED, EVENT, recent)]
    _log(log, (each for of_topic in frames for each in events.frames(*of_topic)), tombstones, [
        *tally.counts, *(Count(Hop.RETIRED, hour, rows) for hour, rows in retired.items())
    ])  # fmt: skip
    end = log.end_offset(Topic.ENRICHED, 0)
    files = _files(events, stored, lake, end, newest, tally.forgotten)
    with log.transaction() as transaction:
        transaction.commit_offset(groups.PROCESS, Topic.RAW, 0, log.end_offset(Topic.RAW, 0))
        transaction.commit_offset(groups.LAKE, Topic.ENRICHED, 0, end)
    return tally.report(stored.count(), recent.count(), files)


def _log(log: Log, frames: Iterable[Any], tombstones: list[Tombstone], counts: list[Count]) -> None:
    """What was forgotten stays so; a frame is a transaction, and the ledger's counts come last."""
    for each in tombstones:
        with log.transaction() as transaction:
            transaction.append([record(each)])
    for each in frames:
        with log.transaction() as transaction:
            transaction.append([each])
    with log.transaction() as transaction:
        transaction.count(counts)


def _files(
    events: _Events, stored: Any, lake: Lake, end: int, newest: int, forgotten: Counter[int]
) -> int:  # fmt: skip
    """Write the lake's files and commit them; gives how many."""
    with uncommitted(lake) as paths:
        made = events.written(stored, lake)
        writer = FileWriter(lake, lake.load())
        paths |= {lake.local(file.location) for file in made}
        files = [described(writer, lake.storage, file) for file in made]

        def stage(table: Table, transaction: Transaction) -> int:
            require(lake.storage, paths)
            if forgotten:
                transaction.set_properties(added(table, FORGOTTEN, forgotten))
            summary = offsets.advanced({}, groups.LAKE, Topic.ENRICHED, {0: (0, end)})
            summary |= {offsets.RECEIVED_THROUGH: str(newest)} | changed(file.partition[0] for file in files)
            with transaction.update_snapshot(snapshot_properties=summary).fast_append() as append:
                for file in files:
                    append.append_data_file(file)
            return int(append.snapshot_id)

        lake.commit(stage)
    return len(made)


@dataclass(frozen=True, slots=True)
class _Tally:
    """The ledger's counts, and sums of them."""

    counts: list[Count]
    forgotten: Counter[int]

    def report(self, stored: int, recent: int, files: int) -> BackfillReport:
        total: Counter[Hop] = Counter()
        for count in self.counts:
            total[count.hop] += count.events
        return BackfillReport(
            total[Hop.RECEIVED], stored, total[Hop.DUPLICATE], total[Hop.INVALID], total[Hop.FORGOTTEN], recent, files
        )


class _Events:
    """Raw events as DataFrames, and what is computed of them once."""

    def __init__(self, spark: Any, reader: Reader, tasks: list[Range], gap_ms: int) -> None:
        from pyspark.sql import functions
        from pyspark.sql.pandas.types import from_arrow_schema
        from pyspark.storagelevel import StorageLevel

        self._spark, self._functions, self.gap_ms = spark, functions, gap_ms
        self._schema_of = from_arrow_schema
        self._disk = StorageLevel.DISK_ONLY
        self._kept: list[Any] = []
        listed = [(each.partition, each.begin, each.end) for each in tasks]
        given = spark.createDataFrame(listed, "partition int, begin long, end long").repartition(len(listed))
        self._rows = self._persisted(given.mapInArrow(reader, from_arrow_schema(ROWS)))
        self._tasks = max(-(-self._rows.count() // TASK_ROWS), 1)
        events = self._rows.where("letter IS NULL")
        keys = events.select("event_id", "received_at", "appended_at", *_PLACE)
        self._again = self._persisted(
            self._by(keys, "event_id").applyInArrow(_again, "partition int, row long, hour long")
        )
        unique = events.join(self._again.select(*_PLACE), _PLACE, "left_anti")
        self._forgotten = unique.where("forgotten")
        kept = unique.where("NOT forgotten")
        sessions = self._by(kept.select("device_id", "timestamp", *_PLACE), "device_id")
        self._sessions = self._persisted(
            sessions.applyInArrow(_sessions(gap_ms), "partition int, row long, session_id long")
        )
        self._unique = events.join(self._sessions, _PLACE)

    def _persisted(self, rows: Any) -> Any:
        self._kept.append(rows.persist(self._disk))
        return self._kept[-1]

    def _by(self, rows: Any, column: str) -> Any:
        return rows.groupBy(
            self._functions.pmod(self._functions.xxhash64(column), self._functions.lit(self._tasks)).alias("task")
        )

    def close(self) -> None:
        """Let go of what is kept on the executors' disks."""
        for rows in self._kept:
            rows.unpersist()

    def newest(self) -> int:
        """The newest ``received_at`` of what is stored, ms since the epoch; 0: nothing is."""
        found = self._unique.agg(self._functions.max(self._functions.unix_millis("received_at"))).collect()[0][0]
        return int(found or 0)

    def stored(self, dimensions: DimensionsConfig) -> Any:
        """EVENT and the place of each event that is stored."""
        return self._persisted(self._unique.mapInArrow(_Enriching(dimensions), self._schema_of(_STORED)))

    def recent(self, stored: Any, since_ms: int) -> Any:
        """Those that happened, or were received, since then."""
        functions = self._functions
        since = functions.timestamp_millis(functions.lit(since_ms))
        return stored.where((functions.col("timestamp") >= since) | (functions.col("received_at") >= since))

    def received_since(self, since_ms: int) -> Any:
        """LOGGED of those that were received since then."""
        functions = self._functions
        since = functions.timestamp_millis(functions.lit(since_ms))
        return self._unique.where(functions.col("received_at") >= since).select(*LOGGED.names)

    def letters(self) -> Any:
        """DEAD."""
        return self._rows.where("letter IS NOT NULL").select("letter.*")

    def hours(self, rows: Any, column: str = "received_at") -> Counter[int]:
        """Rows by hour (its start, ms since the epoch)."""
        hour = self._functions.unix_millis(self._functions.date_trunc("hour", column))
        return Counter({row.hour: row["count"] for row in rows.groupBy(hour.alias("hour")).count().collect()})

    def tally(self) -> _Tally:
        """What the ledger counts, but for what is retired."""
        functions = self._functions
        received = self._rows.withColumn("at", functions.coalesce("received_at", "letter.received_at"))
        dead = received.where("letter IS NOT NULL").groupBy(
            functions.unix_millis(functions.date_trunc("hour", "at")).alias("hour"), "letter.reason"
        )
        counts = [Count(Hop.INVALID, row.hour, row["count"], row.reason) for row in dead.count().collect()]
        again = Counter({row.hour: row["count"] for row in self._again.groupBy("hour").count().collect()})
        forgotten = self.hours(self._forgotten)
        for hops, hours in (
            ((Hop.RECEIVED, Hop.ACCEPTED), self.hours(received, "at")),
            ((Hop.SUSPECT, Hop.DUPLICATE), again),
            ((Hop.ENRICHED,), self.hours(self._unique) + forgotten),
            ((Hop.FORGOTTEN,), forgotten),
        ):
            counts += [Count(hop, hour, rows) for hop in hops for hour, rows in hours.items()]
        return _Tally(counts, forgotten)

    def frames(self, topic: Topic, schema: pa.Schema, rows: Any) -> Iterator[Any]:
        """The rows as frames of the topic, in the order in which they were received."""
        tasks = -(-rows.count() // _FRAMED_ROWS)
        if not tasks:
            return
        ordered = rows.select(*schema.names).repartitionByRange(tasks, "received_at")
        made = ordered.sortWithinPartitions("received_at").mapInArrow(Framer(topic, schema), FRAMES)
        for row in made.toLocalIterator():
            yield frame.framed(topic, bytes(row.payload), row.events)

    def written(self, stored: Any, lake: Lake) -> list[Any]:
        """``WRITTEN`` of the files that the executors make."""
        functions = self._functions
        dated = stored.withColumn(DATE, functions.to_date("timestamp"))
        days = functions.unix_date(DATE)
        sizes = {
            (row.day, row.event): row["count"]
            for row in dated.groupBy(days.alias("day"), "event").count().collect()
        }  # fmt: skip
        listed = packs(sizes, lake)
        if not listed:
            return []
        cells = self._spark.createDataFrame(listed, f"day int, event string, {GROUP} string, first int, files int")
        of_day = functions.unix_millis("timestamp") - functions.unix_millis(functions.date_trunc("day", "timestamp"))
        part = functions.floor(of_day * functions.col("files") / DAY_MS).cast("int")
        rows = (
            dated.withColumn("day", days)
            .join(functions.broadcast(cells), ["day", "event"])
            .withColumn("pack", functions.col("first") + part)
            .withColumnRenamed("partition", "place")
            .select(*EVENT.names, DATE, GROUP, "pack", "place", "row")
        )
        write = pack_writer(lake.storage, f"{lake.storage.recorded}/data", uuid.uuid4().hex, None)
        found: list[Any] = rows.groupBy("pack").applyInArrow(write, WRITTEN).collect()
        return found


def packs(sizes: dict[tuple[int, str], int], lake: Lake) -> list[tuple[int, str, str, int, int]]:
    """Which files the events go to, of whose rows by day (since the epoch) and name ``sizes`` tells.

    For each of these the name of the partition's group, the number of its first file, and how many there are, each for an equal
    part of the day. The most frequent names have groups of their own, as far as the lake allows. Where there are many
    partitions, the small ones share their day's ``__other__``, as they do in ``lake.files.partition``.
    """
    total: Counter[str] = Counter()
    for (_, event), rows in sizes.items():
        total[event] += rows
    group_of = {event: lake.group_of(event) for event, _ in sorted(total.items(), key=lambda each: (-each[1], each[0]))}
    partitions: Counter[tuple[int, str]] = Counter()
    for (day, event), rows in sizes.items():
        partitions[day, group_of[event]] += rows
    many = len(partitions) > FILES_FEW
    place = {each: (each[0], OVERFLOW) if many and rows < ROWS_FEW else each for each, rows in partitions.items()}
    merged: Counter[tuple[int, str]] = Counter()
    for each, rows in partitions.items():
        merged[place[each]] += rows
    first, numbers = 0, {}
    for each in sorted(merged):
        files = -(-merged[each] // FILE_ROWS)
        numbers[each] = (first, files)
        first += files
    found = []
    for day, event in sorted(sizes):
        here = place[day, group_of[event]]
        found.append((day, event, here[1], *numbers[here]))
    return found


def _again(rows: pa.Table) -> pa.Table:
    """Of rows with the same event id, all but the one that was appended first, and the hour of their receipt."""
    ids = words(rows.column("event_id").cast(pa.binary(16)))
    partition, row = rows.column("partition").to_numpy(), rows.column("row").to_numpy()
    order = np.lexsort((row, partition, rows.column("appended_at").to_numpy(), ids[:, 1], ids[:, 0]))
    ordered = ids[order]
    later = order[1:][(ordered[1:] == ordered[:-1]).all(axis=1)]
    hours = ms(rows.column("received_at"))[later] // HOUR_MS * HOUR_MS
    return pa.table({"partition": partition[later], "row": row[later], "hour": hours})


def _sessions(gap_ms: int) -> Callable[[pa.Table], pa.Table]:
    """For ``applyInArrow``, which counts a function's arguments: the exact sessions of whole devices."""

    def sessions(rows: pa.Table) -> pa.Table:
        ids = sessions_of_hashes(device_hashes(rows.column("device_id")), ms(rows.column("timestamp")), gap_ms)
        return rows.select(_PLACE).append_column("session_id", pa.array(ids))

    return sessions


@dataclass(frozen=True, slots=True)
class _Enriching:
    """For ``mapInArrow``: ``_STORED`` of ``ROWS`` with their sessions."""

    dimensions: DimensionsConfig

    def __call__(self, given: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known = _known(self.dimensions)
        for batch in given:
            if batch.num_rows:
                rows = known.apply(logged(batch, LOGGED))
                events = {name: rows.column(name) for name in rows.schema.names}
                events |= {name: batch.column(name) for name in ("session_id", *_PLACE)}
                columns = [events[field.name].cast(field.type) for field in _STORED]
                yield pa.RecordBatch.from_arrays(columns, schema=_STORED)


@lru_cache(maxsize=1)
def _known(dimensions: DimensionsConfig) -> Dimensions:
    """Once in each of the executors' processes."""
    return open_dimensions(dimensions)
