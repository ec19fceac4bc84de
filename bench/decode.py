"""How fast do request bodies become Arrow columns, beside every reader of JSON to columns that Python has?

The same events for all, in turn, in CPU time of all threads: orjson gets the same bodies, the readers of lines get the events
as lines without the envelope, from memory or from a file in the page cache, as each wants it. The peers make six columns in one
piece (names by their own text), ours all of core.schema.RAW in record batches of ``rows``, as a group commit would. Row counts
and a checksum of the event names are compared before times are.
"""

from __future__ import annotations

import gzip
import io
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chdb
import duckdb
import fastsimdjson
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.json
import zstandard

from bench import machine
from eventmill._native.decode import Decoder
from eventmill.net.inflate import inflate
from eventmill.serve.tuning import tune

RECEIVED_AT = 1_795_400_000_000
NAMES = ["Product Viewed", "Product Added", "Cart Viewed", "Checkout Started", "Order Completed", "App Opened"]
COLUMNS = ("messageId", "event", "type", "anonymousId", "originalTimestamp", "properties")


def make_events(count: int, seed: int, until_ms: int = RECEIVED_AT) -> list[bytes]:
    """Track events of about 340 bytes, no two alike, of the five minutes before ``until_ms``; 40 of a phone."""
    rng = random.Random(seed)
    phones = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(-(-count // 40))]
    events = []
    for number in range(count):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime((until_ms - rng.randrange(300_000)) / 1000))
        event = {
            "type": "track",
            "messageId": str(uuid.UUID(int=rng.getrandbits(128))),
            "anonymousId": rng.choice(phones),
            "event": rng.choice(NAMES),
            "originalTimestamp": f"{at}.{rng.randrange(1000):03}Z",
            "context": {
                "app": {"version": f"4.{rng.randrange(20)}"},
                "os": {"name": rng.choice(["iOS", "Android"]), "version": f"{rng.randrange(12, 19)}.1"},
                "device": {"model": rng.choice(["iPhone15,2", "Pixel 8"])},
            },
            "properties": {"sku": f"SKU-{rng.randrange(100000)}", "price": rng.randrange(1, 50000) / 100, "n": number},
        }
        events.append(orjson.dumps(event))
    return events


def to_bodies(events: list[bytes], batch: int) -> list[bytes]:
    """Bodies of ``batch`` events each."""
    head, tail = b'{"batch":[', b'],"sentAt":"2026-11-23T02:13:20.000Z","writeKey":"wk"}'
    return [head + b",".join(events[at : at + batch]) + tail for at in range(0, len(events), batch)]


def run_ours(decoder: Decoder, bodies: list[bytes], rows: int, encoding: str = "") -> pa.Table:
    """All bodies into record batches of about ``rows`` rows."""
    batches = []
    for body in bodies:
        decoder.append(inflate(body, encoding, 1 << 24) if encoding else body, RECEIVED_AT)
        if decoder.rows >= rows:
            batches.append(decoder.finish()[0])
    return pa.Table.from_batches([*batches, decoder.finish()[0]]).unify_dictionaries()


def run_orjson(bodies: list[bytes]) -> pa.RecordBatch:
    """orjson to Python objects, six of their values to columns."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for body in bodies:
        for event in orjson.loads(body)["batch"]:
            for name in COLUMNS[:-1]:
                columns[name].append(event.get(name))
            columns["properties"].append(orjson.dumps(event["properties"]))
    return pa.record_batch(columns)


def run_fastsimdjson(lines: bytes) -> pa.RecordBatch:
    """simdjson's own Python package, asked for the six fields of each line only."""
    rows = fastsimdjson.map_many(tuple, lines, fields=[f"/{name}" for name in COLUMNS])
    return pa.record_batch([pa.array(column) for column in zip(*rows, strict=True)], names=list(COLUMNS))


def run_pyarrow(lines: bytes) -> pa.Table:
    """pyarrow.json on one thread."""
    options = pa.json.ReadOptions(use_threads=False, block_size=16 << 20)
    return pa.json.read_json(io.BytesIO(lines), read_options=options)


def run_polars(lines: bytes) -> pa.Table:
    """Polars, told the schema."""
    texts = dict.fromkeys(COLUMNS[:-1], pl.String)
    properties = pl.Struct({"sku": pl.String, "price": pl.Float64, "n": pl.Int64})
    return pl.read_ndjson(io.BytesIO(lines), schema={**texts, "properties": properties}).to_arrow()


def run_duckdb(path: Path) -> pa.Table:
    """DuckDB on one thread, told the schema."""
    kinds = ", ".join(f"{name}: 'VARCHAR'" for name in COLUMNS)
    with duckdb.connect(config={"threads": 1}) as connection:
        read = f"SELECT * FROM read_json('{path}', format='newline_delimited', columns={{{kinds}}})"
        return connection.sql(read).to_arrow_table()


def run_chdb(path: Path) -> pa.Table:
    """ClickHouse's JSONEachRow on one thread, told the schema."""
    kinds = ", ".join(f"{name} String" for name in COLUMNS)
    read = f"SELECT * FROM file('{path}', JSONEachRow, '{kinds}') SETTINGS max_threads = 1"
    return chdb.query(read, "ArrowTable")


def cpu_seconds(job: Callable[[], Any]) -> float:
    """CPU time of one run, all threads."""
    begin = time.process_time()
    job()
    return time.process_time() - begin


def checksum(result: pa.RecordBatch | pa.Table) -> tuple[int, dict[str, int]]:
    """Rows, and how many each event name has."""
    counts = {item["values"]: item["counts"] for item in result.column("event").value_counts().to_pylist()}
    return result.num_rows, {_text(name): counts[name] for name in sorted(counts, key=_text)}


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def measure(events: int, batch: int, rows: int, runs: int, seed: int) -> dict[str, Any]:
    """Median, minimum and maximum of every contender in events per second, and our ratio to each peer."""
    made = make_events(events, seed)
    bodies, lines = to_bodies(made, batch), b"\n".join(made) + b"\n"
    packed = {"gzip": [gzip.compress(body, 6) for body in bodies]}
    packed["zstd"] = [zstandard.compress(body, 3) for body in bodies]
    decoder = Decoder()
    with tempfile.TemporaryDirectory(prefix="eventmill-bench-") as folder:
        path = Path(folder, "events.jsonl")
        path.write_bytes(lines)
        jobs: dict[str, Callable[[], Any]] = {
            "eventmill": lambda: run_ours(decoder, bodies, rows),
            "orjson, pyarrow": lambda: run_orjson(bodies),
            "fastsimdjson": lambda: run_fastsimdjson(lines),
            "pyarrow.json": lambda: run_pyarrow(lines),
            "Polars": lambda: run_polars(lines),
            "DuckDB": lambda: run_duckdb(path),
            "chdb": lambda: run_chdb(path),
            "eventmill, gzip": lambda: run_ours(decoder, packed["gzip"], rows, "gzip"),
            "eventmill, zstd": lambda: run_ours(decoder, packed["zstd"], rows, "zstd"),
        }
        answers = {name: checksum(job()) for name, job in jobs.items()}
        if any(answer != answers["eventmill"] for answer in answers.values()):
            sys.exit(f"the contenders disagree, so their times mean nothing: {answers}")
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(runs):
            for name, job in jobs.items():
                times[name].append(cpu_seconds(job))
    rates = {name: sorted(events / second for second in taken) for name, taken in times.items()}
    ours = statistics.median(times["eventmill"])
    return {
        "events": events,
        "batch": batch,
        "rows": rows,
        "runs": runs,
        "bytes_per_event": round(sum(map(len, bodies)) / events, 1),
        "packed_bytes_per_event": {name: round(sum(map(len, all_)) / events, 1) for name, all_ in packed.items()},
        "events_per_second": {
            name: {"median": round(statistics.median(rate)), "min": round(rate[0]), "max": round(rate[-1])}
            for name, rate in rates.items()
        },
        "ratio": {
            name: round(statistics.median(taken) / ours, 2)
            for name, taken in times.items()
            if not name.startswith("eventmill")
        },
    }


def run(*, smoke: bool = False) -> dict[str, Any]:
    """The figures for requests of 10 and of 100 events."""
    if not smoke:
        tune()
    events, rows, runs = (300, 100, 1) if smoke else (200_000, 10_000, 7)
    return {
        "question": "request bodies to Arrow columns, CPU time of all threads",
        "machine": machine.describe(
            "chdb", "duckdb", "fastsimdjson", "isal", "orjson", "polars", "pyarrow", "zstandard"
        ),
        "by_batch": {str(batch): measure(events, batch, rows, runs, seed=1) for batch in (10, 100)},
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| events a request | | events/s, one core (min to max) | MB/s | ours is |", "|---|---|---|---|---|"]
    for batch, taken in figures["by_batch"].items():
        for name, rate in taken["events_per_second"].items():
            ratio = f"{taken['ratio'][name]:.1f}×" if name in taken["ratio"] else ""
            shown = f"{rate['median'] / 1e6:.2f} M ({rate['min'] / 1e6:.2f} to {rate['max'] / 1e6:.2f})"
            volume = rate["median"] * taken["bytes_per_event"] / 1e6
            lines.append(f"| {batch} | {name} | {shown} | {volume:,.0f} | {ratio} |")
    return "\n".join(lines)
