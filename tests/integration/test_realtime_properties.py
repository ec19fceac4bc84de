"""Typed properties: the same values as the JSON, in every row and roll-up, whenever they were declared."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.typed import Kind, Typed, TypedProperty, can_be_typed
from eventmill.sinks.realtime.properties import COLUMNS_MAX
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import NAMES, events

FIRST, SECOND, THIRD = (events(1_500, seed=seed, first_offset=3 * seed) for seed in range(3))
PRICE = TypedProperty("price", Kind.NUMBER, ("purchase", "tap"))
CATEGORY = TypedProperty("category", Kind.WORD, ("purchase",))
WANTED = Typed.of([PRICE, CATEGORY, TypedProperty("mixed", Kind.NUMBER, (NAMES[-1], "screen"))])


def rows(store: RealtimeStore, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in store.query_arrow(sql).to_pylist()]


def assert_typed(store: RealtimeStore, typed: Typed, *batches: pa.RecordBatch) -> None:
    """The columns are what the JSON says, and the roll-ups what DuckDB and Python make of it."""
    assert store.typed == typed
    for each in typed.properties.values():
        differing = f"SELECT count() FROM eventmill.events WHERE NOT ({each.column} <=> {each.extract})"
        assert rows(store, differing) == [(0,)]
    values = []
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("event", "timestamp", "properties"))
        for event, at, properties in zip(*columns, strict=True):
            for each in typed.numbers:
                if event in each.events:
                    value = number(json.loads(properties).get(each.name))
                    values.append({"property": each.name, "event": event, "moment": at, "value": value})
    schema = pa.schema(
        {"property": pa.string(), "event": pa.string(), "moment": pa.timestamp("ms", "UTC"), "value": pa.float64()}
    )
    given = pa.Table.from_pylist(values, schema)
    for table, unit in (("numbers_1m", "minute"), ("numbers_1h", "hour"), ("numbers_1d", "day")):
        with duckdb.connect() as other:
            other.execute("SET TimeZone = 'UTC'")
            other.register("given", given)
            expected = other.execute(
                f"SELECT property, event, epoch_ms(date_trunc('{unit}', moment)) // 1000, count(*), count(value), sum(value), "
                "min(value), max(value), avg(value) FROM given GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        found = rows(
            store,
            f"SELECT property::String AS name, event::String AS of, toInt64(toUnixTimestamp(toDateTime({unit}, 'UTC'))) AS at,"
            " sum(events), sum(value_count), sum(value_sum), min(value_min), max(value_max), avgMerge(value_avg) "
            f"FROM eventmill.{table} GROUP BY ALL ORDER BY name, of, at",
        )
        assert [row[:5] for row in found] == [row[:5] for row in expected], table
        for row, right in zip(found, expected, strict=True):
            filled = [None if value is None or value != value else value for value in row[5:]]
            assert [value is None for value in filled] == [value is None for value in right[5:]]
            assert [value or 0.0 for value in filled] == pytest.approx([value or 0.0 for value in right[5:]], rel=1e-9)


def number(value: Any) -> float | None:
    """As a query takes a property for a number."""
    if isinstance(value, bool):
        return float(value)
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except ValueError:
        return None


def test_declared_before_between_and_after(tmp_path: Path) -> None:
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.insert(FIRST, "first")
        store.declare(Typed.of([PRICE]))
        assert_typed(store, Typed.of([PRICE]), FIRST)
        store.insert(SECOND, "second")
        store.declare(WANTED)
        assert_typed(store, WANTED, FIRST, SECOND)
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.declare(WANTED)
        for batch, token in ((SECOND, "second"), (THIRD, "third")):
            store.insert(batch, token)
        assert_typed(store, WANTED, FIRST, SECOND, THIRD)


def test_an_event_more_has_the_property(tmp_path: Path) -> None:
    more = TypedProperty("price", Kind.NUMBER, ("other", "purchase", "tap"))
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.declare(Typed.of([PRICE]))
        store.insert(FIRST, "first")
        store.declare(Typed.of([TypedProperty("price", Kind.NUMBER, ("other",))]))
        store.insert(SECOND, "second")
        assert_typed(store, Typed.of([more]), FIRST, SECOND)


def test_while_an_inserts_fate_is_unknown_it_waits_for_the_next(tmp_path: Path) -> None:
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.insert(FIRST, "first")
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.declare(WANTED)
        assert not store.typed.properties
        store.insert(SECOND, "second")
        assert_typed(store, WANTED, FIRST, SECOND)


@pytest.mark.parametrize("statements", range(0, 14, 3))
def test_interrupted_after_any_statement(tmp_path: Path, statements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process had been killed there."""
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.insert(FIRST, "first")
        run, left = store._clients.command, [statements]

        def command(statement: str, rows: pa.Table | None = None) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise InterruptedError
            run(statement, rows)

        monkeypatch.setattr(store._clients, "command", command)
        with pytest.raises(InterruptedError):
            store.declare(WANTED)
    monkeypatch.undo()
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.insert(SECOND, "second")
        store.declare(WANTED)
        assert_typed(store, WANTED, FIRST, SECOND)
        store.insert(THIRD, "third")
        assert_typed(store, WANTED, FIRST, SECOND, THIRD)


def test_control_a_fill_that_is_not_cleared_first_would_count_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for taking out what an interrupted fill has left."""
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.insert(FIRST, "first")
        monkeypatch.setattr(store._properties, "_read", lambda: Typed({}))  # as if it had ended before the comment
        store.declare(Typed.of([PRICE]))
        counted = rows(store, "SELECT sum(events) FROM eventmill.numbers_1m")
        run = store._clients.command
        monkeypatch.setattr(
            store._clients, "command", lambda sql, rows=None: None if " DELETE " in sql else run(sql, rows)
        )
        store.declare(Typed.of([PRICE]))
        assert rows(store, "SELECT sum(events) FROM eventmill.numbers_1m") == [(2 * counted[0][0],)]


def test_more_properties_than_there_may_be_columns(tmp_path: Path) -> None:
    many = [TypedProperty(f"x{i:03}", Kind.WORD, ("tap",)) for i in range(COLUMNS_MAX + 5)]
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.declare(Typed.of(many))
        assert len(store.typed.properties) == COLUMNS_MAX
        store.declare(Typed.of(many))
        store.insert(FIRST, "first")
        assert len(store.typed.properties) == COLUMNS_MAX


_NAMES = st.sampled_from(["a", "b", "Product ID", "größe", "a.b", "x-y", "A", "1", "$cost", "a_b"])
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8), st.lists(st.integers(), max_size=2), st.dictionaries(_NAMES, st.integers(), max_size=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory):
    """A store with both kinds of columns for a few names."""
    with closing(RealtimeStore(tmp_path_factory.mktemp("declared") / "realtime")) as store:
        store.declare(
            Typed.of(
                TypedProperty(name, kind, ("tap",))
                for name, kind in zip(
                    ["a", "b", "Product ID", "größe", "a.b", "x-y", "A", "1", "$cost", "a_b"],
                    [Kind.NUMBER, Kind.WORD] * 5,
                    strict=True,
                )
            )
        )
        yield store


@settings(max_examples=12, deadline=None)
@given(st.lists(st.dictionaries(_NAMES, _VALUES, max_size=5), min_size=1, max_size=60))
def test_whatever_the_json_says(declared: RealtimeStore, given: list[dict[str, Any]]) -> None:
    """All columns are extracted at once, and each is what it would be alone."""
    first = declared.stored_through() + 1
    batch = events(len(given), seed=first, first_offset=first, days=1)
    texts = pa.array([json.dumps(each, ensure_ascii=False) for each in given])
    declared.insert(batch.set_column(batch.schema.get_field_index("properties"), "properties", texts), f"t{first}")
    for each in declared.typed.properties.values():
        column, alone = f"`{each.column}`", each.extract
        differing = (
            f"SELECT {column}, {alone}, properties FROM eventmill.events WHERE {column} IS DISTINCT FROM {alone}"
        )
        found = rows(declared, differing)
        assert found == []


def test_names_that_get_no_column() -> None:
    assert can_be_typed("Order Value (€)")
    for name in ("", "a'b", "a`b", 'a"b', "a\\b", "a\nb", "x" * 129, "{a}", "100%"):
        assert not can_be_typed(name)
    assert TypedProperty("a.b", Kind.WORD, ()).column != TypedProperty("a-b", Kind.WORD, ()).column
