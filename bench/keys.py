"""Which sort key and which skip indexes do the store's questions want, and what does each cost?

The same events, three days as ``bench.month`` makes them, go into a table for each form, insert by insert in turn. Then each
is merged to one part a day, and asked all that Eventmill asks of events (``bench.keys_questions``). ClickHouse tells the rows
that it read and the bytes; the CPU is this process's.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import chdb
import numpy as np
import pyarrow as pa

from bench import machine, month
from bench.keys_questions import questions, same
from eventmill.core.schema import WORD
from eventmill.core.typed import Kind, Typed, TypedProperty
from eventmill.lake.files import DAY_MS
from eventmill.sinks.realtime.ddl import CODECS, EVENTS_TABLE, INDEXES_BY_MERGES
from eventmill.sinks.realtime.ddl import INDEXES as IN_USE
from eventmill.sinks.realtime.encode import columns, select
from eventmill.sinks.realtime.shape import Column, Shape, Table

START: Final = 20_600 * DAY_MS
DAYS: Final = 3
TYPED: Final = Typed.of(
    [
        TypedProperty("price", Kind.NUMBER, ("Product Viewed",)),
        TypedProperty("category", Kind.WORD, ("Product Viewed",)),
    ]
)
#: Where a query's rows come from; chdb finds them by the name of a local variable.
_SOURCE: Final = "Python(eventmill_rows)"
_INSERT: Final = (
    "max_insert_threads = 1, min_insert_block_size_rows = 1000000000, min_insert_block_size_bytes = 0, "
    "max_partitions_per_insert_block = 0, insert_deduplicate = 0"
)
_PROJECTS: Final = ("shop", "shop", "shop", "shop", "outlet", "outlet", "club")


@dataclass(frozen=True, slots=True)
class Form:
    """A table to try. ``key``: its ORDER BY; ``also``: what else it has, as ALTER TABLE … ADD takes it; ``insert``: a setting
    of inserts."""

    name: str
    key: str = EVENTS_TABLE.order
    also: tuple[str, ...] = ()
    insert: str = ""


#: What the store has.
USED: Final = ("event, minute", "the four, made by merges")
_MINUTE: Final = "toStartOfMinute(timestamp)"
KEYS: Final = (
    Form("event, minute"),
    Form("event, minute, device", f"event, {_MINUTE}, device_id"),
    Form("minute, event", f"{_MINUTE}, event"),
    Form("device, time", "device_id, timestamp"),
    Form("project, event, minute", f"project, event, {_MINUTE}"),
)
#: Those of event_id, device_id, user_id and anonymous_id.
_FILTERS: Final = tuple(f"INDEX {name} {what}" for name, what in IN_USE.items())
INDEXES: Final = (
    Form("none"),
    Form("Bloom filter of event_id", also=("INDEX bloom event_id TYPE bloom_filter(0.01) GRANULARITY 1",)),
    Form("four Bloom filters", also=_FILTERS),
    Form("the four, made by merges", also=_FILTERS, insert=INDEXES_BY_MERGES),
    Form("set of p_category", also=("INDEX set_category p_category TYPE set(100) GRANULARITY 1",)),
    Form("n-grams of properties", also=("INDEX grams properties TYPE ngrambf_v1(4, 32768, 3, 0) GRANULARITY 1",)),
    Form("projection by event_id", also=("PROJECTION by_id (SELECT event_id, _part_offset ORDER BY event_id)",)),
)


class Engine:
    """ClickHouse in this process; ``Connections`` enough for the store's own look-ups. Adds up what queries take."""

    source = _SOURCE

    def __init__(self, folder: Path) -> None:
        self._connection = chdb.connect(str(folder))
        # It remembers where a condition found nothing, which would spare the second question what the first one read.
        self._connection.query("SET use_query_condition_cache = 0")
        self.rows_read = 0

    def command(self, statement: str, rows: pa.Table | None = None) -> None:
        """Run what answers nothing."""
        eventmill_rows = rows  # noqa: F841 - see ``_SOURCE``
        self._connection.query(statement)

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        rows: pa.Table | None = None,
    ) -> pa.Table:
        """Run a SELECT."""
        eventmill_rows = rows  # noqa: F841 - see ``_SOURCE``
        clause = ", ".join(f"{name} = {value}" for name, value in (settings or {}).items())
        text = f"{statement} SETTINGS {clause}" if clause else statement
        found = self._connection.query(text, "Arrow", params=dict(parameters) if parameters else None)
        self.rows_read += found.storage_rows_read()
        data = found.bytes()
        return pa.ipc.open_file(pa.py_buffer(data)).read_all() if data else pa.table({})

    def close(self) -> None:
        """End it."""
        self._connection.close()


def run(*, smoke: bool = False) -> dict[str, Any]:
    """The figures."""
    count, frames, repeats, step = (3_000, 1, 0, 3) if smoke else (2_000_000, month.FRAMES, 3, 1)
    return {
        "question": "which sort key and skip indexes the store's questions want, and what they cost",
        "machine": machine.describe("chdb"),
        "events": count,
        "days": DAYS,
        "keys": measure(KEYS[::step], count, frames, repeats),
        "indexes": measure(INDEXES[::step], count, frames, repeats),
    }


def measure(forms: tuple[Form, ...], count: int, frames: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Of each form ``insert_ns`` and ``merge_ns`` (CPU), ``bytes`` (all of an event) and ``questions``."""
    with tempfile.TemporaryDirectory(prefix="keys-bench-") as folder:
        engine = Engine(Path(folder) / "chdb")
        try:
            return _measure(engine, forms, inserts(Path(folder), count, frames), count, repeats)
        finally:
            engine.close()


def _measure(
    engine: Engine, forms: tuple[Form, ...], batches: Iterator[pa.Table], count: int, repeats: int
) -> dict[str, dict[str, Any]]:
    tables = {f"x.form_{number}": form for number, form in enumerate(forms)}
    engine.command("CREATE DATABASE x")
    for table, form in tables.items():
        _create(engine, table, form)
        engine.command(f"SYSTEM STOP MERGES {table}")
    spent = dict.fromkeys(tables, 0.0)
    for rows in batches:
        for table in tables:
            spent[table] += _insert(engine, table, rows, tables[table].insert)
    merged = {table: _merge(engine, table) for table in tables}
    asked = _ask(engine, list(tables), repeats)
    return {
        form.name: {
            "insert_ns": spent[table] / count * 1e9,
            "merge_ns": merged[table] / count * 1e9,
            "bytes": _bytes(engine, table) / count,
            "questions": asked[table],
        }
        for table, form in tables.items()
    }


def _create(engine: Engine, table: str, form: Form) -> None:
    kinds = {column.name: column for column in EVENTS_TABLE.columns}
    for name, codec in CODECS.items():
        kinds[name] = Column(name, kinds[name].kind, codec)
    typed = [Column(each.column, each.kind.stored, "CODEC(ZSTD(1))") for each in TYPED.properties.values()]
    settings = (*EVENTS_TABLE.settings, "allow_nullable_key = 1")
    made: Table = replace(EVENTS_TABLE, columns=(*kinds.values(), *typed), order=form.key, settings=settings)
    for statement in Shape(window=0).create(made, table):
        engine.command(statement)
    for each in form.also:
        engine.command(f"ALTER TABLE {table} ADD {each}")


def inserts(folder: Path, count: int, frames: int) -> Iterator[pa.Table]:
    """The events of each day in the order of arrival, so many inserts a day. A seventh is of the smallest project."""
    made = month.Month(count, START + DAYS * DAY_MS, days=DAYS, realtime_days=DAYS)
    traffic = month.Traffic(made, folder / "phones.arrow")
    offset = 0
    for date, start, end, number in made.dates():
        rows = traffic.date(date, start, end, number)
        order = np.argsort(rows.received, kind="stable")
        for part in np.array_split(order, frames):
            table = rows.table(part)
            projects = pa.array(_PROJECTS).take(pa.array(rows.phone[part] % len(_PROJECTS)))
            table = table.set_column(table.schema.get_field_index("project"), "project", projects.cast(WORD))
            yield table.append_column("log_offset", pa.array(np.full(len(part), offset, np.uint64)))
            offset += 1


def _insert(engine: Engine, table: str, rows: pa.Table, setting: str) -> float:
    head = f"INSERT INTO {table} ({', '.join(columns(TYPED))})"
    cpu = time.process_time()
    settings = f"{_INSERT}, {setting}" if setting else _INSERT
    engine.command(f"{head} SELECT {select(TYPED)} FROM {_SOURCE} SETTINGS {settings}", rows)
    return time.process_time() - cpu


def _merge(engine: Engine, table: str) -> float:
    engine.command(f"SYSTEM START MERGES {table}")
    cpu = time.process_time()
    engine.command(f"OPTIMIZE TABLE {table} FINAL")
    return time.process_time() - cpu


def _bytes(engine: Engine, table: str) -> int:
    database, _, name = table.partition(".")
    found = engine.query(
        f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{database}' AND table = '{name}'"
    )
    return int(found.column(0)[0].as_py())


def _ask(engine: Engine, tables: list[str], repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """By table and question: ``rows`` read, and the median ``cpu_ms`` after a first time (or of that). The answers must be the
    same."""
    found: dict[str, dict[str, dict[str, float]]] = {table: {} for table in tables}
    for question in questions(engine, tables[0], START + DAYS * DAY_MS, TYPED):
        taken: dict[str, list[float]] = {table: [] for table in tables}
        first = None
        for _ in range(1 + repeats):
            for table in tables:
                engine.rows_read = 0
                cpu = time.process_time()
                answer = question.ask(engine, table)
                taken[table].append((time.process_time() - cpu) * 1e3)
                first = answer if first is None else first
                if not same(answer, first):
                    raise AssertionError(f"{table} answers {question.name!r} otherwise than {tables[0]}")
                found[table][question.name] = {"rows": engine.rows_read}
        for table in tables:
            found[table][question.name]["cpu_ms"] = statistics.median(taken[table][min(repeats, 1) :])
    return found


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown; what is in use is bold."""
    return "\n".join(
        [
            f"{figures['events']:,} events of {figures['days']} days: the share of them that is read, and CPU ms. Sort keys, "
            "without skip indexes but that of `log_offset`:",
            "",
            *_table(figures, "keys"),
            "",
            "Skip indexes, with the key in use:",
            "",
            *_table(figures, "indexes"),
        ]
    )


def _table(figures: dict[str, Any], which: str) -> list[str]:
    forms = figures[which]
    names = [f"**{name}**" if name in USED else name for name in forms]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, key in (
        ("CPU ns an event to insert", "insert_ns"),
        ("to merge", "merge_ns"),
        ("bytes an event", "bytes"),
    ):
        digits = 1 if key == "bytes" else 0
        lines.append(f"| {label} | " + " | ".join(f"{each[key]:,.{digits}f}" for each in forms.values()) + " |")
    for question in next(iter(forms.values()))["questions"]:
        cells = []
        for each in forms.values():
            taken = each["questions"][question]
            cells.append(f"{taken['rows'] / figures['events']:.1%}, {taken['cpu_ms']:,.1f}")
        lines.append(f"| {question} | " + " | ".join(cells) + " |")
    return lines
