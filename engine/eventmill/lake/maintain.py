"""Keeping the table small: old snapshots, many manifests, and files that nothing refers to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pyiceberg.table import Table, Transaction
from pyiceberg.table.update.snapshot import ExpireSnapshots

from eventmill.lake import offsets
from eventmill.lake.iceberg import LakeTable
from eventmill.lake.lock import exclusive

#: A reader that began with a snapshot may go on for that long.
SNAPSHOT_AGE_MS: Final = 900_000
SNAPSHOTS_KEPT: Final = 10
MANIFESTS_MAX: Final = 100
#: An append in another process has that long from its first file to its commit.
GRACE_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class MaintainReport:
    """What was tidied."""

    snapshots_expired: int
    manifests_merged: int
    files_removed: int
    bytes_removed: int

    def as_dict(self) -> dict[str, int]:
        """For machines."""
        return asdict(self)


def maintain(
    lake: LakeTable,
    *,
    now_ms: int,
    snapshot_age_ms: int = SNAPSHOT_AGE_MS,
    snapshots_kept: int = SNAPSHOTS_KEPT,
    manifests_max: int = MANIFESTS_MAX,
    grace_ms: int = GRACE_MS,
) -> MaintainReport:
    """Expire, merge, remove. Run it after each compaction. Raises ``DataFolderBusy`` while one runs, ``StoreError``."""
    with exclusive(lake.folder):
        merged = merge_manifests(lake, manifests_max=manifests_max)
        expired = expire_snapshots(lake, older_than_ms=now_ms - snapshot_age_ms, kept=snapshots_kept)
        files, size = remove_orphans(lake, older_than_ms=now_ms - grace_ms)
    return MaintainReport(expired, merged, files, size)


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
        summary = offsets.carried(snapshot)
        with transaction.update_snapshot(snapshot_properties=summary).merge_append() as append:
            return int(append.snapshot_id)

    lake.commit(stage)
    return merged


def expire_snapshots(lake: LakeTable, *, older_than_ms: int, kept: int) -> int:
    """Forget snapshots committed before ``older_than_ms``, but not the ``kept`` newest, nor the newest with offsets."""
    expired: list[int] = []

    def stage(table: Table, transaction: Transaction) -> int | None:
        nonlocal expired
        expired = _expired(table, older_than_ms, kept)
        if not expired:
            return None
        ExpireSnapshots(transaction).by_ids(expired).commit()
        return int(table.current_snapshot().snapshot_id)

    lake.commit(stage)
    return len(expired)


def _expired(table: Table, older_than_ms: int, kept: int) -> list[int]:
    newest = sorted(table.metadata.snapshots, key=lambda snapshot: -snapshot.sequence_number)
    with_offsets = next((s.snapshot_id for s in newest if offsets.has_offsets(s)), None)
    return [
        snapshot.snapshot_id
        for snapshot in newest[max(kept, 1) :]
        if snapshot.timestamp_ms < older_than_ms and snapshot.snapshot_id != with_offsets
    ]


def remove_orphans(lake: LakeTable, *, older_than_ms: int) -> tuple[int, int]:
    """Delete files last written before ``older_than_ms`` that no snapshot and no append in flight refers to.

    Gives their number and bytes.
    """
    with lake.committing:
        # In this order: what another process commits while the folder is listed is found in the table, and so stays.
        found = [
            (path, status.st_size) for path, status in _files(lake.events) if status.st_mtime * 1000 < older_than_ms
        ]
        kept = lake.paths_in_flight() | referenced(lake)
        orphans = [(path, size) for path, size in found if path not in kept]
        for path, _ in orphans:
            Path(path).unlink(missing_ok=True)
    return len(orphans), sum(size for _, size in orphans)


def referenced(lake: LakeTable) -> set[str]:
    """The paths of all files that the table needs: of every snapshot, and the metadata that readers may have pinned."""
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


def _files(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield str(path), path.stat()
        except FileNotFoundError:
            continue  # an append that was given up removes its own
