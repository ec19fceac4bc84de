"""No question of any kind sees another project's rows: what a project's key is told is what it would be told alone.

First one project's events stand alone in both stores, and every question is asked. Then another's events come, of the same
devices, users, sessions, names and times, and some of no project; each question must be answered as before, to the key of
the project. The same questions to a key that has no project are the control: most of their answers change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from isolation_corpus import ATTACKS, QUESTIONS, SQL
from query_corpus import WORKS

from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError
from eventmill.core.schema import EVENT
from eventmill.lake.table import Lake
from eventmill.net.grants import parse
from eventmill.net.messages import Request
from eventmill.query.callers import Callers
from eventmill.query.live import PATH as LIVE
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS, events

COUNT = 2_000
SECRET = "bank-secret"
KEYS = parse(
    [
        "shop key=s project=shop scopes=read",
        "bank key=b project=bank scopes=read",
        "empty key=e project=empty scopes=read",
        "all key=a scopes=read",
    ]
)
KINDS = [("sql", {"query": query}) for query in (*WORKS, *SQL)] + QUESTIONS


def of_bank(offset: int) -> pa.RecordBatch:
    """Another project's events: the same in all that people share, secret where they differ."""
    batch = events(COUNT, seed=5, first_offset=offset, project="bank")
    own = events(COUNT, seed=99)
    at = {name: batch.schema.get_field_index(name) for name in ("event_id", "properties", "message_id", "country")}
    batch = batch.set_column(at["event_id"], EVENT.field("event_id"), own.column("event_id"))
    for name in ("message_id", "country"):
        batch = batch.set_column(at[name], EVENT.field(name), pa.array([SECRET] * COUNT).cast(EVENT.field(name).type))
    secret = pa.array([f'{{"price":1e9,"category":"{SECRET}"}}'] * COUNT)
    return batch.set_column(at["properties"], EVENT.field("properties"), secret)


class Told:
    """What each key was told, question by question."""

    def __init__(self, callers: Callers) -> None:
        self.callers = callers

    def ask(self, caller: str, kind: str, body: dict[str, Any]) -> Any:
        try:
            answer = self.callers.of(caller).ask(kind, body)
        except QueryError as error:
            return f"refused: {error}"
        rows = answer["rows"]
        ordered = "ORDER BY" in str(body.get("query", "ORDER BY"))
        return answer["columns"], rows if ordered else sorted(rows, key=repr), answer["meta"].get("cursor")

    def all(self, caller: str) -> list[Any]:
        return [self.ask(caller, kind, body) for kind, body in KINDS]

    def tail(self, caller: str) -> bytes:
        tail = self.callers.of(caller).live
        tail._wait_s = 0.0
        return asyncio.run(tail.handle(Request("GET", LIVE, {"after": "0"}, {}, b""))).body


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, list[Any], list[Any]]]:
    folder = tmp_path_factory.mktemp("isolation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store, lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")

        def add(batch: pa.RecordBatch, at: int) -> None:
            store.insert(batch, f"token {at}")
            lake.append(batch.select(EVENT.names), group="lake", ranges={0: (at, at + 1)})

        add(events(COUNT, seed=5, project="shop"), 0)
        now = START_MS + 3 * DAY_MS
        whole = QueryService(
            store,
            lake.source_sql,
            QueryConfig(),
            window_ms=DAY_MS,
            watermark=lambda: now - DAY_MS,
            clock=lambda: now,
            lake_version=lake.version,
        )
        told = Told(Callers(whole, KEYS))
        alone, of_all = told.all("shop"), told.all("all")
        add(of_bank(100), 1)
        add(events(COUNT, seed=6, first_offset=200), 2)
        yield told, alone, of_all
        whole.close()
        store.close()


@pytest.mark.parametrize("number", range(len(KINDS)), ids=lambda number: str(KINDS[number])[:70])
def test_a_project_is_told_what_it_would_be_told_alone(asked: tuple[Told, list[Any], list[Any]], number: int) -> None:
    told, alone, _ = asked
    assert told.ask("shop", *KINDS[number]) == alone[number]


def test_no_project_is_told_what_another_asked_before(asked: tuple[Told, list[Any], list[Any]]) -> None:
    """Whoever asks first fills the cache; each is told its own, and the second time from there."""
    told, alone, _ = asked
    cache = told.callers.of("shop").cache
    for number, question in enumerate(KINDS):
        others = told.ask("bank", *question), told.ask("all", *question)
        assert told.ask("shop", *question) == told.ask("shop", *question) == alone[number]
        assert (told.ask("bank", *question), told.ask("all", *question)) == others
    assert {project for project, _ in cache._entries} >= {"shop", "bank", None}


def test_without_a_project_the_same_questions_see_everything(asked: tuple[Told, list[Any], list[Any]]) -> None:
    """The control: else the test above would pass for questions that see nothing."""
    told, alone, of_all = asked
    assert [one for one in alone if isinstance(one, str)] == []
    assert of_all == alone
    changed = sum(now != before for now, before in zip(told.all("all"), of_all, strict=True))
    assert changed > 0.8 * len(KINDS)


def test_a_project_without_events_is_told_of_none(asked: tuple[Told, list[Any], list[Any]]) -> None:
    told, _, _ = asked
    for table in ("events", "events_1m", "sessions", "lake.events"):
        assert told.ask("empty", "sql", {"query": f"SELECT count() FROM {table} ORDER BY 1"})[1] == [[0]]


@pytest.mark.parametrize("query", ATTACKS)
def test_attacks_are_refused_or_told_nothing(asked: tuple[Told, list[Any], list[Any]], query: str) -> None:
    told, _, _ = asked
    found = told.ask("shop", "sql", {"query": query})
    assert SECRET not in orjson.dumps(found).decode()
    assert "bank" not in orjson.dumps(found[1] if isinstance(found, tuple) else found).decode()


def test_the_live_tail_tells_of_its_project_only(asked: tuple[Told, list[Any], list[Any]]) -> None:
    told, _, _ = asked
    assert SECRET.encode() in told.tail("bank")
    assert SECRET.encode() not in told.tail("shop")
    assert told.tail("empty").count(b"data: {") == 0


def test_a_name_that_is_not_known_gets_nothing(asked: tuple[Told, list[Any], list[Any]], tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        asked[0].callers.of("stranger")
