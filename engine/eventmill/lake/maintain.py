"""Keeping the table small: old snapshots, many manifests, and files that nothing refers to.

Snapshots are forgotten soon, because every one makes every commit dearer; their files stay for a grace period, for the
sake of readers that began with them, and of appends whose files no snapshot refers to yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pyiceberg.table import Table, Transaction
from pyiceberg.table.update.snapshot import ExpireSnapshots

from eventmill.lake import offsets
from eventmill.lake.aggregates import Aggregates, AggregateTable, retired
from eventmill.lake.iceberg import LakeTable
from eventmill.lake.lock import exclusive
from eventmill.lake.storage import Storage
from eventmill.lake.versions import changed

SNAPSHOTS_KEPT: Final = 4
MANIFESTS_MAX: Final = 100
#: Longer than any query, and than any append in another process from its first file to its commit.
GRACE_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class MaintainReport:
    """What was tidied. ``files_waiting`` are referred to by nothing, and are removed when the grace period is over."""

    snapshots_expired: int
    manifests_merged: int
    files_removed: int
    bytes_removed: int
    files_waiting: int

    def as_dict(self) -> dict[str, int]:
        """For machines."""
        return asdict(self)


def maintain(
    lake: LakeTable,
    *,
    now_ms: int,
    snapshots_kept: int = SNAPSHOTS_KEPT,
    manifests_max: int = MANIFESTS_MAX,
    grace_ms: int = GRACE_MS,
) -> MaintainReport:
    """Merge, expire, remove. Run it after each compaction. Raises ``DataFolderBusy`` while one runs, ``StoreError``."""
    with exclusive(lake.folder):
        merged = merge_manifests(lake, manifests_max=manifests_max)
        expired = expire_snapshots(lake, kept=snapshots_kept)
        places = [remove_orphans(lake, now_ms=now_ms, grace_ms=grace_ms)]
        places += [
            _remove_aggregates(lake, table, now_ms=now_ms, grace_ms=grace_ms)
            for table in (Aggregates.of(lake).minutes, Aggregates.of(lake).sessions)
        ]
    removed, size, waiting = (sum(counts) for counts in zip(*places, strict=True))
    return MaintainReport(expired, merged, removed, size, waiting)


def merge_manifests(lake: LakeTable, *, manifests_max: int) -> int:
    """Make one manifest of all when there are more than ``manifests_max``; gives how many there were, or 0."""
    merged = 0

    def stage(table: Table, transaction: Transaction) -> int | None:
        nonlocal merged
        snapshot = table.current_snapshot()
        merged = 0 if snapshot is None else len(snapshot.manifests(table.io))
        if merged <= manifests_max:
            merged = 0
            return None
        # An append of nothing: the producer merges what is there, as the table's properties have it.
        summary = offsets.carried(snapshot) | changed([])
        with transaction.update_snapshot(snapshot_properties=summary).merge_append() as append:
            return int(append.snapshot_id)

    lake.commit(stage)
    return merged


def expire_snapshots(lake: LakeTable, *, kept: int) -> int:
    """Forget all snapshots but the ``kept`` newest and the newest with offsets; gives how many."""
    expired: list[int] = []

    def stage(table: Table, transaction: Transaction) -> int | None:
        nonlocal expired
        expired = _expired(table, kept)
        if not expired:
            return None
        ExpireSnapshots(transaction).by_ids(expired).commit()
        return int(table.current_snapshot().snapshot_id)

    lake.commit(stage)
    return len(expired)


def _expired(table: Table, kept: int) -> list[int]:
    newest = sorted(table.metadata.snapshots, key=lambda snapshot: -snapshot.sequence_number)
    with_offsets = next((s.snapshot_id for s in newest if offsets.has_offsets(s)), None)
    return [snapshot.snapshot_id for snapshot in newest[max(kept, 1) :] if snapshot.snapshot_id != with_offsets]


def remove_orphans(lake: LakeTable, *, now_ms: int, grace_ms: int) -> tuple[int, int, int]:
    """Delete the files that neither a snapshot nor an append in flight has referred to for ``grace_ms``.

    A file waits from the first call on that finds it to be an orphan: when it was written says nothing about when a
    compaction replaced it. Gives how many were deleted, their bytes, and how many wait.
    """
    with lake.committing:
        return _remove(
            lake.storage,
            lake.folder / "orphans.json",
            lambda: lake.paths_in_flight() | referenced(lake),
            now_ms,
            grace_ms,
        )


def _remove_aggregates(lake: LakeTable, table: AggregateTable, *, now_ms: int, grace_ms: int) -> tuple[int, int, int]:
    """The same for an aggregate table. Only who holds the maintenance lock writes there."""
    named = retired(lake.load())
    location = named.minutes if table.name == "events_1m" else named.sessions
    notes = lake.folder / f"orphans-{table.name}.json"
    return _remove(table.storage, notes, lambda: table.referenced(location), now_ms, grace_ms)


def _remove(
    storage: Storage, notes: Path, needed: Callable[[], set[str]], now_ms: int, grace_ms: int
) -> tuple[int, int, int]:
    since = _noted(notes)
    # In this order: what another process commits while the folder is listed is found in the table, and so stays.
    try:
        listed = storage.list()
        kept = needed()
        orphans = {path: size for path, size in listed if path not in kept}
        waiting = {path: since.get(storage.relative(path), now_ms) for path in orphans}
        due = [path for path, first_ms in waiting.items() if first_ms <= now_ms - grace_ms]
        for path in due:
            storage.remove(path)
            del waiting[path]
    except OSError as error:
        raise storage.failure("the lake's clean-up did not come to its end", error) from error
    if waiting or since:
        _note(notes, {storage.relative(path): first_ms for path, first_ms in waiting.items()})
    return len(due), sum(orphans[path] for path in due), len(waiting)


def _noted(notes: Path) -> dict[str, int]:
    try:
        found = json.loads(notes.read_bytes())
        return {str(path): int(first_ms) for path, first_ms in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # then the waiting begins anew, which harms nothing


def _note(notes: Path, waiting: dict[str, int]) -> None:
    temporary = notes.with_suffix(".new")
    temporary.write_text(json.dumps(waiting), encoding="utf-8")
    temporary.replace(notes)


def referenced(lake: LakeTable) -> set[str]:
    """The paths of all files that the table needs: of every snapshot, and the metadata that it lists itself."""
    table = lake.load()
    locations = {table.metadata_location} | {entry.metadata_file for entry in table.metadata.metadata_log}
    read: set[str] = set()
    for snapshot in table.metadata.snapshots:
        locations.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in read:
                read.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                locations |= {entry.data_file.file_path for entry in entries}
    return {lake.local(location) for location in locations | read}
