"""What a plan asks of the lake's events, answered by another engine.

The plan is made as always, with ``MARK`` in the lake's place. Each of its SELECTs over that (a leg) becomes a statement of
Trino's, which filters the events, takes of them what the leg looks at, and makes one row of those that are alike, with their
number. Those rows come back as a table in memory, which stands in the lake's place when ClickHouse runs the plan: it merges
them with its own, reads JSON, and has the last word on every condition that might mean something else elsewhere
(``trino_sql``). So an answer is the same whoever reads the lake.

What a leg looks at of an event (``outside_leg``):

- columns that it names, but not those of conditions that Trino has seen to;
- of JSON only the values at the paths that it names: they come as JSON, so ClickHouse reads them as it reads the whole;
- of the time, where only the bucket counts, the bucket's start (or the leg's, if that is later);
- of numbers that are added up or compared with one another, one that stands for all of a bucket.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from eventmill.query.asker import Asker
from eventmill.query.outside_leg import LEG, MANY, Leg, legs_of
from eventmill.query.scan import Plan, Question


class Engine(Protocol):
    """Who reads the lake's events."""

    @property
    def table(self) -> str:
        """Their name in its SQL."""
        ...

    def fetch(self, statement: str, columns: Mapping[str, pa.DataType], seconds: float) -> pa.Table:
        """What a SELECT gives. Raises ``StoreError``, after ``seconds`` with ``OUT_OF_TIME``; ``QueryError``."""
        ...

    def select(self, statement: str, seconds: float, rows_max: int) -> pa.Table:
        """The same with the types that it has there; what is wrong with the statement is the querier's mistake."""
        ...


@dataclass(frozen=True, slots=True)
class Outside:
    """A plan of which the lake's legs are another engine's."""

    plan: Plan
    legs: tuple[Leg, ...]

    @classmethod
    def of(cls, plan: Plan, question: Question, table: str, snapshot: int, project: str | None) -> Outside:
        """``table`` is the lake's in the other engine, of which it reads one snapshot; of one project, if it is not null."""
        return cls(plan, legs_of(plan, question, f"{table} FOR VERSION AS OF {snapshot}", project))

    @property
    def statements(self) -> list[str]:
        """What the other engine is asked."""
        return [leg.statement for leg in self.legs]

    def answer(self, engine: Engine, asker: Asker, seconds: float) -> pa.Table:
        """What the plan gives. Raises what both engines raise; ``seconds`` are for both together."""
        ends = time.monotonic() + seconds
        found = [engine.fetch(leg.statement, leg.columns, ends - time.monotonic()) for leg in self.legs]
        numbered = [rows.append_column(LEG, _all(number, rows)) for number, rows in enumerate(found)]
        rows = pa.concat_tables(numbered, promote_options="default").combine_chunks()
        most = [_most(rows) for rows in found]
        parameters = dict(self.plan.parameters)
        for leg in self.legs:
            parameters |= leg.parameters
        return asker.answer_over(rows, lambda source: self._sql(source, most), parameters, ends - time.monotonic())

    def _sql(self, source: str, most: list[int]) -> str:
        parts, end = [], 0
        for number, leg in enumerate(self.legs):
            parts += [self.plan.sql[end : leg.start], leg.sql(source, number, most[number])]
            end = leg.end
        return "".join([*parts, self.plan.sql[end:]])


def _all(number: int, rows: pa.Table) -> pa.Array:
    return pa.array([number], pa.int64()).take(pa.array([0] * rows.num_rows, pa.int64()))


def _most(rows: pa.Table) -> int:
    """How many events one row stands for at most."""
    if MANY not in rows.column_names or not rows.num_rows:
        return 1
    return int(pc.max(rows.column(MANY)).as_py())
