"""Reading events of a stretch of time, each from exactly one store, in one statement."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import pyarrow as pa

from eventmill.core.typed import NOTHING
from eventmill.kernels.partition import OVERFLOW
from eventmill.query.fields import Field, Parameters
from eventmill.query.legs import DAY_MS, cut, of_spans, rows_of
from eventmill.query.routing import Route, Span

EVENTS: Final = "eventmill.events"
#: The label that the values of a breakdown beyond the limit share. A value that is spelt so is counted there too.
OTHER: Final = "other"
#: The columns of up to three fields of a breakdown: while they are counted, and in answers.
LABELS: Final = ("label", "label_2", "label_3")
BREAKDOWNS: Final = ("breakdown", "breakdown_2", "breakdown_3")
#: The boundary of the kinds that have no buckets: a dashboard's last 24 hours, on whole hours, then need one store only.
BOUNDARY_MS: Final = 3_600_000
NARROW: Final = "narrow from and to, or name an event"
#: SQL for an event's time in ms since the epoch, in both stores.
AT: Final = "toUnixTimestamp64Milli(timestamp)"
#: The beginning of its date, in the lake.
DATE_AT: Final = "toInt64(event_date) * 86400000"
#: The columns that the real-time store has indexes of, for conditions that ask for some of their values.
LOOKED_UP: Final = ("event_id", "device_id", "user_id", "anonymous_id")
#: Conditions by which parts of the store may be passed over: those on columns that events are sorted by, and look-ups.
_KEY: Final = re.compile(rf"\b(event|timestamp)\b|\b({'|'.join(LOOKED_UP)}) (=|IN) ")


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement, and what it takes to estimate its cost.

    ``parts`` has the SELECT over each table that ClickHouse keeps, ``lake_rows`` how many of the lake's events are in the
    files that are read, or a statement that counts them (null: none). ``hint`` says what makes the question cheaper.
    ``events`` are the only names that matter, as they are stored (null: all), ``aggregated`` tells that it needs no single
    events of the lake where there are aggregates. ``unpruned`` are stretches of which every event of the real-time store has
    to be looked at.
    """

    sql: str
    parameters: dict[str, Any]
    parts: dict[str, str]
    lake_rows: int | tuple[str, dict[str, Any]] | None
    hint: str = NARROW
    events: Collection[str] | None = None
    aggregated: bool = False
    unpruned: tuple[Span, ...] = ()


class Question(Protocol):
    """A checked question of one kind."""

    @property
    def span(self) -> Span:
        """The event time that it asks about."""
        ...

    @property
    def bucket_ms(self) -> int:
        """The boundary between the stores is put back to a multiple of this."""
        ...

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """The statement."""
        ...

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """What the statement gave as the answer's table, and what is to stand in ``meta`` beside the usual."""
        ...


#: Gives the columns and the conditions of a SELECT; called once for each store, since values are bound anew.
Build = Callable[[Parameters], tuple[Sequence[str], Sequence[str]]]


class Scan:
    """The raw events of a route. ``events`` are the only names that matter, old or new; null: all."""

    def __init__(self, way: Route, lake_source: str | None, events: Collection[str] | None = None) -> None:
        self.parameters = Parameters(way.renames)
        self._way = way
        self._lake_source = lake_source
        self._events = None if events is None else way.renames.stored(events)
        self._parts: dict[str, str] = {}
        self._unpruned: tuple[Span, ...] = ()

    def rows(self, build: Build, end: str = "", *, by_date: Build | None = None) -> str:
        """A SELECT of the columns from both stores; ``end`` (ORDER BY, LIMIT) stands behind each store's.

        ``by_date`` gives what takes ``event_date`` in place of an event's time, for those of the lake: then no time is read of
        the events of whole dates.
        """
        legs = []
        if self._lake_source is not None and self._way.lake is not None:
            whole = [self._way.lake] if by_date is None else [span for _, span in cut(self._way.lake, [DAY_MS])]
            legs += [self._leg(self._lake_source, span, by_date or build, end, by_date is not None) for span in whole]
        if self._way.realtime is not None:
            self._parts[EVENTS] = self._leg(EVENTS, self._way.realtime, build, end)
            legs.append(self._parts[EVENTS])
        return " UNION ALL ".join(f"SELECT * FROM ({leg})" if end else leg for leg in legs)

    def _leg(self, source: str, span: Span, build: Build, end: str, by_date: bool = False) -> str:
        self.parameters.typed = self._way.typed if source == EVENTS else NOTHING
        columns, conditions = build(self.parameters)
        dates_only = by_date and not span.start % DAY_MS and not span.end % DAY_MS
        where = [] if dates_only else [within([span], self.parameters)]
        where += partitions(self._events, span, self.parameters) if source != EVENTS else []
        if self._events is not None:
            where.append(f"event IN ({_list(sorted(self._events), self.parameters)})")
        elif source == EVENTS and not any(map(_KEY.search, conditions)):
            self._unpruned = (span,)
        where += [each for each in conditions if each != "1"]
        return f"SELECT {', '.join(columns)} FROM {source} WHERE {' AND '.join(where)}{end}"

    def plan(self, sql: str, *, aggregated: bool = False) -> Plan:
        """The plan of a statement made of ``rows``; ``aggregated``: and of the lake's aggregates."""
        lake: int | tuple[str, dict[str, Any]] | None = None
        way = self._way
        if way.lake is not None and self._lake_source is not None:
            if way.files is None:
                lake = lake_rows(self._events, way.lake, self._lake_source)
            else:
                lake = rows_of(of_spans(way.files, [way.lake], self._events))
        return Plan(sql, self.parameters.values, self._parts, lake, events=self._events, aggregated=aggregated,
                    unpruned=self._unpruned)  # fmt: skip


def within(spans: Sequence[Span], parameters: Parameters) -> str:
    """The condition on an event's time."""
    each = [f"timestamp >= {parameters.time(span.start)} AND timestamp < {parameters.time(span.end)}" for span in spans]
    return each[0] if len(each) == 1 else f"({' OR '.join(f'({one})' for one in each)})"


def partitions(events: Collection[str] | None, span: Span, parameters: Parameters) -> list[str]:
    """Conditions on the lake's partition columns, by which the reader passes over whole files."""
    first, last = parameters.time(span.start), parameters.time(span.end - 1)
    conditions = [f"event_date BETWEEN toDate32({first}) AND toDate32({last})"]
    if events is not None:
        conditions.append(f"event_group IN ({_list([*sorted(events), OVERFLOW], parameters)})")
    return conditions


def lake_rows(events: Collection[str] | None, span: Span, source: str) -> tuple[str, dict[str, Any]]:
    """SQL that counts the rows in the partitions of the lake that have to be read."""
    parameters = Parameters()
    conditions = " AND ".join(partitions(events, span, parameters))
    return f"SELECT count() FROM {source} WHERE {conditions}", parameters.values


def _list(values: Sequence[str], parameters: Parameters) -> str:
    return ", ".join(parameters.bind(value, "String") for value in values)


def labels(breakdown: Field | None, parameters: Parameters) -> list[str]:
    """The column ``given`` with the breakdown's value, or nothing."""
    return [] if breakdown is None else [f"{breakdown.text(parameters)} AS given"]


def first_label(at: str, condition: str = "1") -> str:
    """SQL for ``given`` of the row with the least ``at`` (whole, not negative); of several such the least, null first.

    The least of strings that begin with the time and go on with the value: a third of the cost of the least tuple.
    """
    value = "if(given IS NULL, '\\x00', concat('\\x01', assumeNotNull(given)))"
    least = f"minIf(concat(reinterpretAsFixedString(byteSwap(toUInt64({at}))), {value}), {condition})"
    return f"if(substring({least} AS least, 9, 1) = '\\x00', NULL, substring(least, 10))"


def ranked(
    partials: str, columns: Sequence[str], weight: str, limit: int, parameters: Parameters, fields: int = 1
) -> str:
    """The rows of ``partials`` (``LABELS`` of so many fields, and ``columns``) with ``BREAKDOWNS`` and ``place`` for these.

    The ``limit`` labels (with several fields: combinations of them) of the most weight (SQL over all rows of one) keep
    theirs, the others share ``OTHER``.
    """
    most, other = parameters.bind(limit, "UInt64"), parameters.bind(OTHER, "String")
    points = ", ".join(f"point.{i} AS {name}" for i, name in enumerate(columns, 1))
    labels = ", ".join(LABELS[:fields])
    shown = ", ".join(
        f"if(place <= {most}, {label}, {other}) AS {name}"
        for label, name in zip(LABELS[:fields], BREAKDOWNS[:fields], strict=True)
    )
    order = ", ".join(f"{label} NULLS FIRST" for label in LABELS[:fields])
    return (
        f"SELECT {shown}, place, arrayJoin(series) AS point, {points} FROM ("
        f"SELECT {labels}, series, row_number() OVER (ORDER BY weight DESC, {order}) AS place FROM ("
        f"SELECT {labels}, groupArray(({', '.join(columns)})) AS series, {weight} AS weight FROM ({partials}) "
        f"GROUP BY {labels}))"
    )
