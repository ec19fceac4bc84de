"""Retention: of those who did something in one period, how many did something in each period after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.core.schema import TIME
from eventmill.query.body import (
    INTERVALS,
    WHO,
    Selection,
    digest,
    named,
    read_choice,
    read_object,
    read_selection,
    read_span,
)
from eventmill.query.conditions import Condition, read_filters
from eventmill.query.fields import Parameters
from eventmill.query.routing import Route, Span
from eventmill.query.scan import AT, BOUNDARY_MS, Plan, Scan

DAY_MS: Final = INTERVALS["day"]
#: A Monday began the week of the epoch three days before it.
_EPOCH_WEEKDAY: Final = 3
#: Each counts periods from that of the epoch on: days, weeks from Monday on, months, all UTC.
UNITS: Final = {
    "day": f"intDiv({AT}, {DAY_MS})",
    "week": f"intDiv(intDiv({AT}, {DAY_MS}) + {_EPOCH_WEEKDAY}, 7)",
    "month": "toInt64(toYear(timestamp)) * 12 + toMonth(timestamp) - 1 - 1970 * 12",
}
#: The same by the date of the lake's partition.
UNITS_OF_DATE: Final = {
    "day": "toInt64(event_date)",
    "week": f"intDiv(toInt64(event_date) + {_EPOCH_WEEKDAY}, 7)",
    "month": "toInt64(toYear(event_date)) * 12 + toMonth(event_date) - 1 - 1970 * 12",
}
#: How somebody belongs to a cohort: ``first``, to that of their first such event; ``any``, to those of all.
COHORTS: Final = ("first", "any")
_WORD: Final = 64
_KEYS: Final = ("from", "to", "interval", "first", "returning", "cohort", "measure", "filters")


@dataclass(frozen=True, slots=True)
class Retention:
    """A checked question."""

    span: Span
    interval: str
    first: Selection
    returning: Selection
    cohort: str
    measure: str
    filters: tuple[Condition, ...]

    @property
    def bucket_ms(self) -> int:
        """The boundary between the stores lies at an hour."""
        return BOUNDARY_MS

    def periods(self) -> range:
        """The numbers of all periods that have a part in the span."""
        return range(_period(self.interval, self.span.start), _period(self.interval, self.span.end - 1) + 1)

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """It gives ``cohort`` and ``age`` (periods, from the span's first and from the cohort; 0 is itself) and ``n``.

        The periods of somebody are bits of a few words: a tenth of the cost of sets.
        """
        scan = Scan(way, lake_source, named([self.first, self.returning]))
        words = range(-(-len(self.periods()) // _WORD))
        kinds = ("first",) if self._same else ("first", "again")
        bits = ", ".join(f"{self._bits(w, kind, len(words))} AS {kind}_{w}" for w in words for kind in kinds)
        rows = scan.rows(lambda bind: self._build(bind, UNITS), by_date=lambda bind: self._build(bind, UNITS_OF_DATE))
        each = f"SELECT {bits} FROM ({rows}) GROUP BY who"
        cells = self._cells_of_one_word(each) if len(words) == 1 else self._cells_of_words(each, words)
        return scan.plan(f"SELECT cohort, age, n FROM ({cells}) WHERE n > 0 ORDER BY cohort, age")

    @property
    def _same(self) -> bool:
        """Whether what begins and what returns are the same events, so that one set of bits does for both."""
        return self.first == self.returning

    def _cells_of_one_word(self, each: str) -> str:
        """For each cohort, how many have each of the bits after its own."""
        again = "first_0" if self._same else "again_0"
        cohorts = "bitCount(bitXor(first_0, first_0 - 1)) - 1"
        if self.cohort == "any":
            cohorts = "arrayJoin(bitPositionsToArray(first_0))"
        counts = ", ".join(["count()", *(f"countIf(bitTest(later, {age}))" for age in range(1, len(self.periods())))])
        return (
            f"SELECT cohort, tupleElement(cell, 1) AS age, tupleElement(cell, 2) AS n FROM ("
            f"SELECT cohort, [{counts}] AS counts FROM (SELECT toInt64({cohorts}) AS cohort, "
            f"bitShiftRight({again}, cohort) AS later FROM ({each}) WHERE first_0 != 0) GROUP BY cohort) "
            "ARRAY JOIN arrayMap((n, place) -> (toInt64(place - 1), n), counts, arrayEnumerate(counts)) AS cell"
        )

    def _cells_of_words(self, each: str, words: range) -> str:
        """The same by arrays of the bits' places, which are several words."""
        again = "first" if self._same else "again"
        starts, visits = (
            f"arrayConcat({', '.join(_positions(f'{kind}_{w}', w) for w in words)})" for kind in ("first", again)
        )
        cohorts = "arraySlice(starts, 1, 1)" if self.cohort == "first" else "starts"
        ages = "arrayConcat([toInt64(0)], arrayFilter(x -> x > 0, arrayMap(x -> x - cohort, visits)))"
        return (
            f"SELECT cohort, arrayJoin({ages}) AS age, count() AS n FROM ("
            f"SELECT arrayJoin({cohorts}) AS cohort, visits FROM (SELECT {starts} AS starts, {visits} AS visits FROM ({each}))"
            ") GROUP BY cohort, age"
        )

    def _build(self, parameters: Parameters, units: Mapping[str, str]) -> tuple[list[str], list[str]]:
        who, known = WHO[self.measure]
        first, again = self.first.sql(parameters), self.returning.sql(parameters)
        period = f"toUInt16({units[self.interval]} - {self.periods().start}) AS period"
        columns = [f"{digest(who)} AS who", period]
        columns += [] if self._same else [f"{first} AS is_first", f"{again} AS is_again"]
        either = "1" if "1" in (first, again) else f"({first} OR {again})"
        return columns, [known, either, *(each.sql(parameters) for each in self.filters)]

    def _bits(self, word: int, kind: str, words: int) -> str:
        """SQL for the periods ``word * _WORD`` and on in which somebody did one of the kind, as bits of a number."""
        conditions = [] if self._same else [f"is_{kind}"]
        conditions += [f"intDiv(period, {_WORD}) = {word}"] if words > 1 else []
        bit = f"bitShiftLeft(toUInt64(1), period % {_WORD})" if words > 1 else "bitShiftLeft(toUInt64(1), period)"
        return f"groupBitOrIf({bit}, {' AND '.join(conditions)})" if conditions else f"groupBitOr({bit})"

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """The grid, a row for each cell that lies within the span, empty ones included."""
        periods = self.periods()
        counts = {(periods.start + row["cohort"], row["age"]): row["n"] for row in found.to_pylist()}
        cells = [(period, age) for period in periods for age in range(periods.stop - period)]
        sizes = [counts.get((period, 0), 0) for period, _ in cells]
        amounts = [counts.get(cell, 0) for cell in cells]
        times = {period: _start(self.interval, period) for period in periods}
        columns = {
            "cohort": pa.array([times[period] for period, _ in cells], pa.int64()).cast(TIME),
            "period": pa.array([age for _, age in cells], pa.int64()),
            "count": pa.array(amounts, pa.int64()),
            "share": pa.array(
                [n / size if size else None for n, size in zip(amounts, sizes, strict=True)], pa.float64()
            ),
        }
        return pa.table(columns), {}


def _positions(bits: str, word: int) -> str:
    """SQL for the periods of such a number, ascending."""
    return f"arrayMap(x -> toInt64(x) + {word * _WORD}, bitPositionsToArray({bits}))"


def _period(interval: str, at_ms: int) -> int:
    day = at_ms // DAY_MS
    if interval == "day":
        return day
    if interval == "week":
        return (day + _EPOCH_WEEKDAY) // 7
    moment = datetime.fromtimestamp(at_ms // 1_000, UTC)
    return (moment.year - 1970) * 12 + moment.month - 1


def _start(interval: str, period: int) -> int:
    if interval == "day":
        return period * DAY_MS
    if interval == "week":
        return (period * 7 - _EPOCH_WEEKDAY) * DAY_MS
    return int(datetime(1970 + period // 12, period % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1_000


def parse(body: Any, rows_max: int) -> Retention:
    """Check a request's body. Raises ``QueryError`` naming the key and what it takes."""
    body = read_object(body, _KEYS)
    found = Retention(
        read_span(body), read_choice(body, "interval", tuple(UNITS), "day"), read_selection(body.get("first"), "first"),
        read_selection(body.get("returning"), "returning"), read_choice(body, "cohort", COHORTS, "first"),
        read_choice(body, "measure", tuple(WHO), "devices"), read_filters(body.get("filters")),
    )  # fmt: skip
    count = len(found.periods())
    if count * (count + 1) // 2 > rows_max:
        raise QueryError(
            f"there are {count} times a {found.interval} from {body['from']} to {body['to']}, whose grid has over {rows_max} "
            "cells; narrow from and to, or take a longer interval"
        )
    return found
