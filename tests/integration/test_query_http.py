"""The query service behind HTTP: statuses, formats, and the bound on queries at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from query_twin import iso

from eventmill.core.config import QueryConfig
from eventmill.core.errors import StoreError
from eventmill.core.typed import NOTHING
from eventmill.net.messages import Request, Response
from eventmill.query.render import ARROW, META
from eventmill.query.service import BODY_BYTES_MAX, WAITING_PER_PLACE, QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS, events

TRENDS = {"from": iso(START_MS), "to": iso(START_MS + 3 * DAY_MS), "interval": "day", "breakdown": "platform"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealtimeStore]:
    folder = tmp_path_factory.mktemp("http")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = RealtimeStore(folder / "realtime")
        store.insert(events(2_000, seed=1), "token")
        yield store
        store.close()


def service_of(store: Any, **config: int) -> QueryService:
    return QueryService(store, lambda: None, QueryConfig(**config), window_ms=DAY_MS)


def ask(service: QueryService, path: str, body: Any, method: str = "POST", **headers: str) -> Response:
    sent = body if isinstance(body, bytes) else orjson.dumps(body)
    return asyncio.run(service.handle(Request(method, path, {}, headers, sent)))


def test_json(store: RealtimeStore) -> None:
    service = service_of(store)
    found = ask(service, "/v1/query/trends", TRENDS)
    assert (found.status, found.content_type) == (200, "application/json")
    answer = orjson.loads(found.body)
    assert answer["columns"] == ["time", "breakdown", "value"]
    assert set(answer) == {"columns", "rows", "meta"}
    assert set(answer["meta"]) == {
        "stores", "boundary", "estimated_rows", "elapsed_ms", "cached", "complete_until", "provisional",
    }  # fmt: skip
    assert sum(row[2] for row in answer["rows"]) == 2_000
    found = ask(
        service,
        "/v1/query/sql",
        {"query": "SELECT count() AS n FROM events WHERE flags = {f:Int32}", "parameters": {"f": 1}},
    )
    assert orjson.loads(found.body)["columns"] == ["n"]
    service.close()


def test_arrow(store: RealtimeStore) -> None:
    service = service_of(store)
    for path, body, names in (
        ("/v1/query/trends", TRENDS, ["time", "breakdown", "value"]),
        ("/v1/query/trends", TRENDS | {"breakdown": None, "measure": "sum:properties.price"}, ["time", "value"]),
        ("/v1/query/trends", TRENDS | {"event": "no such"}, ["time", "breakdown", "value"]),
        ("/v1/query/sql", {"query": "SELECT event_id, timestamp FROM events"}, ["event_id", "timestamp"]),
        ("/v1/query/sql", {"query": "SELECT event_id, timestamp FROM events WHERE 0"}, ["event_id", "timestamp"]),
    ):
        found = ask(service, path, body, accept=f"{ARROW}, application/json;q=0.5")
        assert (found.status, found.content_type) == (200, ARROW)
        table = pa.ipc.open_stream(found.body).read_all()
        assert table.column_names == names
        plain = orjson.loads(ask(service, path, body).body)
        assert table.num_rows == len(plain["rows"])
        assert orjson.loads(table.schema.metadata[META])["stores"] == plain["meta"]["stores"]
    service.close()


@pytest.mark.parametrize(
    ("path", "method", "body", "status", "says"),
    [
        ("/v1/query/trends", "POST", b"{", 400, "not JSON"),
        ("/v1/query/trends", "POST", b"\xff", 400, "not JSON"),
        ("/v1/query/trends", "POST", b"", 400, "not JSON"),
        ("/v1/query/trends", "POST", b"[]", 400, "must be a JSON object"),
        ("/v1/query/trends", "POST", b"{}", 400, "from is 'None'"),
        ("/v1/query/sql", "POST", b"{}", 400, "must be the text of a SELECT"),
        ("/v1/query/sql", "POST", b'{"query": "DROP TABLE events"}', 400, "must be a SELECT"),
        ("/v1/query/sql", "GET", b"", 405, "takes POST"),
        (
            "/v1/query/funnels",
            "POST",
            b"{}",
            404,
            "there are trends, funnel, retention, sessions, timeline, paths, sql",
        ),
        ("/v1/query/", "POST", b"{}", 404, "there is no"),
        ("/v1/query/sql", "POST", b" " * (BODY_BYTES_MAX + 1), 413, "over 262144 bytes"),
    ],
)
def test_mistakes(store: RealtimeStore, path: str, method: str, body: bytes, status: int, says: str) -> None:
    service = service_of(store)
    found = ask(service, path, body, method)
    answer = orjson.loads(found.body)
    assert found.status == status
    assert answer["success"] is False
    assert says in answer["error"]
    service.close()


def test_out_of_time(store: RealtimeStore) -> None:
    service = service_of(store, seconds_max=1)
    slow = "SELECT sum(cityHash64(a.event_id, b.event_id, c.event_id)) FROM events a, events b, events c"
    found = ask(service, "/v1/query/sql", {"query": slow})
    assert found.status == 504
    assert "over 1 s" in orjson.loads(found.body)["error"]
    assert ask(service, "/v1/query/trends", TRENDS).status == 200
    service.close()


class Waiting:
    """A store whose answers wait."""

    typed = NOTHING

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = threading.Semaphore(0)

    def explain_readonly(
        self, kind: str, sql: str, parameters: Any, settings: Any, database: str = ""
    ) -> list[list[str]]:
        raise self._waited()

    def query_arrow(self, sql: str, parameters: Any = None, settings: Mapping[str, Any] | None = None) -> pa.Table:
        raise self._waited()

    def query_readonly(self, sql: str, parameters: Any, settings: Mapping[str, Any], database: str = "") -> pa.Table:
        raise self._waited()

    def command(self, statement: str) -> None:
        raise self._waited()

    def _waited(self) -> StoreError:
        self.asked.release()
        self.go.wait()
        return StoreError("the disk is full", 243)


def test_too_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    waiting = Waiting()
    service = service_of(waiting, concurrency_max=2)
    places = 2 * (1 + WAITING_PER_PLACE)
    request = Request("POST", "/v1/query/trends", {}, {}, orjson.dumps(TRENDS))

    async def all_at_once() -> tuple[Response, list[Response]]:
        running = [asyncio.create_task(service.handle(request)) for _ in range(places)]
        await asyncio.to_thread(waiting.asked.acquire)
        await asyncio.to_thread(waiting.asked.acquire)
        one_more = await service.handle(request)
        waiting.go.set()
        return one_more, await asyncio.gather(*running)

    one_more, others = asyncio.run(all_at_once())
    assert (one_more.status, one_more.headers["Retry-After"]) == (503, "1")
    assert "too many queries" in orjson.loads(one_more.body)["error"]
    assert {found.status for found in others} == {503}
    assert {orjson.loads(found.body)["error"] for found in others} == {"the store cannot answer now: the disk is full"}
    # The places are free again.
    assert asyncio.run(service.handle(request)).body == others[0].body
    service.close()


BODIES: dict[str, dict[str, Any]] = {
    "trends": {},
    "funnel": {"steps": [{"event": "tap"}, {"event": "purchase"}]},
    "retention": {},
    "sessions": {},
    "timeline": {"user": "user-5"},
    "paths": {"start": "tap"},
    "sql": {"query": "SELECT count() FROM events WHERE user_id = {u:String}", "parameters": {"u": "user-5"}},
}


@pytest.mark.parametrize("kind", BODIES)
def test_explaining(store: RealtimeStore, kind: str) -> None:
    service = service_of(store)
    span = {} if kind == "sql" else {"from": iso(START_MS), "to": iso(START_MS + 3 * DAY_MS)}
    body = orjson.dumps(BODIES[kind] | span)
    request = Request("POST", f"/v1/query/{kind}", {"explain": "1"}, {}, body)
    found = asyncio.run(service.handle(request))
    assert found.status == 200, found.body
    explained = orjson.loads(found.body)
    assert set(explained) == {"stores", "boundary", "tables", "sql", "parameters", "trino"}
    assert explained["stores"] == ["realtime"]
    (table,) = explained["tables"]
    assert table["table"] == ("eventmill.events_1h" if kind == "trends" else "eventmill.events")
    assert 0 < table["rows"] <= 2_000
    assert table["bytes"] > table["rows"]
    answer = service.answer(kind, orjson.loads(body))
    assert answer.meta["estimated_rows"] == table["rows"]
    # What is explained is what runs.
    assert store.query_readonly(explained["sql"], explained["parameters"], {"max_execution_time": 5}).num_columns > 0
    mistaken = asyncio.run(service.handle(Request("POST", f"/v1/query/{kind}", {"explain": "1"}, {}, b"[]")))
    assert mistaken.status == 400
    service.close()
