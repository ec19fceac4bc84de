"""Trends: one measure over time, in buckets, perhaps broken down by fields, running on, or beside the period before.

Every statement has one shape: each store gives partial results per bucket (and value of the breakdown), and one outer query
merges them. Distinct counts, averages and quantiles travel as aggregate states, so that what is merged is never an
average of averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.core.retention import LakeView
from eventmill.core.rollup import (
    DIMENSIONS,
    DISTINCT,
    DISTINCT_PRECISION,
    distinct_merge,
    distinct_state,
    quantile_of,
    quantiles_merge,
    quantiles_state,
)
from eventmill.core.schema import TIME
from eventmill.core.typed import NOTHING
from eventmill.query import retired
from eventmill.query.body import (
    INTERVALS,
    LIMIT,
    LIMIT_MAX,
    read_breakdowns,
    read_choice,
    read_event,
    read_number,
    read_object,
    read_span,
)
from eventmill.query.conditions import Condition, read_filters
from eventmill.query.fields import JSON_COLUMNS, NUMBER_COLUMNS, Field, Parameters, parse_field
from eventmill.query.legs import (
    IN_REALTIME,
    MINUTE_MS,
    OF_NUMBERS,
    Leg,
    RollUp,
    lake_legs,
    of_files,
    of_spans,
    realtime_legs,
    rows_of,
)
from eventmill.query.routing import Route, Span
from eventmill.query.scan import (
    AT,
    BREAKDOWNS,
    DATE_AT,
    EVENTS,
    LABELS,
    LOOKED_UP,
    Plan,
    lake_rows,
    partitions,
    ranked,
    within,
)

COUNTED: Final = {"devices": "device_id", "users": "user_id", "sessions": "session_id"}
_HINT: Final = (
    "narrow from and to, name an event, or take a measure and fields that roll-ups have "
    "(events, devices, users, sessions by event and platform; of one event, its typed numbers)"
)
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
OF_VALUES: Final = ("sum", "avg", "min", "max", *_QUANTILES)
_KEYS: Final = ("event", "from", "to", "interval", "measure", "breakdown", "filters", "limit", "compare", "cumulative")
#: The column of the period before, and of the asked one.
_PERIODS: Final = {1: "previous", 0: "value"}


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
            return quantiles_state(value)
        return f"avgState({value})" if self.function == "avg" else f"{self.function}({value})"

    def rolled_up_part(self) -> str:
        """The same over rows of a roll-up; of numbers, over those of the property."""
        if self.of is None:
            return "sum(events)" if self.function == "events" else distinct_merge(self.function)
        if self.function in _QUANTILES:
            return quantiles_merge("value_quantiles")
        return "avgMergeState(value_avg)" if self.function == "avg" else f"{self.function}(value_{self.function})"

    def whole(self, over: str = "") -> str:
        """SQL for the result of all ``part``s; with ``over`` of those in a window."""
        if self.of is None:
            # Of nothing but nulls (no event has a user) the distinct count would be null.
            distinct = f"ifNull({DISTINCT}Merge({DISTINCT_PRECISION})(part){over}, 0)"
            return f"sum(part){over}" if self.function == "events" else distinct
        if self.function in _QUANTILES:
            return quantile_of("part", _QUANTILES[self.function], over)
        if self.function == "avg":
            return f"avgMerge(part){over}"
        return f"ifNull(sum(part){over}, 0)" if self.function == "sum" else f"{self.function}(part){over}"

    @property
    def weight(self) -> str:
        """SQL for what ranks the values of a breakdown: the measure itself, or the events where that is no amount."""
        return self.whole() if self.fills_zero else "sum(matched)"


def _typed(column: str) -> str:
    """One type in both stores, so that their states merge."""
    return {"device_id": "toString(device_id)", "user_id": "CAST(user_id, 'Nullable(String)')"}.get(column, column)


@dataclass(frozen=True, slots=True)
class Trends:
    """A checked query. ``compare``: beside the period of the same length before; ``cumulative``: buckets run on."""

    event: str | None
    asked: Span
    interval: str
    measure: Measure
    breakdown: tuple[Field, ...]
    filters: tuple[Condition, ...]
    limit: int
    compare: bool = False
    cumulative: bool = False

    @property
    def length_ms(self) -> int:
        """Of the asked period."""
        return self.asked.end - self.asked.start

    @property
    def span(self) -> Span:
        """All that is read."""
        return Span(self.asked.start - self.length_ms * self.compare, self.asked.end)

    @property
    def bucket_ms(self) -> int:
        """Length of a bucket."""
        return INTERVALS[self.interval]

    def buckets(self) -> range:
        """Start of every bucket that has a part in the asked period, in ms since the epoch."""
        return range(self.asked.start // self.bucket_ms * self.bucket_ms, self.asked.end, self.bucket_ms)

    @property
    def events(self) -> list[str] | None:
        """The only event names that matter."""
        return None if self.event is None else [self.event]

    @property
    def rolls_up(self) -> bool:
        """Whether roll-ups have all that is asked for."""
        return self.measure.of is None and self._by_dimensions

    @property
    def _by_dimensions(self) -> bool:
        fields = [*(of for each in self.filters for of in each.fields), *self.breakdown]
        return all(of.name in DIMENSIONS for of in fields)

    def in_realtime(self, way: Route) -> tuple[RollUp, ...]:
        """The real-time store's roll-ups that have all that is asked for: those of numbers, if they have the property of all
        events that are called so."""
        of, names = self.measure.of, self.events
        if of is None or names is None or not self._by_dimensions:
            return IN_REALTIME if self.rolls_up else ()
        typed = of.column == "properties" and len(of.path) == 1
        known = typed and all(way.typed.rolls_up(of.path[0], name) for name in way.renames.stored(names))
        return OF_NUMBERS if known else ()

    @property
    def aggregated(self) -> bool:
        """Whether the lake's aggregates by the minute have it, too."""
        return self.rolls_up and self.asked.start % MINUTE_MS == 0 and self.asked.end % MINUTE_MS == 0

    def periods(self, part: Span) -> list[tuple[Span, int]]:
        """The stretches of ``part`` that lie in the period before and in the asked one, each with the time by which its events
        count later."""
        before = Span(part.start, min(part.end, self.asked.start))
        asked = Span(max(part.start, self.asked.start), part.end)
        found = [(before, self.length_ms), (asked, 0)]
        return [(span, later) for span, later in found if span.start < span.end]

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """It gives ``period`` (1: the one before), ``time`` (ms since the epoch), and ``value``; with a breakdown also
        ``BREAKDOWNS`` of its fields and ``place``."""
        parameters = Parameters(way.renames)
        tables, of_lake, lake_read = _partial_queries(self, way, lake_source, parameters)
        rows = " UNION ALL ".join([*of_lake, *tables.values()])
        keys, place = ["period", "time"], ""
        if self.breakdown:
            many = len(self.breakdown)
            rows = ranked(rows, ("period", "time", "part"), self.measure.weight, self.limit, parameters, many)
            keys, place = ["period", "time", *BREAKDOWNS[:many]], ", min(place) AS place"
        if self.cumulative:
            # Of one bucket there may be several rows; in the window they stand together, so each has the same value.
            apart = ", ".join(key for key in keys if key != "time")
            value = self.measure.whole(f" OVER (PARTITION BY {apart} ORDER BY time)")
            rows = f"SELECT *, {value} AS value FROM ({rows})"
        value = "any(value)" if self.cumulative else self.measure.whole()
        sql = (
            f"SELECT {', '.join(keys)}, {value} AS value{place} FROM ({rows}) "
            f"GROUP BY {', '.join(keys)} ORDER BY period, time"
        )
        lake: int | tuple[str, dict[str, Any]] | None = lake_read if of_lake else None
        if of_lake and lake is None and way.lake is not None and lake_source is not None:
            lake = lake_rows(_stored(self, way), way.lake, lake_source)
        return Plan(
            sql, parameters.values, tables, lake, hint=_HINT, events=_stored(self, way), aggregated=self.aggregated,
            unpruned=self._unpruned(way),
        )  # fmt: skip

    def _unpruned(self, way: Route) -> tuple[Span, ...]:
        filtered = {of.name for each in self.filters for of in each.fields}
        if way.realtime is None or self.events is not None or filtered & {"event", "timestamp", *LOOKED_UP}:
            return ()
        legs = realtime_legs(self.periods(way.realtime), self.bucket_ms, self.in_realtime(way))
        return tuple(span for leg in legs if leg.table is None for span in leg.spans)

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """With times as times; without a breakdown, counts and sums get their empty buckets. Running values go on in them."""
        by = BREAKDOWNS[: len(self.breakdown)]
        series: dict[tuple[Any, ...], dict[int, dict[int, Any]]] = {} if by else {(): {}}
        places: dict[tuple[Any, ...], int] = {}
        for row in found.to_pylist() if found.num_rows else []:
            label = tuple(row[name] for name in by)
            one = series.setdefault(label, {})
            places[label] = min(row["place"], places.get(label, row["place"])) if by else 0
            one.setdefault(row["period"], {})[row["time"]] = row["value"]
        names = [name for period, name in _PERIODS.items() if period == 0 or self.compare]
        lines = [line for label, one in series.items() for line in self._lines(label, one)]
        if by:
            lines.sort(key=lambda line: (line[0], places[line[1]]))
        kind = pa.int64() if self.measure.of is None else pa.float64()
        columns = {"time": pa.array([line[0] for line in lines], pa.int64()).cast(TIME)}
        columns |= {name: pa.array([line[1][i] for line in lines], pa.string()) for i, name in enumerate(by)}
        columns |= {name: pa.array([line[2][name] for line in lines], kind) for name in names}
        return pa.table(columns), {}

    def _lines(self, label: Any, one: dict[int, dict[int, Any]]) -> list[tuple[int, Any, dict[str, Any]]]:
        """(time, label, values by column) of one series: every bucket where it has to be whole, else those with a value."""
        times = self.buckets() if self._every_bucket else sorted({at for period in one.values() for at in period})
        empty = 0 if self.measure.fills_zero else None
        lines: list[tuple[int, Any, dict[str, Any]]] = []
        for at in times:
            before = lines[-1][2] if lines and self.cumulative else {}
            values = {name: one.get(period, {}).get(at, before.get(name, empty)) for period, name in _PERIODS.items()}
            lines.append((at, label, values))
        return lines

    @property
    def _every_bucket(self) -> bool:
        return self.cumulative or (not self.breakdown and self.measure.fills_zero)


def parse(body: Any, buckets_max: int) -> Trends:
    """Check a request's body. Raises ``QueryError`` naming the key and what it takes."""
    body = read_object(body, _KEYS)
    found = Trends(
        read_event(body.get("event")), read_span(body), read_choice(body, "interval", tuple(INTERVALS), "hour"),
        _measure(body.get("measure", "events")), read_breakdowns(body.get("breakdown")),
        read_filters(body.get("filters")), read_number(body, "limit", LIMIT, LIMIT_MAX),
        compare=_compare(body.get("compare")), cumulative=_cumulative(body.get("cumulative", False)),
    )  # fmt: skip
    if found.span.start < 0:
        raise QueryError("the period before begins before 1970; ask about a shorter or later one")
    if len(found.buckets()) > buckets_max:
        raise QueryError(
            f"there are over {buckets_max} buckets of a {found.interval} from {body['from']} to {body['to']}"
        )
    return found


def _compare(given: Any) -> bool:
    if given not in (None, "previous"):
        raise QueryError(
            f'compare is {str(given)[:100]!r}; it is "previous" (the period of the same length before), or null'
        )
    return given is not None


def _cumulative(given: Any) -> bool:
    if not isinstance(given, bool):
        raise QueryError("cumulative must be true or false")
    return given


def _measure(given: Any) -> Measure:
    plain = ("events", *COUNTED)
    if isinstance(given, str):
        if given in plain:
            return Measure(given)
        function, colon, name = given.partition(":")
        if colon and function in OF_VALUES:
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
        f"or {', '.join(OF_VALUES)} of a number, like sum:properties.price"
    )


def _stored(query: Trends, way: Route) -> frozenset[str] | None:
    """The only event names that matter, as they are stored."""
    return None if query.events is None else way.renames.stored(query.events)


def _partial_queries(
    query: Trends, way: Route, lake_source: str | None, parameters: Parameters
) -> tuple[dict[str, str], list[str], int | None]:
    """SELECTs of partial results: those over tables of the real-time store by table, and those over the lake's events; and
    the rows that the latter read, null where nobody knows."""
    tables: dict[str, str] = {}
    lake: list[str] = []
    if query.aggregated and way.lake is not None and way.view is not None and way.view.minutes is not None:
        lake.append(_aggregates(query, way.view, way.lake, parameters))
    if way.realtime is not None:
        parameters.typed = way.typed
        for leg in realtime_legs(query.periods(way.realtime), query.bucket_ms, query.in_realtime(way)):
            name = EVENTS if leg.table is None else leg.table.name
            tables[name] = _leg(query, leg, EVENTS, parameters)
    if way.lake is None or lake_source is None:
        return tables, lake, 0
    parameters.typed = NOTHING
    rows: int | None = 0
    events = _stored(query, way)
    for leg in lake_legs(way, query.periods(way.lake), query.bucket_ms, events, rolls_up=query.rolls_up):
        sql = _leg(query, leg, lake_source, parameters, partitions(events, leg.spans[0], parameters))
        if leg.table is not None:
            tables[leg.table.name] = sql
            continue
        lake.append(sql)
        files = of_spans(way.files or (), leg.spans, events) if leg.files is None else leg.files
        rows = None if rows is None or way.files is None else rows + rows_of(files)
    return tables, lake, rows


def _aggregates(query: Trends, view: LakeView, span: Span, parameters: Parameters) -> str:
    """Of the events that are retired."""
    conditions = [
        f"minute >= toDateTime({parameters.bind(span.start // 1_000, 'UInt32')}, 'UTC')",
        f"minute < toDateTime({parameters.bind(span.end // 1_000, 'UInt32')}, 'UTC')",
    ]
    bucket = _bucket(query, "toInt64(toUnixTimestamp(minute)) * 1000")
    source = retired.minutes(view, span, parameters)
    return _grouped(query, bucket, query.measure.rolled_up_part(), "sum(events)", source, conditions, parameters)


def _leg(query: Trends, leg: Leg, source: str, parameters: Parameters, of_lake: Sequence[str] = ()) -> str:
    """``of_lake``: conditions on the lake's events that single out files."""
    files = [condition for condition in (of_files(leg),) if condition]
    if leg.table is not None:
        part, matched, source = query.measure.rolled_up_part(), "sum(events)", leg.table.name
        conditions, at = [leg.table.within(leg.spans, parameters), *files], leg.table.at
        if leg.table.of_numbers and query.measure.of is not None:
            conditions.append(f"property = {parameters.bind(query.measure.of.path[0], 'String')}")
    else:
        part, matched, at = query.measure.part(parameters), "count()", DATE_AT if leg.by_date else AT
        conditions = [*([] if leg.by_date else [within(leg.spans, parameters)]), *files, *of_lake]
    return _grouped(query, _bucket(query, at), part, matched, source, conditions, parameters)


def _bucket(query: Trends, at: str) -> str:
    """The columns ``period`` and ``time``: events of the period before count in the bucket one length later."""
    before = f"({at} < {query.asked.start})" if query.compare else "toUInt8(0)"
    later = f"{at} + {query.length_ms} * {before}" if query.compare else at
    return f"{before} AS period, intDiv({later}, {query.bucket_ms}) * {query.bucket_ms} AS time"


def _grouped(
    query: Trends, bucket: str, part: str, matched: str, source: str, conditions: list[str], parameters: Parameters
) -> str:
    if query.event is not None:
        conditions.append(parameters.named([query.event]))
    conditions += [each.sql(parameters) for each in query.filters]
    columns, keys = bucket, "period, time"
    for of, label in zip(query.breakdown, LABELS, strict=False):
        columns, keys = f"{columns}, {of.text(parameters)} AS {label}", f"{keys}, {label}"
    return (
        f"SELECT {columns}, {part} AS part, {matched} AS matched FROM {source} "
        f"WHERE {' AND '.join(conditions)} GROUP BY {keys}"
    )
