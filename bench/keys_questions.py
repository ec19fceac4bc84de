"""What Eventmill asks of the real-time store's events: the ten standard questions over the events themselves (roll-ups answer
most of them), those of the query service that no roll-up answers, and the look-ups of one device, user or event. All but the
ten are the product's own statements, with another table's name in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from bench import store_questions
from bench.month import HOUR_MS
from eventmill.core.schema import EVENT_ID
from eventmill.core.tombstones import Tombstone, digest
from eventmill.core.typed import Typed
from eventmill.lake.files import DAY_MS
from eventmill.query import funnel, paths, retention, sessions, timeline, trends
from eventmill.query.project import condition
from eventmill.query.routing import Route
from eventmill.query.scan import EVENTS, Question
from eventmill.sinks.realtime import forget
from eventmill.sinks.realtime.store import FIND
from eventmill.sinks.realtime.twins import Twins

_TABLE: Final = re.compile(rf"\b{re.escape(EVENTS)}\b")
#: The standard questions are about other events than these.
_NAMES: Final = {
    "Event 0": "Product Viewed", "Event 3": "Product Clicked", "'list'": "'category'", "p_list": "p_category",
}  # fmt: skip
#: Suspects that the rescue lane looks up at once, and how many of them are no duplicates.
_SUSPECTS: Final = 200
_FALSE: Final = 4
_BUCKETS_MAX: Final = 100_000


class Engine(Protocol):
    """What answers."""

    source: str

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        rows: pa.Table | None = None,
    ) -> pa.Table:
        """Run a SELECT."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: ``ask`` gives what an engine answers over a table, in a form that can be compared."""

    name: str
    ask: Callable[[Any, str], Any]


def questions(engine: Engine, table: str, end_ms: int, typed: Typed) -> list[Asked]:
    """All of them, about what ``table`` holds; its events end before ``end_ms``."""
    who = _somebody(engine, table, end_ms)
    return [*_standard(), *_of_the_query_service(end_ms, typed, who), *_of_one(who, end_ms), *_rescue(engine, table)]


@dataclass(frozen=True, slots=True)
class _Who:
    """Somebody with a user id, an event of theirs, and one of their sessions."""

    device: str
    user: str
    event_id: str
    session: int


def _somebody(engine: Engine, table: str, end_ms: int) -> _Who:
    """Whose number of events on the last day is the median of all who have a user id."""
    found = engine.query(
        f"SELECT device_id, any(user_id) AS user, hex(max(event_id)) AS id, max(session_id) AS session FROM {table} "
        f"WHERE user_id IS NOT NULL AND timestamp >= fromUnixTimestamp64Milli({end_ms - DAY_MS}) "
        "GROUP BY device_id ORDER BY count(), device_id"
    )
    row = found.slice(found.num_rows // 2, 1).to_pylist()[0]
    return _Who(_text(row["device_id"]), _text(row["user"]), _text(row["id"]), row["session"])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same; sums of fractions depend on their order a little."""
    if not isinstance(one, list):
        return bool(one == other)
    pairs = [pair for rows in zip(one, other, strict=False) for pair in zip(*rows, strict=True)]
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) else a == b for a, b in pairs
    )


def _comparable(found: pa.Table) -> list[tuple[Any, ...]]:
    """The rows, in the order of what can be compared exactly."""
    rows = [tuple(row.values()) for row in found.to_pylist()]
    return sorted(rows, key=lambda row: str([value for value in row if not isinstance(value, float)]))


def _statement(sql: str, parameters: Mapping[str, Any] | None = None) -> Callable[[Any, str], Any]:
    """Asks a statement over ``eventmill.events``."""
    return lambda engine, table: _comparable(engine.query(_TABLE.sub(table, sql), parameters))


def _standard() -> list[Asked]:
    """Each over typed columns where ours asks the events, else over what a plain table has."""
    found = []
    for each in store_questions.QUESTIONS:
        sql = each.ours if _TABLE.search(each.ours) else each.plain.replace("plain.events", EVENTS)
        for theirs, ours in _NAMES.items():
            sql = sql.replace(theirs, ours)
        found.append(Asked(each.name, _statement(sql)))
    return found


def _of_the_query_service(end_ms: int, typed: Typed, who: _Who) -> list[Asked]:
    day = {"from": _iso(end_ms - DAY_MS), "to": _iso(end_ms)}
    hour = {"from": _iso(end_ms - 12 * HOUR_MS), "to": _iso(end_ms - 11 * HOUR_MS)}
    days = {"from": _iso(end_ms - 3 * DAY_MS), "to": _iso(end_ms)}
    by = {"interval": "hour", "breakdown": "country"}
    steps = [{"event": name} for name in ("Product Viewed", "Product Added", "Checkout Started", "Order Completed")]
    cohort = {"first": {"event": "Application Opened"}, "returning": {"event": "Order Completed"}}
    shoes = [{"field": "properties.category", "op": "eq", "value": "Shoes"}]
    session = [{"field": "session_id", "op": "eq", "value": who.session}]

    def trend(body: dict[str, Any]) -> Question:
        return trends.parse(by | body, _BUCKETS_MAX)

    frequent = trend(day | {"event": "Product Viewed"})
    asked: dict[str, Question] = {
        "trend of a frequent event, day": frequent,
        "trend of a rare event, day": trend(day | {"event": "Order Refunded"}),
        "trend of one category of an event, day": trend(day | {"event": "Product Viewed", "filters": shoes}),
        "trend of all events, hour": trend(hour | {"interval": "minute"}),
        "trend of one session, day": trend(day | {"filters": session}),
        "funnel of 4 steps, day": funnel.parse({"steps": steps} | day),
        "retention, 3 days": retention.parse(cohort | days, _BUCKETS_MAX),
        "paths from an event, day": paths.parse({"start": "Application Opened"} | day),
        "sessions by country, day": sessions.parse(by | day, _BUCKETS_MAX),
        "timeline of a device, day": timeline.parse({"device": who.device} | day, end_ms),
        "timeline of a user, day": timeline.parse({"user": who.user} | day, end_ms),
        "timeline of any id, day": timeline.parse({"id": who.device} | day, end_ms),
        "timeline of a user, 3 days": timeline.parse({"user": who.user} | days, end_ms),
    }
    small = Asked("trend of a frequent event, day, of a small project", _planned(frequent, typed, "club"))
    return [*(Asked(name, _planned(question, typed)) for name, question in asked.items()), small]


def _planned(question: Question, typed: Typed, project: str = "") -> Callable[[Any, str], Any]:
    """What the query service makes of a question that the real-time store answers alone, for one project or all."""
    plan = question.plan(Route(None, question.span, None, typed), None)

    def ask(engine: Engine, table: str) -> Any:
        of_row = condition(project).replace("'", "\\'") if project else ""
        settings = {"additional_table_filters": f"{{'{table}': '{of_row}'}}"} if project else None
        return _comparable(engine.query(_TABLE.sub(table, plan.sql), plan.parameters, settings))

    return ask


def _of_one(who: _Who, end_ms: int) -> list[Asked]:
    def found(engine: Engine, table: str) -> Any:
        # Where and when it was stored differs.
        answer = engine.query(_TABLE.sub(table, FIND), {"id": who.event_id})
        return _comparable(answer.drop_columns([answer.column_names[0], answer.column_names[2]]))

    covered = forget.condition(Tombstone("", end_ms, user=digest(who.user)))
    return [
        Asked("trace of an event", found),
        Asked("forget: the rows of a user", _statement(f"SELECT count() FROM {EVENTS} WHERE {covered}")),
    ]


def _rescue(engine: Engine, table: str) -> list[Asked]:
    found = engine.query(
        f"SELECT event_id, event::String AS event, toUnixTimestamp64Milli(timestamp) AS at FROM {table} "
        f"ORDER BY received_at DESC, event_id LIMIT {_SUSPECTS}"
    )
    names = pa.array([_text(name) for name in found.column("event").to_pylist()])
    ids, at = found.column("event_id").cast(EVENT_ID).combine_chunks(), found.column("at").combine_chunks()
    unknown = np.random.default_rng(1).bytes(16 * _FALSE)
    mixed = pa.concat_arrays(
        [ids.slice(_FALSE), pa.array([unknown[i : i + 16] for i in range(0, 16 * _FALSE, 16)], EVENT_ID)]
    )
    return [
        Asked(f"rescue: {_SUSPECTS} duplicates", lambda engine, table: Twins(engine, table).contains(ids, names, at)),
        Asked(
            f"rescue: {_SUSPECTS - _FALSE} duplicates, {_FALSE} that are none",
            lambda engine, table: Twins(engine, table).contains(mixed, names, at),
        ),
    ]


def _iso(at_ms: int) -> str:
    return f"{np.datetime64(at_ms, 'ms')}Z"
