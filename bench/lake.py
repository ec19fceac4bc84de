"""What does an event cost the lake? CPU seconds (all threads, user and system) and bytes, for appending and compacting.

The batches look like those of the log: frames of one event name each, in order of arrival, 2 % of the events late by up to
three days. Beside appending stands pyiceberg's own ``Table.append`` of the same rows into a table of the same layout; beside
compacting stand DuckDB and Polars on the same small files, which become one for each partition: distinct by id, sorted by time,
zstd. They look for an event's twins within its partition only, compute no sessions and commit nothing.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from bench import machine
from eventmill.core.schema import EVENT
from eventmill.lake.compact import compact
from eventmill.lake.files import DAY_MS
from eventmill.lake.iceberg import COLUMNS, LiveFile
from eventmill.lake.table import Lake
from eventmill.serve.tuning import tune

START_MS = 1_780_000_000_000
NAMES = 20
FRAME = 4_096


def events(count: int, seed: int, start_ms: int = START_MS) -> pa.RecordBatch:
    """A believable batch."""
    rng = np.random.default_rng(seed)
    received = start_ms + np.sort(rng.integers(0, count // 100 + 1, count))
    late = np.where(rng.random(count) < 0.02, rng.integers(0, 3 * DAY_MS, count), rng.integers(0, 4_000, count))
    weights = 1 / np.arange(1, NAMES + 1)
    name = rng.choice(NAMES, count, p=weights / weights.sum())
    # As ingest does: within a window of arrival the events of one name form a frame.
    order = np.lexsort((np.arange(count), name, np.arange(count) // (FRAME * NAMES)))
    device = rng.integers(0, max(count // 12, 1), count)
    numbers = rng.integers(0, 1 << 30, count)
    few = {
        "type": ["track"], "app_version": [f"5.{i}.0" for i in range(8)], "platform": ["iOS", "Android"],
        "os_version": [f"{i}.1" for i in range(12, 18)], "device_model": [f"Model {i}" for i in range(60)],
        "locale": ["de-DE", "en-US", "fr-FR", "es-ES"], "country": ["DE", "US", "FR", "ES"],
        "segment": ["new", "loyal", "lapsed"], "tier": ["free", "plus"],
    }  # fmt: skip
    texts: dict[str, Callable[[], list[str]]] = {
        "device_id": lambda: [f"{value * 2_654_435_761 % (1 << 64):032x}" for value in device.tolist()],
        "anonymous_id": lambda: [f"{value * 2_654_435_761 % (1 << 64):032x}" for value in device.tolist()],
        "user_id": lambda: [f"user-{value}" for value in device.tolist()],
        "event": lambda: [f"Event {value}" for value in name.tolist()],
        "properties": lambda: [
            f'{{"product_id":"SKU-{value % 9973:05d}","price":{value % 20000 / 100:.2f},"currency":"EUR",'
            f'"position":{value % 40},"list":"search","query_id":"{value:08x}"}}'
            for value in numbers.tolist()
        ],
        "context": lambda: [
            f'{{"screen":{{"width":1170,"height":2532}},"network":{{"wifi":{"true" if value % 3 else "false"}}},'
            f'"timezone":"Europe/Berlin","library":{{"name":"analytics-ios","version":"4.1.{value % 7}"}}}}'
            for value in numbers.tolist()
        ],
    }
    times = {"timestamp": received - late, "original_timestamp": received - late + 321, "sent_at": received - 80,
             "received_at": received}  # fmt: skip
    columns = []
    for field in EVENT:
        if field.name == "event_id":
            column = pa.FixedSizeBinaryArray.from_buffers(
                field.type, count, [None, pa.py_buffer(rng.bytes(16 * count))]
            )
        elif field.name in texts:
            column = pa.array(texts[field.name](), field.type)
        elif field.name in times:
            column = pa.array(times[field.name]).cast(field.type)
        elif field.name in few:
            column = pa.array(few[field.name]).take(pa.array(device % len(few[field.name])))
        elif field.name == "session_id":
            column = pa.array(device * 7_919)
        else:
            column = pa.nulls(count, field.type) if field.nullable else pa.array(np.zeros(count, np.int32))
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=EVENT).take(pa.array(order))


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """(CPU seconds, wall seconds)."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def run(*, smoke: bool = False) -> dict[str, Any]:
    """The figures."""
    count, batches = (2_000, 2) if smoke else (200_000, 12)
    if not smoke:
        tune()
    folder = Path(tempfile.mkdtemp(prefix="lake-bench-"))
    try:
        taken = measure(folder, count, batches)
    finally:
        shutil.rmtree(folder)
    return {
        "question": "what an event costs the lake",
        "machine": machine.describe("pyarrow", "pyiceberg"),
        "events_per_batch": count,
        "batches": batches,
        "by_job": taken,
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| | CPU µs an event | wall µs | events/s | bytes an event | files |", "|---|---|---|---|---|---|"]
    for name, taken in figures["by_job"].items():
        lines.append(
            f"| {name} | {taken['cpu_us_per_event']:.2f} | {taken['wall_us_per_event']:.2f} | "
            f"{1 / taken['wall_us_per_event']:.2f} M | "
            f"{taken['bytes_per_event']:.0f} | {taken['files']} |"
        )
    return "\n".join(lines)


def measure(folder: Path, count: int, batches: int) -> dict[str, dict[str, float]]:
    """The figures."""
    data = [events(count, seed, START_MS + seed * 10_000) for seed in range(batches)]
    lake = Lake(folder / "ours")

    def append() -> None:
        for number, batch in enumerate(data):
            lake.append(batch, group="lake", ranges={0: (number, number + 1)})

    cpu, wall = measured(append)
    files = lake.live_files()
    appended_bytes = sum(file.data_file.file_size_in_bytes for file in files)
    partitions = by_partition(files)
    peers = {}
    for name, rewrite in (("DuckDB", by_duckdb), ("Polars", by_polars)):
        place = folder / name
        place.mkdir()
        taken = measured(lambda rewrite=rewrite, place=place: rewrite(partitions, place))  # type: ignore[misc]
        peers[f"{name}: distinct, sorted, zstd"] = figures(*taken, count * batches) | peer_files(place, count * batches)
        assert pl.scan_parquet(place / "*.parquet").select(pl.len()).collect().item() == count * batches
    compacted_cpu, compacted_wall = measured(lambda: compact(lake, gap_ms=1_800_000, now_ms=START_MS))
    compacted = lake.live_files()
    assert sum(file.rows for file in compacted) == count * batches
    lake.close()
    peer_cpu, peer_wall = measured(lambda: peer(folder / "peer", data))
    total = count * batches
    return {
        "append": figures(cpu, wall, total) | {"files": len(files), "bytes_per_event": appended_bytes / total},
        "compact": figures(compacted_cpu, compacted_wall, total) | {
            "files": len(compacted),
            "bytes_per_event": sum(file.data_file.file_size_in_bytes for file in compacted) / total,
        },
        **peers,
        "pyiceberg's Table.append": figures(peer_cpu, peer_wall, total) | peer_files(folder / "peer", total),
    }  # fmt: skip


def figures(cpu: float, wall: float, total: int) -> dict[str, float | int]:
    """Per event."""
    return {"cpu_us_per_event": round(cpu / total * 1e6, 3), "wall_us_per_event": round(wall / total * 1e6, 3)}


def peer(folder: Path, data: list[pa.RecordBatch]) -> None:
    """The same rows by pyiceberg's own writer."""
    layout = Lake(folder)
    table = SqlCatalog("eventmill", uri=f"sqlite:///{folder / 'catalog.sqlite'}").load_table("eventmill.events")
    for batch in data:
        dates = batch.column("timestamp").cast(pa.date32())
        columns = [dates, batch.column("event"), *batch.columns]
        rows = pa.Table.from_arrays(columns, COLUMNS.names).cast(COLUMNS)
        table.append(rows)
    layout.close()


def by_partition(files: list[LiveFile]) -> list[list[str]]:
    """The paths of each partition's files."""
    found: dict[tuple[int, str], list[str]] = {}
    for file in files:
        found.setdefault((file.date, file.group), []).append(file.path)
    return list(found.values())


def by_duckdb(partitions: list[list[str]], folder: Path) -> None:
    """A file for each partition, by DuckDB on two threads."""
    with duckdb.connect(config={"threads": 2}) as connection:
        for number, paths in enumerate(partitions):
            connection.execute(
                "COPY (SELECT DISTINCT ON (event_id) * FROM read_parquet($paths) ORDER BY timestamp) "
                f"TO '{folder / f'{number}.parquet'}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)",
                {"paths": paths},
            )


def by_polars(partitions: list[list[str]], folder: Path) -> None:
    """The same by Polars, with as many threads as there are cores."""
    for number, paths in enumerate(partitions):
        rows = pl.read_parquet(paths).unique("event_id", keep="first").sort("timestamp")
        rows.write_parquet(folder / f"{number}.parquet", compression="zstd", compression_level=1)


def peer_files(folder: Path, total: int) -> dict[str, float]:
    """What the peer has written."""
    sizes = [path.stat().st_size for path in folder.rglob("*.parquet")]
    return {"files": len(sizes), "bytes_per_event": sum(sizes) / total}
