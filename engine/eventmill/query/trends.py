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
from eventmill.kernels.partition import OVERFLOW
from eventmill.query.fields import (
    JSON_COLUMNS,
    NUMBER_COLUMNS,
    TIME_COLUMNS,
    Field,
    Filter,
    Parameters,
    parse_field,
    parse_filter,
    parse_time,
)
from eventmill.query.routing import Route, Span

INTERVALS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
MINUTE_MS: Final = INTERVALS["minute"]
COUNTED: Final = {"devices": "device_id", "users": "user_id", "sessions": "session_id"}
#: The label that the values beyond the limit share. A value that is spelt so is counted there too.
OTHER: Final = "other"
LIMIT: Final = 20
LIMIT_MAX: Final = 1_000
FILTERS_MAX: Final = 50
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
    filters: tuple[Filter, ...]
    limit: int

    @property
    def interval_ms(self) -> int:
        """Length of a bucket."""
        return INTERVALS[self.interval]

    def buckets(self) -> range:
        """Start of every bucket that has a part in the span, in ms since the epoch."""
        return range(self.span.start // self.interval_ms * self.interval_ms, self.span.end, self.interval_ms)

    @property
    def rolls_up(self) -> bool:
        """Whether the minute roll-up has all that is asked for."""
        fields = [*(f.field for f in self.filters), *([self.breakdown] if self.breakdown else [])]
        return (
            self.measure.of is None
            and all(of.name in DIMENSIONS for of in fields)
            and self.span.start % MINUTE_MS == 0
            and self.span.end % MINUTE_MS == 0
        )


def parse(body: Any, buckets_max: int) -> Trends:
    """Check a request's body. Raises ``QueryError`` naming the key and what it takes."""
    if not isinstance(body, dict):
        raise QueryError("the body must be a JSON object with event, from, to, interval and measure")
    unknown = sorted(set(body) - set(_KEYS))
    if unknown:
        raise QueryError(f"there is no key {unknown[0][:100]!r}; the keys are {', '.join(_KEYS)}")
    event = body.get("event")
    if event is not None and not isinstance(event, str):
        raise QueryError("event must be an event's name, or null for all events")
    span = Span(parse_time(body.get("from"), "from"), parse_time(body.get("to"), "to"))
    if span.end <= span.start:
        raise QueryError("to must lie after from")
    interval = body.get("interval", "hour")
    if not isinstance(interval, str) or interval not in INTERVALS:
        raise QueryError(f"interval is {str(interval)[:100]!r}; it is one of {', '.join(INTERVALS)}")
    if (span.end - span.start) // INTERVALS[interval] > buckets_max:
        raise QueryError(f"there are over {buckets_max} buckets of a {interval} from {body['from']} to {body['to']}")
    filters = body.get("filters")
    filters = [] if filters is None else filters
    if not isinstance(filters, list) or len(filters) > FILTERS_MAX:
        raise QueryError(f"filters must be a list of at most {FILTERS_MAX}")
    limit = body.get("limit", LIMIT)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
        raise QueryError(f"limit must be a number from 1 to {LIMIT_MAX}")
    return Trends(
        event, span, interval, _measure(body.get("measure", "events")), _breakdown(body.get("breakdown")),
        tuple(parse_filter(given, f"filters[{i}]") for i, given in enumerate(filters)), limit,
    )  # fmt: skip


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


def _breakdown(given: Any) -> Field | None:
    if given is None:
        return None
    of = parse_field(given, "breakdown")
    if of.name == "event_id" or of.column in TIME_COLUMNS:
        raise QueryError(f"breakdown cannot be {of.name}: nearly every event has another")
    return of


def statement(query: Trends, route: Route, lake_source: str | None) -> tuple[str, dict[str, Any]]:
    """SQL and its parameters. It gives ``time`` (ms since the epoch), with a breakdown ``breakdown``, and ``value``."""
    parameters = Parameters()
    partials = " UNION ALL ".join(partial_queries(query, route, lake_source, parameters).values())
    if query.breakdown is None:
        return (
            f"SELECT time, {query.measure.whole} AS value FROM ({partials}) GROUP BY time ORDER BY time",
            parameters.values,
        )
    ranked = (
        "SELECT label, series, row_number() OVER (ORDER BY weight DESC, label NULLS FIRST) AS place FROM ("
        f"SELECT label, groupArray((time, part)) AS series, {query.measure.weight} AS weight FROM ({partials}) GROUP BY label)"
    )
    limit, other = parameters.bind(query.limit, "UInt64"), parameters.bind(OTHER, "String")
    return (
        f"SELECT time, breakdown, {query.measure.whole} AS value FROM ("
        f"SELECT if(place <= {limit}, label, {other}) AS breakdown, place, arrayJoin(series) AS point, "
        f"point.1 AS time, point.2 AS part FROM ({ranked})"
        ") GROUP BY time, breakdown ORDER BY time, min(place)",
        parameters.values,
    )


def partial_queries(query: Trends, route: Route, lake_source: str | None, parameters: Parameters) -> dict[str, str]:
    """One SELECT of partial results per table that is read: keys ``events``, ``events_1m``, ``lake``."""
    found = {}
    if route.lake is not None and lake_source is not None:
        found["lake"] = _raw(query, lake_source, route.lake, parameters, lake=True)
    if route.realtime is not None:
        if query.rolls_up:
            found["events_1m"] = _rolled_up(query, route.realtime, parameters)
        else:
            found["events"] = _raw(query, "eventmill.events", route.realtime, parameters)
    return found


def _raw(query: Trends, source: str, span: Span, parameters: Parameters, *, lake: bool = False) -> str:
    conditions = [f"timestamp >= {parameters.time(span.start)}", f"timestamp < {parameters.time(span.end)}"]
    if lake:
        conditions += _partitions(query, span, parameters)
    bucket = f"intDiv(toUnixTimestamp64Milli(timestamp), {query.interval_ms}) * {query.interval_ms}"
    return _grouped(query, bucket, query.measure.part(parameters), "count()", source, conditions, parameters)


def _partitions(query: Trends, span: Span, parameters: Parameters) -> list[str]:
    """Conditions on the lake's partition columns, by which the reader passes over whole files."""
    first, last = parameters.time(span.start), parameters.time(span.end - 1)
    conditions = [f"event_date BETWEEN toDate32({first}) AND toDate32({last})"]
    if query.event is not None:
        groups = ", ".join(parameters.bind(name, "String") for name in (query.event, OVERFLOW))
        conditions.append(f"event_group IN ({groups})")
    return conditions


def _rolled_up(query: Trends, span: Span, parameters: Parameters) -> str:
    conditions = [
        f"minute >= toDateTime({parameters.bind(span.start // 1_000, 'UInt32')}, 'UTC')",
        f"minute < toDateTime({parameters.bind(span.end // 1_000, 'UInt32')}, 'UTC')",
    ]
    bucket = f"intDiv(toInt64(toUnixTimestamp(minute)) * 1000, {query.interval_ms}) * {query.interval_ms}"
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


def lake_rows(query: Trends, span: Span, source: str) -> tuple[str, dict[str, Any]]:
    """SQL that counts the rows in the partitions of the lake that the query has to read."""
    parameters = Parameters()
    conditions = " AND ".join(_partitions(query, span, parameters))
    return f"SELECT count() FROM {source} WHERE {conditions}", parameters.values


def table(query: Trends, answer: pa.Table) -> pa.Table:
    """The statement's answer with times as times; without a breakdown, counts and sums get their empty buckets."""
    if query.breakdown is not None:
        if not answer.num_rows:
            kinds = {"time": TIME, "breakdown": pa.string(), "value": pa.float64()}
            return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
        return answer.set_column(0, "time", answer.column("time").cast(pa.int64()).cast(TIME))
    times = answer.column("time").to_pylist() if answer.num_rows else []
    values = answer.column("value").to_pylist() if answer.num_rows else []
    if query.measure.fills_zero:
        known = dict(zip(times, values, strict=True))
        times = list(query.buckets())
        values = [known.get(bucket, 0) for bucket in times]
    kind = pa.int64() if query.measure.of is None else pa.float64()
    return pa.table({"time": pa.array(times, pa.int64()).cast(TIME), "value": pa.array(values, kind)})
