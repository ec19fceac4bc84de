"""Compaction: the same events, in fewer files, with the sessions of an exact batch computation."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eventmill.core.errors import DataFolderBusy, StateError, StoreError
from eventmill.core.schema import EVENT, Flag
from eventmill.core.tombstones import Tombstone, digest
from eventmill.lake import compact as module
from eventmill.lake import offsets, recompute
from eventmill.lake.compact import CompactReport, compact
from eventmill.lake.lock import exclusive
from eventmill.lake.table import Lake
from lake_events import (
    DAY_MS,
    GAP_MS,
    GROUP,
    HOUR_MS,
    START_MS,
    batch,
    data_files,
    event_id,
    random_rows,
    row,
    rows_of,
    session,
    sessions_by_duckdb,
    sessions_by_polars,
)

MINUTE_MS = 60_000
MIDNIGHT = START_MS + DAY_MS


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def append(lake: Lake, rows: list[dict[str, Any]]) -> None:
    offset = lake.committed_offset()
    lake.append(batch(rows), group=GROUP, ranges={0: (offset, offset + 1)})


def run(lake: Lake, **options: Any) -> CompactReport:
    return compact(lake, gap_ms=GAP_MS, now_ms=1, **options)


def assert_exact(lake: Lake, expected_ids: list[bytes]) -> None:
    rows = rows_of(lake)
    assert sorted(entry["event_id"] for entry in rows) == sorted(expected_ids)
    found = {entry["event_id"]: entry["session_id"] for entry in rows}
    assert found == sessions_by_polars(rows)
    assert found == sessions_by_duckdb(rows)


def test_it_merges_files_and_keeps_rows_and_offsets(lake: Lake) -> None:
    for number in range(4):
        append(lake, [row(number * 6 + i, event=f"event {i % 3}", user_id=f"user {i}") for i in range(6)])
    before = rows_of(lake)
    report = run(lake)
    after = rows_of(lake)
    assert [entry | {"session_id": 0} for entry in after] == [entry | {"session_id": 0} for entry in before]
    assert (report.files_read, report.files_written, report.rows_read) == (12, 3, 24)
    assert report.dates == ("2026-05-27",)
    assert report.as_dict()["snapshot_id"] == lake.load().current_snapshot().snapshot_id
    assert lake.committed_offset() == 4
    assert len(lake.live_files()) == 3
    append(lake, [row(100)])
    assert lake.committed_offset() == 5


def test_a_second_run_has_nothing_to_do(lake: Lake) -> None:
    append(lake, [row(1)])
    read = lake.load().current_snapshot().snapshot_id
    done = run(lake).snapshot_id
    assert run(lake) == CompactReport()
    assert lake.load().current_snapshot().snapshot_id == done
    ours = offsets.carried(lake.load().current_snapshot())
    assert ours[offsets.COMPACTED_THROUGH] == str(read)
    assert ours[offsets.COMPACTED_AT] == "1"


def test_a_dry_run_says_what_the_next_run_does_and_changes_nothing(lake: Lake) -> None:
    append(lake, [row(i, device_id=f"device-{i % 3}") for i in range(50)])
    append(lake, [row(i, device_id=f"device-{i % 3}") for i in range(40, 60)])
    before, files = lake.load().metadata_location, data_files(lake)
    said = run(lake, dry_run=True)
    assert (lake.load().metadata_location, data_files(lake)) == (before, files)
    done = run(lake)
    assert (said.duplicates, said.rows_read, said.snapshot_id) == (10, 70, None)
    assert dataclasses.replace(done, snapshot_id=None) == said
    assert run(lake, dry_run=True) == CompactReport()


def test_what_is_forgotten_goes_from_new_and_old_files_and_is_counted_apart(lake: Lake) -> None:
    rows = [row(i, device_id="device", user_id="me" if i % 5 == 0 else None) for i in range(50)]
    append(lake, rows)
    run(lake)
    append(lake, rows[:10] + [row(i, device_id="device", user_id="me") for i in range(60, 65)])
    gone = run(lake, forget=Tombstone("1", 1 << 50, digest("me")))
    assert (gone.duplicates, gone.forgotten) == (10, 15)
    assert_exact(lake, [event_id(i) for i in range(50) if i % 5])
    hours = lake.counts_by_hour()
    assert (sum(hour.removed for hour in hours), sum(hour.forgotten for hour in hours)) == (10, 15)
    assert run(lake, forget=Tombstone("1", 1 << 50, digest("me"))) == CompactReport()


def test_progress_is_told(lake: Lake) -> None:
    append(lake, [row(1), row(2, event="other")])
    told: list[tuple[int, int]] = []
    run(lake, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("first", "late"),
    [
        # late before the start: the session gets an earlier start, on the same date and from the date before
        ([MIDNIGHT + 600 * MINUTE_MS], [MIDNIGHT + 590 * MINUTE_MS]),
        ([MIDNIGHT + 10 * MINUTE_MS], [MIDNIGHT - 5 * MINUTE_MS]),
        # bridging two sessions, within a date and over a midnight
        ([MIDNIGHT + 60 * MINUTE_MS, MIDNIGHT + 100 * MINUTE_MS], [MIDNIGHT + 80 * MINUTE_MS]),
        ([MIDNIGHT - 20 * MINUTE_MS, MIDNIGHT + 20 * MINUTE_MS], [MIDNIGHT - 1]),
        ([MIDNIGHT - 20 * MINUTE_MS, MIDNIGHT + 20 * MINUTE_MS], [MIDNIGHT]),
        # exactly the gap joins, one more does not
        ([MIDNIGHT - 20 * MINUTE_MS], [MIDNIGHT + 10 * MINUTE_MS]),
        ([MIDNIGHT - 20 * MINUTE_MS], [MIDNIGHT + 10 * MINUTE_MS + 1]),
        ([MIDNIGHT], [MIDNIGHT - GAP_MS]),
        ([MIDNIGHT], [MIDNIGHT - GAP_MS - 1]),
        # a chain through a whole date, moved from its very beginning, and joined in its middle
        ([MIDNIGHT + i * 25 * MINUTE_MS for i in range(120)], [MIDNIGHT - 25 * MINUTE_MS]),
        ([MIDNIGHT + i * 25 * MINUTE_MS for i in range(160) if i != 70], [MIDNIGHT + 70 * 25 * MINUTE_MS]),
        # dates that are not neighbours
        ([MIDNIGHT, MIDNIGHT + 5 * DAY_MS], [MIDNIGHT - 1, MIDNIGHT + 5 * DAY_MS + 1]),
    ],
)
def test_late_events_move_sessions(lake: Lake, first: list[int], late: list[int]) -> None:
    given = [row(i, timestamp=at) for i, at in enumerate(first)]
    append(lake, given)
    append(lake, [row(900 + i, timestamp=at, device_id="bystander") for i, at in enumerate(first)])
    run(lake)
    assert_exact(lake, [entry["event_id"] for entry in rows_of(lake)])
    append(lake, [row(500 + i, timestamp=at) for i, at in enumerate(late)])
    run(lake)
    assert_exact(
        lake, [event_id(i) for i in [*range(len(first)), *range(500, 500 + len(late)), *range(900, 900 + len(first))]]
    )


@pytest.mark.parametrize("seed", range(6))
def test_sessions_are_exact_whatever_came_when(lake: Lake, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    if seed % 2:
        # More rows than the keys that are held at once: device by device.
        monkeypatch.setattr(module, "changed_sessions", _in_buckets)
    count = 0
    for _ in range(3):
        for _ in range(int(rng.integers(1, 3))):
            size = int(rng.integers(1, 60))
            append(lake, random_rows(rng, count, size))
            count += size
        run(lake)
        assert_exact(lake, [event_id(i) for i in range(count)])
    assert run(lake).snapshot_id is None


def _in_buckets(*arguments: Any, rows_max: int) -> Any:
    return recompute.changed_sessions(*arguments, rows_max=17)


def test_files_whose_rows_keep_their_sessions_are_not_written_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MERGE_ROWS", 1)
    append(lake, [row(1), row(2, timestamp=START_MS + 3 * DAY_MS)])
    run(lake)
    before = {file.path for file in lake.live_files()}
    append(lake, [row(3, timestamp=START_MS + HOUR_MS)])
    report = run(lake)
    assert before < {file.path for file in lake.live_files()}
    assert (report.files_read, report.files_written) == (1, 1)


def test_files_grow_to_a_limit(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_ROWS_MAX", 10)
    for number in range(4):
        append(lake, [row(number * 7 + i, timestamp=START_MS + number * 7 + i) for i in range(7)])
    run(lake)
    assert [file.rows for file in lake.live_files()] == [7, 7, 7, 7]
    monkeypatch.setattr(module, "FILE_ROWS_MAX", 14)
    append(lake, [row(99)])
    run(lake)
    assert sorted(file.rows for file in lake.live_files()) == [1, 14, 14]


def test_of_duplicates_the_first_received_stays(lake: Lake) -> None:
    append(lake, [row(1, received_at=5_000, user_id="second"), row(2), row(1, received_at=9_000, user_id="third")])
    append(lake, [row(1, received_at=4_000, user_id="first"), row(3)])
    report = run(lake)
    assert report.duplicates == 2
    assert [(e["event_id"], e["user_id"]) for e in rows_of(lake) if e["event_id"] == event_id(1)] == [
        (event_id(1), "first")
    ]
    assert_exact(lake, [event_id(i) for i in (1, 2, 3)])
    # One that was compacted already goes too, when an earlier one arrives.
    append(lake, [row(1, received_at=3_000, user_id="earlier")])
    assert run(lake).duplicates == 1
    assert [e["user_id"] for e in rows_of(lake) if e["event_id"] == event_id(1)] == ["earlier"]
    hour = lake.counts_by_hour()[0]
    assert (hour.hour, hour.rows, hour.distinct, hour.removed) == (0, 1, 1, 3)


def test_a_duplicate_of_the_date_beside_is_found(lake: Lake) -> None:
    """The phone's clock drifted between the sendings; taking the one away parts a session that reaches over midnight."""
    at = [MIDNIGHT - 35 * MINUTE_MS, MIDNIGHT - 10 * MINUTE_MS, MIDNIGHT + 15 * MINUTE_MS]
    append(lake, [row(i, timestamp=time, received_at=9_000) for i, time in enumerate(at)])
    run(lake)
    assert len({entry["session_id"] for entry in rows_of(lake)}) == 1
    append(lake, [row(1, timestamp=MIDNIGHT + 16 * MINUTE_MS, received_at=8_000)])
    assert run(lake).duplicates == 1
    assert_exact(lake, [event_id(i) for i in range(3)])
    assert len({entry["session_id"] for entry in rows_of(lake)}) == 2


def test_taking_a_duplicate_away_parts_the_session_of_the_next_date(lake: Lake) -> None:
    at = [MIDNIGHT - 35 * MINUTE_MS, MIDNIGHT - 10 * MINUTE_MS, MIDNIGHT + 15 * MINUTE_MS]
    append(lake, [row(i, timestamp=time, received_at=9_000) for i, time in enumerate(at)])
    run(lake)
    append(lake, [row(1, timestamp=MIDNIGHT - 600 * MINUTE_MS, received_at=8_000)])
    assert run(lake).duplicates == 1
    assert_exact(lake, [event_id(i) for i in range(3)])
    assert len({entry["session_id"] for entry in rows_of(lake)}) == 3


def test_a_whole_file_of_duplicates_vanishes(lake: Lake) -> None:
    rows = [row(i, event=f"event {i % 2}") for i in range(10)]
    append(lake, rows)
    run(lake)
    append(lake, [entry | {"received_at": entry["received_at"] + 1} for entry in rows])
    assert run(lake).duplicates == 10
    assert_exact(lake, [event_id(i) for i in range(10)])


def test_ids_with_equal_hashes_are_no_duplicates(lake: Lake) -> None:
    first, second = bytes(16), bytearray(16)
    # mixed() of both is 0: a ^ (b * odd), with b = 1 and a = odd.
    second[0:8] = (0x9E3779B97F4A7C15).to_bytes(8, "little")
    second[8] = 1
    append(lake, [row(1, event_id=first), row(2, event_id=bytes(second))])
    assert run(lake).duplicates == 0
    assert len(rows_of(lake)) == 2
    assert [(hour.rows, hour.distinct) for hour in lake.counts_by_hour()] == [(2, 2)]


def test_unknown_dimensions_are_enriched_again(lake: Lake) -> None:
    unknown = int(Flag.DIMENSIONS_UNKNOWN | Flag.LATE)
    append(lake, [row(1, flags=unknown, user_id="a"), row(2, user_id="b"), row(3, flags=unknown, user_id="c")])
    known: set[str] = set()

    def enrich(rows: pa.RecordBatch) -> pa.RecordBatch:
        listed = rows.to_pylist()
        for entry in listed:
            assert entry["flags"] & Flag.DIMENSIONS_UNKNOWN
            if entry["user_id"] in known:
                entry |= {"country": "DE", "flags": entry["flags"] & ~Flag.DIMENSIONS_UNKNOWN}
        return pa.RecordBatch.from_pylist(listed, schema=EVENT)

    def countries() -> dict[str, Any]:
        return {entry["user_id"]: (entry["country"], entry["flags"]) for entry in rows_of(lake)}

    assert run(lake, enrich=enrich).enriched == 0
    assert run(lake, enrich=enrich) == CompactReport()
    known.add("a")
    assert run(lake, enrich=enrich).enriched == 1
    assert countries() == {"a": ("DE", Flag.LATE), "b": (None, 0), "c": (None, unknown)}
    known.add("c")
    assert run(lake, enrich=enrich).enriched == 1
    assert countries()["c"] == ("DE", Flag.LATE)
    assert run(lake, enrich=enrich) == CompactReport()


def test_enriching_that_loses_rows_is_refused(lake: Lake) -> None:
    append(lake, [row(1, flags=int(Flag.DIMENSIONS_UNKNOWN)), row(2, flags=int(Flag.DIMENSIONS_UNKNOWN))])
    before = data_files(lake)
    with pytest.raises(StoreError, match="every row"):
        run(lake, enrich=lambda rows: rows.slice(1))
    assert data_files(lake) == before
    assert len(rows_of(lake)) == 2


def test_appends_meanwhile_stay(lake: Lake) -> None:
    append(lake, [row(i) for i in range(5)])
    sink = Lake(lake.folder)

    def meanwhile(point: str) -> None:
        if point == "files written":
            append(sink, [row(i) for i in range(10, 15)])
        # Between looking at the table and committing: the first commit fails, the next one is made anew.
        if point == "before commit" and lake.committed_offset() == 2:
            append(sink, [row(i) for i in range(20, 25)])

    run(lake, checkpoint=meanwhile)
    assert sorted(entry["event_id"] for entry in rows_of(lake)) == sorted(
        event_id(i) for i in [*range(5), *range(10, 15), *range(20, 25)]
    )
    assert lake.committed_offset() == 3
    run(lake)
    assert_exact(lake, [event_id(i) for i in [*range(5), *range(10, 15), *range(20, 25)]])
    assert data_files(lake) > {Path(file.path) for file in lake.live_files()}


def test_appends_and_compactions_at_the_same_time(lake: Lake) -> None:
    errors: list[Exception] = []

    def keep_appending() -> None:
        try:
            mine = Lake(lake.folder)
            for number in range(12):
                append(mine, random_rows(np.random.default_rng(number), number * 20, 20))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=keep_appending)
    thread.start()
    while thread.is_alive():
        run(lake)
    thread.join()
    assert errors == []
    run(lake)
    assert_exact(lake, [event_id(i) for i in range(240)])
    assert lake.committed_offset() == 12


def test_a_second_compactor_waits_for_another_day(lake: Lake) -> None:
    append(lake, [row(1)])
    with exclusive(lake.folder), pytest.raises(DataFolderBusy, match="someone else"):
        run(Lake(lake.folder))
    assert run(lake).files_written == 1


def test_without_the_lock_the_second_compactor_is_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system whose locks do not reach other machines."""
    monkeypatch.setattr(module, "exclusive", lambda _: contextlib.nullcontext())
    append(lake, [row(1), row(2)])
    other = Lake(lake.folder)

    def overtake(point: str) -> None:
        if point == "before commit" and any(file.appended for file in lake.live_files()):
            run(other)

    with pytest.raises(StateError, match="another compaction"):
        run(lake, checkpoint=overtake)
    assert_exact(lake, [event_id(1), event_id(2)])
    assert {file.path for file in lake.live_files()} < set(map(str, data_files(lake)))
    assert sum("compacted" in path.name for path in data_files(lake)) == 1


def test_a_compaction_that_dropped_the_offsets_would_be_caught(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: nothing may be appended twice on top of it."""
    append(lake, [row(1)])
    with monkeypatch.context() as patch:
        patch.setattr(module.offsets, "carried", lambda _: {})
        run(lake)
    with pytest.raises(StateError, match="carries no offsets"):
        lake.committed_offset()
    with pytest.raises(StateError, match="carries no offsets"):
        lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    with pytest.raises(StateError, match="carries no offsets"):
        run(lake)


def test_the_first_session_of_a_device_begins_with_its_first_event(lake: Lake) -> None:
    append(lake, [row(1, timestamp=MIDNIGHT + 5, device_id="ünï"), row(2, timestamp=MIDNIGHT + 3, device_id="ünï")])
    run(lake)
    assert {entry["session_id"] for entry in rows_of(lake)} == {session("ünï", MIDNIGHT + 3)}


@pytest.mark.parametrize("seed", range(2))
def test_little_memory_means_more_groups_and_passes_and_the_same_lake(lake: Lake, seed: int) -> None:
    """Keys of 27 rows, 39 new ids and 78 rows of a group at once, so a date takes several commits."""
    rng = np.random.default_rng(seed)
    count = 0
    earlier: list[dict[str, Any]] = []
    for _ in range(2):
        for _ in range(4):
            rows = random_rows(rng, count, 50)
            again = [row | {"received_at": row["received_at"] + 1} for row in rows[::7] + earlier[::9]]
            append(lake, rows + again)
            earlier += rows
            count += 50
        before = len(lake.load().metadata.snapshots)
        report = run(lake, memory_bytes=5_000)
        assert len(lake.load().metadata.snapshots) - before > 3
        assert_exact(lake, [event_id(i) for i in range(count)])
        assert report.rows_read > report.duplicates >= 4 * 8
    assert run(lake) == CompactReport()
    assert sum(hour.removed for hour in lake.counts_by_hour()) >= 2 * 4 * 8


def test_a_run_that_is_broken_off_has_done_its_groups_and_the_next_one_does_the_others(lake: Lake) -> None:
    for number in range(4):
        append(lake, [row(number * 50 + i, timestamp=START_MS + number * DAY_MS + i) for i in range(50)])
    reached: list[str] = []

    def break_off(point: str) -> None:
        reached.append(point)
        if reached.count("before commit") == 3:
            raise KeyboardInterrupt

    told: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        run(lake, memory_bytes=4_000, checkpoint=break_off, progress=lambda done, total: told.append((done, total)))
    assert sorted(file.appended for file in lake.live_files()) == [False, False, True, True]
    assert told[-1] == (150, 200)
    rest = run(lake, memory_bytes=4_000)
    assert (rest.rows_read, rest.files_read) == (100, 2)
    assert_exact(lake, [event_id(i) for i in range(200)])
    assert lake.committed_offset() == 4
