"""The live tail: what it brings, in which order, from where on, and for how long it waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from eventmill.core.config import QueryConfig
from eventmill.core.errors import StoreError
from eventmill.core.ids import format_event_id
from eventmill.net.messages import Request, Response
from eventmill.query.asker import Asker
from eventmill.query.live import EVENT_STREAM, EVENTS_MAX, PATH, WATCHERS_MAX, LiveTail
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import events

BATCH = events(400, seed=9, per_offset=10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RealtimeStore]:
    found = RealtimeStore(tmp_path / "realtime")
    yield found
    found.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as found:
        yield found


def tail_of(store: Any, pool: ThreadPoolExecutor, wait_s: float = 0.0) -> LiveTail:
    return LiveTail(Asker(store, QueryConfig()), pool, wait_s=wait_s)


def asked(method: str = "GET", headers: dict[str, str] | None = None, **query: Any) -> Request:
    return Request(method, PATH, {key: str(value) for key, value in query.items()}, headers or {}, b"")


def ask(tail: LiveTail, **query: Any) -> Response:
    return asyncio.run(tail.handle(asked(**query)))


def parts(response: Response) -> tuple[list[dict[str, Any]], list[str], str | None]:
    """The events, the kinds of what else came, and the last id, read as the standard says."""
    assert (response.status, response.content_type) == (200, EVENT_STREAM), response.body
    found, kinds, last = [], [], None
    for block in response.body.decode().removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        last = fields.get("id", last)
        if "event" in fields:
            kinds.append(fields["event"])
        elif "data" in fields:
            found.append(orjson.loads(fields["data"]))
    return found, kinds, last


def ids(rows: Any) -> list[str]:
    return [format_event_id(row) for row in rows.column("event_id").to_pylist()]


def test_an_empty_store_brings_nothing_and_no_place(store: RealtimeStore, pool: ThreadPoolExecutor) -> None:
    assert parts(ask(tail_of(store, pool))) == ([], [], None)


def test_it_begins_a_little_back_and_goes_on_where_it_was(store: RealtimeStore, pool: ThreadPoolExecutor) -> None:
    tail = tail_of(store, pool)
    store.insert(BATCH.slice(0, 50), "a")
    first, kinds, place = parts(ask(tail))
    assert (sorted(each["event_id"] for each in first), kinds, place) == (sorted(ids(BATCH.slice(0, 50))), [], "4")
    assert parts(ask(tail, after=place)) == ([], [], "4")
    store.insert(BATCH.slice(50, 30), "b")
    for headers, query in (({"last-event-id": "4"}, {}), ({}, {"after": 4}), ({"last-event-id": "4"}, {"after": 0})):
        found, _, place = parts(asyncio.run(tail.handle(asked(headers=headers, **query))))
        assert sorted(each["event_id"] for each in found) == sorted(ids(BATCH.slice(50, 30)))
        assert place == "7"
    one = next(each for each in first if each["event_id"] == ids(BATCH)[0])
    row = BATCH.slice(0, 1).to_pylist()[0]
    for name in ("event", "type", "device_id", "user_id", "platform", "app_version", "properties"):
        assert one[name] == row[name]


def test_of_many_the_newest(store: RealtimeStore, pool: ThreadPoolExecutor) -> None:
    store.insert(BATCH, "a")
    found, kinds, place = parts(ask(tail_of(store, pool), after=0))
    assert (len(found), kinds, place) == (EVENTS_MAX, ["skipped"], "39")
    assert {each["event_id"] for each in found} == set(ids(BATCH.slice(300)))


@pytest.mark.parametrize(
    ("query", "column", "value"),
    [
        ({"event": "tap"}, "event", "tap"),
        ({"event": 'it\'s \\ "odd" {x:String} %s \n'}, "event", 'it\'s \\ "odd" {x:String} %s \n'),
        ({"id": "device-7"}, "device_id", "device-7"),
        ({"id": "user-5"}, "user_id", "user-5"),
        ({"event": "' OR 1 = 1 --"}, "event", "' OR 1 = 1 --"),
    ],
)
def test_what_is_chosen(
    store: RealtimeStore, pool: ThreadPoolExecutor, query: dict[str, str], column: str, value: str
) -> None:
    batch = events(3_000, seed=9, per_offset=10, devices=100)
    store.insert(batch, "a")
    chosen = [i for i, each in enumerate(batch.column(column).to_pylist()) if each == value]
    found, _, place = parts(ask(tail_of(store, pool), after=0, **query))
    assert {each["event_id"] for each in found} <= set(ids(batch.take(pa.array(chosen, pa.int64()))))
    assert len(found) == min(len([i for i in chosen if i >= 10]), EVENTS_MAX)
    assert place == "299"  # it goes on from there, though nothing fitted


def test_it_waits_until_something_comes(store: RealtimeStore, pool: ThreadPoolExecutor) -> None:
    looked = threading.Event()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def stored_through(self) -> int:
            newest = store.stored_through()
            looked.set()
            return newest

    def insert() -> None:
        looked.wait()
        store.insert(BATCH.slice(10, 10), "b")

    store.insert(BATCH.slice(0, 10), "a")
    inserting = threading.Thread(target=insert)
    inserting.start()
    found, _, place = parts(ask(tail_of(Watched(), pool, wait_s=60.0), after=0))
    inserting.join()
    assert sorted(each["event_id"] for each in found) == sorted(ids(BATCH.slice(10, 10)))
    assert place == "1"


def test_what_is_half_stored_is_not_seen(store: RealtimeStore, pool: ThreadPoolExecutor) -> None:
    class Behind:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def stored_through(self) -> int:
            return 3

    store.insert(BATCH.slice(0, 100), "a")
    found, _, place = parts(ask(tail_of(Behind(), pool), after=0))
    assert sorted(each["event_id"] for each in found) == sorted(ids(BATCH.slice(10, 30)))
    assert place == "3"


def test_a_store_opened_again_knows_its_place(tmp_path: Path) -> None:
    for _ in range(2):
        store = RealtimeStore(tmp_path / "again")
        store.insert(BATCH.slice(0, 100), "a")
        assert store.stored_through() == 9
        store.close()
    store = RealtimeStore(tmp_path / "again")
    assert store.stored_through() == 9
    store.close()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"after": "x"}, "after is 'x'"),
        ({"after": "-1"}, "after is '-1'"),
        ({"after": "9" * 30}, "after is"),
        ({"after": "\u0663"}, "after is"),
        ({"who": "u"}, "there is no parameter 'who'"),
        ({"id": "u" * 5_000}, "id has over"),
        ({"event": "e" * 5_000}, "event must be"),
    ],
)
def test_mistakes_are_named(store: RealtimeStore, pool: ThreadPoolExecutor, query: dict[str, str], says: str) -> None:
    found = ask(tail_of(store, pool), **query)
    assert found.status == 400
    assert says in orjson.loads(found.body)["error"]
    assert asyncio.run(tail_of(store, pool).handle(asked("POST"))).status == 405


def test_no_more_watchers_than_allowed(pool: ThreadPoolExecutor) -> None:
    go = threading.Event()

    class Slow:
        def stored_through(self) -> int:
            go.wait()
            raise StoreError("the disk is full", 243)

    tail = tail_of(Slow(), pool)

    async def watch() -> tuple[Response, list[Response]]:
        watching = [asyncio.create_task(tail.handle(asked())) for _ in range(WATCHERS_MAX)]
        await asyncio.sleep(0)
        one_more = await tail.handle(asked())
        go.set()
        return one_more, await asyncio.gather(*watching)

    one_more, others = asyncio.run(watch())
    assert (one_more.status, one_more.headers["Retry-After"]) == (503, "5")
    assert {each.status for each in others} == {503}
    assert asyncio.run(tail.handle(asked())).status == 503
