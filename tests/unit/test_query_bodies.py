"""What the bodies of funnels, retention, sessions, timelines and paths may say, and how mistakes are answered."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import QueryError
from eventmill.query.retention import Retention
from eventmill.query.routing import Route
from eventmill.query.service import KINDS

SPAN = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
NOW = 1_795_406_400_000
BODIES: dict[str, dict[str, Any]] = {
    "trends": SPAN,
    "funnel": SPAN | {"steps": [{"event": "a"}, {"event": "b"}]},
    "retention": SPAN,
    "sessions": SPAN,
    "timeline": {"user": "u"},
    "paths": SPAN | {"start": "a"},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "steps", "from", "to", "window", "measure", "breakdown", "filters", "limit", "interval", "first", "returning",
    "cohort", "event", "user", "device", "id", "cursor", "start", "end", "depth", "top",
)  # fmt: skip


def parse(kind: str, body: Any) -> Any:
    return KINDS[kind](body, 100_000, NOW)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("funnel", {"steps": None}, "steps must be a list of 2 to 10"),
        ("funnel", {"steps": [{"event": "a"}]}, "steps must be a list of 2 to 10"),
        ("funnel", {"steps": [{"event": "a"}] * 11}, "steps must be a list of 2 to 10"),
        ("funnel", {"steps": [{"event": "a"}, {}]}, r"steps\[1\] must name an event or have filters"),
        ("funnel", {"steps": [{"event": "a"}, "b"]}, r"steps\[1\] must be a JSON object with event, filters"),
        ("funnel", {"steps": [{"event": 5}, {"event": "b"}]}, r"steps\[0\].event must be an event's name"),
        ("funnel", {"steps": [{"event": "a", "name": "x"}, {"event": "b"}]}, r"no key 'name' in steps\[0\]"),
        (
            "funnel",
            {"steps": [{"event": "a"}, {"filters": [{"field": "nation", "op": "eq", "value": "x"}]}]},
            r"steps\[1\].filters\[0\].field: there is no field 'nation'",
        ),
        ("funnel", {"window": "soon"}, "window is 'soon'; write a length of time like"),
        ("funnel", {"window": True}, "window is 'True'"),
        ("funnel", {"window": 0}, "window is '0'"),
        ("funnel", {"window": "0.1ms"}, "window must be a length of time from 1ms to 366d"),
        ("funnel", {"window": "367d"}, "window must be a length of time from 1ms to 366d"),
        ("funnel", {"measure": "sessions"}, "measure is 'sessions'; it is one of devices, users"),
        ("funnel", {"breakdown": "timestamp"}, "breakdown cannot be timestamp"),
        ("funnel", {"step": []}, "there is no key 'step'"),
        ("retention", {"interval": "hour"}, "it is one of day, week, month"),
        ("retention", {"first": "a"}, "first must be a JSON object with event, filters"),
        ("retention", {"returning": {"event": "a", "limit": 1}}, "no key 'limit' in returning"),
        ("retention", {"cohort": "last"}, "cohort is 'last'; it is one of first, any"),
        ("retention", {"from": "1990-01-01"}, "whose grid has over 100000 cells"),
        ("sessions", {"interval": "week"}, "it is one of minute, hour, day, total"),
        ("sessions", {"from": "2020-01-01", "interval": "minute"}, "over 100000 buckets of a minute"),
        ("sessions", {"event": ["a"]}, "event must be an event's name"),
        ("sessions", {"limit": 1_001}, "limit must be a number from 1 to 1000"),
        ("timeline", {"user": None}, "say whose events"),
        ("timeline", {"device": "d"}, "say whose events"),
        ("timeline", {"user": ""}, "user must be text of 1 to 4096 characters"),
        ("timeline", {"user": "u" * 5_000}, "user must be text of 1 to 4096 characters"),
        ("timeline", {"user": 7}, "user must be text"),
        ("timeline", {"limit": 1_001}, "limit must be a number from 1 to 1000"),
        ("timeline", {"cursor": "x"}, "cursor must be the cursor of the page before"),
        ("timeline", {"cursor": 5}, "cursor must be the cursor of the page before"),
        ("timeline", {"cursor": "AAAA"}, "cursor must be the cursor of the page before"),
        ("timeline", {"cursor": "ü" * 32}, "cursor must be the cursor of the page before"),
        ("timeline", {"to": "1971-01-01", "from": "1972-01-01"}, "to must lie after from"),
        ("paths", {"start": None}, "name one event: start"),
        ("paths", {"end": "b"}, "name one event: start"),
        ("paths", {"start": 5}, "start must be an event's name"),
        ("paths", {"depth": 6}, "depth must be a number from 1 to 5"),
        ("paths", {"top": 0}, "top must be a number from 1 to 50"),
        *((kind, {"filters": "x"}, "filters must be a list of at most 50") for kind in BODIES),
        *((kind, {"from": "yesterday"}, "from is 'yesterday'; write a time like") for kind in BODIES),
    ],
)
def test_mistakes_are_named(kind: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        parse(kind, BODIES[kind] | change)


@given(st.sampled_from(sorted(BODIES)), JSON)
def test_any_body_is_taken_or_refused(kind: str, body: Any) -> None:
    with pytest.raises(QueryError):
        parse(kind, body)


@given(st.sampled_from(sorted(BODIES)), st.sampled_from(KEYS), JSON)
def test_any_value_is_taken_or_refused(kind: str, key: str, value: Any) -> None:
    with contextlib.suppress(QueryError):
        parse(kind, BODIES[kind] | {key: value})


@given(st.text(max_size=50))
def test_what_is_given_is_never_in_the_sql(text: str) -> None:
    marked = f"{text}⟦mark⟧"
    condition = {"field": "country", "op": "eq", "value": marked}
    for kind, change in (
        ("trends", {"event": marked, "filters": [condition]}),
        ("funnel", {"steps": [{"event": marked}, {"filters": [condition]}], "filters": [condition]}),
        ("retention", {"first": {"event": marked}, "returning": {"filters": [condition]}}),
        ("sessions", {"event": marked, "filters": [condition]}),
        ("timeline", {"user": marked, "event": marked}),
        ("paths", {"start": marked, "filters": [condition]}),
    ):
        question = parse(kind, BODIES[kind] | change)
        span = question.span
        for way in (Route(None, span, None), Route(span, None, span.end)):
            plan = question.plan(way, "icebergLocal('lake')")
            assert "⟦mark⟧" not in plan.sql
            assert marked in plan.parameters.values()


@pytest.mark.parametrize(
    ("interval", "start", "end", "count"),
    [
        ("day", "2026-11-01T00:00:00Z", "2026-11-01T00:00:00.001Z", 1),
        ("day", "2026-11-01T23:59:59.999Z", "2026-11-02T00:00:00.001Z", 2),
        ("week", "2026-11-02T00:00:00Z", "2026-11-09T00:00:00Z", 1),  # a Monday to the next
        ("week", "2026-11-01T23:59:00Z", "2026-11-09T00:00:01Z", 3),
        ("month", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", 1),
        ("month", "2025-12-31T23:59:59Z", "2027-01-01T00:00:01Z", 14),
    ],
)
def test_the_periods_of_a_span(interval: str, start: str, end: str, count: int) -> None:
    question = parse("retention", {"from": start, "to": end, "interval": interval})
    assert isinstance(question, Retention)
    assert len(question.periods()) == count
