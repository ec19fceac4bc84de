"""The lake's table as others read it."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import chdb
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from eventmill.core.errors import QueryError, StateError, StoreError
from eventmill.core.schema import EVENT, Flag
from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from lake_events import DAY_MS, GROUP, HOUR_MS, START_MS, batch, data_files, event_id, row, rows_of

HOSTILE = [
    "../x",
    "a/b",
    "",
    "🎉",
    "..",
    "a=b",
    "a%2Fb",
    "'; DROP TABLE x; --",
    "x" * 256,
    "nul\x00byte",
    "__other__",
    " ",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # chdb reads Iceberg tables below the working directory only.
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lake"


def chdb_query(sql: str) -> list[dict[str, object]]:
    connection = chdb.connect(":memory:")
    try:
        return _arrow(connection, sql)
    finally:
        connection.close()


def _arrow(connection: chdb.state.sqlitelike.Connection, sql: str) -> list[dict[str, object]]:
    with pa.ipc.open_file(pa.py_buffer(connection.query(sql, "Arrow").bytes())) as reader:
        return reader.read_all().to_pylist()


def full_row(number: int) -> dict[str, object]:
    columns: dict[str, object] = {}
    for field in EVENT:
        if pa.types.is_timestamp(field.type):
            columns[field.name] = START_MS + number * 7 + len(field.name)
        elif field.type == pa.string():
            columns[field.name] = f"{field.name} {number} ünï"
        elif field.name == "session_id":
            columns[field.name] = (1 << 62) + number
        elif field.name == "flags":
            columns[field.name] = int(Flag.LATE)
    return row(number, **columns)


def test_every_column_comes_back_by_every_reader(folder: Path) -> None:
    given = [full_row(0), full_row(1), row(2)]
    events = batch(given)
    lake = Lake(folder)
    lake.append(events, group=GROUP, ranges={0: (0, 3)})
    expected = events.to_pylist()
    names = ", ".join(f'"{name}"' for name in EVENT.names)
    by_chdb = chdb_query(f"SELECT {names} FROM {lake.source_sql()} ORDER BY timestamp, event_id")
    strings = [field.name for field in EVENT if field.type == pa.string()]
    for entry in by_chdb:
        for name in strings:
            value = entry[name]
            entry[name] = value.decode() if isinstance(value, bytes) else value
    assert sorted(map(str, by_chdb)) == sorted(map(str, expected))
    iceberg = SqlCatalog("eventmill", uri=f"sqlite:///{folder / 'catalog.sqlite'}").load_table("eventmill.events")
    assert sorted(iceberg.scan().select(*EVENT.names).to_arrow().to_pylist(), key=str) == sorted(expected, key=str)
    assert pl.scan_iceberg(iceberg).select(pl.len()).collect().item() == 3


def test_rows_lie_by_date_and_name_and_time(folder: Path) -> None:
    lake = Lake(folder)
    given = [row(i, event=f"event {i % 2}", timestamp=START_MS + (i * 7 % 5) * (DAY_MS // 2)) for i in range(20)]
    lake.append(batch(given), group=GROUP, ranges={0: (0, 1)})
    for file in lake.live_files():
        rows = [entry for entry in given if (entry["timestamp"] // DAY_MS, entry["event"]) == (file.date, file.group)]
        assert file.rows == len(rows)
        times = [entry["timestamp"] for entry in rows]
        assert (file.start_ms, file.end_ms) == (min(times), max(times))
    # Each reader prunes by it.
    chosen = f"event_date = toDate({START_MS // DAY_MS + 1}) AND event_group = 'event 1'"
    query = f"SELECT count() AS n FROM {lake.source_sql()} WHERE {chosen}"
    assert chdb_query(query) == [
        {"n": sum(e["timestamp"] // DAY_MS == START_MS // DAY_MS + 1 and e["event"] == "event 1" for e in given)}
    ]


def test_hostile_names_are_kept_and_stay_out_of_paths(folder: Path) -> None:
    lake = Lake(folder)
    lake.append(batch(row(i, event=name) for i, name in enumerate(HOSTILE)), group=GROUP, ranges={0: (0, 1)})
    assert sorted(entry["event"] for entry in rows_of(lake)) == sorted(HOSTILE)
    assert {path.parent.parent for path in data_files(lake)} == {lake.events / "data"}
    found = chdb_query(f"SELECT event, event_group FROM {lake.source_sql()}")
    assert sorted(map(_text, (entry["event"] for entry in found))) == sorted(HOSTILE)
    assert all(entry["event"] == entry["event_group"] for entry in found)
    for name in HOSTILE[:4]:
        escaped = name.replace("'", "\\'")
        assert chdb_query(f"SELECT count() AS n FROM {lake.source_sql()} WHERE event_group = '{escaped}'") == [{"n": 1}]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_too_many_names_share_a_partition_and_keep_their_names(folder: Path) -> None:
    lake = Lake(folder, partitions_max=3)
    lake.append(batch(row(i, event=f"event {i}") for i in range(5)), group=GROUP, ranges={0: (0, 1)})
    groups = {file.group for file in lake.live_files()}
    assert len(groups) == 4
    assert "__other__" in groups
    # The bound outlives the process.
    again = Lake(folder, partitions_max=3)
    again.append(batch(row(10 + i, event=f"more {i}") for i in range(5)), group=GROUP, ranges={0: (1, 2)})
    assert {file.group for file in again.live_files()} == groups
    assert {entry["event"] for entry in rows_of(again)} == {f"event {i}" for i in range(5)} | {
        f"more {i}" for i in range(5)
    }


def test_an_empty_lake(folder: Path) -> None:
    lake = Lake(folder)
    assert lake.source_sql() is None
    assert lake.watermark() is None
    assert lake.committed_offset() == 0
    assert lake.live_files() == []
    assert lake.counts_by_hour() == []
    assert lake.find(event_id(1)) == []
    assert compact(lake, gap_ms=1, now_ms=0).snapshot_id is None


def test_the_folder_may_be_moved_and_bear_any_name(folder: Path, tmp_path: Path) -> None:
    lake = Lake(folder)
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    lake.close()
    place = tmp_path / "it's a #new% place?"
    shutil.move(folder, place)
    moved = Lake(place)
    moved.append(batch([row(2)]), group=GROUP, ranges={0: (1, 2)})
    compact(moved, gap_ms=1000, now_ms=0)
    moved.append(batch([row(3)]), group=GROUP, ranges={0: (2, 3)})
    assert not folder.exists()
    assert chdb_query(f"SELECT count() AS n FROM {moved.source_sql()}") == [{"n": 3}]
    assert sum(hour.rows for hour in moved.counts_by_hour()) == 3
    assert [entry["file"].startswith(str(place)) for entry in moved.find(event_id(2))] == [True]


def test_the_watermark_is_the_newest_receipt(folder: Path) -> None:
    lake = Lake(folder)
    lake.append(batch([row(1, received_at=5_000), row(2, received_at=9_000)]), group=GROUP, ranges={0: (0, 1)})
    lake.append(batch([row(3, received_at=7_000)]), group=GROUP, ranges={0: (1, 2)})
    assert lake.watermark() == 9_000
    compact(lake, gap_ms=1, now_ms=0)
    assert lake.watermark() == 9_000


def test_a_reader_sees_whole_commits_while_they_happen(folder: Path) -> None:
    lake = Lake(folder)
    lake.append(batch(row(i) for i in range(10)), group=GROUP, ranges={0: (0, 1)})
    done = threading.Event()

    def append() -> None:
        try:
            for number in range(1, 15):
                rows = (row(number * 10 + i, event=f"event {i % 3}") for i in range(10))
                lake.append(batch(rows), group=GROUP, ranges={0: (number, number + 1)})
                if number % 5 == 0:
                    compact(lake, gap_ms=1000, now_ms=0)
        finally:
            done.set()

    writer = threading.Thread(target=append)
    writer.start()
    connection = chdb.connect(":memory:")
    seen = []
    while not done.is_set() or len(seen) < 3:
        offset = lake.committed_offset()
        counts = _arrow(connection, f"SELECT count() AS n, uniqExact(event_id) AS ids FROM {lake.source_sql()}")[0]
        assert counts["n"] == counts["ids"]
        assert counts["n"] >= offset * 10
        seen.append(counts["n"])
    writer.join()
    connection.close()
    assert all(count % 10 == 0 for count in seen)
    assert seen == sorted(seen)


def test_a_pinned_source_does_not_change(folder: Path) -> None:
    lake = Lake(folder)
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    pinned = lake.source_sql()
    lake.append(batch([row(2)]), group=GROUP, ranges={0: (1, 2)})
    assert chdb_query(f"SELECT count() AS n FROM {pinned}") == [{"n": 1}]
    assert chdb_query(f"SELECT count() AS n FROM {lake.source_sql()}") == [{"n": 2}]


def test_metadata_of_a_commit_that_failed_is_not_read(folder: Path) -> None:
    lake = Lake(folder)
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    newest = Path(lake.local(lake.load().metadata_location))
    lake.append(batch([row(2)]), group=GROUP, ranges={0: (1, 2)})
    shutil.copy(newest, newest.with_name("00099-00000000-0000-0000-0000-000000000000.metadata.json"))
    assert chdb_query(f"SELECT count() AS n FROM {lake.source_sql()}") == [{"n": 2}]


def test_counts_by_hour_are_counted_in_the_files(folder: Path) -> None:
    lake = Lake(folder)
    rows = [row(i, received_at=START_MS + i % 3 * HOUR_MS, timestamp=START_MS + i) for i in range(30)]
    twice = [row(i, received_at=START_MS + i % 3 * HOUR_MS, timestamp=START_MS + i) for i in range(4)]
    lake.append(batch(rows), group=GROUP, ranges={0: (0, 1)})
    lake.append(batch(twice), group=GROUP, ranges={0: (1, 2)})
    # start, rows, ids, duplicates taken away, rows forgotten, rows retired
    expected = [
        (START_MS, 12, 10, 0, 0, 0), (START_MS + HOUR_MS, 11, 10, 0, 0, 0), (START_MS + 2 * HOUR_MS, 11, 10, 0, 0, 0),
    ]  # fmt: skip
    assert [tuple(hour) for hour in lake.counts_by_hour()] == expected
    from eventmill.lake.scan import counts_by_hour

    assert [tuple(hour) for hour in counts_by_hour(lake, rows_max=7)] == expected
    compact(lake, gap_ms=1000, now_ms=0)
    assert [tuple(hour) for hour in lake.counts_by_hour()] == [
        (START_MS, 10, 10, 2, 0, 0), (START_MS + HOUR_MS, 10, 10, 1, 0, 0), (START_MS + 2 * HOUR_MS, 10, 10, 1, 0, 0),
    ]  # fmt: skip


def test_an_event_is_found(folder: Path) -> None:
    lake = Lake(folder)
    lake.append(batch([row(1), row(2, flags=int(Flag.LATE))]), group=GROUP, ranges={0: (0, 1)})
    found = lake.find(event_id(2))
    snapshot = lake.load().current_snapshot()
    at = START_MS + 12 * HOUR_MS
    assert found == [
        {
            "at_ms": snapshot.timestamp_ms, "file": found[0]["file"], "snapshot_id": snapshot.snapshot_id, "event": "tap",
            "timestamp_ms": at, "received_at_ms": at + 100, "session_id": 0, "flags": ["LATE"],
        }
    ]  # fmt: skip
    assert Path(found[0]["file"]).exists()
    assert lake.find(event_id(2), around_ms=at + HOUR_MS) == found
    assert lake.find(event_id(2), around_ms=at + 3 * DAY_MS) == []
    assert lake.find(event_id(9)) == []
    with pytest.raises(QueryError):
        lake.find(b"short")


def test_what_is_no_lake_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "catalog.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="not the lake's catalog"):
        Lake(folder)


def test_another_versions_columns_are_refused(folder: Path) -> None:
    lake = Lake(folder)
    with lake.load().update_schema() as update:
        from pyiceberg.types import StringType

        update.add_column("newer", StringType())
    with pytest.raises(StateError, match="newer"):
        Lake(folder)


def test_a_broken_file_is_named(folder: Path) -> None:
    lake = Lake(folder)
    lake.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    (path,) = data_files(lake)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError, match=path.name):
        lake.counts_by_hour()
    with pytest.raises(StoreError, match=path.name):
        compact(lake, gap_ms=1, now_ms=0)


def test_a_catalog_that_points_nowhere_is_an_error(folder: Path) -> None:
    lake = Lake(folder)
    with sqlite3.connect(folder / "catalog.sqlite") as connection:
        connection.execute("UPDATE iceberg_tables SET metadata_location = replace(metadata_location, '00000', '77777')")
    with pytest.raises(StoreError, match="does not read"):
        lake.committed_offset()
