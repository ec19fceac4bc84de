"""Paths: what happens next after an event, or came before one, within a session.

From each session of the span that has the event: the events that follow the first of it (``start``), or that came before
the last of it (``end``), up to a depth. Events of one millisecond are ordered by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.query.body import read_event, read_number, read_object, read_span
from eventmill.query.conditions import Condition, read_filters
from eventmill.query.fields import Parameters
from eventmill.query.routing import Route, Span
from eventmill.query.scan import AT, BOUNDARY_MS, OTHER, Plan, Scan

DEPTH: Final = 3
DEPTH_MAX: Final = 5
TOP: Final = 10
TOP_MAX: Final = 50
_KEYS: Final = ("start", "end", "from", "to", "depth", "top", "filters")


@dataclass(frozen=True, slots=True)
class Paths:
    """A checked question. ``onward``: from the event on; else back from it."""

    event: str
    onward: bool
    span: Span
    depth: int
    top: int
    filters: tuple[Condition, ...]

    @property
    def bucket_ms(self) -> int:
        """The boundary between the stores lies at an hour."""
        return BOUNDARY_MS

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """It gives ``step``, ``near`` (the event nearer to the one asked about), ``far`` (null: there is none) and ``n``."""
        scan = Scan(way, lake_source)
        event, other = (scan.parameters.bind(text, "String") for text in (way.renames.now(self.event), OTHER))
        order = "arraySort" if self.onward else "arrayReverseSort"
        names = f"arrayMap(x -> x.2, {order}(groupArray((at, name))))"
        taken = (
            f"SELECT arraySlice(names, indexOf(names, {event}), {self.depth + 1}) AS taken FROM ("
            f"SELECT {names} AS names FROM ({scan.rows(self._build)}) GROUP BY session_id HAVING has(names, {event}))"
        )
        edges = (
            "SELECT step, taken[step] AS near, if(step < length(taken), toNullable(taken[step + 1]), NULL) AS far, "
            f"sum(sessions) AS n FROM (SELECT taken, count() AS sessions FROM ({taken}) GROUP BY taken) "
            f"ARRAY JOIN range(1, least({self.depth}, length(taken)) + 1) AS step GROUP BY step, near, far"
        )
        # Every session that came to an event has one edge away from it, so an event weighs the same from either side.
        weighed = (
            "SELECT *, sum(n) OVER (PARTITION BY step, near) AS near_weight, "
            f"sum(n) OVER (PARTITION BY step, far) AS far_weight FROM ({edges})"
        )
        placed = (
            "SELECT *, dense_rank() OVER (PARTITION BY step ORDER BY near_weight DESC, near) AS near_place, "
            "dense_rank() OVER (PARTITION BY step, far IS NULL ORDER BY far_weight DESC, far) AS far_place "
            f"FROM ({weighed})"
        )
        return scan.plan(
            f"SELECT step, if(near_place <= {self.top}, near, {other}) AS source, "
            f"if(far IS NULL OR far_place <= {self.top}, far, {other}) AS target, sum(n) AS sessions FROM ({placed}) "
            "GROUP BY step, source, target ORDER BY step, sessions DESC, source, target NULLS LAST"
        )

    def _build(self, parameters: Parameters) -> tuple[list[str], list[str]]:
        return ["session_id", f"{AT} AS at", f"{parameters.event()} AS name"], [
            each.sql(parameters) for each in self.filters
        ]

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """A row for each step between two events, in the order of time."""
        if not found.num_rows:
            return pa.table({field.name: pa.array([], field.type) for field in _COLUMNS}), {}
        near, far = ("source", "target") if self.onward else ("target", "source")
        columns = {
            "step": found.column("step"),
            near: found.column("source"),
            far: found.column("target"),
            "sessions": found.column("sessions"),
        }
        return pa.table([columns[field.name].cast(field.type) for field in _COLUMNS], _COLUMNS), {}


_COLUMNS: Final = pa.schema(
    [("step", pa.int64()), ("source", pa.string()), ("target", pa.string()), ("sessions", pa.int64())]
)


def parse(body: Any) -> Paths:
    """Check a request's body. Raises ``QueryError`` naming the key and what it takes."""
    body = read_object(body, _KEYS)
    given = [key for key in ("start", "end") if body.get(key) is not None]
    if len(given) != 1:
        raise QueryError("name one event: start (what comes after it) or end (what came before it)")
    event = read_event(body[given[0]], given[0])
    return Paths(
        str(event), given[0] == "start", read_span(body), read_number(body, "depth", DEPTH, DEPTH_MAX),
        read_number(body, "top", TOP, TOP_MAX), read_filters(body.get("filters")),
    )  # fmt: skip
