"""The guard on cost: a billion rows refused by the tables' own statistics, limits of a key, the deadline, the slow query log.

The billion is real to ClickHouse: parts are attached again and again, which links their files instead of copying them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from eventmill.core.config import QueryConfig
from eventmill.net.grants import parse
from eventmill.net.messages import Request, Response
from eventmill.query.callers import Callers
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS

ROWS = 5_000_000
DOUBLINGS = 11
BILLION = 1_000_000_000
FROM, TO = "2026-05-27T00:00:00Z", "2026-05-28T00:00:00Z"
KEYS = parse(["small key=x scopes=read scan_rows_max=1000 result_rows_max=5 seconds_max=1 concurrency_max=1"])
_FILL = f"""
    INSERT INTO eventmill.filler (event, type, device_id, timestamp, received_at, session_id, properties, context, log_offset)
    SELECT 'tap', 'track', 'device', fromUnixTimestamp64Milli({START_MS} + 1000, 'UTC'),
    fromUnixTimestamp64Milli({START_MS}, 'UTC'), 1, '{{}}', '{{}}', 1 FROM numbers({ROWS})
    SETTINGS max_block_size = {ROWS}, min_insert_block_size_rows = {ROWS}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueryService]:
    folder = tmp_path_factory.mktemp("guard")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = RealtimeStore(folder / "realtime")
        store.command("SYSTEM STOP MERGES")
        for name in ("filler", "double"):
            store.command(f"CREATE TABLE eventmill.{name} AS eventmill.events")
        store.command(_FILL)
        less, more = "double", "filler"
        for _ in range(DOUBLINGS):
            attach(store, more, less)
            less, more = more, less
        attach(store, more, "events")
        attach(store, less, "events")
        config = QueryConfig(slow="1ms")
        service = QueryService(store, lambda: None, config, window_ms=DAY_MS, clock=lambda: START_MS + DAY_MS)
        yield service
        service.close()
        store.close()


def attach(store: RealtimeStore, source: str, target: str) -> None:
    store.command(f"ALTER TABLE eventmill.{target} ATTACH PARTITION '{FROM[:10]}' FROM eventmill.{source}")


def ask(service: QueryService, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer: Response = asyncio.run(service.handle(Request("POST", f"/v1/query/{kind}", {}, {}, orjson.dumps(body))))
    return answer.status, orjson.loads(answer.body)


FUNNEL = {"from": FROM, "to": TO, "steps": [{"event": "tap"}, {"event": "buy"}]}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("funnel", FUNNEL),
        ("trends", {"from": FROM, "to": TO, "event": "tap", "measure": "avg:properties.price"}),
        ("trends", {"from": FROM, "to": TO, "breakdown": "country"}),
        ("sql", {"query": "SELECT * FROM events"}),
        ("sql", {"query": "SELECT device_id FROM events ORDER BY timestamp LIMIT 5"}),
    ],
)
def test_over_a_billion_rows_are_refused_with_the_estimate_and_a_hint(
    service: QueryService, kind: str, body: dict[str, Any]
) -> None:
    status, answer = ask(service, kind, body)
    assert status == 400, answer
    assert set(answer) == {"success", "error", "estimated_rows", "rows_max", "hint"}
    assert (answer["success"], answer["rows_max"]) == (False, BILLION)
    assert BILLION < answer["estimated_rows"] < 2 * BILLION
    assert f"{answer['estimated_rows']:,}" in answer["error"]
    assert answer["hint"] in answer["error"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("sql", {"query": "SELECT count() FROM events"}),
        ("sql", {"query": "SELECT event FROM events LIMIT 1"}),
        ("trends", {"from": FROM, "to": TO, "event": "tap", "measure": "events", "interval": "hour"}),
    ],
)
def test_an_aggregate_over_as_many_passes(service: QueryService, kind: str, body: dict[str, Any]) -> None:
    assert ask(service, kind, body)[0] == 200


def test_a_keys_own_limits_hold_for_it(service: QueryService) -> None:
    small = Callers(service, KEYS).of("small")
    status, answer = ask(small, "sql", {"query": "SELECT * FROM events"})
    assert (status, answer["rows_max"]) == (400, 1_000)
    status, answer = ask(
        small, "sql", {"query": "SELECT arrayJoin(range(6)) FROM sessions RIGHT JOIN (SELECT 1) AS x ON 1 = 1"}
    )
    assert (status, "over 5 rows" in answer["error"]) == (400, True)


def test_the_deadline_ends_the_query_in_the_store_too(service: QueryService) -> None:
    small = Callers(service, KEYS).of("small")
    slow = "SELECT count() FROM events WHERE cityHash64(event, device_id, session_id, properties, context) = 1"
    status, answer = ask(small, "sql", {"query": slow})
    assert (status, "over 1 s" in answer["error"]) == (504, True)
    running = service._store.query_arrow(
        "SELECT count() FROM system.processes WHERE query LIKE '%cityHash64(event, dev%'"
    )
    assert running.column(0)[0].as_py() == 1  # this one


def test_a_key_with_too_many_questions_is_told_to_come_again(service: QueryService) -> None:
    small = Callers(service, KEYS).of("small")
    gate = threading.Event()
    blocked = small._lane.submit(gate.wait)

    async def crowd() -> list[Response]:
        request = Request("POST", "/v1/query/sql", {}, {}, b'{"query": "SELECT 1"}')
        tasks = [asyncio.ensure_future(small.handle(request)) for _ in range(6)]
        refused, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        others = await asyncio.to_thread(ask, service, "sql", {"query": "SELECT 2"})
        assert others[0] == 200
        gate.set()
        return [each.result() for each in refused] + list(await asyncio.gather(*(set(tasks) - refused)))

    answers = asyncio.run(crowd())
    blocked.result()
    assert [each.status for each in answers] == [429, *([200] * 5)]
    assert answers[0].headers["Retry-After"] == "1"


def test_slow_queries_are_logged_without_their_values(service: QueryService, caplog: pytest.LogCaptureFixture) -> None:
    body = {"query": "SELECT 'somebody'"}
    with caplog.at_level(logging.WARNING):
        assert ask(service, "sql", body)[0] == 200
    said = [each.getMessage() for each in caplog.records if each.getMessage().startswith("slow query")]
    assert len(said) == 1
    assert "somebody" not in said[0]
