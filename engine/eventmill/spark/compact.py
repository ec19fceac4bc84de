"""Compaction as a Spark job: what ``lake.compact`` does, spread over a cluster, with the same kernels.

Spark reads the snapshot through Iceberg's runtime, and knows of each row which file it stands in and where. Rows are brought
together three times: by event id (duplicates), by device (sessions), and by the file that they go to. What comes together is
handed to kernels by ``applyInArrow``. The driver commits as the local compaction does: exactly the files that were read are
replaced, and the offsets are carried forward. Rows that are flagged as unknown are put right by ``enrich`` where they are
written; files that compaction was over before are written again when it knows of one of theirs.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyiceberg.table import Table, Transaction

from eventmill.core.frame import to_batch
from eventmill.core.schema import EVENT, Flag
from eventmill.kernels.sessionize import device_hashes, sessions_of_hashes
from eventmill.lake import offsets
from eventmill.lake.aggregates import retired
from eventmill.lake.compact import CompactReport, groups_of, packs_of, stage_replacement
from eventmill.lake.duplicates import HOUR_MS, words
from eventmill.lake.files import DAY_MS, FileWriter, require, uncommitted
from eventmill.lake.iceberg import DATE, GROUP, REMOVED, Kind, LakeTable, LiveFile
from eventmill.lake.lock import exclusive
from eventmill.lake.merge import Enrich, enriched
from eventmill.lake.storage import Storage
from eventmill.spark.files import WRITTEN, described, ms, pack_writer, stored

#: Rows that an executor's task compares at once, and rows of new files that one commit is for.
TASK_ROWS: Final = 2_000_000
GROUP_ROWS: Final = 200_000_000
FILE_BYTES_MAX: Final = 500_000_000
_UNKNOWN: Final = int(Flag.DIMENSIONS_UNKNOWN | Flag.SCHEMA_UNKNOWN)
_PLACE: Final = "file int, row long"


def compact(
    spark: Any,
    lake: LakeTable,
    *,
    gap_ms: int,
    now_ms: int,
    enrich: Enrich | None = None,
    group_rows: int = GROUP_ROWS,
) -> CompactReport:
    """Compact what was appended since the last time; the result is that of ``lake.compact``.

    ``spark`` is a session with Iceberg's runtime; the lake's files lie where its executors reach them, and ``enrich`` can be
    sent there. Raises what ``lake.compact`` raises.
    """
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    report = CompactReport()
    with exclusive(lake.folder):
        table = lake.load()
        snapshot = table.current_snapshot()
        if snapshot is None:
            return report
        offsets.carried(snapshot)
        entries = {offsets.COMPACTED_THROUGH: str(snapshot.snapshot_id), offsets.COMPACTED_AT: str(now_ms)}
        groups = groups_of(lake.live_files(table), group_rows)
        for new in groups:
            looks_back = enrich is not None and new is groups[-1]
            if new or looks_back:
                report = report.and_then(_group(spark, lake, new, gap_ms, entries, enrich, looks_back))
    return report


def _group(
    spark: Any, lake: LakeTable, new: set[str], gap_ms: int, entries: dict[str, str], enrich: Enrich | None,
    looks_back: bool,
) -> CompactReport:  # fmt: skip
    """``looks_back``: to old files with flagged rows, too."""
    table = lake.load()
    files = [file for file in lake.live_files(table) if not file.appended or file.location in new]
    rows = Rows(spark, lake.local(table.metadata_location), files)
    dates = {file.date for file in files if file.appended}
    removed = rows.duplicates(dates).persist()
    try:
        gone = {row.file: row for row in removed.groupBy("file").count().collect()}
        dates |= {files[index].date + days for index in gone for days in range(gap_ms // DAY_MS + 2)}
        frozen_before = retired(table).sessions_frozen_before
        dates = {date for date in dates if date >= frozen_before}
        sessions = rows.changed_sessions(removed, dates, gap_ms).persist()
        try:
            changed = {row.file: row["count"] for row in sessions.groupBy("file").count().collect()}
            chosen = {index for index, file in enumerate(files) if file.appended} | set(gone) | set(changed)
            if enrich is not None and looks_back:
                chosen |= rows.known({index for index in rows.flagged() if index not in chosen}, enrich)
            packs = packs_of(files, chosen, FILE_BYTES_MAX)
            if not packs:
                return CompactReport()
            return _replace(lake, table, rows, removed, sessions, packs, entries, enrich).report(
                sum(row["count"] for row in gone.values()), sum(changed.values()), dates
            )
        finally:
            sessions.unpersist()
    finally:
        removed.unpersist()


@dataclass(frozen=True, slots=True)
class _Done:
    snapshot_id: int
    replaced: list[LiveFile]
    written: int
    enriched: int

    def report(self, duplicates: int, sessions_changed: int, dates: set[int]) -> CompactReport:
        return CompactReport(
            self.snapshot_id, len(self.replaced), self.written, sum(file.rows for file in self.replaced), duplicates,
            sessions_changed, self.enriched, dates=tuple(np.array(sorted(dates), "datetime64[D]").astype(str).tolist()),
        )  # fmt: skip


def _replace(
    lake: LakeTable, table: Table, rows: Rows, removed: Any, sessions: Any, packs: list[list[int]],
    entries: dict[str, str], enrich: Enrich | None,
) -> _Done:  # fmt: skip
    replaced = [rows.files[index] for pack in packs for index in pack]
    hours = {row.hour: row["count"] for row in removed.groupBy("hour").count().collect()}
    with uncommitted(lake) as paths:
        made = rows.written(removed, sessions, packs, lake.storage, f"{lake.storage.recorded}/data", enrich)
        writer = FileWriter(lake, table)
        paths |= {lake.local(file.location) for file in made}
        written = [described(writer, lake.storage, file) for file in made]

        def stage(newest: Table, transaction: Transaction) -> int:
            require(lake.storage, paths)
            return stage_replacement(lake, newest, transaction, replaced, written, entries, {REMOVED: Counter(hours)})

        snapshot_id = lake.commit(stage)
    return _Done(int(snapshot_id or 0), replaced, len(written), sum(file.known for file in made))


class Rows:
    """The rows of some files as a DataFrame, each with its file's index and its place in it."""

    def __init__(self, spark: Any, metadata: str, files: list[LiveFile]) -> None:
        from pyspark.sql import functions

        self._spark, self._functions, self.files = spark, functions, files
        listed = [(file.location, index, file.appended, file.date) for index, file in enumerate(files)]
        known = spark.createDataFrame(listed, "_file string, file int, appended boolean, date int")
        events = spark.read.format("iceberg").load(metadata)
        self._rows = (
            events.select("*", "_file", functions.col("_pos").alias("row")).join(functions.broadcast(known), "_file")
        )  # fmt: skip

    def _of_dates(self, dates: Iterable[int]) -> Any:
        days = [np.datetime64(date, "D").astype(object) for date in sorted(set(dates))]
        return self._rows.where(self._functions.col(DATE).isin(days))

    def _tasks(self, dates: Iterable[int]) -> int:
        wanted = set(dates)
        return max(-(-sum(file.rows for file in self.files if file.date in wanted) // TASK_ROWS), 1)

    def _by(self, frame: Any, column: str, tasks: int) -> Any:
        functions = self._functions
        return frame.groupBy(functions.pmod(functions.xxhash64(column), functions.lit(tasks)))

    def duplicates(self, dates: set[int]) -> Any:
        """``file``, ``row`` and ``hour`` (of receipt) of the rows to remove."""
        near = {date + day for date in dates for day in (-1, 0, 1)}
        keys = self._of_dates(near).select("event_id", "received_at", "file", "row", "appended")
        return self._by(keys, "event_id", self._tasks(near)).applyInArrow(_later, f"{_PLACE}, hour long")

    def changed_sessions(self, removed: Any, dates: set[int], gap_ms: int) -> Any:
        """``file``, ``row`` and the new ``session_id`` of the rows whose session is another one now."""
        keys = self._rows.select("device_id", "timestamp", "session_id", "date", "file", "row")
        keys = keys.join(removed.select("file", "row"), ["file", "row"], "left_anti")
        base = keys.where(self._functions.col("date").isin(sorted(dates)))
        wanted = base.unionByName(self._chained(keys, base, dates, gap_ms, -1))
        wanted = wanted.unionByName(self._chained(keys, base, dates, gap_ms, 1)).dropDuplicates(["file", "row"])

        def changed(rows: pa.Table) -> pa.Table:
            times = ms(rows.column("timestamp"))
            ids = sessions_of_hashes(device_hashes(rows.column("device_id")), times, gap_ms)
            other = np.flatnonzero(ids != rows.column("session_id").to_numpy())
            found = rows.select(["file", "row"]).take(pa.array(other))
            return found.append_column("session_id", pa.array(ids[other]))

        return self._by(wanted, "device_id", self._tasks(dates)).applyInArrow(changed, f"{_PLACE}, session_id long")

    def _chained(self, keys: Any, base: Any, dates: set[int], gap_ms: int, day: int) -> Any:
        """Rows before (``day`` -1) or after (1) the dates: whole dates of the devices that may have a session over their edge,
        and so on, as long as there are any."""
        functions = self._functions
        moment = functions.unix_millis("timestamp")
        found, covered, edges = base.limit(0), set(dates), {date for date in dates if date + day not in dates}
        newest = base
        while edges:
            close = functions.lit(False)
            for date in edges:
                begin = date * DAY_MS if day < 0 else (date + 1) * DAY_MS - gap_ms
                close |= moment.between(begin, begin + gap_ms)
            steps = range(1, -(-gap_ms // DAY_MS) + 1)
            near = {date + day * step for date in edges for step in steps} - covered
            devices = newest.where(close).select("device_id").distinct()
            newest = keys.where(functions.col("date").isin(sorted(near))).join(devices, "device_id", "left_semi")
            newest = newest.select(*base.columns).persist()
            if newest.isEmpty():
                break
            found, covered = found.unionByName(newest), covered | near
            edges = {date for date in near if date + day not in covered}
        return found

    def flagged(self) -> Iterator[int]:
        """Old files with rows that are flagged as unknown."""
        return (index for index, file in enumerate(self.files) if file.kind is Kind.FLAGGED)

    def known(self, files: set[int], enrich: Enrich) -> set[int]:
        """Those of these files of which ``enrich`` knows a flagged row."""
        functions = self._functions
        if not files:
            return set()
        rows = self._of_dates(self.files[index].date for index in files).where(
            functions.col("file").isin(sorted(files))
        )
        rows = rows.where(functions.col("flags").bitwiseAND(_UNKNOWN) != 0).select(*EVENT.names, "file")

        def knows(given: pa.Table) -> pa.Table:
            known = enriched(to_batch(stored(given)), enrich)[1]
            return given.select(["file"]).slice(0, int(known > 0))

        return {row.file for row in rows.groupBy("file").applyInArrow(knows, "file int").collect()}

    def written(
        self, removed: Any, sessions: Any, packs: list[list[int]], storage: Storage, folder: str, enrich: Enrich | None
    ) -> list[Any]:
        """``WRITTEN`` of the files that the executors make of the packs."""
        run = uuid.uuid4().hex
        listed = [(index, number, place) for number, pack in enumerate(packs) for place, index in enumerate(pack)]
        places = self._spark.createDataFrame(listed, "file int, pack int, place int")
        moved = sessions.withColumnRenamed("session_id", "session_now")
        rows = (
            self._rows.join(self._functions.broadcast(places), "file")
            .join(removed.select("file", "row"), ["file", "row"], "left_anti")
            .join(moved, ["file", "row"], "left")
            .withColumn("session_id", self._functions.coalesce("session_now", "session_id"))
            .select(*EVENT.names, DATE, GROUP, "pack", "place", "row")
        )
        made = rows.groupBy("pack").applyInArrow(pack_writer(storage, folder, run, enrich), WRITTEN)
        found: list[Any] = made.collect()
        return found


def _later(rows: pa.Table) -> pa.Table:
    """Of rows with the same event id, one of them new, all but the first received; of equal times the older file's stays."""
    ids = words(rows.column("event_id").cast(pa.binary(16)))
    received = ms(rows.column("received_at"))
    of_file, of_row = rows.column("file").to_numpy(), rows.column("row").to_numpy()
    order = np.lexsort((of_row, of_file, received, ids[:, 1], ids[:, 0]))
    ordered = ids[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    number = np.cumsum(begins) - 1
    new = np.zeros(int(number[-1]) + 1 if len(number) else 0, np.bool_)
    new[number[rows.column("appended").to_numpy()[order]]] = True
    again = order[~begins & new[number]]
    hours = received[again] // HOUR_MS * HOUR_MS
    return pa.table({"file": of_file[again], "row": of_row[again], "hour": hours})
