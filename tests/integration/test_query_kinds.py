"""Every kind of question against its slow twin: questions made by Hypothesis, over the real-time store, the lake, and both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kind_twins as twins
import pytest
from hypothesis import HealthCheck, given, settings
from query_questions import (
    BOUNDARY,
    DAYS,
    FUNNELS,
    NOW,
    PATHS,
    RETENTIONS,
    SESSIONS,
    TIMELINES,
    WINDOW_MS,
    WINDOWS,
    written,
)
from query_twin import rows_of

from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError
from eventmill.core.ids import parse_event_id
from eventmill.core.schema import EVENT
from eventmill.lake.table import Lake
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, NAMES, START_MS, TYPED, events

COUNT = 20_000
ALL = {"from": written(START_MS), "to": written(START_MS + DAYS * DAY_MS)}
some = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return rows_of(truth())


def truth() -> Any:
    return events(COUNT, seed=31, days=DAYS, coarse_ms=3_600_000)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, QueryService]]:
    """Three services over the same events: all of them in real time, all in the lake, and each from one of the two."""
    folder = tmp_path_factory.mktemp("kinds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a service moves the process; this puts it back in the end
        store, lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        store.declare(TYPED)
        batch = truth()
        store.insert(batch, "token")
        lake.append(batch.select(EVENT.names), group="lake", ranges={0: (0, 1)})
        config = QueryConfig()
        made = {
            "realtime": QueryService(store, lambda: None, config, window_ms=DAY_MS, clock=lambda: NOW),
            "lake": QueryService(store, lake.source_sql, config, window_ms=1, clock=lambda: NOW + 9 * DAY_MS),
            "both": QueryService(
                store, lake.source_sql, config, window_ms=WINDOW_MS, watermark=lake.watermark, clock=lambda: NOW
            ),
        }
        yield made
        for service in made.values():
            service.close()
        store.close()


def test_the_boundary_lies_within(services: dict[str, QueryService]) -> None:
    """And every kind is asked on both its sides."""
    for kind, body in (
        ("trends", ALL),
        ("funnel", ALL | {"steps": [{"event": "tap"}, {"event": "purchase"}]}),
        ("retention", ALL),
        ("sessions", ALL),
        ("timeline", ALL | {"device": "device-7"}),
        ("paths", ALL | {"start": "tap"}),
    ):
        meta = services["both"].ask(kind, body)["meta"]
        assert meta["stores"] == ["realtime", "lake"], kind
        assert meta["boundary"] == written(BOUNDARY).replace(".000", ""), kind
        assert meta["estimated_rows"] >= COUNT / 10, kind


@some
@given(body=FUNNELS)
def test_funnels(services: dict[str, QueryService], rows: list[dict[str, Any]], body: dict[str, Any]) -> None:
    expected = twins.funnel(rows, body, WINDOWS[body["window"]])
    for name, service in services.items():
        assert service.ask("funnel", body)["rows"] == expected, name


@pytest.mark.parametrize("count", [2, 3, 5])
def test_one_event_never_serves_two_steps(
    services: dict[str, QueryService], rows: list[dict[str, Any]], count: int
) -> None:
    """Also where several that look the same have one time: that must not be gone through in another order at each step."""
    for name in NAMES:
        body = ALL | {"steps": [{"event": name}] * count, "window": "10ms"}
        expected = twins.funnel(rows, body, 10)
        assert expected[1][2] > 0
        for store, service in services.items():
            assert service.ask("funnel", body)["rows"] == expected, store


@some
@given(body=RETENTIONS)
def test_retention(services: dict[str, QueryService], rows: list[dict[str, Any]], body: dict[str, Any]) -> None:
    expected = twins.retention(rows, body)
    for name, service in services.items():
        assert service.ask("retention", body)["rows"] == expected, name


@pytest.mark.parametrize("cohort", ["first", "any"])
@pytest.mark.parametrize("days_before", [60, 140])
def test_retention_over_many_periods(
    services: dict[str, QueryService], rows: list[dict[str, Any]], days_before: int, cohort: str
) -> None:
    """More than a word of 64 bits has: with a border of two words amid the events, and with empty words before them."""
    body = {"from": written(START_MS - days_before * DAY_MS), "to": ALL["to"], "interval": "day", "cohort": cohort}
    body |= {"first": {"event": "tap"}, "returning": {"event": "purchase"}}
    expected = twins.retention(rows, body)
    assert sum(row[2] for row in expected) > 1_000
    for name, service in services.items():
        assert service.ask("retention", body)["rows"] == expected, name


@some
@given(body=SESSIONS)
def test_sessions(services: dict[str, QueryService], rows: list[dict[str, Any]], body: dict[str, Any]) -> None:
    expected = twins.sessions(rows, body)
    for name, service in services.items():
        assert service.ask("sessions", body)["rows"] == expected, name


@some
@given(body=TIMELINES)
def test_timelines(services: dict[str, QueryService], rows: list[dict[str, Any]], body: dict[str, Any]) -> None:
    expected = twins.timeline(rows, body)
    if body.get("limit", 100) < 7:
        expected = expected[:4]
    for name, service in services.items():
        assert pages(service, body, len(expected)) == expected, name


def pages(service: QueryService, body: dict[str, Any], wanted: int) -> list[bytes]:
    """The ids of page after page."""
    found: list[bytes] = []
    cursor = None
    while True:
        answer = service.ask("timeline", body | {"cursor": cursor})
        at = answer["columns"].index("event_id")
        page = [parse_event_id(row[at]) for row in answer["rows"]]
        assert len(page) <= body.get("limit", 100)
        found += page
        cursor = answer["meta"]["cursor"]
        if cursor is None or len(found) >= wanted > 0:
            return found[:wanted] if cursor else found


@some
@given(body=PATHS)
def test_paths(services: dict[str, QueryService], rows: list[dict[str, Any]], body: dict[str, Any]) -> None:
    expected = twins.paths(rows, body)
    for name, service in services.items():
        found = service.ask("paths", body)["rows"]
        assert {tuple(row[:3]): row[3] for row in found} == expected, name
        assert len(found) == len(expected)
        assert [row[0] for row in found] == sorted(row[0] for row in found)


def test_pages_follow_one_another(services: dict[str, QueryService], rows: list[dict[str, Any]]) -> None:
    """Also where several events have one time: that device's clock ticks by the hour."""
    body = ALL | {"device": "device-7", "limit": 7}
    expected = twins.timeline(rows, body)
    assert len(expected) > 21
    for name, service in services.items():
        assert pages(service, body, len(expected)) == expected, name


def test_a_timeline_row_has_the_whole_event(services: dict[str, QueryService], rows: list[dict[str, Any]]) -> None:
    wanted = max((row for row in rows if row["device_id"] == "device-7"), key=lambda row: row["timestamp"])
    for service in services.values():
        answer = service.ask("timeline", ALL | {"device": "device-7", "limit": 1})
        found = dict(zip(answer["columns"], answer["rows"][0], strict=True))
        assert parse_event_id(found["event_id"]) == wanted["event_id"]
        assert found["timestamp"] == twins.iso_ms(wanted["timestamp"])
        assert found["received_at"] == twins.iso_ms(wanted["received_at"])
        assert found["session_id"] == str(wanted["session_id"])
        for name in ("event", "type", "user_id", "platform", "app_version", "country"):
            assert found[name] == wanted[name]


def test_without_from_and_to_a_timeline_ends_now(services: dict[str, QueryService]) -> None:
    answer = services["realtime"].ask("timeline", {"device": "device-7", "limit": 1_000})
    at = answer["columns"].index("timestamp")
    assert answer["rows"]
    assert all(row[at] < twins.iso_ms(NOW) for row in answer["rows"])


QUESTIONS = {
    "funnel": {"steps": [{"event": "tap"}, {"event": "tap"}]},
    "retention": {},
    "sessions": {},
    "timeline": {"id": "x"},
    "paths": {"end": "tap"},
}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_too_much_to_read_is_refused(services: dict[str, QueryService], kind: str) -> None:
    of = services["both"]
    small = QueryService(
        of._store, of._lake_source, QueryConfig(scan_rows_max=100), window_ms=WINDOW_MS, clock=lambda: NOW
    )
    with pytest.raises(QueryError, match=r"would read about \d+(,\d+)* rows .* 100 are the most: narrow"):
        small.ask(kind, ALL | QUESTIONS[kind])
    small.close()


@pytest.mark.parametrize("kind", QUESTIONS)
def test_nothing_found(services: dict[str, QueryService], kind: str) -> None:
    """Empty answers have their columns, with their types, in JSON and Arrow alike."""
    span = {"from": "1999-01-01T00:00:00Z", "to": "1999-01-03T00:00:00Z"}
    for service in services.values():
        empty = service.answer(kind, span | QUESTIONS[kind])
        full = service.answer(kind, ALL | QUESTIONS[kind])
        assert empty.table.column_names == full.table.column_names
        assert [field.type for field in empty.table.schema] == [field.type for field in full.table.schema]


@pytest.mark.parametrize("text", ["'; DROP TABLE events; --", "{p0:String}", "\x00", "\\", "%s", "`", *NAMES[-1:]])
def test_what_is_given_is_a_value(services: dict[str, QueryService], rows: list[dict[str, Any]], text: str) -> None:
    condition = {"field": f"properties.{text}", "op": "eq", "value": text}
    with_filter = {"filters": [condition]}
    asked = {
        "trends": {"event": text, "interval": "day"} | with_filter,
        "funnel": {"steps": [{"event": text}, with_filter], "breakdown": f"properties.{text}"},
        "retention": {"first": {"event": text}, "returning": with_filter},
        "sessions": {"event": text, "breakdown": f"context.{text}"} | with_filter,
        "timeline": {"user": text, "event": text},
        "paths": {"start": text},
    }
    for service in services.values():
        for kind, body in asked.items():
            answer = service.ask(kind, ALL | body)
            if kind == "paths":
                assert {tuple(row[:3]): row[3] for row in answer["rows"]} == twins.paths(rows, ALL | body)
    for service in services.values():
        assert service.ask("sql", {"query": "SELECT count() FROM events"})["rows"] == [[COUNT]]
