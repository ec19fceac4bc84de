"""Answers from the cache are those that the stores give now: through late events, compaction, deletion and re-enrichment."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from query_twin import iso

from eventmill.core.config import QueryConfig
from eventmill.core.schema import EVENT
from eventmill.core.tombstones import Tombstone, digest
from eventmill.lake.compact import compact
from eventmill.lake.maintain import maintain
from eventmill.lake.table import Lake
from eventmill.query.cache import AnswerCache, Kept, key_of
from eventmill.query.routing import Span
from eventmill.query.service import QueryService
from eventmill.query.versions import _may_hold
from eventmill.sinks.realtime import forget
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS, events

DAYS = 4
NOW = START_MS + DAYS * DAY_MS
ALL = {"from": iso(START_MS), "to": iso(NOW)}
CLOSED = {"from": iso(START_MS), "to": iso(START_MS + DAY_MS)}
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("trends", {**CLOSED, "interval": "hour"}),
    ("trends", {**CLOSED, "interval": "day", "measure": "users", "breakdown": ["platform", "country"]}),
    ("trends", {**ALL, "interval": "day", "event": "tap", "measure": "devices"}),
    ("trends", {**ALL, "interval": "day", "breakdown": "country"}),
    ("funnel", {**CLOSED, "steps": [{"event": "tap"}, {"event": "purchase"}]}),
    ("sessions", {**ALL, "interval": "day"}),
    ("timeline", {**CLOSED, "user": "user-5", "limit": 1000}),
    ("sql", {"query": "SELECT count() FROM events"}),
]


class World:
    """Both stores, and what may happen to them."""

    def __init__(self, folder: Path) -> None:
        self.store, self.lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        self.random = random.Random(7)
        self.offset = 0
        self.add(events(1_500, seed=1, days=DAYS))

    def add(self, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch])
        at = table.schema.get_field_index("log_offset")
        self.store.insert(
            table.set_column(at, "log_offset", pa.array([self.offset] * len(table), pa.uint64())), str(self.offset)
        )
        self.lake.append(table.select(EVENT.names), group="lake", ranges={0: (self.offset, self.offset + 1)})
        self.offset += 1

    def arrive(self, first: int, end: int) -> None:
        """Some events of these days."""
        batch = events(600, seed=self.random.randrange(1 << 30), days=DAYS)
        day = (batch.column("timestamp").cast(pa.int64()).to_numpy() - START_MS) // DAY_MS
        self.add(batch.filter(pa.array((day >= first) & (day < end))).slice(0, 40))

    def today(self) -> None:
        self.arrive(DAYS - 1, DAYS)

    def late(self) -> None:
        day = self.random.randrange(DAYS - 1)
        self.arrive(day, day + 1)

    def compact(self) -> None:
        compact(self.lake, gap_ms=1_800_000, now_ms=NOW)
        maintain(self.lake, now_ms=NOW)
        self.store.command("OPTIMIZE TABLE eventmill.events FINAL")

    def forget(self) -> None:
        user = f"user-{self.random.randrange(130)}"
        tombstone = Tombstone(str(self.offset), NOW + DAY_MS, user=digest(user))
        forget.delete(self.store, tombstone)
        compact(self.lake, gap_ms=1_800_000, now_ms=NOW, forget=tombstone)

    def enrich(self) -> None:
        where = f"device_id = 'device-{self.random.randrange(400)}'"
        self.store.command(
            f"ALTER TABLE eventmill.events UPDATE country = 'NO' WHERE {where} SETTINGS mutations_sync = 2"
        )
        batch = events(60, seed=self.random.randrange(1 << 30), days=DAYS)
        flags = pa.array(np.full(len(batch), 64, np.int32))
        self.add(batch.set_column(batch.schema.get_field_index("flags"), EVENT.field("flags"), flags))

        def known(rows: pa.RecordBatch) -> pa.RecordBatch:
            cleared = pa.array(np.zeros(len(rows), np.int32))
            changed = pa.array(["SE"] * len(rows)).cast(EVENT.field("country").type)
            rows = rows.set_column(rows.schema.get_field_index("flags"), EVENT.field("flags"), cleared)
            return rows.set_column(rows.schema.get_field_index("country"), EVENT.field("country"), changed)

        compact(self.lake, gap_ms=1_800_000, now_ms=NOW, enrich=known)

    def service(self, cache: AnswerCache, **more: Any) -> QueryService:
        return QueryService(
            self.store, self.lake.source_sql, QueryConfig(), window_ms=DAY_MS, clock=lambda: NOW, cache=cache,
            **{"lake_version": self.lake.version, **more},
        )  # fmt: skip

    def happenings(self, more: int) -> list[Callable[[], None]]:
        first = [self.today, self.late, self.compact, self.today, self.forget, self.enrich]
        return first + self.random.choices([self.today, self.late, self.compact, self.forget, self.enrich], k=more)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path)
    yield world
    world.store.close()


@pytest.mark.parametrize("more", [0, pytest.param(40, marks=pytest.mark.soak)])
def test_no_answer_is_stale(world: World, more: int) -> None:
    cache = AnswerCache(10_000_000)
    kept, asked = world.service(cache), world.service(AnswerCache(1))
    blind = world.service(AnswerCache(10_000_000))
    blind._key = lambda kind, question, *_: key_of(None, kind, question)
    stale = 0
    for happens in world.happenings(more):
        happens()
        for kind, body in QUESTIONS:
            truth = asked.ask(kind, body)
            assert truth["meta"]["cached"] is False
            for _ in range(2):
                found = kept.ask(kind, body)
                assert (found["columns"], found["rows"]) == (truth["columns"], truth["rows"]), (happens.__name__, kind)
                assert found["meta"]["estimated_rows"] == truth["meta"]["estimated_rows"] or found["meta"]["cached"]
            assert found["meta"]["cached"] is (kind != "sql")
            stale += blind.ask(kind, body)["rows"] != truth["rows"]
    assert stale > len(QUESTIONS)  # the control: keys without versions would have been found out
    for service in (kept, asked, blind):
        service.close()


def test_what_happens_today_leaves_days_that_are_over_in_the_cache(world: World) -> None:
    service = world.service(AnswerCache(10_000_000))
    first = [service.ask(*question)["meta"]["cached"] for question in QUESTIONS]
    assert not any(first)
    world.today()
    world.store.command("OPTIMIZE TABLE eventmill.events FINAL")
    again = [service.ask(*question)["meta"]["cached"] for question in QUESTIONS]
    assert again == [question[1].get("to") == CLOSED["to"] for question in QUESTIONS]
    service.close()


def test_an_answer_given_while_its_days_change_is_not_kept(world: World) -> None:
    cache = AnswerCache(10_000_000)
    service = world.service(cache)
    answer = service._asker.answer

    def meanwhile(plan: Any) -> Any:
        found = answer(plan)
        world.arrive(0, DAYS)
        return found

    service._asker.answer = meanwhile
    for question in QUESTIONS[:4]:
        service.ask(*question)
    assert len(cache) == 0
    service.close()


def test_limits_of_a_key_hold_for_answers_that_are_kept(world: World) -> None:
    wide = world.service(AnswerCache(10_000_000))
    assert wide.ask(*QUESTIONS[3])["meta"]["cached"] is False
    narrow = wide.narrowed(QueryConfig(scan_rows_max=1), project=None, caller="small")
    with pytest.raises(ValueError, match="would read about"):
        narrow.ask(*QUESTIONS[3])
    wide.close()


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 400)), max_size=80), st.integers(1, 60_000))
def test_the_least_recently_asked_go_first_and_the_bound_holds(steps: list[tuple[int, int]], bound: int) -> None:
    cache = AnswerCache(bound)
    order: list[int] = []
    for name, rows in steps:
        key, answer = key_of("p", name), Kept(pa.table({"a": pa.array(range(rows), pa.int64())}), {})
        if cache.find(key) is None:
            cache.keep(key, answer)
        if answer.size_bytes <= bound // 8 or name in order:
            order = [*(each for each in order if each != name), name]
        assert cache.size_bytes <= bound
        order = order[len(order) - len(cache) :]
        assert [name for name in order if key_of("p", name) in cache._entries] == order


def test_projects_have_keys_of_their_own() -> None:
    assert key_of("a", 1, "x") == key_of("a", 1, "x")
    assert key_of("a", 1, "x")[0] != key_of("b", 1, "x")[0]
    assert len({key_of("a", 1), key_of("a", "1"), key_of("a", 1.0), key_of("a", (1,)), key_of("a", "1\n1")}) == 5


def test_which_partitions_may_hold_a_span() -> None:
    day = Span(START_MS, START_MS + DAY_MS)
    date = iso(START_MS)[:10]
    for partition, holds in (
        (date, True), (date[:7].replace("-", ""), True), ("all", True), ("200013", True), ("2000-01-01", False),
        ("200001", False), (iso(START_MS + DAY_MS)[:10], False), (iso(START_MS - 1)[:10], False), ("203512", False),
    ):  # fmt: skip
        assert _may_hold(partition, day) is holds
