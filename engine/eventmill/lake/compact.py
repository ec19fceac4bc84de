"""Compaction: few large files, no duplicates, exact sessions, in one commit.

It reads the snapshot that it finds, writes new files beside the old ones, and replaces exactly the files that it read.
Appends that land meanwhile stay, and wait for the next run: which files a compaction has been over shows in their names.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction

from eventmill.core.errors import StateError, StoreError
from eventmill.core.frame import to_batch
from eventmill.core.schema import EVENT, Flag
from eventmill.core.tombstones import Tombstone
from eventmill.lake import offsets
from eventmill.lake.duplicates import by_hour, duplicates
from eventmill.lake.files import DAY_MS, FileWriter, Indices, encoded, parquet, read, remove, require
from eventmill.lake.forget import covered
from eventmill.lake.iceberg import FORGOTTEN, REMOVED, CommitUnknown, Kind, LakeTable, LiveFile, added
from eventmill.lake.lock import exclusive
from eventmill.lake.recompute import changed_sessions
from eventmill.lake.versions import changed

#: A file of fewer rows is merged again when its partition is written to.
MERGE_ROWS: Final = 250_000
#: Files grow no larger than this by merging.
FILE_ROWS_MAX: Final = 1_000_000
FILE_BYTES_MAX: Final = 1 << 30

Enrich = Callable[[pa.RecordBatch], pa.RecordBatch]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did, or would do. ``snapshot_id`` is null when nothing was done; ``dates`` are those computed anew."""

    snapshot_id: int | None = None
    files_read: int = 0
    files_written: int = 0
    rows_read: int = 0
    duplicates: int = 0
    sessions_changed: int = 0
    enriched: int = 0
    forgotten: int = 0
    dates: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


@dataclass(slots=True)
class _Plan:
    """What is to change: per index of ``files``, rows to remove (of them ``forgotten``) and new session ids."""

    files: list[LiveFile]
    removed: dict[int, Indices]
    forgotten: dict[int, Indices]
    sessions: dict[int, tuple[Indices, Indices]]
    dates: set[int]
    packs: list[list[int]] = field(default_factory=list)
    enriched: int = 0

    @property
    def replaced(self) -> list[LiveFile]:
        """The files that go."""
        return [self.files[index] for pack in self.packs for index in pack]

    def report(self, snapshot_id: int | None, files_written: int) -> CompactReport:
        """What was done, or would be."""
        return CompactReport(
            snapshot_id,
            files_read=len(self.replaced),
            files_written=files_written,
            rows_read=sum(file.rows for file in self.replaced),
            duplicates=sum(map(len, self.removed.values())) - self.rows_forgotten,
            sessions_changed=sum(len(rows) for rows, _ in self.sessions.values()),
            enriched=self.enriched,
            forgotten=self.rows_forgotten,
            dates=tuple(np.array(sorted(self.dates), "datetime64[D]").astype(str).tolist()),
        )

    @property
    def rows_forgotten(self) -> int:
        """How many."""
        return sum(map(len, self.forgotten.values()))


def compact(
    lake: LakeTable,
    *,
    gap_ms: int,
    now_ms: int,
    progress: Progress = lambda _done, _total: None,
    enrich: Enrich | None = None,
    forget: Tombstone | None = None,
    dry_run: bool = False,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> CompactReport:
    """Compact what was appended since the last time; ``dry_run`` only says what would be done.

    ``progress`` is told rows done and rows in all. ``gap_ms`` is the sessions' gap; ``enrich`` gets the rows whose dimensions
    or schema are unknown (EVENT) and gives them back, in any order; rows that ``forget`` covers are left out; ``now_ms`` goes
    into the snapshot's summary. Raises ``DataFolderBusy`` when another compaction runs, ``StateError`` when one has replaced
    the files that this one read, ``StoreError`` when the store fails; the table is as before then.
    """
    with exclusive(lake.folder), lake.in_flight() as paths:
        table = lake.load()
        snapshot = table.current_snapshot()
        if snapshot is None:
            return CompactReport()
        offsets.carried(snapshot)
        plan = _plan(lake.live_files(table), gap_ms, enrich, forget)
        if not plan.packs:
            return CompactReport()
        if dry_run:
            return plan.report(None, len(plan.packs))
        try:
            files = _write(lake, table, plan, enrich, paths, progress)
            checkpoint("files written")
            entries = {offsets.COMPACTED_THROUGH: str(snapshot.snapshot_id), offsets.COMPACTED_AT: str(now_ms)}
            gone = by_hour(plan.files, plan.removed)
            forgotten = by_hour(plan.files, plan.forgotten)
            gone.subtract(forgotten)
            hours = {REMOVED: +gone, FORGOTTEN: forgotten}

            def stage(newest: Table, transaction: Transaction) -> int:
                require(lake.storage, paths)
                checkpoint("before commit")
                return _stage(lake, newest, transaction, plan.replaced, files, entries, hours)

            snapshot_id = lake.commit(stage)
        except CommitUnknown:
            raise
        except Exception:
            remove(lake.storage, paths)
            raise
        checkpoint("committed")
    return plan.report(snapshot_id, len(files))


def _plan(files: list[LiveFile], gap_ms: int, enrich: Enrich | None, forget: Tombstone | None) -> _Plan:
    new = {index for index, file in enumerate(files) if file.appended}
    dates = {files[index].date for index in new}
    removed = duplicates(files, dates) if new else {}
    forgotten = {} if forget is None else covered(files, forget, removed)
    removed = {index: _both(removed.get(index), forgotten.get(index)) for index in {*removed, *forgotten}}
    # A removed row may have held a session together that reaches into the next date.
    reach = range(gap_ms // DAY_MS + 2)
    dates |= {files[index].date + days for index in removed for days in reach}
    sessions = changed_sessions(files, removed, dates, gap_ms) if new or removed else {}
    chosen = new | set(removed) | set(sessions)
    if enrich is not None:
        flagged = (index for index, file in enumerate(files) if file.kind is Kind.FLAGGED and index not in chosen)
        chosen |= {index for index in flagged if _enrich(read(files[index]), enrich)[1]}
    return _Plan(files, removed, forgotten, sessions, dates, _packs(files, chosen))


def _both(one: Indices | None, other: Indices | None) -> Indices:
    return np.sort(np.concatenate([each for each in (one, other) if each is not None]))


def _packs(files: list[LiveFile], chosen: set[int]) -> list[list[int]]:
    """Which files become one: of a partition the chosen ones and the small ones, by time, up to the limits."""
    partitions: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        partitions[file.date, file.group].append(index)
    packs = []
    for members in partitions.values():
        if chosen.isdisjoint(members):
            continue
        taken = [index for index in members if index in chosen or files[index].rows < MERGE_ROWS]
        pack: list[int] = []
        rows = size = 0
        for index in sorted(taken, key=lambda index: files[index].start_ms):
            more = _uncompressed(files[index])
            if pack and (rows + files[index].rows > FILE_ROWS_MAX or size + more > FILE_BYTES_MAX):
                packs.append(pack)
                pack, rows, size = [], 0, 0
            pack.append(index)
            rows, size = rows + files[index].rows, size + more
        packs.append(pack)
    return packs


def _uncompressed(file: LiveFile) -> int:
    with parquet(file) as opened:
        metadata = opened.metadata
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def _write(
    lake: LakeTable, table: Table, plan: _Plan, enrich: Enrich | None, paths: set[str], progress: Progress
) -> list[DataFile]:
    writer = FileWriter(lake, table)
    run = uuid.uuid4().hex
    total = sum(file.rows for file in plan.replaced)
    done = 0
    written = []
    progress(done, total)
    for number, pack in enumerate(plan.packs):
        rows = pa.concat_tables([_rows(plan, index) for index in pack])
        done += sum(plan.files[index].rows for index in pack)
        if rows.num_rows:
            if enrich is not None:
                rows, count = _enrich(rows, enrich)
                plan.enriched += count
            kind = Kind.FLAGGED if pc.any(_unknown(rows)).as_py() else Kind.COMPACTED
            order = np.argsort(rows.column("timestamp").cast(pa.int64()).to_numpy(), kind="stable")
            ordered = encoded(rows.combine_chunks()).take(pa.array(order))
            first = plan.files[pack[0]]
            written.append(writer.write(ordered, first.date, first.group, f"{kind}-{run}-{number:05d}", paths))
        progress(done, total)
    return written


def _rows(plan: _Plan, index: int) -> pa.Table:
    """A file's rows as they are to be."""
    rows = read(plan.files[index])
    if index in plan.sessions:
        sessions = rows.column("session_id").to_numpy().copy()
        at, ids = plan.sessions[index]
        sessions[at] = ids
        rows = rows.set_column(EVENT.get_field_index("session_id"), EVENT.field("session_id"), pa.array(sessions))
    if index in plan.removed:
        keep = np.ones(rows.num_rows, np.bool_)
        keep[plan.removed[index]] = False
        rows = rows.filter(pa.array(keep))
    return rows


def _unknown(rows: pa.Table) -> pa.ChunkedArray:
    return pc.not_equal(pc.bit_wise_and(rows.column("flags"), int(Flag.DIMENSIONS_UNKNOWN | Flag.SCHEMA_UNKNOWN)), 0)


def _enrich(rows: pa.Table, enrich: Enrich) -> tuple[pa.Table, int]:
    """The rows, those of unknown dimensions enriched again, and how many are known now."""
    unknown = _unknown(rows)
    before = pc.sum(unknown).as_py() or 0
    if not before:
        return rows, 0
    again = pa.Table.from_batches([enrich(to_batch(rows.filter(unknown)))]).select(EVENT.names).cast(EVENT)
    if again.num_rows != before:
        raise StoreError(f"enriching gave {again.num_rows} rows for {before}; it must give every row back")
    known = before - (pc.sum(_unknown(again)).as_py() or 0)
    return pa.concat_tables([rows.filter(pc.invert(unknown)), again]), known


def _stage(
    lake: LakeTable,
    table: Table,
    transaction: Transaction,
    replaced: list[LiveFile],
    files: Iterable[DataFile],
    entries: dict[str, str],
    hours: dict[str, Counter[int]],
) -> int:
    """Stage the replacement on the newest snapshot, whose entries are copied forward."""
    live = {file.location for file in lake.live_files(table)}
    if not live.issuperset(file.location for file in replaced):
        raise StateError("another compaction has replaced files that this one read; nothing was changed, run it again")
    for name, counts in hours.items():
        if counts:
            transaction.set_properties(added(table, name, counts))
    written = list(files)
    dates = changed([*(old.date for old in replaced), *(new.partition[0] for new in written)])
    summary = {**offsets.carried(table.current_snapshot()), **entries, **dates}
    with transaction.update_snapshot(snapshot_properties=summary).overwrite() as overwrite:
        # Else a filter of one term for each partition would be evaluated for every manifest.
        overwrite.delete_by_predicate(AlwaysTrue())
        for old in replaced:
            overwrite.delete_data_file(old.data_file)
        for new in written:
            overwrite.append_data_file(new)
    return int(overwrite.snapshot_id)
