"""Compaction: few large files, no duplicates, exact sessions, in a commit for each group of dates.

It reads the snapshot that it finds, writes new files beside the old ones, and replaces exactly the files that it read.
Appends that land meanwhile stay, and wait for the next run: which files a compaction has been over shows in their names. So
a run that is killed has done its groups, and the next one goes on with the others.

A group is new files of some dates, no more than fit the memory. It is compacted as if the new files of later groups had not
come yet; since sessions and duplicates are right after each compaction whatever came when, they are right after all of them.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction

from eventmill.core.tombstones import Tombstone
from eventmill.lake import duplicates as duplicate_rows
from eventmill.lake import offsets, recompute
from eventmill.lake.aggregates import retired
from eventmill.lake.duplicates import by_hour, duplicates
from eventmill.lake.files import DAY_MS, THREADS, FileWriter, Indices, memory_bytes, read_stored, require, uncommitted
from eventmill.lake.forget import covered
from eventmill.lake.iceberg import FORGOTTEN, REMOVED, Kind, LakeTable, LiveFile, added
from eventmill.lake.lock import exclusive
from eventmill.lake.merge import Changes, Enrich, Merger, Progress, enriched, unknown
from eventmill.lake.recompute import changed_sessions
from eventmill.lake.replace import replace_files

#: A file of fewer rows is merged again when its partition is written to.
MERGE_ROWS: Final = 250_000
#: Files grow no larger than this by merging.
FILE_ROWS_MAX: Final = 1_000_000
#: What a compaction's rows take at once.
MEMORY_BYTES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What is held at once: keys of rows while sessions and duplicates are sought; the rows of a file, one a thread, beside
    what is to change in a group's rows."""

    keys_max: int
    ids_max: int
    group_rows_max: int
    file_bytes_max: int

    @classmethod
    def of(cls, memory_bytes: int) -> Limits:
        """A quarter for what is to change (a row and its session's id), half for keys or for the files' rows."""
        return cls(
            keys_max=max(memory_bytes // 2 // recompute.ROW_BYTES, 1),
            ids_max=max(memory_bytes // 2 // duplicate_rows.ROW_BYTES, 1),
            group_rows_max=max(memory_bytes // 4 // 16, 1),
            file_bytes_max=max(memory_bytes // 2 // THREADS, 1),
        )


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

    def and_then(self, later: CompactReport) -> CompactReport:
        """Both as one."""
        names = ("files_read", "files_written", "rows_read", "duplicates", "sessions_changed", "enriched", "forgotten")
        sums = {name: getattr(self, name) + getattr(later, name) for name in names}
        snapshot_id = self.snapshot_id if later.snapshot_id is None else later.snapshot_id
        return CompactReport(snapshot_id, **sums, dates=tuple(sorted({*self.dates, *later.dates})))


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
    memory_bytes: int = MEMORY_BYTES,
    progress: Progress = lambda _done, _total: None,
    enrich: Enrich | None = None,
    forget: Tombstone | None = None,
    dry_run: bool = False,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> CompactReport:
    """Compact what was appended since the last time; ``dry_run`` only says what would be done.

    ``progress`` is told rows done and rows in all. ``gap_ms`` is the sessions' gap; ``enrich`` gets the rows whose dimensions
    or schema are unknown (EVENT) and gives them back, in any order; rows that ``forget`` covers are left out, in one commit;
    ``now_ms`` goes into the snapshot's summary; ``memory_bytes`` bounds what the rows take. Raises ``DataFolderBusy`` when
    another compaction runs, ``StateError`` when one has replaced the files that this one read, ``StoreError`` when the store
    fails; the groups of dates that were done stay done then, and the rest is as before.
    """
    with exclusive(lake.folder):
        table = lake.load()
        snapshot = table.current_snapshot()
        if snapshot is None:
            return CompactReport()
        offsets.carried(snapshot)
        limits = Limits.of(memory_bytes)
        files = lake.live_files(table)
        if dry_run or forget is not None:
            groups = [{file.location for file in files if file.appended}]
        else:
            groups = groups_of(files, limits.group_rows_max)
        entries = {offsets.COMPACTED_THROUGH: str(snapshot.snapshot_id), offsets.COMPACTED_AT: str(now_ms)}
        run = _Run(lake, gap_ms, limits, enrich, forget, dry_run, checkpoint, entries)
        report, waiting = CompactReport(), sum(file.rows for file in files if file.appended)
        for group in groups:
            before = report.rows_read
            waiting -= sum(file.rows for file in files if file.location in group)

            def told(done: int, total: int, before: int = before, waiting: int = waiting) -> None:
                progress(before + done, before + total + waiting)

            last = replace(run, enrich_old=group is groups[-1])
            report = report.and_then(last.group(group, told))
    return report


def groups_of(files: list[LiveFile], rows_max: int) -> list[set[str]]:
    """The locations of the new files, in groups of up to so many rows, by date; at least one group, of none if need be.

    A date's rows are counted whole, once, because its sessions are computed whole.
    """
    rows_of: Counter[int] = Counter()
    new: dict[int, list[LiveFile]] = defaultdict(list)
    for file in files:
        rows_of[file.date] += 0 if file.appended else file.rows
        if file.appended:
            new[file.date].append(file)
    groups: list[set[str]] = [set()]
    rows = 0
    for date in sorted(new):
        extra = rows_of[date]
        for file in new[date]:
            if groups[-1] and rows + extra + file.rows > rows_max:
                groups.append(set())
                rows, extra = 0, rows_of[date]
            groups[-1].add(file.location)
            rows, extra = rows + extra + file.rows, 0
    return groups


@dataclass(frozen=True, slots=True)
class _Run:
    """A compaction; see ``compact``."""

    lake: LakeTable
    gap_ms: int
    limits: Limits
    enrich: Enrich | None
    forget: Tombstone | None
    dry_run: bool
    checkpoint: Callable[[str], None]
    entries: dict[str, str]
    #: Whether old files with flagged rows are looked at too.
    enrich_old: bool = True

    def group(self, new: set[str], progress: Progress) -> CompactReport:
        """Compact the files that were there before, and those of the new ones."""
        lake = self.lake
        table = lake.load()
        files = [file for file in lake.live_files(table) if not file.appended or file.location in new]
        frozen = retired(table).sessions_frozen_before
        plan = _plan(files, self.gap_ms, self.enrich if self.enrich_old else None, self.forget, self.limits, frozen)
        if not plan.packs:
            return CompactReport()
        if self.dry_run:
            return plan.report(None, len(plan.packs))
        with uncommitted(lake) as paths:
            changes = Changes(files, plan.removed, plan.sessions)
            merger = Merger(FileWriter(lake, table), changes, self.enrich, progress)
            written = merger.merge(plan.packs, uuid.uuid4().hex, paths)
            plan.enriched = merger.enriched
            self.checkpoint("files written")
            gone = by_hour(plan.files, plan.removed)
            forgotten = by_hour(plan.files, plan.forgotten)
            gone.subtract(forgotten)
            hours = {REMOVED: +gone, FORGOTTEN: forgotten}

            def stage(newest: Table, transaction: Transaction) -> int:
                require(lake.storage, paths)
                self.checkpoint("before commit")
                return stage_replacement(lake, newest, transaction, plan.replaced, written, self.entries, hours)

            snapshot_id = lake.commit(stage)
        self.checkpoint("committed")
        return plan.report(snapshot_id, len(written))


def _plan(
    files: list[LiveFile],
    gap_ms: int,
    enrich: Enrich | None,
    forget: Tombstone | None,
    limits: Limits,
    frozen_before: int,
) -> _Plan:
    new = {index for index, file in enumerate(files) if file.appended}
    dates = {files[index].date for index in new}
    removed = duplicates(files, dates, rows_max=limits.ids_max) if new else {}
    forgotten = {} if forget is None else covered(files, forget, removed)
    removed = {index: _both(removed.get(index), forgotten.get(index)) for index in {*removed, *forgotten}}
    # A removed row may have held a session together that reaches into the next date.
    reach = range(gap_ms // DAY_MS + 2)
    dates |= {files[index].date + days for index in removed for days in reach}
    dates = {date for date in dates if date >= frozen_before}
    sessions = {}
    if new or removed:
        sessions = changed_sessions(files, removed, dates, gap_ms, rows_max=limits.keys_max)
    chosen = new | set(removed) | set(sessions)
    if enrich is not None:
        flagged = (index for index, file in enumerate(files) if file.kind is Kind.FLAGGED and index not in chosen)
        chosen |= {index for index in flagged if _knows(enrich, files[index])}
    return _Plan(files, removed, forgotten, sessions, dates, packs_of(files, chosen, limits.file_bytes_max))


def _both(one: Indices | None, other: Indices | None) -> Indices:
    return np.sort(np.concatenate([each for each in (one, other) if each is not None]))


def _knows(enrich: Enrich, file: LiveFile) -> bool:
    """Whether any of the file's flagged rows is known now."""
    flagged = (batch.filter(unknown(batch)) for batch in read_stored(file))
    return any(len(batch) and enriched(batch, enrich)[1] for batch in flagged)


def packs_of(files: list[LiveFile], chosen: set[int], bytes_max: int) -> list[list[int]]:
    """Which files become one: of a partition the chosen ones and the small ones, by time, up to the limits."""
    partitions: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        partitions[file.date, file.group].append(index)
    packs = []
    for members in partitions.values():
        if chosen.isdisjoint(members):
            continue
        sizes = {
            index: memory_bytes(files[index]) for index in members if index in chosen or files[index].rows < MERGE_ROWS
        }
        # A file of few, wide rows is small no more.
        taken = [index for index, size in sizes.items() if index in chosen or size < bytes_max // 4]
        pack: list[int] = []
        rows = size = 0
        for index in sorted(taken, key=lambda index: files[index].start_ms):
            if pack and (rows + files[index].rows > FILE_ROWS_MAX or size + sizes[index] > bytes_max):
                packs.append(pack)
                pack, rows, size = [], 0, 0
            pack.append(index)
            rows, size = rows + files[index].rows, size + sizes[index]
        packs.append(pack)
    # A small file that is left alone would only be written again as it is.
    return [pack for pack in packs if len(pack) > 1 or pack[0] in chosen]


def stage_replacement(
    lake: LakeTable,
    table: Table,
    transaction: Transaction,
    replaced: list[LiveFile],
    files: Iterable[DataFile],
    entries: dict[str, str],
    hours: dict[str, Counter[int]],
) -> int:
    """Stage the replacement on the newest snapshot, whose entries are copied forward."""
    properties: dict[str, str] = {}
    for name, counts in hours.items():
        if counts:
            properties |= added(table, name, counts)
    return replace_files(lake, table, transaction, replaced, files, entries=entries, properties=properties)
