"""Appending exactly once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from eventmill.core.errors import StateError, StoreError
from eventmill.lake import files as lake_files
from eventmill.lake import offsets
from eventmill.lake.iceberg import CommitUnknown
from eventmill.lake.table import Lake
from eventmill.lake.writer import LakeWriter
from lake_events import GROUP, START_MS, batch, data_files, row, rows_of


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def ids(lake: Lake) -> list[bytes]:
    return [entry["event_id"] for entry in rows_of(lake)]


def test_the_same_range_twice_is_stored_once(lake: Lake) -> None:
    events = batch(row(i) for i in range(5))
    for _ in range(3):
        lake.append(events, group=GROUP, ranges={0: (0, 4)})
    lake.append(events, group=GROUP, ranges={0: (0, 2)})
    assert len(ids(lake)) == 5
    assert lake.committed_offset() == 4
    assert len(lake.load().metadata.snapshots) == 1


def test_a_lake_that_is_opened_again_goes_on(tmp_path: Path) -> None:
    Lake(tmp_path / "lake").append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    again = Lake(tmp_path / "lake")
    # In a thread, so that one that waits for itself is seen.
    work = threading.Thread(
        target=again.append, args=(batch([row(2)]),), kwargs={"group": GROUP, "ranges": {0: (1, 2)}}, daemon=True
    )
    work.start()
    work.join(60)
    assert not work.is_alive()
    assert again.committed_offset() == 2


@pytest.mark.parametrize(("first", "following"), [(5, 6), (2, 6)])
def test_a_gap_and_an_overlap_are_refused(lake: Lake, first: int, following: int) -> None:
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 4)})
    before = data_files(lake)
    with pytest.raises(StateError, match="next offset is 4"):
        lake.append(batch([row(2)]), group=GROUP, ranges={0: (first, following)})
    assert data_files(lake) == before
    assert len(ids(lake)) == 1


def test_another_group_is_refused(lake: Lake) -> None:
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    with pytest.raises(StateError, match="group"):
        lake.append(batch([row(2)]), group="another", ranges={0: (1, 2)})


def test_a_batch_without_rows_moves_the_offset(lake: Lake) -> None:
    lake.append(batch([]), group=GROUP, ranges={0: (0, 3)})
    assert lake.committed_offset() == 3
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (3, 4)})
    lake.append(batch([]), group=GROUP, ranges={0: (4, 9)})
    assert lake.committed_offset() == 9
    assert len(ids(lake)) == 1


def test_partitions_have_offsets_of_their_own(lake: Lake) -> None:
    other = LakeWriter(lake, topic="enriched")
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 7)})
    other.append(batch([row(2)]), group=GROUP, ranges={1: (0, 2)})
    lake.append(batch([row(3), row(4)]), group=GROUP, ranges={0: (7, 8), 1: (2, 5)})
    lake.append(batch([row(3), row(4)]), group=GROUP, ranges={0: (7, 8), 1: (2, 5)})
    assert (lake.committed_offset(), other.committed_offset(1)) == (8, 5)
    with pytest.raises(StateError, match="overlaps"):
        lake.append(batch([row(5)]), group=GROUP, ranges={0: (8, 9), 1: (3, 6)})
    assert len(ids(lake)) == 4


def test_a_zombie_adds_nothing(lake: Lake) -> None:
    """It has written its files when another writer commits the same range and the next one."""
    successor = Lake(lake.folder)

    def overtake(point: str) -> None:
        if point == "before commit" and successor.committed_offset() == 0:
            successor.append(batch([row(1), row(2)]), group=GROUP, ranges={0: (0, 2)})
            successor.append(batch([row(3)]), group=GROUP, ranges={0: (2, 3)})

    zombie = Lake(lake.folder, checkpoint=overtake)
    zombie.append(batch([row(1), row(2)]), group=GROUP, ranges={0: (0, 2)})
    assert len(ids(lake)) == 3
    assert lake.committed_offset() == 3
    assert data_files(lake) == {Path(file.path) for file in lake.live_files()}


def test_a_zombie_of_another_cut_is_refused(lake: Lake) -> None:
    def overtake(point: str) -> None:
        if point == "before commit" and lake.committed_offset() == 0:
            lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})

    zombie = Lake(lake.folder, checkpoint=overtake)
    with pytest.raises(StateError, match="overlaps"):
        zombie.append(batch([row(1), row(2)]), group=GROUP, ranges={0: (0, 2)})
    assert len(ids(lake)) == 1
    assert data_files(lake) == {Path(file.path) for file in lake.live_files()}


def test_racing_writers_store_every_range_once(lake: Lake) -> None:
    rounds, errors = 6, []
    barrier = threading.Barrier(3)

    def run() -> None:
        mine = Lake(lake.folder)
        for number in range(rounds):
            barrier.wait()
            try:
                rows = batch(row(number * 10 + i, event=f"event {i % 3}") for i in range(10))
                mine.append(rows, group=GROUP, ranges={0: (number, number + 1)})
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = ids(lake)
    assert len(found) == len(set(found)) == rounds * 10
    assert lake.committed_offset() == rounds
    assert data_files(lake) == {Path(file.path) for file in lake.live_files()}


def test_writers_of_different_partitions_do_not_lose_to_one_another(lake: Lake) -> None:
    errors: list[Exception] = []

    def run(partition: int) -> None:
        writer = LakeWriter(Lake(lake.folder), topic="enriched")
        try:
            for number in range(6):
                rows = batch([row(partition * 100 + number)])
                writer.append(rows, group=GROUP, ranges={partition: (number, number + 1)})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(partition,)) for partition in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(ids(lake))) == len(ids(lake)) == 18


def test_a_write_that_fails_leaves_nothing(lake: Lake) -> None:
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    before = data_files(lake)
    date = next(iter(before)).parent
    blocked = date.with_name("2026-05-29")
    blocked.write_text("in the way")
    rows = [row(2), row(3, timestamp=START_MS + 2 * 86_400_000)]
    with pytest.raises(StoreError, match="cannot write"):
        lake.append(batch(rows), group=GROUP, ranges={0: (1, 2)})
    assert data_files(lake) == before
    assert lake.committed_offset() == 1
    blocked.unlink()
    lake.append(batch(rows), group=GROUP, ranges={0: (1, 2)})
    assert len(ids(lake)) == 3


def test_files_that_were_removed_are_not_committed(lake: Lake) -> None:
    def clean_up(point: str) -> None:
        if point == "files written":
            lake_files.remove(lake.storage, set(map(str, data_files(lake))))

    careless = Lake(lake.folder, checkpoint=clean_up)
    with pytest.raises(StoreError, match="removed before its commit"):
        careless.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    assert lake.committed_offset() == 0


def test_a_commit_of_unknown_outcome_is_looked_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog fails after it has committed: the append has landed, and its files must stay."""
    landed = lake._catalog.commit_table

    def commit(*arguments: object) -> object:
        landed(*arguments)
        raise OSError("the connection broke")

    monkeypatch.setattr(lake._catalog, "commit_table", commit)
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    assert len(ids(lake)) == 1
    assert lake.committed_offset() == 1


def test_files_stay_while_nobody_knows_whether_they_were_committed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog commits, and is away before it says so."""
    catalog, landed = lake._catalog, lake._catalog.commit_table

    with monkeypatch.context() as patch:

        def away(*_: object) -> object:
            raise OSError("no route to the catalog")

        def commit(*arguments: object) -> object:
            landed(*arguments)
            patch.setattr(catalog, "load_table", away)
            raise OSError("the connection broke")

        patch.setattr(catalog, "commit_table", commit)
        with pytest.raises(CommitUnknown, match=r"the connection broke.*no route to the catalog"):
            lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    assert len(data_files(lake)) == 1
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    assert len(ids(lake)) == 1
    assert lake.committed_offset() == 1


def test_a_commit_that_did_not_land_leaves_no_files(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(*_: object) -> object:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(lake._catalog, "commit_table", commit)
        with pytest.raises(StoreError, match="the disk is full"):
            lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    assert data_files(lake) == set()
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    assert len(ids(lake)) == 1


def test_a_snapshot_without_offsets_stops_everything(lake: Lake) -> None:
    """Negative control: someone commits without carrying the offsets."""
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    table = lake.load()
    with table.transaction() as transaction, transaction.update_snapshot().fast_append():
        pass
    assert not offsets.has_offsets(lake.load().current_snapshot())
    with pytest.raises(StateError, match="carries no offsets"):
        lake.committed_offset()
    with pytest.raises(StateError, match="carries no offsets"):
        lake.append(batch([row(2)]), group=GROUP, ranges={0: (1, 2)})
