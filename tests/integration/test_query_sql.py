"""SQL that somebody else wrote: what works, what is refused, what is limited, and how values are written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from query_corpus import REFUSED, WORKS

from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError, StoreError
from eventmill.core.ids import format_event_id
from eventmill.core.schema import EVENT
from eventmill.lake.table import Lake
from eventmill.query.render import Answer, typed
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, events

COUNT = 3_000
BATCH = events(COUNT, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sql")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[QueryService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "secret.csv").write_text("secret\n")
        store, lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        store.insert(BATCH, "token")
        lake.append(BATCH.select(EVENT.names), group="lake", ranges={0: (0, 1)})
        config = QueryConfig(result_rows_max=5_000)
        service = QueryService(store, lake.source_sql, config, window_ms=DAY_MS)
        yield service
        service.close()
        store.close()


@pytest.mark.parametrize("query", WORKS)
def test_what_works(service: QueryService, query: str) -> None:
    """It gives what the text itself gives when it goes to the database unchecked; rows without an order in any."""
    answer = service.answer("sql", {"query": query})
    kinds = service._store.query_readonly(f"DESCRIBE ({query}\n)", None, service._asker.limits)
    truth = service._store.query_readonly(query, None, service._asker.limits)
    described = dict(zip(kinds.column("name").to_pylist(), kinds.column("type").to_pylist(), strict=True))
    given, expected = answer.as_dict()["rows"], Answer(typed(truth, described), {}).as_dict()["rows"]
    if "ORDER BY" not in query:
        given, expected = sorted(given, key=repr), sorted(expected, key=repr)
    assert given == expected


def test_answers(service: QueryService) -> None:
    ask = partial(service.ask, "sql")
    assert ask({"query": "SELECT count() FROM events"})["rows"] == [[COUNT]]
    assert ask({"query": "SELECT count() FROM lake.events"})["rows"] == [[COUNT]]
    both = ask({"query": "SELECT count() FROM events JOIN lake.events AS l USING (event_id)"})
    assert both["rows"] == [[COUNT]]
    assert both["meta"]["stores"] == ["realtime", "lake"]
    assert both["meta"]["estimated_rows"] == 2 * COUNT
    assert ask({"query": "SELECT 1 WHERE 0"})["rows"] == []
    assert ask({"query": "SELECT 1 AS one WHERE 0"})["columns"] == ["one"]


@pytest.mark.parametrize("query", REFUSED)
def test_what_is_refused(service: QueryService, folder: Path, query: str) -> None:
    with pytest.raises(QueryError) as error:
        service.ask("sql", {"query": query})
    said = str(error.value)
    assert "secret\n" not in said
    assert str(folder) not in said
    assert len(said) < 1_000
    assert not list(Path.cwd().glob("stolen*"))
    assert not list(folder.rglob("stolen*"))


def test_nothing_was_changed(service: QueryService) -> None:
    """After all that: the tables are as they were."""
    for table, count in (("events", COUNT), ("lake.events", COUNT)):
        assert service.ask("sql", {"query": f"SELECT count() FROM {table}"})["rows"] == [[count]]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM file('secret.csv')",
        "SELECT * FROM url('http://127.0.0.1/', CSV)",
        "SET readonly = 0",
        "DROP TABLE events",
        "INSERT INTO events SELECT * FROM events",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SET max_execution_time = 0",
    ],
)
def test_the_last_wall_alone(service: QueryService, query: str) -> None:
    """What would happen if the checks before had let it through."""
    with pytest.raises(StoreError):
        service._store.query_readonly(query, {}, service._asker.limits)
    assert service.ask("sql", {"query": "SELECT count() FROM events"})["rows"] == [[COUNT]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], "must be a JSON object"),
        ({"query": "SELECT 1", "settings": {}}, "must be a JSON object"),
        ({"query": 5}, "must be the text of a SELECT"),
        ({"query": "SELECT 1", "parameters": []}, "parameters must be an object"),
        ({"query": "SELECT 1", "parameters": {"a": 1}}, "takes no parameter 'a'"),
        ({"query": "SELECT {a:String}"}, "parameters lack 'a'"),
        ({"query": "SELECT {a:String}", "parameters": {"a": {"b": 1}}}, "must be text, a number"),
        ({"query": "SELECT {a:UInt8}", "parameters": {"a": "x"}}, "does not work"),
        ({"query": "SELECT nope FROM events"}, "nope"),
        ({"query": "SELECT coutn() FROM events"}, "coutn"),
        ({"query": "SELECT count() FROM"}, "does not parse"),
    ],
)
def test_mistakes_are_named(service: QueryService, body: Any, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        service.ask("sql", body)


@pytest.mark.parametrize(
    "value", ["tap", 'it\'s \\ "odd" {x:String} %s \n', "'; DROP TABLE events; --", "", "{", "\t\\N", "é"]
)
def test_parameters_are_values(service: QueryService, value: str) -> None:
    expected = BATCH.column("event").to_pylist().count(value)
    query = "SELECT {value:String}, count(), 5 % 3 FROM events WHERE event = {value:String} AND event LIKE '%'"
    assert service.ask("sql", {"query": query, "parameters": {"value": value}})["rows"] == [[value, expected, 2]]


def test_other_parameters(service: QueryService) -> None:
    query = "SELECT {i:Int64}, {f:Float64}, {b:Bool}, {l:Array(String)}, {n:Nullable(String)}"
    given = {"i": -(2**63), "f": 0.5, "b": True, "l": ["a'", "b"], "n": None}
    assert service.ask("sql", {"query": query, "parameters": given})["rows"] == [list(given.values())]


def test_how_values_are_written(service: QueryService) -> None:
    columns = {
        "event_id": "min(event_id)",
        "uuid": "toUUID('00000000-0000-0000-0000-00000000000a')",
        "second": "toDateTime(5, 'UTC')",
        "milli": "toDateTime64('1970-01-01 00:00:01.005', 3, 'UTC')",
        "micro": "toDateTime64('1970-01-01 00:00:01.000001', 6, 'UTC')",
        "day": "toDate('2026-01-02')",
        "hour": "toStartOfHour(toDateTime64('2026-01-02 03:04:05', 3, 'UTC'))",
        "nan": "nan",
        "inf": "-inf",
        "big": "toUInt64(-1)",
        "huge": "toUInt128(-1)",
        "least": "toInt128('-5')",
        "decimal": "toDecimal64(1.25, 2)",
        "list": "[1.5, nan]",
        "map": "map('a', [1])",
        "pair": "(1, 'x')",
        "nothing": "NULL",
        "truth": "1 = 1",
        "flag": "true",
        "bytes": "unhex('ff41')",
        "some": "toNullable(toDateTime(5, 'UTC'))",
    }
    query = f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in columns.items())} FROM events"
    answer = service.ask("sql", {"query": query})
    found = dict(zip(answer["columns"], answer["rows"][0], strict=True))
    assert found == {
        "event_id": format_event_id(min(BATCH.column("event_id").to_pylist())),
        "uuid": "00000000-0000-0000-0000-00000000000a",
        "second": "1970-01-01T00:00:05Z",
        "milli": "1970-01-01T00:00:01.005Z",
        "micro": "1970-01-01T00:00:01.000001Z",
        "day": "2026-01-02",
        "hour": "2026-01-02T03:00:00Z",
        "nan": None,
        "inf": None,
        "big": 2**64 - 1,
        "huge": str(2**128 - 1),
        "least": "-5",
        "decimal": "1.25",
        "list": [1.5, None],
        "map": [["a", [1]]],
        "pair": {"1": 1, "2": "x"},
        "nothing": None,
        "truth": 1,
        "flag": True,
        "bytes": "\ufffdA",
        "some": "1970-01-01T00:00:05Z",
    }


def test_limits(service: QueryService) -> None:
    with pytest.raises(QueryError, match="over 5000 rows"):
        service.ask("sql", {"query": "SELECT event FROM events UNION ALL SELECT event FROM events"})
    endless = "SELECT sum(cityHash64(a.event_id, b.event_id, c.event)) FROM events a, events b, events c"
    with pytest.raises(StoreError) as error:
        service.narrowed(QueryConfig(seconds_max=1), project=None, caller="brief").ask("sql", {"query": endless})
    assert error.value.code == 159
    small = QueryService(service._store, lambda: None, QueryConfig(memory_bytes_max=20_000_000), window_ms=DAY_MS)
    with pytest.raises(QueryError, match="too much memory"):
        small.ask("sql", {"query": "SELECT length(groupArray((a.event_id, b.properties))) FROM events a, events b"})
    with pytest.raises(QueryError, match=r"no lake\.events yet"):
        small.ask("sql", {"query": "SELECT count() FROM lake.events"})
    small.close()
