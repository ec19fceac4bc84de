"""What an event costs in each kernel, in CPU nanoseconds over all threads, beside libraries that do the same work.

Inputs are made new for every call, so nothing is replayed out of a cache or a branch predictor. Before times are compared, the
contenders' answers are: as many sessions (by the exact form of ours), the same joined rows, the same groups.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import duckdb
import fastbloom_rs
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pybloomfilter
import rbloom

from bench import machine
from eventmill import Enricher, EventTimeBloom, RotatingBloom, Sessionizer
from eventmill._native.decode import Decoder
from eventmill.generate.stream import Spec, stream
from eventmill.kernels.partition import partition
from eventmill.kernels.sessionize import sessions_exact
from eventmill.serve.tuning import tune

START_MS = 1_795_000_000_000
GAP_MS = 1_800_000
DAY_MS = 86_400_000
_FOLD = 65_536
#: Of the events of a run of sessions: 280 a second from ten million devices, which is few.
_SPAN_MS = 3_600_000
_LAG = """
    SELECT *, sum(CASE WHEN before IS NULL OR timestamp - before > 1800000 THEN 1 ELSE 0 END)
              OVER (ORDER BY device_id, timestamp ROWS UNBOUNDED PRECEDING) AS session
    FROM (SELECT *, lag(timestamp) OVER (PARTITION BY device_id ORDER BY timestamp) AS before FROM given)
"""


def run(*, smoke: bool = False) -> dict[str, Any]:
    """All kernels, with the allocator as ``serve`` sets it, for all contenders."""
    if not smoke:
        tune()
    scale, runs = (1_000, 1) if smoke else (1, 5)
    return {
        "question": "CPU ns an item, all threads",
        "machine": machine.describe("duckdb", "fastbloom-rs", "polars", "pyarrow", "pybloomfiltermmap3", "rbloom"),
        "runs": runs,
        "kernels": {
            "dedup, 1 M ids (filter in the cache)": dedup(
                max(1_000_000 // scale, 1_000), max(65_536 // scale, 200), runs
            ),
            "dedup, 2.7 G ids (filter of 4 GiB)": dedup(
                2_700_000_000 // scale, 2_000_000 // scale, runs, together=False
            ),
            "sessionize, 10 M devices": sessionize(1_000_000 // scale, 10_000_000 // scale, runs),
            "enrich, 5 M users": enrich(1_000_000 // scale, 5_000_000 // scale, runs),
            "partition by name, 16 k events": split(16_384 // min(scale, 64), runs),
            "partition by name, 64 k events": split(65_536 // min(scale, 64), runs),
        },
    }


def cpu(work: Callable[..., object], *given: object) -> float:
    """CPU seconds of all threads."""
    begun = time.process_time()
    work(*given)
    return time.process_time() - begun


def compare(items: int, contenders: dict[str, Iterator[float]], runs: int) -> dict[str, dict[str, float]]:
    """ns an item of each contender, who take turns; each iterator gives the seconds of one more run. The first warms up."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(runs + 1):
        for name, contender in contenders.items():
            seconds = next(contender)
            if number:
                taken[name].append(seconds / items * 1e9)
    return {
        name: {"median": round(statistics.median(ns), 1), "min": round(min(ns), 1), "max": round(max(ns), 1)}
        for name, ns in taken.items()
    }


def ids_of(rng: np.random.Generator, count: int) -> pa.Array:
    """Random event ids."""
    return pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(rng.bytes(16 * count))])


def arrivals(rng: np.random.Generator, capacity: int, batch: int) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    """Ids at the rate of ``capacity`` in 24 h: when they come, and their own times, most of them seconds ago, 2 % late."""
    for begin in range(0, 1 << 60, batch):
        at = START_MS + (begin + np.arange(batch)) * DAY_MS // capacity
        own = at - rng.exponential(30_000, batch).astype(np.int64).clip(max=540_000)
        late = rng.random(batch) < 0.02
        own[late] = at[late] - rng.integers(600_000, DAY_MS, int(late.sum()))
        yield ids_of(rng, batch), pa.array(at), pa.array(own)


def dedup(capacity: int, batch: int, runs: int, *, together: bool = True) -> dict[str, Any]:
    """Observe (test and insert) at 0.1 %, ours over a window of 24 h, the peers over a filter that never forgets.

    Not ``together``, filters are so large that each is given back before the next one is made.
    """

    def by_own_times() -> Iterator[float]:
        bloom = EventTimeBloom(capacity, populate=True)
        for ids, at, own in arrivals(np.random.default_rng(1), capacity, batch):
            yield cpu(bloom.observe, ids, at, own)
            if any(bloom.observe(ids.slice(0, 100), at[-1], own.slice(0, 100)).to_pylist()):
                raise SystemExit("ours forgets")

    def by_arrival() -> Iterator[float]:
        bloom = RotatingBloom(capacity, populate=True)
        for ids, at, _ in arrivals(np.random.default_rng(1), capacity, batch):
            yield cpu(bloom.observe, ids, at)

    def fastbloom() -> Iterator[float]:
        bloom = fastbloom_rs.FilterBuilder(capacity, 0.001).build_bloom_filter()

        def work(ids: list[bytes]) -> None:
            bloom.contains_bytes_batch(ids)
            bloom.add_bytes_batch(ids)

        for ids, _, _ in arrivals(np.random.default_rng(2), capacity, batch):
            yield cpu(work, ids.to_pylist())

    def rust() -> Iterator[float]:
        bloom = rbloom.Bloom(capacity, 0.001)

        def work(ids: list[bytes]) -> None:
            [one in bloom for one in ids]
            bloom.update(ids)

        for ids, _, _ in arrivals(np.random.default_rng(3), capacity, batch):
            yield cpu(work, ids.to_pylist())

    def mapped() -> Iterator[float]:
        bloom = pybloomfilter.BloomFilter(capacity, 0.001)
        for ids, _, _ in arrivals(np.random.default_rng(4), capacity, batch):
            # `add` tells whether the id was there.
            yield cpu(lambda add, ids: [add(one) for one in ids], bloom.add, ids.to_pylist())

    contenders: dict[str, Callable[[], Iterator[float]]] = {
        "eventmill": by_own_times, "fastbloom-rs": fastbloom, "rbloom": rust, "pybloomfiltermmap3": mapped,
    }  # fmt: skip
    if together:
        contenders["eventmill, by arrival"] = by_arrival
        return compare(batch, {name: contender() for name, contender in contenders.items()}, runs)
    taken: dict[str, Any] = {}
    for name, contender in contenders.items():
        taken |= compare(batch, {name: contender()}, runs)
    return taken


def events_of(rng: np.random.Generator, count: int, devices: int, start_ms: int = START_MS) -> pa.RecordBatch:
    """Devices and times of an hour in order of arrival, 2 % of them up to three days late."""
    device = rng.integers(0, devices, count)
    times = start_ms + np.sort(rng.integers(0, _SPAN_MS, count))
    late = rng.random(count) < 0.02
    times[late] -= rng.integers(0, 72 * 3_600_000, int(late.sum()))
    return pa.record_batch({"device_id": names_of(device), "timestamp": pa.array(times, pa.int64())})


def names_of(numbers: np.ndarray[Any, Any]) -> pa.Array:
    """Texts as long as a UUID."""
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 36, "0")


def sessionize(count: int, devices: int, runs: int) -> dict[str, Any]:
    """Ours assigns in order of arrival, batch by batch, to devices that it knows; the peers sort the whole, and know nobody."""

    def ours() -> Iterator[float]:
        sessionizer = Sessionizer("30m", max_devices=2 * devices)
        for begin in range(0, devices, _FOLD):
            numbers = np.arange(begin, min(begin + _FOLD, devices))
            times = pa.array(np.full(len(numbers), START_MS - GAP_MS))
            sessionizer.assign(pa.record_batch({"device_id": names_of(numbers), "timestamp": times}))
        for seed in range(1 << 30):
            batch = events_of(np.random.default_rng(seed), count, devices, START_MS + seed * _SPAN_MS)
            parts = [batch.slice(begin, _FOLD) for begin in range(0, count, _FOLD)]
            yield cpu(lambda assign, parts: [assign(part) for part in parts], sessionizer.assign, parts)

    def sorted_sessions(frame: pl.DataFrame) -> pl.DataFrame:
        begins = (pl.col("device_id") != pl.col("device_id").shift(1)).fill_null(value=True)
        begins |= pl.col("timestamp").diff() > GAP_MS
        return frame.sort("device_id", "timestamp").with_columns(begins.cum_sum().alias("session"))

    def by_polars() -> Iterator[float]:
        for seed in range(1 << 30):
            frame = pl.DataFrame(pa.Table.from_batches([events_of(np.random.default_rng(seed), count, devices)]))
            yield cpu(sorted_sessions, frame)

    def by_duckdb() -> Iterator[float]:
        for seed in range(1 << 30):
            given = pa.Table.from_batches([events_of(np.random.default_rng(seed), count, devices)])
            with duckdb.connect() as connection:
                connection.register("given", given)
                yield cpu(lambda connection: connection.sql(_LAG).to_arrow_table(), connection)

    batch = events_of(np.random.default_rng(0), count, devices)
    exact = len(sessions_exact(batch.column("device_id"), batch.column("timestamp"), GAP_MS).unique())
    given = pa.Table.from_batches([batch])
    with duckdb.connect() as connection:
        connection.register("given", given)
        by_lag = connection.sql(f"SELECT max(session) FROM ({_LAG})").fetchall()[0][0]
    if not exact == sorted_sessions(pl.DataFrame(given))["session"].max() == by_lag:
        raise SystemExit("the sessions disagree")
    return compare(count, {"eventmill": ours(), "polars": by_polars(), "duckdb": by_duckdb()}, runs)


def enrich(count: int, users: int, runs: int) -> dict[str, Any]:
    """Three columns by user id; an eighth of the events have a user who is not in the table."""
    keys = names_of(np.arange(users + users // 7))
    rng = np.random.default_rng(5)
    table = pa.table(
        {
            "user_id": keys[:users],
            "country": pa.array(rng.choice(["DE", "FR", "US", "IN", "BR"], users)),
            "segment": pa.array(rng.choice(["new", "loyal", "gone"], users)),
            "tier": pa.array(rng.choice(["free", "gold"], users)),
        }
    )
    enricher, frame = Enricher(table), pl.DataFrame(table)

    def events(seed: int) -> pa.RecordBatch:
        chosen = np.random.default_rng(seed).integers(0, len(keys), count)
        return pa.record_batch({"user_id": keys.take(pa.array(chosen))})

    joined = enricher.apply(events(0)).column("country").to_pylist()
    if joined != pl.DataFrame(pa.Table.from_batches([events(0)])).join(frame, "user_id", "left")["country"].to_list():
        raise SystemExit("the joins disagree")

    def ours() -> Iterator[float]:
        for seed in range(1 << 30):
            yield cpu(enricher.apply, events(seed))

    def by_polars() -> Iterator[float]:
        for seed in range(1 << 30):
            left = pl.DataFrame(pa.Table.from_batches([events(seed)]))
            yield cpu(left.join, frame, "user_id", "left")

    def by_pyarrow() -> Iterator[float]:
        for seed in range(1 << 30):
            left = pa.Table.from_batches([events(seed)])
            yield cpu(left.join, table, "user_id", None, "left outer")

    return compare(count, {"eventmill": ours(), "polars": by_polars(), "pyarrow": by_pyarrow()}, runs)


def split(count: int, runs: int) -> dict[str, Any]:
    """A batch of decoded events of the shopping app, all its columns, into one batch for each event name."""

    def batch(seed: int) -> pa.RecordBatch:
        decoder = Decoder()
        for block in stream(Spec(count, seed, START_MS, GAP_MS)):
            for body in block.bodies:
                decoder.append(body, START_MS + GAP_MS)
        return decoder.finish()[0]

    def groups(parts: list[tuple[str, Any]]) -> dict[str, int]:
        return {name: len(part) for name, part in parts}

    def by_polars(given: pa.RecordBatch) -> list[tuple[str, Any]]:
        parted = pl.DataFrame(pa.Table.from_batches([given])).partition_by("event", as_dict=True, maintain_order=True)
        return [(str(name[0]), part) for name, part in parted.items()]

    def by_pyarrow(given: pa.RecordBatch) -> list[tuple[str, Any]]:
        encoded = given.column("event")
        order = np.argsort(encoded.indices.to_numpy(), kind="stable")
        taken, codes = given.take(pa.array(order)), encoded.indices.to_numpy()[order]
        starts = np.append(np.flatnonzero(np.diff(codes, prepend=-1)), len(codes))
        names = encoded.dictionary.to_pylist()
        return [(names[codes[a]], taken.slice(a, b - a)) for a, b in pairwise(starts)]

    contenders: dict[str, Callable[[pa.RecordBatch], list[tuple[str, Any]]]] = {
        "eventmill": partition, "polars": by_polars, "pyarrow": by_pyarrow,
    }  # fmt: skip
    if len({tuple(sorted(groups(work(batch(0))).items())) for work in contenders.values()}) != 1:
        raise SystemExit("the groups disagree")

    def timed(work: Callable[[pa.RecordBatch], object]) -> Iterator[float]:
        for seed in range(1 << 30):
            yield cpu(work, batch(seed))

    return compare(count, {name: timed(work) for name, work in contenders.items()}, runs)


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| kernel | | CPU ns an item (min to max) | ours is |", "|---|---|---|---|"]
    for kernel, taken in figures["kernels"].items():
        ours = taken["eventmill"]["median"]
        for name, ns in taken.items():
            ratio = f"{ns['median'] / ours:.1f}×" if name != "eventmill" and ours else ""
            lines.append(f"| {kernel} | {name} | {ns['median']:.0f} ({ns['min']:.0f} to {ns['max']:.0f}) | {ratio} |")
    return "\n".join(lines)
