"""Trino reads the lake: for itself as other engines do, and for the query service, whose answers stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from query_duck import Duck
from query_questions import BOUNDARY, DAYS, NOW, WINDOW_MS
from query_twin import rows_of
from test_query_random import COUNT, FIRST, HOW, QUESTIONS, between, check, joined
from trino_world import Bucket, bucket

import lake_readers
from eventmill.core.config import QueryConfig, TrinoConfig
from eventmill.core.errors import QueryError, StoreError, StoreUnavailable
from eventmill.core.renames import Renames
from eventmill.core.schema import EVENT
from eventmill.lake.table import Lake
from eventmill.query.asker import OUT_OF_TIME
from eventmill.query.service import QueryService
from eventmill.query.trino import Trino
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import TYPED, events
from serving import Serving, eventmill
from testbed.process import eventually, free_port
from testbed.trino import Trino as Trino483

pytestmark = pytest.mark.soak  # jars of 400 MB, and a server of its own
TAP = {"field": "event", "op": "eq", "value": "tap"}
SPAN = {"from": "2026-05-27T00:00:00Z", "to": "2026-06-08T00:00:00Z"}
#: A question of every kind.
ASKED = {
    "trends": {"measure": "avg:properties.price", "breakdown": "platform", "interval": "hour"},
    "funnel": {"steps": [{"event": "tap"}, {"event": "purchase"}], "window": "3d"},
    "retention": {"interval": "day"},
    "sessions": {"interval": "day"},
    "timeline": {"device": "device-7"},
    "paths": {"start": "tap"},
}


@pytest.fixture(scope="module")
def place(s3_server) -> Iterator[Bucket]:
    with bucket(s3_server) as made:
        yield made


class World:
    """Both stores, each of which also holds what never happened on the other's side."""

    def __init__(self, folder: Path, place: Bucket) -> None:
        truth = events(COUNT, seed=41, days=DAYS, devices=300, coarse_ms=3_600_000)
        rubbish = events(COUNT // 2, seed=42, days=DAYS, devices=300)
        self.store, self.lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake", settings=place.settings)
        self.store.declare(TYPED)
        self.store.insert(joined(between(truth, FIRST, 1 << 60), between(rubbish, 0, FIRST)), "token")
        rows = joined(between(truth, 0, BOUNDARY), between(rubbish, BOUNDARY, 1 << 60)).select(EVENT.names)
        for number, part in enumerate((rows.slice(0, rows.num_rows // 2), rows.slice(rows.num_rows // 2))):
            self.lake.append(part, group="lake", ranges={0: (number, number + 1)})
        self.duck = Duck(rows_of(truth))
        self._made: list[QueryService] = []
        self.service, self.alone = self.asks(place.config()), self.asks(None)

    def asks(self, trino: TrinoConfig | None, **limits: Any) -> QueryService:
        """The query service, with Trino or without."""
        made = QueryService(
            self.store, self.lake.source_sql, QueryConfig(**limits), window_ms=WINDOW_MS, watermark=lambda: NOW,
            clock=lambda: NOW, files_of=self.lake.files_of, lake_version=self.lake.version,
            snapshot_of=self.lake.snapshot_of, outside=None if trino is None else Trino(trino),
        )  # fmt: skip
        self._made.append(made)
        return made

    def close(self) -> None:
        for each in self._made:
            each.close()
        self.store.close()
        self.lake.close()


@pytest.fixture(scope="module")
def world(place: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("trino")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = World(folder, place)
        yield made
        made.close()


def test_trino_counts_what_the_other_engines_count(place: Bucket, tmp_path: Path) -> None:
    _, lake = lake_readers.make(tmp_path / "data", place.other)
    rows = place.trino.ask(
        "SELECT event_group, count(*), sum(session_id % 1000003), "
        "sum(date_diff('millisecond', TIMESTAMP '1970-01-01 00:00:00 UTC', timestamp)), sum(length(device_id)) "
        "FROM other.eventmill.events GROUP BY 1"
    )
    lake.close()
    _, same = lake_readers.make(tmp_path / "same")
    assert lake_readers.sums(rows) == lake_readers.expected(same)
    same.close()


@settings(max_examples=100, **HOW)
@given(question=QUESTIONS)
def test_no_answer_is_wrong(world: World, question: tuple[str, dict[str, Any]]) -> None:
    kind, body = question
    check(world.service, world.duck, kind, body)
    explained = world.service.explain(kind, body)
    readers = {table["table"]: table["engine"] for table in explained["tables"]}
    assert readers.get("lake.events", "trino") == "trino"
    assert bool(explained["trino"]) == ("lake" in explained["stores"])


@pytest.mark.parametrize("measure", ["p50", "p95", "p99", "sum", "avg", "min", "max"])
@pytest.mark.parametrize("field", ["properties.price", "properties.mixed", "flags"])
def test_numbers_are_what_clickhouse_makes_of_them(world: World, measure: str, field: str) -> None:
    body = SPAN | {"measure": f"{measure}:{field}", "interval": "day", "breakdown": "platform"}
    found, expected = world.service.ask("trends", body)["rows"], world.alone.ask("trends", body)["rows"]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected], rel=1e-9)


def test_a_trend_brings_a_row_for_each_bucket_not_for_each_event(world: World, place: Bucket) -> None:
    body = SPAN | {"measure": "avg:properties.price", "interval": "day", "breakdown": "platform", "event": "purchase"}
    (statement,) = world.service.explain("trends", body)["trino"]
    events_read = place.trino.ask("SELECT count(*) FROM iceberg.eventmill.events WHERE event = 'purchase'")[0][0]
    assert 0 < len(place.trino.ask(statement)) < events_read / 3
    few = world.asks(place.config(rows_max=200))
    assert few.ask("trends", body | {"measure": "events"})["rows"]
    with pytest.raises(QueryError, match=r"more than trino.rows_max = 200 rows"):
        few.ask("paths", SPAN | {"start": "tap"})


def test_a_project_is_shown_its_own_events_only(world: World) -> None:
    mine = world.service.narrowed(QueryConfig(), project="nobody", caller="key")
    for kind, more in ASKED.items():
        assert "\"project\" = 'nobody'" in mine.explain(kind, SPAN | more)["trino"][0]
        rows = mine.ask(kind, SPAN | more)["rows"]
        assert not any(
            value for row in rows for value in row[1:] if isinstance(value, (int, float)) and kind != "retention"
        )


SELECTS = [
    "SELECT event, count() AS n, uniqExact(device_id), countIf(flags = 1), sumIf(flags, flags > 1), avg(flags) "
    "FROM lake.events GROUP BY event ORDER BY event",
    "SELECT event AS e, count() AS c FROM lake.events WHERE e != 'tap' GROUP BY e HAVING c > 3 ORDER BY c DESC, e "
    "LIMIT 3 OFFSET 1",
    "SELECT toStartOfHour(timestamp) AS t, toDate(timestamp) AS d, toStartOfDay(received_at) AS r, sum(flags) FROM lake.events "
    "WHERE timestamp >= '2026-05-28' AND event_date < '2026-05-30' GROUP BY t, d, r ORDER BY t, d, r",
    "WITH x AS (SELECT device_id, count() AS c FROM lake.events GROUP BY device_id) SELECT max(c), min(c), count() / 7 FROM x",
    "SELECT DISTINCT platform FROM lake.events ORDER BY platform NULLS FIRST",
    "SELECT event, event, flags * 1.5 AS f FROM lake.events WHERE flags * 2.5 > 3 ORDER BY event_id LIMIT 5",
    "SELECT platform, count() AS n FROM lake.events GROUP BY platform ORDER BY platform",
    "SELECT event_id, user_id, timestamp, properties FROM lake.events WHERE user_id IS NOT NULL ORDER BY event_id LIMIT 20",
    "SELECT JSONExtractFloat(properties, 'price') AS p, count() AS n FROM lake.events GROUP BY p ORDER BY p",
    "SELECT JSONExtractFloat(properties, 'mixed') AS p, count() AS n FROM lake.events GROUP BY p ORDER BY p",
    "SELECT JSONExtractFloat(properties, 'cart', 'items') AS p, count() AS n FROM lake.events GROUP BY p ORDER BY p",
    "SELECT count() FROM lake.events WHERE event = {name:String} AND flags BETWEEN {least:Int64} AND 5",
    "SELECT sum(flags), count(), countIf(flags = 0) FROM lake.events WHERE event = 'no such event'",
    "SELECT * FROM (SELECT if(flags = 0, 'none', 'some') AS f, count() AS n FROM lake.events WHERE event LIKE 't%' GROUP BY f "
    "UNION ALL SELECT 'all', count() FROM lake.events) ORDER BY n",
    "SELECT event FROM lake.events WHERE NOT (platform = 'ios' OR country IN ('DE', 'FR')) AND coalesce(user_id, '') != '' "
    "ORDER BY event_id LIMIT 5",
]


@pytest.mark.parametrize("query", SELECTS)
def test_sql_over_the_lake_gives_what_clickhouse_gives(world: World, query: str) -> None:
    body = {"query": query, "parameters": {"name": "tap", "least": 1} if "{name" in query else {}}
    found, expected = world.service.ask("sql", body | {"engine": "trino"}), world.service.ask("sql", body)
    assert len(found["rows"]) == len(expected["rows"])
    for mine, theirs in zip(found["rows"], expected["rows"], strict=True):
        assert mine == [pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for value in theirs]
    assert found["meta"]["stores"] == ["lake"]
    explained = world.service.explain("sql", body | {"engine": "trino"})
    assert [table["engine"] for table in explained["tables"]] == ["trino"]
    assert "FROM lake.events" in explained["sql"]


def test_events_are_called_as_they_are_now(world: World, place: Bucket) -> None:
    renames = Renames.parse({"tap": "press", "purchase": "press"})
    mine, alone = (world.asks(each, renames=renames) for each in (place.config(), None))
    by_event = {"breakdown": "event", "interval": "day"}
    for kind, more in (ASKED | {"trends": by_event, "paths": {"start": "press"}}).items():
        assert mine.ask(kind, SPAN | more)["rows"] == alone.ask(kind, SPAN | more)["rows"]
    query = {"query": "SELECT event, count() AS n FROM lake.events GROUP BY event ORDER BY event"}
    found = mine.ask("sql", query | {"engine": "trino"})["rows"]
    assert found == alone.ask("sql", query)["rows"]
    assert {row[0] for row in found} & {"tap", "press", "purchase"} == {"press"}


def test_sql_of_a_project_and_too_many_rows_and_mistakes(world: World) -> None:
    ask = {"query": "SELECT count() AS n FROM lake.events", "engine": "trino"}
    mine = world.service.narrowed(QueryConfig(), project="nobody", caller="key")
    assert mine.ask("sql", ask)["rows"] == [[0]]
    few = world.service.narrowed(QueryConfig(result_rows_max=10, scan_rows_max=100), project=None, caller="key")
    with pytest.raises(QueryError, match="over 10 rows"):
        few.ask("sql", ask | {"query": "SELECT event FROM lake.events LIMIT 11"})
    with pytest.raises(QueryError, match="add LIMIT"):
        few.ask("sql", ask | {"query": "SELECT event FROM lake.events ORDER BY event"})
    with pytest.raises(QueryError, match="does not work in Trino"):
        world.service.ask("sql", ask | {"query": "SELECT event + 1 FROM lake.events LIMIT 1"})
    with pytest.raises(QueryError, match=r"name one by trino\.url"):
        world.alone.ask("sql", ask)


def test_a_query_that_takes_too_long_is_cancelled(world: World, place: Bucket) -> None:
    slow = (
        "SELECT count(*) AS n FROM UNNEST(sequence(1, 10000)) AS a(x), UNNEST(sequence(1, 10000)) AS b(x), "
        "UNNEST(sequence(1, 10000)) AS c(x) WHERE sin(a.x * b.x + c.x) > 2"
    )
    with pytest.raises(StoreError, match="took too long") as raised:
        Trino(place.config()).fetch(slow, {"n": pa.int64()}, 1.0)
    assert raised.value.code == OUT_OF_TIME
    state = (
        "SELECT state, error_code FROM system.runtime.queries WHERE source = 'eventmill' ORDER BY created DESC LIMIT 1"
    )
    eventually(lambda: place.trino.ask(state)[0][0] == "FAILED", lambda: f"it has ended: {place.trino.ask(state)}", 10)
    assert place.trino.ask(state) in ([["FAILED", "USER_CANCELED"]], [["FAILED", "EXCEEDED_TIME_LIMIT"]])


def test_trino_that_is_away_is_named(world: World, place: Bucket) -> None:
    away = world.asks(TrinoConfig(url=f"http://127.0.0.1:{free_port()}"))
    for kind, more in ASKED.items():
        with pytest.raises(StoreUnavailable, match=r"Trino at 127.0.0.1:\d+ does not answer; check trino.url"):
            away.ask(kind, SPAN | more)
    # What needs nothing of the lake is answered.
    assert away.ask("trends", {"from": "2026-06-07T00:00:00Z", "to": "2026-06-08T00:00:00Z"})["meta"]["stores"] == [
        "realtime"
    ]
    elsewhere = world.asks(TrinoConfig(url=place.trino.url, table="iceberg.eventmill.nothing"))
    with pytest.raises(StoreError, match=r"has no lake at trino.table"):
        elsewhere.ask("retention", SPAN | ASKED["retention"])


@pytest.mark.parametrize(("fault", "depth"), [(Trino483.pause, 1), (Trino483.kill, 2)], ids=["hangs", "ended"])
def test_trino_that_is_away_is_given_up_and_is_asked_when_it_is_back(
    world: World, place: Bucket, fault: Callable[[Trino483], None], depth: int
) -> None:
    body = SPAN | {"start": "tap", "depth": depth}
    fault(place.trino)
    try:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            world.service.ask("paths", body)
    finally:
        place.trino.mend()
    assert world.service.ask("paths", body)["rows"]


def test_a_server_answers_by_trino_as_its_settings_say(place: Bucket, tmp_path: Path) -> None:
    environ = {f"EVENTMILL_LAKE__{key.upper()}": value for key, value in place.served.items()}
    environ |= {"EVENTMILL_TRINO__URL": place.trino.url, "EVENTMILL_TRINO__TABLE": "served.eventmill.events"}
    server = Serving(tmp_path / "data", **environ)
    try:
        at = datetime.now(UTC) - timedelta(days=3)
        sent = [
            {
                "type": "track",
                "event": "tap",
                "anonymousId": f"d{number % 7}",
                "timestamp": at.isoformat(),
                "messageId": f"m{number}",
            }
            for number in range(50)
        ]
        assert server.post("/v1/batch", {"batch": sent})[0] == 200
        server.flush()
        asked = {"from": "-5d", "to": "-2d", "interval": "day", "measure": "devices", "filters": [TAP]}
        status, found = server.post("/v1/query/trends", asked)
        assert (status, sum(row[1] for row in found["rows"]), found["meta"]["stores"]) == (200, 7, ["lake"])
        _, explained = server.post("/v1/query/trends?explain=1", asked)
        assert [(table["table"], table["engine"]) for table in explained["tables"]] == [("lake.events", "trino")]
        ask = [
            "query",
            "sql",
            "SELECT count() AS n FROM lake.events",
            "--engine",
            "trino",
            "--json",
            "--url",
            server.url,
        ]
        assert orjson.loads(eventmill(*ask).stdout)["rows"] == [[50]]
        place.trino.kill()
        status, refused = server.post("/v1/query/trends", asked | {"measure": "users"})
        assert (status, refused["success"]) == (503, False)
        assert "Trino at 127.0.0.1" in refused["error"]
    finally:
        server.kill()
        place.trino.mend()


def test_a_server_with_a_lake_that_trino_cannot_read_does_not_start(tmp_path: Path) -> None:
    done = eventmill(
        "serve", "--port", "0", "--data", str(tmp_path / "data"), EVENTMILL_TRINO__URL="http://127.0.0.1:1"
    )
    assert done.returncode != 0
    assert b"lake.warehouse" in done.stderr
    assert b"Traceback" not in done.stderr
