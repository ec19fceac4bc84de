"""Sessions: the streaming state against a slow twin, the exact computation against Polars and DuckDB."""

from __future__ import annotations

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from sessionize_twin import SessionsTwin, exact_starts, session_id

from eventmill.core.errors import StateError
from eventmill.core.schema import EVENT, RAW
from eventmill.kernels.sessionize import Sessionizer, device_hashes, session_ids, sessions_exact

MINUTE = 60_000
HOUR = 60 * MINUTE
GAP = 30 * MINUTE
DEVICES = ["", "a", "b", "ü", "x" * 504, "x" * 505, "x" * 2_000, *(f"device-{number}" for number in range(9))]


def batch_of(devices, times):
    return pa.record_batch({"device_id": pa.array(devices, pa.string()), "timestamp": pa.array(times, pa.int64())})


def in_parts(rows, cuts):
    begin = 0
    for size in [*cuts, len(rows)]:
        yield rows[begin : begin + size]
        begin += size


def assign(sessionizer, rows, cuts=()):
    found = []
    for part in in_parts(rows, cuts):
        batch = batch_of([device for device, _ in part], [at for _, at in part])
        found += sessionizer.assign(batch).column("session_id").to_pylist()
    return found


def streams(steps):
    """Rows whose time moves by steps, mostly on, from 2 hours after the epoch."""
    now = 2 * HOUR
    rows = []
    for device, step in steps:
        now += step
        rows.append((device, now))
    return rows


steps = st.tuples(
    st.sampled_from(DEVICES),
    st.one_of(
        st.integers(-GAP, GAP),
        st.sampled_from([0, GAP, GAP + 1, -GAP, -GAP - 1, 2 * GAP, -HOUR, 5 * HOUR, -5 * HOUR, 9 * HOUR, 81 * HOUR]),
    ),
)
cuts = st.lists(st.integers(1, 30), max_size=6)


# The stream


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, min_size=1, max_size=120).map(streams), cuts, st.sampled_from([1, 2, 5, 12, 1_000]))
def test_the_stream_agrees_with_the_twin_whatever_the_batches(rows, sizes, max_devices):
    sessionizer = Sessionizer(gap="30m", lateness="72h", max_devices=max_devices)
    twin = SessionsTwin(GAP, 72 * HOUR, max_devices)
    assert assign(sessionizer, rows, sizes) == [twin.assign(device, at) for device, at in rows]
    assert (sessionizer.devices, sessionizer.evicted) == (len(twin.devices), twin.evicted)


moments = st.integers(-(2**61), 2**61) | st.integers(-(2**34), 2**34) | st.integers(-9, 9).map(lambda n: n << 30)
far = st.tuples(st.sampled_from("abcdef"), moments)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(far, min_size=1, max_size=40),
    st.sampled_from([1, 1_000, 2**30, 2**33]),
    st.sampled_from([8, 10**9, 20 * 24 * HOUR]),
)
def test_the_stream_agrees_with_the_twin_over_long_times(rows, gap, lateness):
    """Gaps and sessions beyond what 32 bits hold; times and lateness up to the limits."""
    sessionizer, twin = Sessionizer(f"{gap}ms", f"{lateness}ms", 4), SessionsTwin(gap, lateness, 4)
    assert assign(sessionizer, rows) == [twin.assign(device, at) for device, at in rows]


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=1, max_size=80).map(streams))
def test_events_in_order_get_the_exact_sessions(rows):
    rows = sorted(rows, key=lambda row: row[1])
    batch = batch_of([device for device, _ in rows], [at for _, at in rows])
    exact = sessions_exact(batch["device_id"], batch["timestamp"], GAP)
    assert Sessionizer(lateness="20d").assign(batch)["session_id"].equals(exact)


def test_late_events_extend_a_session_bridge_two_or_stand_alone():
    at = [600, 610, 720, 580, 640, 670, 300, 700, 745]
    found = assign(Sessionizer(), [("a", minute * MINUTE) for minute in at])
    starts = [600, 600, 720, 600, 600, 600, 300, 600, 600]
    # 580 moves the first one's start, but not its id; 700 makes it reach the second, which it takes over to its end.
    assert found == [session_id("a", minute * MINUTE) for minute in starts]
    exact = [session_id("a", minute * MINUTE) for minute in [580, 580, 580, 580, 580, 580, 300, 580, 580]]
    assert sessions_exact(["a"] * 9, [minute * MINUTE for minute in at], GAP).to_pylist() == exact


def test_a_session_is_cut_24_days_after_its_first_event():
    gap = 1 << 30
    at = [0, gap, 2 * gap, 2 * gap + 5, 3 * gap, 3 * gap + 1]
    found = assign(Sessionizer(f"{gap}ms", "20d"), [("a", time) for time in at])
    assert found == [session_id("a", 0)] * 5 + [session_id("a", 3 * gap + 1)]


def test_state_grows_with_devices_at_64_bytes_each():
    sessionizer = Sessionizer()
    count, part = 300_000, 50_000
    for begin in range(0, count, part):
        names = [f"device-{number}" for number in range(begin, begin + part)]
        first = sessionizer.assign(batch_of(names, [1_000] * part))["session_id"]
        assert first.equals(session_ids(names, [1_000] * part))
        assert sessionizer.devices == begin + part
        assert sessionizer.nbytes / sessionizer.devices <= 64
    again = [f"device-{number}" for number in range(0, count, 7)]
    assert sessionizer.assign(batch_of(again, [GAP] * len(again)))["session_id"].equals(
        session_ids(again, [1_000] * len(again))
    )
    assert sessionizer.devices == count


def test_idle_devices_are_forgotten_and_no_others():
    sessionizer = Sessionizer(lateness="72h")
    for day in range(20):
        names = [f"{day}-{number}" for number in range(5_000)]
        sessionizer.assign(batch_of(["steady", *names], [day * 24 * HOUR] * 5_001))
        assert sessionizer.devices <= 4 * 5_000 + 1
    # A device within the lateness keeps its session, and its late event joins it.
    start = 17 * 24 * HOUR
    assert assign(sessionizer, [("17-1", start + 5)]) == [session_id("17-1", start)]
    assert sessionizer.evicted == 0


def test_a_flood_of_devices_stays_within_bounds_and_spares_the_active():
    sessionizer = Sessionizer(max_devices=10_000)
    for number in range(20):
        flood = [(f"{number}-{other}", number * MINUTE) for other in range(3_000)]
        found = assign(sessionizer, [*flood, ("steady", number * MINUTE)])
        assert sessionizer.devices <= 10_000
        assert found[-1] == session_id("steady", 0)
    assert sessionizer.evicted == 60_001 - sessionizer.devices


@pytest.mark.parametrize("max_devices", [16, 41, 100])
def test_the_devices_idle_longest_are_evicted(max_devices):
    rng = np.random.default_rng(max_devices)
    at = np.cumsum(rng.integers(-20, 40, 6_000)) * MINUTE
    rows = [(f"device-{number}", int(time)) for number, time in zip(rng.integers(0, 120, 6_000), at, strict=True)]
    sessionizer, twin = Sessionizer(max_devices=max_devices), SessionsTwin(GAP, 72 * HOUR, max_devices)
    assert assign(sessionizer, rows, [1_000] * 6) == [twin.assign(device, time) for device, time in rows]
    assert (sessionizer.devices, sessionizer.evicted) == (len(twin.devices), twin.evicted)
    assert twin.evicted > 100


# The exact computation


def polars_starts(devices, times):
    frame = pl.DataFrame({"d": devices, "t": times}).with_row_index("i").sort("d", "t")
    gap = pl.col("t") - pl.col("t").shift(1).over("d")
    frame = frame.with_columns(n=(gap.is_null() | (gap > GAP)).cum_sum())
    return frame.with_columns(s=pl.col("t").min().over("d", "n")).sort("i")["s"].to_list()


def duckdb_starts(devices, times):
    query = """
        WITH marked AS (SELECT *, coalesce(t - lag(t) OVER w > $gap, true)::int AS begins FROM rows
                        WINDOW w AS (PARTITION BY d ORDER BY t, i)),
             numbered AS (SELECT *, sum(begins) OVER (PARTITION BY d ORDER BY t, i) AS n FROM marked)
        SELECT min(t) OVER (PARTITION BY d, n) FROM numbered ORDER BY i
    """
    with duckdb.connect() as connection:
        connection.register("rows", pa.table({"i": range(len(times)), "d": devices, "t": times}))
        return [row[0] for row in connection.execute(query, {"gap": GAP}).fetchall()]


@pytest.mark.parametrize(("distinct", "ordered"), [(300, False), (3, False), (1, False), (20_000, True)])
def test_the_exact_sessions_are_those_of_polars_and_duckdb(distinct, ordered):
    rng = np.random.default_rng(5)
    devices = [f"device-{number}" for number in rng.integers(0, distinct, 20_000)]
    times = rng.integers(0, 5 * 24 * HOUR * max(1, 300 // distinct), 20_000)
    times = np.sort(times).tolist() if ordered else times.tolist()
    starts = polars_starts(devices, times)
    assert duckdb_starts(devices, times) == starts
    expected = [session_id(device, start) for device, start in zip(devices, starts, strict=True)]
    assert sessions_exact(pa.array(devices), pa.array(times), GAP).to_pylist() == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=200).map(streams), st.integers(0, 5))
def test_the_exact_sessions_are_the_twins(rows, offset):
    batch = batch_of([device for device, _ in rows], [at for _, at in rows])[offset:]
    devices, times = batch["device_id"].to_pylist(), batch["timestamp"].to_pylist()
    expected = [session_id(d, start) for d, start in zip(devices, exact_starts(devices, times, GAP), strict=True)]
    assert sessions_exact(batch["device_id"], batch["timestamp"], GAP).to_pylist() == expected


def test_exactly_the_gap_is_one_session_a_millisecond_more_is_two():
    expected = [session_id("a", 0), session_id("a", 0), session_id("a", 2 * GAP + 1)]
    assert sessions_exact(["a"] * 3, [0, GAP, 2 * GAP + 1], GAP).to_pylist() == expected
    assert assign(Sessionizer(), [("a", 0), ("a", GAP), ("a", 2 * GAP + 1)]) == expected


@pytest.mark.parametrize("length", [0, 1, 16, 240, 503, 504, 505, 512, 513, 5_000])
def test_session_ids_are_xxh3_of_device_and_start(length):
    device = "é" * (length // 2) + "x" * (length % 2)
    starts = [0, -1, 1_795_400_000_000, -(2**61)]
    assert session_ids([device] * 4, starts).to_pylist() == [session_id(device, start) for start in starts]


# Snapshots


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=2, max_size=120).map(streams), st.integers(1, 100), st.sampled_from([3, 1_000]))
def test_a_restored_state_goes_on_as_the_original(rows, cut, max_devices):
    first, second = Sessionizer(max_devices=max_devices), Sessionizer(max_devices=max_devices)
    assign(first, rows[:cut])
    assign(second, [("stranger", 0)])
    second.restore(first.snapshot())
    assert assign(second, rows[cut:]) == assign(first, rows[cut:])
    assert second.snapshot() == first.snapshot()


def test_a_restored_large_state_finds_all_its_devices():
    first, second = Sessionizer(), Sessionizer()
    names = [f"device-{number}" for number in range(40_000)]
    before = first.assign(batch_of(names, [0] * 40_000))
    second.restore(first.snapshot())
    assert second.assign(batch_of(names, [GAP] * 40_000))["session_id"].equals(before["session_id"])
    assert second.devices == 40_000


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_snapshot_is_refused_wherever_the_damage_is(data):
    sessionizer = Sessionizer()
    assign(sessionizer, [(name, 0) for name in DEVICES])
    good = sessionizer.snapshot()
    regions = [(0, 8), (8, 12), (12, 200), (200, len(good) - 16), (len(good) - 16, len(good))]
    begin, end = data.draw(st.sampled_from(regions))
    bad = bytearray(good)
    bad[data.draw(st.integers(begin, end - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateError, match="damaged"):
        sessionizer.restore(bytes(bad))
    with pytest.raises(StateError, match="damaged"):
        sessionizer.restore(good[: data.draw(st.integers(0, len(good) - 1))])
    assert sessionizer.snapshot() == good


@pytest.mark.parametrize("other", [{"gap": "5m"}, {"lateness": "24h"}])
def test_another_configuration_is_refused_with_the_cure(other):
    with pytest.raises(StateError, match=r"configuration says .*; set it back"):
        Sessionizer(**other).restore(Sessionizer().snapshot())


def test_the_bound_on_devices_may_be_raised_but_not_below_what_there_is():
    small, large = Sessionizer(max_devices=2), Sessionizer(max_devices=5)
    assign(large, [("a", 0), ("b", 0), ("c", 0)])
    with pytest.raises(StateError, match="raise max_devices"):
        small.restore(large.snapshot())
    Sessionizer(max_devices=3).restore(large.snapshot())


# Input


def test_the_column_stands_where_events_have_it():
    raw = pa.RecordBatch.from_pylist([], RAW)
    names = Sessionizer().assign(raw).schema.names
    assert names == [name for name in EVENT.names if name in [*RAW.names, "session_id"]]
    frame = pl.DataFrame({"timestamp": [0, 1], "n": [1, 2], "device_id": ["a", "a"]})
    result = Sessionizer().assign(frame)
    assert result.schema.names == ["timestamp", "n", "device_id", "session_id"]
    assert result["session_id"].to_pylist() == [session_id("a", 0)] * 2
    assert Sessionizer().assign(result).equals(result)


def test_timestamps_may_be_of_any_unit():
    rows = pa.record_batch({"device_id": ["a"], "timestamp": pa.array([7_000_000_000], pa.timestamp("ns", "UTC"))})
    assert Sessionizer().assign(rows)["session_id"].to_pylist() == [session_id("a", 7_000)]


@pytest.mark.parametrize(
    ("columns", "error", "match"),
    [
        ({"device_id": ["a", None], "timestamp": [1, 2]}, TypeError, "device_id"),
        ({"device_id": ["a"], "timestamp": pa.array([None], pa.int64())}, TypeError, "null"),
        ({"device_id": ["a"], "timestamp": ["noon"]}, TypeError, "timestamps"),
        ({"device_id": ["a"], "timestamp": [1 << 62]}, ValueError, "within"),
        ({"device_id": ["a"]}, ValueError, "'timestamp'"),
    ],
)
def test_wrong_input_is_refused_and_changes_nothing(columns, error, match):
    sessionizer = Sessionizer()
    with pytest.raises(error, match=match):
        sessionizer.assign(pa.record_batch(columns))
    assert sessionizer.devices == 0


def test_senseless_arguments_are_refused():
    with pytest.raises(ValueError, match="max_devices must be"):
        Sessionizer(max_devices=0)
    with pytest.raises(ValueError, match="not a duration"):
        Sessionizer(gap="soon")
    with pytest.raises(ValueError, match="lateness must be between 1ms and 20d, not 30d"):
        Sessionizer(lateness="30d")
    with pytest.raises(ValueError, match="equally many"):
        sessions_exact(["a"], [1, 2], GAP)
    with pytest.raises(TypeError, match="record batch or table"):
        Sessionizer().assign([1, 2])


@given(st.lists(st.text(max_size=40)))
def test_a_device_is_hashed_by_its_bytes_alone(devices: list[str]) -> None:
    array = pa.array(["in front", *devices], pa.string())
    expected = [xxhash.xxh3_64_intdigest(device.encode()) for device in devices]
    assert device_hashes(array.slice(1)).tolist() == expected
    assert device_hashes(array).tolist()[1:] == expected
