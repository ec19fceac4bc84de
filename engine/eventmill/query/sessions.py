"""Sessions: how many, how long, how many events each, how many that end after one event.

A session is what its events within the span make of it: one that crosses ``from`` or ``to`` is cut there. It counts in the
bucket of its first event, and under that event's value of the breakdown. With an event or filters, the sessions count of which
one event meets them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.core.schema import TIME
from eventmill.query import retired
from eventmill.query.body import (
    INTERVALS,
    LIMIT,
    LIMIT_MAX,
    Selection,
    read_breakdown,
    read_choice,
    read_event,
    read_number,
    read_object,
    read_span,
)
from eventmill.query.conditions import read_filters
from eventmill.query.fields import Field, Parameters
from eventmill.query.routing import Route, Span
from eventmill.query.scan import AT, BOUNDARY_MS, Plan, Scan, first_label, labels, ranked

#: The whole span as one bucket.
TOTAL: Final = "total"
QUANTILES: Final = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_LEVELS: Final = ", ".join(map(str, QUANTILES.values()))
_KEYS: Final = ("event", "from", "to", "interval", "breakdown", "filters", "limit")
_PARTS: Final = ("time", "n", "single", "total", "summed", "part")


@dataclass(frozen=True, slots=True)
class Sessions:
    """A checked question."""

    chosen: Selection
    span: Span
    interval: str
    breakdown: Field | None
    limit: int

    @property
    def bucket_ms(self) -> int:
        """The boundary between the stores lies at an hour."""
        return BOUNDARY_MS

    def buckets(self) -> range:
        """Start of every bucket that has a part in the span, in ms since the epoch."""
        if self.interval == TOTAL:
            return range(self.span.start, self.span.end, self.span.end - self.span.start)
        length = INTERVALS[self.interval]
        return range(self.span.start // length * length, self.span.end, length)

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """It gives ``time``, with a breakdown ``breakdown``, sums, and ``lengths`` (quantiles, ms)."""
        way = self._by_dates(way)
        scan = Scan(way, lake_source)
        label = "" if self.breakdown is None else f", {first_label('at')} AS label"
        each = (
            f"SELECT min(at) AS began, max(at) - min(at) AS length, count() AS size{label} "
            f"FROM ({scan.rows(self._build)}) GROUP BY session_id HAVING max(chosen) = 1"
        )
        if self.aggregated and way.view is not None and way.view.sessions is not None and way.lake is not None:
            parts = scan.rows(self._times)
            old = retired.sessions(way.view, way.lake, scan.parameters)
            each = (
                "SELECT min(first) AS began, max(last) - min(first) AS length, sum(number) AS size FROM ("
                f"SELECT session_id, min(at) AS first, max(at) AS last, count() AS number FROM ({parts}) GROUP BY session_id "
                f"UNION ALL {old}) GROUP BY session_id"
            )
        group = "time" if self.breakdown is None else "label, time"
        partials = (
            f"SELECT {group}, count() AS n, countIf(size = 1) AS single, sum(size) AS total, "
            f"sum(length) AS summed, quantilesExactState({_LEVELS})(length) AS part "
            f"FROM (SELECT {self._time} AS time, * FROM ({each})) GROUP BY {group}"
        )
        whole = (
            "sum(n) AS sessions, sum(single) AS bounced, sum(total) AS events, sum(summed) AS length, "
            f"quantilesExactMerge({_LEVELS})(part) AS lengths"
        )
        if self.breakdown is None:
            sql = f"SELECT time, {whole} FROM ({partials}) GROUP BY time ORDER BY time"
            return scan.plan(sql, aggregated=self.aggregated)
        rows = ranked(partials, _PARTS, "sum(n)", self.limit, scan.parameters)
        return scan.plan(
            f"SELECT time, breakdown, {whole}, min(place) AS first FROM ({rows}) GROUP BY time, breakdown ORDER BY time, first"
        )

    @property
    def aggregated(self) -> bool:
        """Whether it asks for nothing of a session but its times and its size, on whole days."""
        days = self.span.start % INTERVALS["day"] == 0 and self.span.end % INTERVALS["day"] == 0
        return days and self.breakdown is None and self.chosen == Selection(None, ())

    def _by_dates(self, way: Route) -> Route:
        """Retired sessions stand there by date: where that of the boundary is retired, since nothing has come for days, the
        lake answers for all of it."""
        if not self.aggregated or way.view is None or way.lake is None or way.realtime is None:
            return way
        date = way.lake.end // INTERVALS["day"]
        if date >= way.view.retired.sessions_frozen_before:
            return way
        end = min((date + 1) * INTERVALS["day"], way.realtime.end)
        rest = Span(end, way.realtime.end) if end < way.realtime.end else None
        return replace(way, lake=Span(way.lake.start, end), realtime=rest)

    def _times(self, parameters: Parameters) -> tuple[list[str], list[str]]:
        return ["session_id", f"{AT} AS at"], []

    @property
    def _time(self) -> str:
        if self.interval == TOTAL:
            return f"toInt64({self.span.start})"
        return f"intDiv(began, {INTERVALS[self.interval]}) * {INTERVALS[self.interval]}"

    def _build(self, parameters: Parameters) -> tuple[list[str], list[str]]:
        columns = ["session_id", f"{AT} AS at", f"{self.chosen.sql(parameters)} AS chosen"]
        return [*columns, *labels(self.breakdown, parameters)], []

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """A row for each bucket (and value of the breakdown); without a breakdown, empty buckets too."""
        rows = [self._row(row) for row in found.to_pylist()]
        if self.breakdown is None:
            known = {row["time"]: row for row in rows}
            rows = [known.get(at, {"time": at, "sessions": 0, "bounced": 0, "events": 0}) for at in self.buckets()]
        kinds = _COLUMNS if self.breakdown is not None else _COLUMNS.remove(1)
        return pa.Table.from_pylist(rows, kinds), {}

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        count = row["sessions"]
        lengths = {f"{name}_ms": value for name, value in zip(QUANTILES, row["lengths"], strict=True)}
        return {
            "time": row["time"], "breakdown": row.get("breakdown"), "sessions": count, "bounced": row["bounced"],
            "bounce_rate": row["bounced"] / count, "events": row["events"], "events_per_session": row["events"] / count,
            "avg_ms": row["length"] / count, **lengths,
        }  # fmt: skip


_COLUMNS: Final = pa.schema(
    [
        ("time", TIME),
        ("breakdown", pa.string()),
        ("sessions", pa.int64()),
        ("bounced", pa.int64()),
        ("bounce_rate", pa.float64()),
        ("events", pa.int64()),
        ("events_per_session", pa.float64()),
        ("avg_ms", pa.float64()),
        *((f"{name}_ms", pa.int64()) for name in QUANTILES),
    ]
)


def parse(body: Any, rows_max: int) -> Sessions:
    """Check a request's body. Raises ``QueryError`` naming the key and what it takes."""
    body = read_object(body, _KEYS)
    found = Sessions(
        Selection(read_event(body.get("event")), read_filters(body.get("filters"))), read_span(body),
        read_choice(body, "interval", (*INTERVALS, TOTAL), "hour"), read_breakdown(body.get("breakdown")),
        read_number(body, "limit", LIMIT, LIMIT_MAX),
    )  # fmt: skip
    if len(found.buckets()) > rows_max:
        raise QueryError(f"there are over {rows_max} buckets of a {found.interval} from {body['from']} to {body['to']}")
    return found
