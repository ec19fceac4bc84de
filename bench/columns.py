"""What does each column of ``events`` take on disk, and what would another type or codec take?

Each form is a column of a table in the order of the real one, merged to one part; ClickHouse tells the bytes. Beside them
stands the CPU that it takes to write it, and to read it back.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bench import machine
from bench.lake import events
from eventmill.core.schema import EVENT
from eventmill.sinks.realtime.clients import Clients
from eventmill.sinks.realtime.ddl import CODECS, EVENTS_TABLE

_TIME: Final = "DateTime64(3, 'UTC')"
#: Forms that were tried beside the one in use, by column.
TRIED: Final = {
    "event_id": ["FixedString(16) CODEC(LZ4)"],
    "event": ["String CODEC(LZ4)"],
    "device_id": ["String CODEC(ZSTD(1))", "LowCardinality(String)"],
    "user_id": ["Nullable(String) CODEC(ZSTD(1))"],
    "timestamp": [f"{_TIME} CODEC(DoubleDelta, LZ4)", f"{_TIME} CODEC(Delta, LZ4)", f"{_TIME} CODEC(Delta, ZSTD(1))"],
    "anonymous_id": ["Nullable(String)"],
    "received_at": [f"{_TIME} CODEC(DoubleDelta, LZ4)", f"{_TIME} CODEC(Delta, ZSTD(1))"],
    "session_id": ["Int64 CODEC(Delta, LZ4)", "Int64 CODEC(ZSTD(1))"],
    "platform": ["Nullable(String)"],
    "properties": ["String CODEC(LZ4)", "String CODEC(ZSTD(3))", "JSON CODEC(ZSTD(1))"],
    "context": ["String CODEC(LZ4)", "String CODEC(ZSTD(3))", "LowCardinality(String)"],
    "log_offset": ["UInt64 CODEC(DoubleDelta, LZ4)", "UInt64 CODEC(T64, LZ4)"],
}
_TYPED: Final = {
    "price as Nullable(Float64)": ("Nullable(Float64) CODEC(ZSTD(1))", "JSONExtract(properties, 'price', 'Nullable(Float64)')"),
    "list as LowCardinality": (
        "LowCardinality(Nullable(String)) CODEC(ZSTD(1))", "JSONExtract(properties, 'list', 'Nullable(String)')",
    ),
}  # fmt: skip


def run(*, smoke: bool = False) -> dict[str, Any]:
    """The figures."""
    count = 5_000 if smoke else 200_000
    rows = pa.Table.from_batches([events(count, 1)])
    rows = rows.append_column("log_offset", pa.array((np.arange(count) // 2_000).astype(np.uint64)))
    with tempfile.TemporaryDirectory(prefix="columns-bench-") as folder, closing(Clients(Path(folder))) as clients:
        clients.command("CREATE DATABASE x")
        kinds = ", ".join(f"{column.name} {column.kind}" for column in EVENTS_TABLE.columns)
        clients.command(f"CREATE TABLE x.source ({kinds}) ENGINE = Memory")
        names = ", ".join([*EVENT.names, "log_offset"])
        clients.command(f"INSERT INTO x.source ({names}) SELECT {names} FROM {clients.source}", rows)
        measured = [_measure(clients, column, form, value, count, used=used) for column, form, value, used in _forms()]
    return {
        "question": "what a column takes, and what it would take otherwise",
        "machine": machine.describe("chdb"),
        "events": count,
        "forms": measured,
    }


def _forms() -> list[tuple[str, str, str, bool]]:
    """Column, form, the expression that fills it, and whether it is the one in use."""
    found = []
    for column in EVENTS_TABLE.columns:
        tail = CODECS.get(column.name, column.tail.removeprefix("DEFAULT now64(3) "))
        found.append((column.name, f"{column.kind} {tail}".strip(), column.name, True))
        found += [(column.name, form, column.name, False) for form in TRIED.get(column.name, [])]
    return found + [(name, form, value, True) for name, (form, value) in _TYPED.items()]


def _measure(clients: Clients, column: str, form: str, value: str, count: int, *, used: bool) -> dict[str, Any]:
    clients.command("DROP TABLE IF EXISTS x.one SYNC")
    clients.command(
        f"CREATE TABLE x.one (event LowCardinality(String), at DateTime('UTC'), it {form}) ENGINE = MergeTree "
        "ORDER BY (event, at) SETTINGS min_bytes_for_wide_part = 0, min_rows_for_wide_part = 0"
    )
    cpu = time.process_time()
    clients.command(
        f"INSERT INTO x.one SELECT event, toStartOfMinute(timestamp), {value} FROM x.source "
        f"SETTINGS max_insert_threads = 1, min_insert_block_size_rows = {count}, min_insert_block_size_bytes = 0"
    )
    written = time.process_time() - cpu
    clients.command("OPTIMIZE TABLE x.one FINAL")
    size = clients.query(
        "SELECT sum(column_bytes_on_disk) AS bytes FROM system.parts_columns "
        "WHERE active AND database = 'x' AND table = 'one' AND column = 'it'"
    )
    cpu = time.process_time()
    clients.command("SELECT ignore(it) FROM x.one FORMAT Null")
    return {
        "column": column, "form": form, "used": used, "bytes_per_event": size.column(0)[0].as_py() / count,
        "write_ns": written / count * 1e9, "read_ns": (time.process_time() - cpu) / count * 1e9,
    }  # fmt: skip


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown; what is in use is bold."""
    lines = [
        "| column | form | bytes an event | CPU ns to write, with the sort key | CPU ns to read |",
        "|---|---|---|---|---|",
    ]
    for each in figures["forms"]:
        form = f"**`{each['form']}`**" if each["used"] else f"`{each['form']}`"
        lines.append(
            f"| {each['column']} | {form} | {each['bytes_per_event']:.2f} | {each['write_ns']:.0f} | {each['read_ns']:.1f} |"
        )
    total = sum(each["bytes_per_event"] for each in figures["forms"] if each["used"] and " as " not in each["column"])
    return "\n".join([*lines, f"| all, as used | | {total:.1f} | | |"])
