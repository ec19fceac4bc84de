"""The cluster's form in use, on a cluster of one server that is the embedded engine: Distributed tables over those that hold
the rows. Those are not replicated here, and nothing crosses a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from test_realtime_properties import assert_typed
from test_realtime_store import assert_holds

from eventmill.core.config import QueryConfig
from eventmill.core.tombstones import Tombstone, digest
from eventmill.query.project import ProjectStore, filters
from eventmill.query.service import QueryService
from eventmill.sinks.realtime import forget, migrations, retire
from eventmill.sinks.realtime.shape import Shape
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_cluster import NAME, SHAPE, Member
from realtime_events import DAY_MS, START_MS, TYPED, events

FIRST, SECOND, THIRD = (events(3_000, seed=seed, first_offset=6 * seed) for seed in range(3))
END_MS = START_MS + 3 * DAY_MS
SPAN = {"from": "2026-05-27", "to": "2026-05-30"}
QUESTIONS: dict[str, dict[str, Any]] = {
    "trends": {"interval": "hour", "breakdown": "country", "measure": "devices"},
    "sessions": {"interval": "day"},
    "timeline": {"device": "device-17"},
    "paths": {"start": "tap"},
    "funnel": {"steps": [{"event": "tap"}, {"event": "purchase"}]},
    "retention": {"first": {"event": "tap"}, "returning": {"event": "purchase"}},
    "sql": {"query": "SELECT event, count(), uniqExact(device_id) FROM events GROUP BY event ORDER BY event"},
}


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    with closing(Member(tmp_path / "member")) as member:
        assert member.query(f"SELECT is_local FROM system.clusters WHERE cluster = '{NAME}'").to_pylist() == [
            {"is_local": 1}
        ]
        yield member


def opened(member: Member, shape: Shape = SHAPE) -> RealtimeStore:
    list(migrations.apply(member, shape))
    return RealtimeStore(Path("nowhere"), connections=member, shape=shape)


def test_rows_and_roll_ups_are_there_once_however_often_they_come(member: Member) -> None:
    store = opened(member)
    assert migrations.differences(member) == []
    store.insert(FIRST, "first")
    store.declare(TYPED)
    store.insert(SECOND, "second")
    again = opened(member)  # as after a crash: nobody knows what became of the last insert
    again.insert(SECOND, "second")
    again.insert(THIRD, "third")
    opened(member).insert(THIRD, "third")
    for table in ("events", "events_1m", "sessions", "numbers_1d"):
        engines = f"SELECT engine FROM system.tables WHERE database = 'eventmill' AND name = '{table}'"
        assert member.query(engines).to_pylist() == [{"engine": "Distributed"}]
    assert_holds(again, FIRST, SECOND, THIRD)
    assert_typed(again, TYPED, FIRST, SECOND, THIRD)


def test_control_without_the_duplicate_check_they_double(member: Member) -> None:
    without = Shape(window=0, cluster=NAME)
    opened(member, without).insert(FIRST, "first")
    store = opened(member, without)
    store.insert(FIRST, "first")
    assert store.query_arrow("SELECT count() FROM eventmill.events").column(0)[0].as_py() == 2 * FIRST.num_rows


def answers(store: RealtimeStore) -> dict[str, Any]:
    """Of every kind of question."""
    service = QueryService(store, lambda: None, QueryConfig(), window_ms=END_MS, clock=lambda: END_MS)
    with closing(service):
        asked = {kind: body if kind == "sql" else body | SPAN for kind, body in QUESTIONS.items()}
        return {kind: service.ask(kind, body)["rows"] for kind, body in asked.items()}


def test_every_kind_of_question_is_answered_as_by_one_server(member: Member, tmp_path: Path) -> None:
    with closing(opened(member)) as store:
        store.insert(FIRST, "first")
        found = answers(store)
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.insert(FIRST, "first")
        assert found == answers(store)
    assert all(found.values())


@pytest.mark.parametrize("seen_by", ["", "_local"])
def test_a_project_sees_its_own_rows(member: Member, seen_by: str) -> None:
    """By the condition on the Distributed table, and by that on the tables of each server, which other servers read by it."""
    store = opened(member)
    store.insert(events(400, seed=1, project="ours"), "first")
    store.insert(events(200, seed=2, first_offset=1, project="theirs"), "second")
    other = "" if seen_by else "_local"
    condition = filters("ours").replace("'eventmill.", "'none.")
    for table in ("events", "events_1m", "events_1h", "sessions"):
        condition = condition.replace(f"'none.{table}{seen_by}'", f"'eventmill.{table}{seen_by}'")
        assert f"'none.{table}{other}'" in condition
        counted = f"SELECT toInt64({'count()' if table == 'events' else 'sum(events)'}) AS n FROM eventmill.{table}"
        found = store.query_arrow(counted, settings={"additional_table_filters": condition})
        assert found.to_pylist() == [{"n": 400}]
        assert ProjectStore(store, "theirs").query_arrow(counted).to_pylist() == [{"n": 200}]
        assert store.query_arrow(counted).to_pylist() == [{"n": 600}]


def ids(store: RealtimeStore, where: str = "1") -> list[str]:
    found = store.query_arrow(f"SELECT hex(event_id) AS id FROM eventmill.events WHERE {where} ORDER BY id")
    return found.column(0).to_pylist() if found.num_rows else []


def test_events_are_forgotten_and_retired(member: Member) -> None:
    """Roll-ups keep the numbers, without the user."""
    store = opened(member)
    store.insert(FIRST, "first")
    theirs = ids(store, "user_id = 'user-17'")
    others = ids(store, "NOT ifNull(user_id = 'user-17', 0)")
    tombstone = Tombstone("one", END_MS + DAY_MS, user=digest("user-17"))
    assert forget.count(store, tombstone)["rows"] == len(theirs) > 0
    for _ in range(2):
        forget.delete(store, tombstone)
    assert ids(store) == others
    assert _sum(store, "events_1m") == FIRST.num_rows
    assert store.query_arrow("SELECT 1 FROM eventmill.sessions WHERE user_id = 'user-17'").num_rows == 0
    # A replicated table takes a change with a subquery only when it is told that each replica may run it.
    changes = [each for each in member.ran if each.startswith("ALTER TABLE") and "SELECT" in each]
    assert changes
    assert all("allow_nondeterministic_mutations = 1" in each for each in changes)
    # All of an event's name: its numbers go, too.
    taps = pc.sum(pc.equal(FIRST.column("event"), "tap")).as_py()
    forget.delete(store, Tombstone("two", END_MS + DAY_MS, event="tap"))
    assert ids(store, "event = 'tap'") == []
    assert _sum(store, "events_1h") == FIRST.num_rows - taps
    # Two of three days, as far as the lake has them: some rows of a partition, then whole ones.
    for place in (3, 6):
        wanted = retire.Wanted(START_MS + 2 * DAY_MS, START_MS + 2 * DAY_MS, place)
        kept = ids(store, f"NOT ({wanted.condition()})")
        assert 0 < len(kept) < len(ids(store))
        retire.delete(store, wanted)
        assert ids(store) == kept


def _sum(store: RealtimeStore, table: str) -> int:
    return int(store.query_arrow(f"SELECT sum(events) FROM eventmill.{table}").column(0)[0].as_py())
