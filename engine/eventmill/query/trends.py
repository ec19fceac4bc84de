"""Trends: one measure over time, in buckets, perhaps broken down by a field.

Every statement has one shape: each store gives partial results per bucket (and value of the breakdown), and one outer query
merges them. Distinct counts, averages and quantiles travel as aggregate states, so that what is merged is never an
average of averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.core.rollup import DIMENSIONS, DISTINCT, DISTINCT_PRECISION, distinct_merge, distinct_state
from eventmill.core.schema import TIME
from eventmill.query.body import (
    INTERVALS,
    LIMIT,
    LIMIT_MAX,
    read_breakdown,
    read_choice,
    read_event,
    read_number,
    read_object,
    read_span,
)
from eventmill.query.conditions import Condition, read_filters
from eventmill.query.fields import JSON_COLUMNS, NUMBER_COLUMNS, Field, Parameters, parse_field
from eventmill.query.routing import Route, Span
from eventmill.query.scan import EVENTS, Plan, lake_rows, partitions, ranked

MINUTE_MS: Final = INTERVALS["minute"]
COUNTED: Final = {"devices": "device_id", "users": "user_id", "sessions": "session_id"}
_HINT: Final = (
    "narrow from and to, name an event, or take a measure and fields that the minute roll-up has "
    "(events, devices, users, sessions by event and platform)"
)
#: Of the quantiles' sketch (DDSketch): its bins are one percent wide. The answer is within half a percent of the value at
#: that rank, for values below 1 within one and a half (ClickHouse rounds their bins towards zero).
ACCURACY: Final = 0.005
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_OF_VALUES: Final = ("sum", "avg", "min", "max", *_QUANTILES)
_KEYS: Final = ("event", "from", "to", "interval", "measure", "breakdown", "filters", "limit")


@dataclass(frozen=True, slots=True)
class Measure:
    """``events``, ``devices``, ``users``, ``sessions``, or a function of a numeric field."""

    function: str
    of: Field | None = None

    @property
    def fills_zero(self) -> bool:
        """Whether a bucket without events has the value 0 (else it has none)."""
        return self.of is None or self.function == "sum"

    def part(self, parameters: Parameters) -> str:
        """SQL for one store's partial result over raw rows."""
        if self.of is None:
            return "count()" if self.function == "events" else distinct_state(_typed(COUNTED[self.function]))
        value = self.of.number(parameters)
        if self.function in _QUANTILES:
            return f"quantileDDState({ACCURACY}, {_QUANTILES[self.function]})({value})"
        return f"avgState({value})" if self.function == "avg" else f"{self.function}({value})"

    def rolled_up_part(self) -> str:
        """The same over rows of the minute roll-up."""
        return "sum(events)" if self.function == "events" else distinct_merge(self.function)

    @property
    def whole(self) -> str:
        """SQL for the result of all ``part``s."""
        if self.of is None:
            # Of nothing but nulls (no event has a user) the distinct count would be null.
            distinct = f"ifNull({DISTINCT}Merge({DISTINCT_PRECISION})(part), 0)"
            return "sum(part)" if self.function == "events" else distinct
        if self.function in _QUANTILES:
            return f"quantileDDMerge({ACCURACY}, {_QUANTILES[self.function]})(part)"
        if self.function == "avg":
            return "avgMerge(part)"
        return "ifNull(sum(part), 0)" if self.function == "sum" else f"{self.function}(part)"

    @property
    def weight(self) -> str:
        """SQL for what ranks the values of a breakdown: the measure itself, or the events where that is no amount."""
        return self.whole if self.fills_zero else "sum(matched)"


def _typed(column: str) -> str:
    """One type in both stores, so that their states merge."""
    return {"device_id": "toString(device_id)", "user_id": "CAST(user_id, 'Nullable(String)')"}.get(column, column)


@dataclass(frozen=True, slots=True)
class Trends:
    """A checked query."""

    event: str | None
    span: Span
    interval: str
    measure: Measure
    breakdown: Field | None
    filters: tuple[Condition, ...]
    limit: int

    @property
    def bucket_ms(self) -> int:
        """Length of a bucket."""
        return INTERVALS[self.interval]

    def buckets(self) -> range:
        """Start of every bucket that has a part in the span, in ms since the epoch."""
        return range(self.span.start // self.bucket_ms * self.bucket_ms, self.span.end, self.bucket_ms)

    @property
    def events(self) -> list[str] | None:
        """The only event names that matter."""
        return None if self.event is None else [self.event]

    @property
    def rolls_up(self) -> bool:
        """Whether the minute roll-up has all that is asked for."""
        fields = [*(of for each in self.filters for of in each.fields), *([self.breakdown] if self.breakdown else [])]
        return (
            self.measure.of is None
            and all(of.name in DIMENSIONS for of in fields)
            and self.span.start % MINUTE_MS == 0
            and self.span.end % MINUTE_MS == 0
        )

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """It gives ``time`` (ms since the epoch), with a breakdown ``breakdown``, and ``value``."""
        parameters = Parameters()
        parts = _partial_queries(self, way, lake_source, parameters)
        partials = " UNION ALL ".join(parts.values())
        if self.breakdown is None:
            sql = f"SELECT time, {self.measure.whole} AS value FROM ({partials}) GROUP BY time ORDER BY time"
        else:
            rows = ranked(partials, ("time", "part"), self.measure.weight, self.limit, parameters)
            sql = (
                f"SELECT time, breakdown, {self.measure.whole} AS value FROM ({rows}) "
                "GROUP BY time, breakdown ORDER BY time, min(place)"
            )
        lake = None
        if way.lake is not None and lake_source is not None:
            lake = lake_rows(self.events, way.lake, lake_source)
        realtime = {name: part for name, part in parts.items() if name != "lake"}
        return Plan(sql, parameters.values, realtime, lake, raw="events" in parts, hint=_HINT)

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """With times as times; without a breakdown, counts and sums get their empty buckets."""
        if self.breakdown is not None:
            if not found.num_rows:
                kinds = {"time": TIME, "breakdown": pa.string(), "value": pa.float64()}
                return pa.table({name: pa.array([], kind) for name, kind in kinds.items()}), {}
            return found.set_column(0, "time", found.column("time").cast(pa.int64()).cast(TIME)), {}
        times = found.column("time").to_pylist() if found.num_rows else []
        values = found.column("value").to_pylist() if found.num_rows else []
        if self.measure.fills_zero:
            known = dict(zip(times, values, strict=True))
            times = list(self.buckets())
            values = [known.get(bucket, 0) for bucket in times]
        kind = pa.int64() if self.measure.of is None else pa.float64()
        return pa.table({"time": pa.array(times, pa.int64()).cast(TIME), "value": pa.array(values, kind)}), {}


def parse(body: Any, buckets_max: int) -> Trends:
    """Check a request's body. Raises ``QueryError`` naming the key and what it takes."""
    body = read_object(body, _KEYS)
    found = Trends(
        read_event(body.get("event")), read_span(body), read_choice(body, "interval", tuple(INTERVALS), "hour"),
        _measure(body.get("measure", "events")), read_breakdown(body.get("breakdown")),
        read_filters(body.get("filters")), read_number(body, "limit", LIMIT, LIMIT_MAX),
    )  # fmt: skip
    if len(found.buckets()) > buckets_max:
        raise QueryError(
            f"there are over {buckets_max} buckets of a {found.interval} from {body['from']} to {body['to']}"
        )
    return found


def _measure(given: Any) -> Measure:
    plain = ("events", *COUNTED)
    if isinstance(given, str):
        if given in plain:
            return Measure(given)
        function, colon, name = given.partition(":")
        if colon and function in _OF_VALUES:
            of = parse_field(name, "measure")
            if not of.path and of.name not in NUMBER_COLUMNS:
                paths = " or ".join(f"{column}.…" for column in JSON_COLUMNS)
                raise QueryError(
                    f"measure: {function} needs a number, {', '.join(NUMBER_COLUMNS)} or {paths}, not {name}"
                )
            return Measure(function, of)
    shown = str(given)[:100]
    raise QueryError(
        f"measure is {shown!r}; it is one of {', '.join(plain)}, "
        f"or {', '.join(_OF_VALUES)} of a number, like sum:properties.price"
    )


def _partial_queries(query: Trends, way: Route, lake_source: str | None, parameters: Parameters) -> dict[str, str]:
    """One SELECT of partial results per table that is read: keys ``events``, ``events_1m``, ``lake``."""
    found = {}
    if way.lake is not None and lake_source is not None:
        found["lake"] = _raw(query, lake_source, way.lake, parameters, lake=True)
    if way.realtime is not None:
        if query.rolls_up:
            found["events_1m"] = _rolled_up(query, way.realtime, parameters)
        else:
            found["events"] = _raw(query, EVENTS, way.realtime, parameters)
    return found


def _raw(query: Trends, source: str, span: Span, parameters: Parameters, *, lake: bool = False) -> str:
    conditions = [f"timestamp >= {parameters.time(span.start)}", f"timestamp < {parameters.time(span.end)}"]
    if lake:
        conditions += partitions(query.events, span, parameters)
    bucket = f"intDiv(toUnixTimestamp64Milli(timestamp), {query.bucket_ms}) * {query.bucket_ms}"
    return _grouped(query, bucket, query.measure.part(parameters), "count()", source, conditions, parameters)


def _rolled_up(query: Trends, span: Span, parameters: Parameters) -> str:
    conditions = [
        f"minute >= toDateTime({parameters.bind(span.start // 1_000, 'UInt32')}, 'UTC')",
        f"minute < toDateTime({parameters.bind(span.end // 1_000, 'UInt32')}, 'UTC')",
    ]
    bucket = f"intDiv(toInt64(toUnixTimestamp(minute)) * 1000, {query.bucket_ms}) * {query.bucket_ms}"
    return _grouped(
        query, bucket, query.measure.rolled_up_part(), "sum(events)", "eventmill.events_1m", conditions, parameters
    )


def _grouped(
    query: Trends, bucket: str, part: str, matched: str, source: str, conditions: list[str], parameters: Parameters
) -> str:
    if query.event is not None:
        conditions.append(f"event = {parameters.bind(query.event, 'String')}")
    conditions += [each.sql(parameters) for each in query.filters]
    columns, keys = f"{bucket} AS time", "time"
    if query.breakdown is not None:
        columns, keys = f"{columns}, {query.breakdown.text(parameters)} AS label", "time, label"
    return (
        f"SELECT {columns}, {part} AS part, {matched} AS matched FROM {source} "
        f"WHERE {' AND '.join(conditions)} GROUP BY {keys}"
    )
