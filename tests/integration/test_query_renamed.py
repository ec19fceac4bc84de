"""SQL and the live tail over events that were renamed. All other kinds: ``test_query_random``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError
from eventmill.core.renames import AS_STORED, Renames
from eventmill.core.schema import EVENT
from eventmill.core.typed import Kind, Typed, TypedProperty
from eventmill.lake.table import Lake
from eventmill.net.messages import Request
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, NAMES, START_MS, TYPED, events

ODD = NAMES[-1]
RENAMES = Renames.parse({"tap": "pressed", "pressed": "press", ODD: "screen", "never sent": "other"})
NOW = START_MS + 2 * DAY_MS


class World:
    """Two projects' events in both stores, and services that read them as stored, and by their new names."""

    def __init__(self, folder: Path) -> None:
        self.store, self.lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        self.store.declare(TYPED)
        parts = [events(900, seed=8, project="one"), events(300, seed=9, project="two", first_offset=10)]
        for number, part in enumerate(parts):
            self.store.insert(part, str(number))
            self.lake.append(part.select(EVENT.names), group="lake", ranges={0: (number, number + 1)})
        self.names = {
            project: part.column("event").cast(pa.string()).to_pylist()
            for project, part in zip(("one", "two"), parts, strict=True)
        }

    def service(self, renames: Renames) -> QueryService:
        config = QueryConfig(renames=renames)
        return QueryService(self.store, self.lake.source_sql, config, window_ms=DAY_MS, clock=lambda: NOW)

    def expected(self, renames: Renames, project: str | None = None) -> dict[str, int]:
        names = [name for each, part in self.names.items() if project in (None, each) for name in part]
        return dict(Counter(map(renames.now, names)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("renamed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a service moves the process; this puts it back in the end
        found = World(folder)
        yield found
        found.store.close()


def sql(service: QueryService, query: str, **parameters: Any) -> list[Any]:
    rows: list[Any] = service.ask("sql", {"query": query, "parameters": parameters})["rows"]
    return rows


def by_event(service: QueryService, table: str) -> dict[str, int]:
    counted = "sum(events)" if "_1" in table else "count()"
    return {name: int(n) for name, n in sql(service, f"SELECT event, {counted} FROM {table} GROUP BY event")}


TABLES = ("events", "events_1m", "events_1h", "events_1d", "lake.events", "all_events")


def test_tables_by_their_names_alone_have_the_new_names(world: World) -> None:
    service = world.service(RENAMES)
    for table in (*TABLES, "eventmill.all_events"):
        assert by_event(service, table) == world.expected(RENAMES), table
    # A condition finds the rows of all names of one event, and none by a name that it no longer has.
    for table in TABLES:
        counted = f"SELECT {'sum(events)' if '_1' in table else 'count()'} FROM {table} WHERE event = {{name:String}}"
        for name in ("press", "tap"):
            found = sql(service, counted, name=name)[0][0]
            assert int(found) == world.expected(RENAMES).get(name, 0), (table, name)
    assert sql(service, "SELECT toTypeName(event) FROM events LIMIT 1") == [["LowCardinality(String)"]]
    assert sql(service, "SELECT count() FROM sessions") == sql(service, "SELECT count() FROM eventmill.sessions")
    number = "SELECT event, sum(value_sum) FROM {} WHERE property = 'price' GROUP BY event ORDER BY event"
    assert [event for event, _ in sql(service, number.format("numbers_1d"))] == ["press", "purchase"]
    # With the database's name they are as they are stored.
    assert by_event(service, "eventmill.events") == world.expected(AS_STORED)
    service.close()


def test_a_project_sees_its_own_events_by_their_new_names(world: World) -> None:
    service = world.service(RENAMES)
    for project in ("one", "two"):
        narrowed = service.narrowed(service.config, project=project, caller=project)
        for table in (*TABLES, "eventmill.events"):
            renames = AS_STORED if table == "eventmill.events" else RENAMES
            assert by_event(narrowed, table) == world.expected(renames, project), (project, table)
        with pytest.raises(QueryError, match=r"no table lake\.events_as_stored"):
            sql(narrowed, "SELECT count() FROM lake.events_as_stored")
        with pytest.raises(QueryError, match=r"no table eventmill_renamed\.events"):
            sql(narrowed, "SELECT count() FROM eventmill_renamed.events")
    service.close()


def test_a_column_that_comes_later_is_seen(world: World) -> None:
    service = world.service(RENAMES)
    assert sql(service, "SELECT count() FROM events WHERE event = 'press'") != [[0]]
    world.store.declare(Typed.of([*TYPED.properties.values(), TypedProperty("cart", Kind.WORD, ("tap",))]))
    assert sql(service, "SELECT count(p_cart) > 0 FROM events WHERE event = 'press'") == [[True]]
    service.close()


def test_what_is_taken_back_is_as_it_was(world: World) -> None:
    """The settings may change both ways over the same stores."""
    for renames in (RENAMES, AS_STORED, RENAMES):
        service = world.service(renames)
        for table in ("lake.events", "all_events", "events"):
            assert by_event(service, table) == world.expected(renames), (renames, table)
        service.close()


def test_the_live_tail_has_the_new_names(world: World) -> None:
    service = world.service(RENAMES)

    def seen(query: dict[str, str]) -> list[str]:
        answer = asyncio.run(service.live.handle(Request("GET", "/v1/live", query, {}, b"")))
        assert answer.status == 200, answer.body
        lines = answer.body.decode().splitlines()
        return [orjson.loads(line.removeprefix("data: "))["event"] for line in lines if line.startswith('data: {"')]

    assert set(seen({"event": "press"})) == set(seen({"event": "tap"})) == {"press"}
    assert "tap" not in seen({})
    service.close()
