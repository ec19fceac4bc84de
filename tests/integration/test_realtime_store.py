"""The real-time store: what goes in comes out, once, and the roll-ups agree with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import StoreError
from eventmill.core.schema import EVENT
from eventmill.sinks.realtime import migrations
from eventmill.sinks.realtime.encode import checked, pieces
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS, events, plain
from realtime_server import store_on

#: Roll-ups of counts: table, unit of time, and the column of its beginning.
COUNTS = (("events_1m", "minute", "minute"), ("events_1h", "hour", "hour"), ("events_1d", "day", "day"))


Opened = Callable[..., RealtimeStore]
#: For tests that take long: the server's turn comes in the soak.
SELDOM = pytest.mark.parametrize("opened", ["embedded", pytest.param("server", marks=pytest.mark.soak)], indirect=True)


@pytest.fixture(params=["embedded", "server"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens the same store again and again: in a folder, or on a server."""
    if request.param == "embedded":
        return partial(RealtimeStore, tmp_path / "realtime")
    return store_on(request.getfixturevalue("clickhouse"))


@pytest.fixture
def store(opened: Opened) -> Iterator[RealtimeStore]:
    store = opened()
    yield store
    store.close()


def one(store: RealtimeStore, sql: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = store.query_arrow(sql).to_pylist()
    assert len(rows) == 1
    return rows[0]


def assert_holds(store: RealtimeStore, *batches: pa.RecordBatch) -> None:
    """The tables hold exactly these rows, by DuckDB's reckoning."""
    given = pa.Table.from_batches(batches)
    with duckdb.connect() as other:
        other.execute("SET TimeZone = 'UTC'")
        other.register("given", given)
        rolled_up = {
            table: other.execute(
                f"SELECT epoch_ms(date_trunc('{unit}', timestamp)) // 1000, event, platform, count(*), "
                "count(DISTINCT device_id), count(DISTINCT user_id), count(DISTINCT session_id) "
                "FROM given GROUP BY ALL ORDER BY ALL"
            ).fetchall()
            for table, unit, _ in COUNTS
        }
        sessions = other.execute(
            "SELECT session_id, min(device_id), max(user_id), epoch_ms(min(timestamp)), epoch_ms(max(timestamp)), count(*) "
            "FROM given GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    found = store.query_arrow(f"SELECT {', '.join(EVENT.names)}, log_offset FROM eventmill.events ORDER BY event_id")
    assert found.cast(plain(given.schema)).equals(given.cast(plain(given.schema)).sort_by("event_id"))
    for table, _, column in COUNTS:
        rolled = store.query_arrow(
            f"SELECT toInt64(toUnixTimestamp(toDateTime({column}, 'UTC'))) AS at, toString(event) AS name, "
            "CAST(platform, 'Nullable(String)') AS on, sum(events), uniqCombined64Merge(16)(devices), "
            "ifNull(uniqCombined64Merge(16)(users), 0), uniqCombined64Merge(16)(sessions) "
            f"FROM eventmill.{table} GROUP BY ALL ORDER BY at, name, on NULLS LAST"
        )
        assert [tuple(row.values()) for row in rolled.to_pylist()] == rolled_up[table], table
    kept = store.query_arrow(
        "SELECT session_id AS id, min(device_id), max(user_id), toUnixTimestamp64Milli(min(started)), "
        "toUnixTimestamp64Milli(max(ended)), sum(events) FROM eventmill.sessions GROUP BY ALL ORDER BY id"
    )
    assert [tuple(row.values()) for row in kept.to_pylist()] == sessions


def test_rows_and_roll_ups(store: RealtimeStore) -> None:
    batches = [events(3_000, seed=seed, first_offset=seed * 6) for seed in range(4)]
    for batch in batches:
        store.insert(batch, f"enriched:0:{batch.column('log_offset')[0]}")
    assert_holds(store, *batches)


def test_the_same_rows_again_are_passed_over(store: RealtimeStore) -> None:
    first, second = events(2_000, seed=1), events(2_000, seed=2, first_offset=4)
    for batch, token in ((first, "1"), (first, "1"), (second, "2"), (second, "2"), (first, "1")):
        store.insert(batch, token)
    assert_holds(store, first, second)


def test_the_same_rows_after_a_restart(opened: Opened) -> None:
    first, second, third = (events(2_000, seed=seed, first_offset=4 * seed) for seed in range(3))
    for again in (first, second, second, third):
        with closing(opened()) as store:
            store.insert(again, "token")
    with closing(opened()) as store:
        assert_holds(store, first, second, third)


def test_a_store_that_did_not_ask_its_tables_would_double_and_the_count_would_see_it(tmp_path: Path) -> None:
    """Negative control: after a restart the same range comes again, and the first insert of it had landed."""
    batch = events(2_000, seed=1)
    for again in range(2):
        with closing(RealtimeStore(tmp_path / "realtime", window=0)) as store:
            if again:
                store._stored_through = -1  # as if its fate were known
            store.insert(batch, "token")
            counted = store.counts_by_hour()
            assert sum(hour.rows for hour in counted) == 2_000 * (again + 1)
            assert sum(hour.distinct for hour in counted) == 2_000


@SELDOM
def test_one_insert_over_730_days(store: RealtimeStore) -> None:
    first, second = events(500, seed=1), events(4_000, seed=2, first_offset=1, days=730)
    store.insert(first, "first")
    store.insert(second, "second")
    assert_holds(store, first, second)
    dates = one(store, "SELECT uniqExact(_partition_id) AS dates FROM eventmill.events")["dates"]
    assert dates > 700


@SELDOM
def test_each_partition_gets_one_part(store: RealtimeStore) -> None:
    """What makes an insert's effect on one partition atomic: also where the roll-up has more rows than a block."""
    store.command("SYSTEM STOP MERGES")
    for seed in range(3):
        store.insert(events(150_000, seed=seed, first_offset=300 * seed, days=2, devices=60_000), f"{seed}")
    parts = store.query_arrow(
        "SELECT table, partition, count() AS parts, max(rows) AS rows FROM system.parts "
        "WHERE active AND database = 'eventmill' GROUP BY ALL ORDER BY ALL"
    ).to_pylist()
    assert [(each["table"], each["parts"]) for each in parts] == [
        ("events", 3), ("events", 3), ("events_1d", 3), ("events_1h", 3), ("events_1m", 3), ("migrations", migrations.NEWEST),
        ("sessions", 3),
    ]  # fmt: skip
    assert parts[-1]["rows"] > 65_536
    distinct = one(store, "SELECT uniqCombined64Merge(16)(devices) AS found FROM eventmill.events_1m")["found"]
    truth = one(store, "SELECT uniqExact(device_id) AS found FROM eventmill.events")["found"]
    assert distinct == pytest.approx(truth, rel=0.015)


def test_pieces_of_a_large_insert(store: RealtimeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventmill.sinks.realtime.encode.pieces.__defaults__", (1_200,))
    first, second = (events(5_000, seed=seed, first_offset=10 * seed) for seed in range(2))
    store.insert(first, "first")
    store.insert(second, "second")
    assert_holds(store, first, second)


@given(st.lists(st.integers(0, 12), max_size=60).map(sorted), st.integers(1, 20))
def test_pieces_are_cut_between_offsets(offsets: list[int], rows_max: int) -> None:
    table = events(len(offsets)).set_column(24, "log_offset", pa.array(offsets, pa.uint64()))
    found = list(pieces(checked(table), rows_max))
    cut = [piece.column("log_offset").to_pylist() for piece in found]
    assert [offset for piece in cut for offset in piece] == offsets
    for piece, following in pairwise(cut):
        assert piece[-1] < following[0]
    assert all(len(piece) <= rows_max or len(set(piece)) == 1 for piece in cut)


def test_what_is_not_a_batch_of_events(store: RealtimeStore) -> None:
    batch = events(10)
    with pytest.raises(StoreError, match="log_offset"):
        store.insert(batch.drop_columns(["log_offset"]), "token")
    with pytest.raises(StoreError, match="not in the order of log_offset"):
        store.insert(batch.set_column(24, "log_offset", pa.array(range(10, 0, -1), pa.uint64())), "token")
    with pytest.raises(StoreError, match="null values"):
        store.insert(batch.set_column(2, "event", pa.nulls(10, pa.string())), "token")
    store.insert(batch.slice(0, 0), "token")
    assert store.counts_by_hour() == []


def test_another_logs_offsets_are_refused(opened: Opened) -> None:
    with closing(opened()) as store:
        store.insert(events(1_000, seed=1, first_offset=10), "token")
    with closing(opened()) as store:
        with pytest.raises(StoreError, match="filled from another log"):
            store.insert(events(500, seed=2, first_offset=0), "token")
        with pytest.raises(StoreError, match="filled from another log"):
            store.insert(events(300, seed=3, first_offset=11), "token")


def test_an_error_within_an_insert_is_mended_by_the_next(store: RealtimeStore) -> None:
    """As when memory ends between the tables: one of the views fails, the rows themselves are in."""
    first, second = events(2_000, seed=1), events(2_000, seed=2, first_offset=4)
    store.insert(first, "first")
    store.command("DROP VIEW eventmill.sessions_view SYNC")
    store.command(
        "CREATE MATERIALIZED VIEW eventmill.sessions_view TO eventmill.sessions AS "
        "SELECT session_id, throwIf(1) AS events FROM eventmill.events"
    )
    with pytest.raises(StoreError):
        store.insert(second, "second")
    store.insert(second, "second")
    assert_holds(store, first, second)
    store.insert(third := events(2_000, seed=3, first_offset=8), "third")
    assert_holds(store, first, second, third)


@SELDOM
def test_contains_is_exact(store: RealtimeStore) -> None:
    stored, absent = events(5_000, seed=1, days=20), events(3_000, seed=2, days=20)
    store.insert(stored, "token")
    rng = np.random.default_rng(3)
    both = (
        pa.Table.from_batches([stored, absent]).take(pa.array(rng.permutation(8_000))).combine_chunks().to_batches()[0]
    )
    truth = np.isin(both.column("event_id").to_pylist(), stored.column("event_id").to_pylist())
    # Hints that are right, that are a little off, that are far off, and that name another event.
    for shift_ms, names in ((0, None), (90_000, None), (40 * DAY_MS, None), (0, "nobody")):
        times = pa.array(both.column("timestamp").cast(pa.int64()).to_numpy() + shift_ms).cast(
            pa.timestamp("ms", "UTC")
        )
        hinted = both.column("event") if names is None else pa.array([names] * 8_000)
        found = store.contains(both.column("event_id"), hinted, times)
        assert isinstance(found, pa.BooleanArray)
        assert found.to_numpy(zero_copy_only=False).tolist() == truth.tolist()
    nothing = both.slice(0, 0)
    assert len(store.contains(nothing.column("event_id"), nothing.column("event"), nothing.column("timestamp"))) == 0


def test_counts_by_hour(store: RealtimeStore) -> None:
    batch = events(5_000, seed=1)
    copy = events(100, seed=1).set_column(24, "log_offset", pa.array([50] * 100, pa.uint64()))
    store.insert(batch, "token")
    store.insert(copy, "other")
    hours = batch.column("received_at").cast(pa.int64()).to_numpy() // 3_600_000 * 3_600_000
    hours_of_copy = copy.column("received_at").cast(pa.int64()).to_numpy() // 3_600_000 * 3_600_000
    found = store.counts_by_hour()
    assert [row.hour for row in found] == sorted({*hours.tolist(), *hours_of_copy.tolist()})
    assert sum(row.rows for row in found) == 5_100
    for row in found:
        assert row.rows == (hours == row.hour).sum() + (hours_of_copy == row.hour).sum()
    assert sum(row.distinct for row in found) == len(
        {*batch.column("event_id").to_pylist(), *copy.column("event_id").to_pylist()}
    )


def test_find(store: RealtimeStore) -> None:
    batch = events(1_000, seed=1)
    store.insert(batch, "token")
    wanted = batch.slice(700, 1).to_pylist()[0]
    found = store.find(wanted["event_id"])
    assert len(found) == 1
    expected = {"offset": 1, "event": wanted["event"], "session_id": wanted["session_id"]}
    assert {key: found[0][key] for key in expected} == expected
    assert found[0]["timestamp_ms"] == batch.column("timestamp").cast(pa.int64())[700].as_py()
    assert found[0]["received_at_ms"] == batch.column("received_at").cast(pa.int64())[700].as_py()
    assert found[0]["part"]
    assert found[0]["at_ms"] > START_MS
    assert store.find(bytes(16)) == []


@SELDOM
def test_reading_while_writing(store: RealtimeStore) -> None:
    """Queries and look-ups of many threads beside the inserts: each sees whole inserts, and none waits for another."""
    batches = [events(4_000, seed=seed, first_offset=8 * seed, days=1) for seed in range(12)]
    store.insert(batches[0], "0")
    seen: list[set[int]] = [set() for _ in range(4)]
    failures: list[BaseException] = []
    done = threading.Event()

    def read(number: int) -> None:
        try:
            while not done.is_set():
                rows = one(store, "SELECT count() AS rows, uniqExact(event_id) AS ids FROM eventmill.events")
                assert rows["rows"] == rows["ids"]
                seen[number].add(rows["rows"])
                ids = batches[0].slice(number * 100, 100)
                assert store.contains(ids.column(0), ids.column("event"), ids.column("timestamp")).true_count == 100
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number, batch in enumerate(batches[1:], 1):
        store.insert(batch, str(number))
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(rows % 4_000 == 0 for rows in set.union(*seen))
    assert_holds(store, *batches)


def test_a_folder_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        RealtimeStore(tmp_path / "file" / "realtime")


def test_a_closed_store(opened: Opened) -> None:
    store = opened()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.counts_by_hour()
    store.close()
