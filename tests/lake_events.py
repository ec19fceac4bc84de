"""Events for the lake's tests, and what the lake must hold, by independent readers."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.engine import URL

from eventmill.core.schema import EVENT
from eventmill.lake.iceberg import LakeTable

GAP_MS = 1_800_000
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START_MS = 20_600 * DAY_MS  # a midnight
GROUP = "lake"


def event_id(number: int) -> bytes:
    """An id."""
    return uuid.uuid5(uuid.NAMESPACE_OID, str(number)).bytes


def row(number: int, **columns: Any) -> dict[str, Any]:
    """One event; times are ms since the epoch, and 12:00 of the first day if not given."""
    at = columns.get("timestamp", START_MS + 12 * HOUR_MS)
    return {
        "event_id": event_id(number),
        "event": "tap",
        "type": "track",
        "device_id": "device",
        "timestamp": at,
        "received_at": at + 100,
        "session_id": 0,
        "properties": "{}",
        "context": "{}",
        "flags": 0,
    } | columns


def batch(rows: Iterable[dict[str, Any]]) -> pa.RecordBatch:
    """Rows under EVENT; times in ms."""
    listed = list(rows)
    columns = []
    for field in EVENT:
        values = [entry.get(field.name) for entry in listed]
        kind = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        columns.append(pa.array(values, kind).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=EVENT)


def rows_of(lake: LakeTable) -> list[dict[str, Any]]:
    """All rows, read by pyiceberg under a catalog of its own, times in ms."""
    uri = URL.create("sqlite", database=str(lake.folder / "catalog.sqlite")).render_as_string()
    table = SqlCatalog("eventmill", uri=uri).load_table("eventmill.events").scan().to_arrow()
    for position, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            times = pa.chunked_array([chunk.cast(pa.int64()) for chunk in table.column(position).chunks], pa.int64())
            table = table.set_column(position, field.name, pa.array(times.to_numpy() // 1000, from_pandas=True))
    return sorted(table.to_pylist(), key=lambda entry: (entry["timestamp"], entry["event_id"]))


def session(device: str, start_ms: int) -> int:
    """A session's id."""
    own = xxhash.xxh3_64_intdigest(device.encode())
    text = own.to_bytes(8, "little") + start_ms.to_bytes(8, "little", signed=True)
    return xxhash.xxh3_64_intdigest(text) & (2**63 - 1)


def sessions_by_polars(rows: list[dict[str, Any]], gap_ms: int = GAP_MS) -> dict[bytes, int]:
    """Exact sessions of all rows, by Polars."""
    import polars as pl  # here, so that the processes that are killed start fast

    frame = pl.DataFrame(
        {name: [entry[name] for entry in rows] for name in ("event_id", "device_id", "timestamp")},
        schema={"event_id": pl.Binary, "device_id": pl.String, "timestamp": pl.Int64},
    ).sort("device_id", "timestamp")
    starts = frame.with_columns(
        begins=pl.col("timestamp").diff().over("device_id").fill_null(gap_ms + 1) > gap_ms
    ).with_columns(
        start=pl.when("begins").then("timestamp").otherwise(None).forward_fill().over("device_id")
    )  # fmt: skip
    return {
        entry["event_id"]: session(entry["device_id"], entry["start"])
        for entry in starts.select("event_id", "device_id", "start").iter_rows(named=True)
    }


def sessions_by_duckdb(rows: list[dict[str, Any]], gap_ms: int = GAP_MS) -> dict[bytes, int]:
    """Exact sessions of all rows, by DuckDB."""
    import duckdb

    given = pa.table({name: [entry[name] for entry in rows] for name in ("event_id", "device_id", "timestamp")})
    with duckdb.connect() as connection:
        connection.register("given", given)
        found = connection.execute(
            f"""
            WITH marked AS (
                SELECT *, "timestamp" - lag("timestamp") OVER by_time AS gap FROM given
                WINDOW by_time AS (PARTITION BY device_id ORDER BY "timestamp")
            )
            SELECT event_id, device_id, max(CASE WHEN gap IS NULL OR gap > {gap_ms} THEN "timestamp" END) OVER (
                PARTITION BY device_id ORDER BY "timestamp" RANGE UNBOUNDED PRECEDING)
            FROM marked
            """
        ).fetchall()
    return {bytes(number): session(device, start) for number, device, start in found}


def random_rows(rng: np.random.Generator, first: int, count: int, days: int = 4) -> list[dict[str, Any]]:
    """Events of a few devices that are active in bursts, many of them around midnight."""
    devices = rng.integers(0, 6, count)
    centres = rng.choice([0, 0, 1, 2, 3], count) * DAY_MS + rng.choice([0, 0, 7 * HOUR_MS], count)
    spread = rng.choice([GAP_MS, 2 * HOUR_MS, 10 * HOUR_MS], count)
    at = START_MS + np.clip(centres + (rng.random(count) - 0.4) * spread, 0, days * DAY_MS - 1).astype(np.int64)
    return [
        row(
            first + number,
            device_id=f"device-{device}",
            event=f"event {device % 3}",
            timestamp=int(time),
            received_at=int(START_MS + 5 * DAY_MS + first + number),
            session_id=int(rng.integers(0, 1 << 40)),
        )
        for number, (device, time) in enumerate(zip(devices.tolist(), at.tolist(), strict=True))
    ]


def data_files(lake: LakeTable) -> set[Path]:
    """Every data file in the folder."""
    return set((lake.events / "data").rglob("*.parquet"))
