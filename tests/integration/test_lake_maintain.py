"""Expiring, merging and removing, without taking anything that is needed."""

from __future__ import annotations

import json
from pathlib import Path

import chdb
import pytest

from eventmill.core.errors import DataFolderBusy
from eventmill.lake import maintain as module
from eventmill.lake.compact import compact
from eventmill.lake.lock import exclusive
from eventmill.lake.maintain import maintain, merge_manifests, referenced, remove_orphans
from eventmill.lake.table import Lake
from eventmill.lake.writer import SNAPSHOTS_MAX
from lake_events import GAP_MS, GROUP, batch, data_files, row, rows_of

LATER_MS = 1 << 50


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def fill(lake: Lake, appends: int) -> None:
    for number in range(lake.committed_offset(), lake.committed_offset() + appends):
        rows = batch(row(number * 3 + i, event=f"event {i}") for i in range(3))
        lake.append(rows, group=GROUP, ranges={0: (number, number + 1)})


def files(lake: Lake) -> set[Path]:
    return {path for path in lake.events.rglob("*") if path.is_file()}


def test_what_compaction_replaced_goes_once_its_snapshots_have_expired(lake: Lake) -> None:
    fill(lake, 5)
    compact(lake, gap_ms=GAP_MS, now_ms=0)
    before = rows_of(lake)
    first = maintain(lake, now_ms=0, snapshots_kept=10, grace_ms=1_000)
    assert (first.snapshots_expired, first.files_removed, len(data_files(lake))) == (0, 0, 18)
    second = maintain(lake, now_ms=5_000, snapshots_kept=1, grace_ms=1_000)
    assert (second.snapshots_expired, len(data_files(lake))) == (5, 18)
    assert second.files_waiting > 15
    early = maintain(lake, now_ms=5_999, snapshots_kept=1, grace_ms=1_000)
    assert (early.files_removed, len(data_files(lake))) == (0, 18)
    last = maintain(lake, now_ms=6_000, snapshots_kept=1, grace_ms=1_000)
    assert last.files_removed == second.files_waiting
    assert last.bytes_removed > 15 * 1000
    assert last.as_dict()["files_waiting"] == 0
    assert rows_of(lake) == before
    assert data_files(lake) == {Path(file.path) for file in lake.live_files()}
    assert {str(path) for path in files(lake)} == referenced(lake)
    assert lake.committed_offset() == 5
    fill(lake, 1)
    assert len(rows_of(lake)) == 18


def test_a_reader_goes_on_with_a_snapshot_that_expired(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lake.folder)
    fill(lake, 2)
    source = lake.source_sql()
    compact(lake, gap_ms=GAP_MS, now_ms=0)
    fill(lake, SNAPSHOTS_MAX + 4)
    assert len(lake.load().metadata.snapshots) <= SNAPSHOTS_MAX + 1
    maintain(lake, now_ms=10, snapshots_kept=1)
    maintain(lake, now_ms=20, snapshots_kept=1)
    connection = chdb.connect(":memory:")
    try:
        assert str(connection.query(f"SELECT count(), sum(length(event)) FROM {source}")).strip() == "6,42"
    finally:
        connection.close()


def test_orphans_are_removed_after_the_grace_period(lake: Lake) -> None:
    fill(lake, 1)
    folder = next(iter(data_files(lake))).parent
    data, manifest = folder / "appended-x.parquet", lake.events / "metadata/x.avro"
    data.write_bytes(b"12345")
    assert remove_orphans(lake, now_ms=100, grace_ms=50) == (0, 0, 1)
    manifest.write_bytes(b"1234567")
    assert remove_orphans(lake, now_ms=149, grace_ms=50) == (0, 0, 2)
    assert remove_orphans(lake, now_ms=150, grace_ms=50) == (1, 5, 1)
    assert not data.exists()
    (lake.folder / "orphans.json").write_text("{ torn")
    assert remove_orphans(lake, now_ms=199, grace_ms=50) == (0, 0, 1)
    assert remove_orphans(lake, now_ms=249, grace_ms=50) == (1, 7, 0)
    assert len(rows_of(lake)) == 3


def test_a_file_that_is_referred_to_again_starts_anew(lake: Lake) -> None:
    fill(lake, 1)
    (path, *_) = data_files(lake)
    (lake.folder / "orphans.json").write_text(json.dumps({str(path.relative_to(lake.events)): 0}))
    assert remove_orphans(lake, now_ms=LATER_MS, grace_ms=1) == (0, 0, 0)
    assert json.loads((lake.folder / "orphans.json").read_text()) == {}


def test_files_of_an_append_in_flight_stay(lake: Lake) -> None:
    removed: list[tuple[int, int, int]] = []

    def clean_up(point: str) -> None:
        if point == "files written":
            removed.append(remove_orphans(writing, now_ms=LATER_MS, grace_ms=0))

    writing = Lake(lake.folder, checkpoint=clean_up)
    rows = batch(row(i, event=f"event {i}") for i in range(3))
    writing.append(rows, group=GROUP, ranges={0: (0, 1)})
    assert len(removed) == 1
    assert len(rows_of(lake)) == 3


def test_the_newest_snapshot_with_offsets_never_expires(lake: Lake) -> None:
    fill(lake, 2)
    with_offsets = lake.load().current_snapshot().snapshot_id
    for _ in range(3):
        with lake.load().transaction() as transaction, transaction.update_snapshot().fast_append():
            pass
    module.expire_snapshots(lake, kept=1)
    table = lake.load()
    ids = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
    assert ids == {with_offsets, table.current_snapshot().snapshot_id}
    # The cure that the error names.
    with lake.load().manage_snapshots() as manage:
        manage.set_current_snapshot(snapshot_id=with_offsets)
    assert lake.committed_offset() == 2


def test_manifests_become_one(lake: Lake) -> None:
    fill(lake, 6)
    before = rows_of(lake)
    assert merge_manifests(lake, manifests_max=6) == 0
    assert merge_manifests(lake, manifests_max=5) == 6
    table = lake.load()
    assert len(table.current_snapshot().manifests(table.io)) == 1
    assert rows_of(lake) == before
    assert lake.committed_offset() == 6
    compact(lake, gap_ms=GAP_MS, now_ms=0)
    fill(lake, 1)
    assert len(rows_of(lake)) == 21


def test_an_empty_lake_is_left_alone(lake: Lake) -> None:
    report = maintain(lake, now_ms=LATER_MS)
    assert (report.snapshots_expired, report.manifests_merged, report.files_removed) == (0, 0, 0)
    fill(lake, 1)


def test_it_keeps_away_from_a_compaction(lake: Lake) -> None:
    with exclusive(lake.folder), pytest.raises(DataFolderBusy):
        maintain(lake, now_ms=LATER_MS)


def test_an_append_between_is_no_conflict(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, 4)
    sink = Lake(lake.folder)
    expired = module._expired
    between = iter([True])

    def with_an_append(*arguments: object) -> list[int]:
        found = expired(*arguments)
        if next(between, False):
            fill(sink, 1)
        return found

    monkeypatch.setattr(module, "_expired", with_an_append)
    assert module.expire_snapshots(lake, kept=2) == 2
    assert len(rows_of(lake)) == 15
    assert lake.committed_offset() == 5
