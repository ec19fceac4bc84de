"""How fast do events go into the real-time store, what do they take there, and how long do questions take?

Beside it, in turn and with the same events: plain clickhouse-connect (``insert_arrow``) and ClickHouse's own reader of
NDJSON, both into a table of the same columns without roll-ups; and pyarrow's ``write_dataset``, asked by DuckDB. Ours keeps
its roll-ups and two typed properties besides; once more over HTTP, with the engine in a server's place
(``testbed/clickhouse_http.py``).
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import clickhouse_connect
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from bench import machine
from bench.lake import START_MS, events
from bench.store_questions import QUESTIONS, Question
from eventmill.core.typed import Kind, Typed, TypedProperty
from eventmill.sinks.realtime import migrations
from eventmill.sinks.realtime.ddl import EVENTS_TABLE
from eventmill.sinks.realtime.server import Server, parse_url
from eventmill.sinks.realtime.shape import Shape
from eventmill.sinks.realtime.store import RealtimeStore
from testbed.clickhouse import ClickHouse

NAMES = [f"Event {number}" for number in range(20)]
TYPED = Typed.of(
    [TypedProperty("price", Kind.NUMBER, ("Event 0", "Event 1")), TypedProperty("list", Kind.WORD, ("Event 0",))]
)
_REPEATS = 5


class Contender(Protocol):
    """Takes batches, and answers questions."""

    def insert(self, number: int) -> None: ...

    def ask(self, question: Question) -> Any: ...

    def size(self) -> dict[str, float]: ...

    def close(self) -> None: ...


class Ours:
    """The store, embedded or on a server."""

    def __init__(self, folder: Path, batches: list[pa.Table], server: ClickHouse | None = None) -> None:
        connections = None if server is None else Server(parse_url(server.url))
        if connections is not None:
            list(migrations.apply(connections, Shape()))
        self._store = RealtimeStore(folder / "realtime", connections=connections)
        self._store.declare(TYPED)
        self._batches = batches

    def insert(self, number: int) -> None:
        self._store.insert(self._batches[number], f"batch {number}")

    def ask(self, question: Question) -> Any:
        return question.value(self._store.query_arrow(question.ours))

    def size(self) -> dict[str, float]:
        return _size(self._store.query_arrow, "database = 'eventmill'")

    def close(self) -> None:
        self._store.close()


class Plain:
    """One table of the same columns, filled by ``insert_arrow``."""

    table = "events"

    def __init__(self, folder: Path, batches: list[pa.Table]) -> None:
        self._client = clickhouse_connect.get_client(interface="chdb", path=str(folder))
        self._client.command("CREATE DATABASE plain")
        columns = ", ".join(f"{column.name} {column.kind}" for column in EVENTS_TABLE.columns)
        self._client.command(
            f"CREATE TABLE plain.events ({columns}) ENGINE = MergeTree PARTITION BY toDate(timestamp) "
            "ORDER BY (event, timestamp)"
        )
        self._batches = batches

    def insert(self, number: int) -> None:
        self._client.insert_arrow("plain.events", self._batches[number])

    def ask(self, question: Question) -> Any:
        return question.value(self._query(question.plain.replace("plain.events", f"plain.{self.table}")))

    def size(self) -> dict[str, float]:
        return _size(self._query, f"database = 'plain' AND table = '{self.table}'")

    def _query(self, sql: str) -> pa.Table:
        return self._client.query_arrow(sql)

    def close(self) -> None:
        self._client.close()


class FromFiles(Plain):
    """A table like that, filled by ClickHouse's reader of NDJSON."""

    table = "from_files"

    def __init__(self, folder: Path, batches: list[pa.Table], files: list[Path]) -> None:
        self._client = clickhouse_connect.get_client(interface="chdb", path=str(folder))
        self._client.command("CREATE TABLE plain.from_files AS plain.events")
        self._batches, self._files = batches, files

    def insert(self, number: int) -> None:
        schema = self._batches[number].schema
        self._client.command(
            f"INSERT INTO plain.from_files ({', '.join(schema.names)}) SELECT * REPLACE (unhex(event_id) AS event_id) "
            f"FROM file('{self._files[number]}', 'JSONEachRow', '{_structure(schema)}')"
        )


class Dataset:
    """Parquet files (zstd) by event date, written by pyarrow and read by DuckDB."""

    def __init__(self, folder: Path, batches: list[pa.Table]) -> None:
        self._folder = folder / "dataset"
        self._batches = [
            batch.append_column("event_date", batch.column("timestamp").cast(pa.date32())) for batch in batches
        ]
        self._duck = duckdb.connect()
        self._duck.execute("SET TimeZone = 'UTC'; SET threads = 2")

    def insert(self, number: int) -> None:
        ds.write_dataset(
            self._batches[number], self._folder, format="parquet", partitioning=["event_date"],
            partitioning_flavor="hive", basename_template=f"{number}-{{i}}.parquet",
            existing_data_behavior="overwrite_or_ignore",
            file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
        )  # fmt: skip

    def ask(self, question: Question) -> Any:
        files = f"read_parquet('{self._folder}/**/*.parquet', hive_partitioning = true)"
        return question.value(self._duck.sql(question.duck.replace("plain.events", files)).to_arrow_table())

    def size(self) -> dict[str, float]:
        files = [path.stat().st_size for path in self._folder.rglob("*.parquet")]
        return {"bytes": sum(files), "parts": len(files)}

    def close(self) -> None:
        self._duck.close()


def _structure(schema: pa.Schema) -> str:
    kinds = {column.name: column.kind for column in EVENTS_TABLE.columns} | {"event_id": "String"}
    return ", ".join(f"{name} {kinds[name]}" for name in schema.names).replace("'", "\\'")


def _size(query: Callable[[str], pa.Table], which: str) -> dict[str, float]:
    """Bytes and parts of these tables, and the bytes of the events themselves."""
    found = query(
        "SELECT sum(bytes_on_disk) AS bytes, count() AS parts, "
        f"sumIf(bytes_on_disk, table IN ('events', 'from_files')) AS of_events FROM system.parts WHERE active AND {which}"
    )
    return {name: float(value) for name, value in found.to_pylist()[0].items()}


def _batches(count: int, batches: int) -> list[pa.Table]:
    made = []
    for number in range(batches):
        rows = pa.Table.from_batches([events(count, number, START_MS + number * 20_000)])
        offsets = number * 100 + np.arange(count) * 100 // count
        made.append(rows.append_column("log_offset", pa.array(offsets.astype(np.uint64))))
    return made


def _ndjson(folder: Path, batches: list[pa.Table]) -> list[Path]:
    """The same rows as files of NDJSON, made by DuckDB."""
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        for number, batch in enumerate(batches):
            duck.register("rows", batch)
            times = ", ".join(
                f"strftime({name}, '%Y-%m-%d %H:%M:%S.%g') AS {name}"
                for name in ("timestamp", "original_timestamp", "sent_at", "received_at")
            )
            duck.execute(
                f"COPY (SELECT * REPLACE (hex(event_id) AS event_id, {times}) FROM rows) TO '{folder / f'{number}.json'}'"
            )
    return [folder / f"{number}.json" for number in range(len(batches))]


def run(*, smoke: bool = False) -> dict[str, Any]:
    """The figures."""
    count, number = (2_000, 3) if smoke else (200_000, 11)
    folder = Path(tempfile.mkdtemp(prefix="store-bench-"))
    try:
        with ClickHouse(folder / "server") as server:
            contenders = _contenders(folder, _batches(count, number), server)
            try:
                inserted, base = _inserts(contenders, count, number)
                peak = _high_water()
                sizes = {name: each.size() for name, each in contenders.items()}
                asked = _questions(contenders, 2 if smoke else _REPEATS)
            finally:
                for each in contenders.values():
                    each.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    total = count * number
    return {
        "question": "how fast events go into the real-time store, what they take there, and how long questions take",
        "machine": machine.describe("chdb", "clickhouse-connect", "pyarrow", "duckdb"),
        "events_per_insert": count,
        "inserts": number - 1,
        "peak_bytes_over_base": peak - base,
        "by_contender": {
            name: inserted[name]
            | {"bytes_per_event": size["bytes"] / total, "parts": size["parts"]}
            | ({"bytes_per_event_of_events": size["of_events"] / total} if "of_events" in size else {})
            for name, size in sizes.items()
        },
        "by_question_ms": asked,
    }


def _contenders(folder: Path, batches: list[pa.Table], server: ClickHouse) -> dict[str, Contender]:
    """By name. chdb has one folder a process, so all that is embedded shares one."""
    here = folder / "realtime"
    return {
        "ours": Ours(folder, batches),
        "ours over HTTP": Ours(folder, batches, server),
        "insert_arrow": Plain(here, batches),
        "NDJSON": FromFiles(here, batches, _ndjson(folder, batches)),
        "pyarrow write_dataset": Dataset(folder, batches),
    }


def _inserts(contenders: dict[str, Contender], count: int, number: int) -> tuple[dict[str, dict[str, float]], int]:
    """Rows a second and CPU of each insert but the first, all taking turns; and the memory before."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    base = 0
    for turn in range(number):
        for name, each in contenders.items():
            cpu, wall = time.process_time(), time.perf_counter()
            each.insert(turn)
            if turn:
                rates[name].append(count / (time.perf_counter() - wall))
                costs[name].append((time.process_time() - cpu) / count * 1e9)
        if not turn:
            base = _reset_high_water()
    return {
        name: {
            "events_s": statistics.median(found), "events_s_min": min(found), "events_s_max": max(found),
            "cpu_ns_per_event": statistics.median(costs[name]),
        }
        for name, found in rates.items()
    }, base  # fmt: skip


def _questions(contenders: dict[str, Contender], repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds by question and contender; the answers must be the same."""
    found: dict[str, dict[str, float]] = {}
    for question in QUESTIONS:
        answers = {name: each.ask(question) for name, each in contenders.items()}
        right = answers["pyarrow write_dataset"]
        for name, answer in answers.items():
            if not question.same(answer, right):
                raise AssertionError(f"{name} answers {question.name!r} with {answer}, DuckDB with {right}")
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(repeats):
            for name, each in contenders.items():
                started = time.perf_counter()
                each.ask(question)
                taken[name].append((time.perf_counter() - started) * 1e3)
        found[question.name] = {name: statistics.median(each) for name, each in taken.items()}
    return found


def _reset_high_water() -> int:
    """Gives the resident bytes now, from which the high-water mark begins anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _high_water()


def _high_water() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1_024


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"Inserts of {figures['events_per_insert']:,} events, {figures['inserts']} of each in turn, on "
        f"{figures['machine']['cores']} cores; the process grew by at most "
        f"{figures['peak_bytes_over_base'] / 1e6:,.0f} MB meanwhile. CPU is this "
        "process's: over HTTP the client's alone.",
        "",
        "| | events/s (min … max) | CPU ns an event | bytes an event | parts |",
        "|---|---|---|---|---|",
    ]
    for name, taken in figures["by_contender"].items():
        lines.append(
            f"| {name} | {taken['events_s'] / 1e3:,.0f} k ({taken['events_s_min'] / 1e3:,.0f} … "
            f"{taken['events_s_max'] / 1e3:,.0f}) | {taken['cpu_ns_per_event']:,.0f} | {taken['bytes_per_event']:.1f} | "
            f"{taken['parts']:.0f} |"
        )
    names = list(figures["by_contender"])
    lines += ["", f"| median ms | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for question, taken in figures["by_question_ms"].items():
        lines.append(f"| {question} | {' | '.join(f'{taken[name]:.1f}' for name in names)} |")
    return "\n".join(lines)
