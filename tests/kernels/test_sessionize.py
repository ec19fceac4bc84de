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

from eventmill.core.errors import StateError
from eventmill.kernels.sessionize import Sessionizer, sessions_exact

MINUTE = 60_000
GAP = 30 * MINUTE


def session_id(device, start):
    return xxhash.xxh3_64_intdigest(device.encode() + start.to_bytes(8, "little", signed=True)) & 0x7FFFFFFFFFFFFFFF


def batch_of(devices, times):
    return pa.record_batch({"device_id": pa.array(devices, pa.string()), "timestamp": pa.array(times, pa.int64())})


class Twin:
    """The two newest sessions a device, in plain Python."""

    def __init__(self):
        self.devices = {}

    def assign(self, device, at):
        sessions = self.devices.setdefault(device, [])  # newest first: [id start, start, end]
        near = [s for s in sessions if s[1] - GAP <= at <= s[2] + GAP]
        if len(near) == 2:
            newest, older = sessions
            older[1] = min(older[1], newest[1], at)
            older[2] = max(older[2], newest[2], at)
            sessions[:] = [older]
            return session_id(device, older[0])
        if near:
            near[0][1], near[0][2] = min(near[0][1], at), max(near[0][2], at)
            return session_id(device, near[0][0])
        if not sessions or at > sessions[0][2]:
            sessions.insert(0, [at, at, at])
            del sessions[2:]
        elif len(sessions) == 1 or at > sessions[1][2]:
            sessions[1:] = [[at, at, at]]
        return session_id(device, at)


events = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300)), min_size=1, max_size=80)


@settings(max_examples=150, deadline=None)
@given(events, st.integers(1, 30))
def test_streaming_agrees_with_the_twin_whatever_the_batches(rows, size):
    sessionizer, twin = Sessionizer(), Twin()
    expected = [twin.assign(device, minute * MINUTE) for device, minute in rows]
    found = []
    for begin in range(0, len(rows), size):
        part = rows[begin : begin + size]
        found += sessionizer.assign(batch_of([d for d, _ in part], [m * MINUTE for _, m in part]))[
            "session_id"
        ].to_pylist()
    assert found == expected


@settings(max_examples=100, deadline=None)
@given(events)
def test_events_in_order_get_the_exact_sessions(rows):
    rows = sorted(rows, key=lambda row: row[1])
    batch = batch_of([d for d, _ in rows], [m * MINUTE for _, m in rows])
    exact = sessions_exact(batch["device_id"], batch["timestamp"], GAP)
    assert Sessionizer().assign(batch)["session_id"].equals(exact)


def polars_starts(devices, times):
    frame = pl.DataFrame({"d": devices, "t": times}).with_row_index("i").sort("d", "t")
    gap = pl.col("t") - pl.col("t").shift(1).over("d")
    frame = frame.with_columns(n=(gap.is_null() | (gap > GAP)).cum_sum())
    return frame.with_columns(s=pl.col("t").min().over("d", "n")).sort("i")["s"].to_list()


def duckdb_starts(devices, times):
    rows = pa.table({"i": range(len(times)), "d": devices, "t": times})
    query = """
        WITH marked AS (SELECT *, coalesce(t - lag(t) OVER w > $gap, true)::int AS begins FROM rows
                        WINDOW w AS (PARTITION BY d ORDER BY t, i)),
             numbered AS (SELECT *, sum(begins) OVER (PARTITION BY d ORDER BY t, i) AS n FROM marked)
        SELECT min(t) OVER (PARTITION BY d, n) FROM numbered ORDER BY i
    """
    connection = duckdb.connect()
    connection.register("rows", rows)
    return [row[0] for row in connection.execute(query, {"gap": GAP}).fetchall()]


def test_the_exact_sessions_are_those_of_polars_and_duckdb():
    rng = np.random.default_rng(5)
    devices = [f"device-{n}" for n in rng.integers(0, 300, 20_000)]
    times = rng.integers(0, 5 * 86_400_000, 20_000).tolist()
    starts = polars_starts(devices, times)
    assert duckdb_starts(devices, times) == starts
    expected = [session_id(device, start) for device, start in zip(devices, starts, strict=True)]
    assert sessions_exact(pa.array(devices), pa.array(times), GAP).to_pylist() == expected


def test_exactly_the_gap_is_one_session_a_millisecond_more_is_two():
    found = sessions_exact(pa.array(["a", "a", "a"]), pa.array([0, GAP, 2 * GAP + 1]), GAP).to_pylist()
    assert found == [session_id("a", 0), session_id("a", 0), session_id("a", 2 * GAP + 1)]
    assert sessions_exact(pa.array([], pa.string()), pa.array([], pa.int64()), GAP).to_pylist() == []


def test_state_grows_with_devices_and_forgets_idle_ones():
    sessionizer = Sessionizer(lateness="72h")
    for day in range(20):
        names = [f"{day}-{n}" for n in range(5_000)]
        sessionizer.assign(batch_of(names, [day * 86_400_000] * len(names)))
    assert sessionizer.devices < 60_000
    assert sessionizer.nbytes / sessionizer.devices < 256


def test_long_device_ids_hash_like_short_ones():
    long = "x" * 5_000
    assert sessions_exact(pa.array([long]), pa.array([7]), GAP).to_pylist() == [session_id(long, 7)]


def test_a_restored_state_goes_on_as_the_original():
    rng = np.random.default_rng(1)
    devices = [f"d{n}" for n in rng.integers(0, 9_000, 20_000)]
    times = np.sort(rng.integers(0, 10 * 3_600_000, 20_000))
    first, second = Sessionizer(), Sessionizer()
    first.assign(batch_of(devices[:10_000], times[:10_000]))
    second.restore(first.snapshot())
    rest = batch_of(devices[10_000:], times[10_000:])
    assert second.assign(rest).equals(first.assign(rest))
    assert second.snapshot() == first.snapshot()
    with pytest.raises(StateError, match="damaged"):
        second.restore(first.snapshot()[:-1])
    with pytest.raises(StateError, match="configuration"):
        Sessionizer(gap="5m").restore(first.snapshot())


def test_nulls_are_refused():
    with pytest.raises(TypeError, match="device_id"):
        Sessionizer().assign(batch_of(["a", None], [1, 2]))
