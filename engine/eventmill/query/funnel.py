"""Funnels: how many devices or users take some steps in an order, within a time from the first.

How far somebody got. The events that match a step are gone through by time; those of one millisecond by the first step
that each matches (so that what a phone writes down together counts in the order of the steps). An event completes step k
when somebody had completed step k - 1 by an earlier event of this order, and the first step of that run lies at most the
window back. Of several runs the newest counts, since it has most of its window left; that misses none. One event never
serves two steps of a run.

The time of a step is measured where somebody first completes it: from the newest completion of the step before it.

All of it is whole arrays, one of each for somebody's events in their order, which are gone through once for each step: the
starts of runs only grow, so the newest of those before an event is the last one that is not zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.query.body import (
    LIMIT,
    LIMIT_MAX,
    WHO,
    Selection,
    digest,
    named,
    read_breakdown,
    read_choice,
    read_duration,
    read_number,
    read_object,
    read_selection,
    read_span,
)
from eventmill.query.conditions import Condition, read_filters
from eventmill.query.fields import Field, Parameters
from eventmill.query.routing import Route, Span
from eventmill.query.scan import AT, BOUNDARY_MS, Plan, Scan, first_label, labels, ranked

STEPS_MAX: Final = 10
WINDOW: Final = "1d"
WINDOW_MS_MAX: Final = 366 * 86_400_000
_KEYS: Final = ("steps", "from", "to", "window", "measure", "breakdown", "filters", "limit")
_QUANTILES: Final = "0.5, 0.95"
#: An event's order in one number, which sorts faster than several: time, first step that it matches, all steps.
_MASK_BITS: Final = STEPS_MAX
_STEP_BITS: Final = 4
_AT: Final = f"bitShiftRight(key, {_MASK_BITS + _STEP_BITS})"
_KEY: Final = f"(at * {1 << _MASK_BITS + _STEP_BITS} + bitCount(bitXor(mask, mask - 1)) * {1 << _MASK_BITS} + mask)"


@dataclass(frozen=True, slots=True)
class Funnel:
    """A checked question."""

    steps: tuple[Selection, ...]
    span: Span
    window_ms: int
    measure: str
    breakdown: Field | None
    filters: tuple[Condition, ...]
    limit: int

    @property
    def bucket_ms(self) -> int:
        """The boundary between the stores lies at an hour."""
        return BOUNDARY_MS

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """It gives ``step`` (from 1), with a breakdown ``breakdown`` and ``place``, ``reached``, and ``gaps`` in ms."""
        scan = Scan(way, lake_source, named(self.steps))
        partials = self._counted(self._taken(scan.rows(self._build), scan.parameters))
        whole = f"sum(n) AS reached, quantilesExactMerge({_QUANTILES})(part) AS gaps"
        if self.breakdown is None:
            return scan.plan(f"SELECT step, {whole} FROM ({partials}) GROUP BY step ORDER BY step")
        rows = ranked(partials, ("step", "n", "part"), "sumIf(n, step = 1)", self.limit, scan.parameters)
        return scan.plan(
            f"SELECT breakdown, step, {whole}, min(place) AS first FROM ({rows}) GROUP BY breakdown, step "
            "ORDER BY first, step"
        )

    def _build(self, parameters: Parameters) -> tuple[list[str], list[str]]:
        who, known = WHO[self.measure]
        bits = " + ".join(f"{1 << i} * ({step.sql(parameters)})" for i, step in enumerate(self.steps))
        # A time above zero, so that zero can stand for none.
        columns = [f"{digest(who)} AS who", f"toInt64({AT} + 1) AS at", f"toUInt16({bits}) AS mask"]
        columns += labels(self.breakdown, parameters)
        return columns, [known, *(each.sql(parameters) for each in self.filters)]

    def _taken(self, rows: str, parameters: Parameters) -> str:
        """A row for each who took the first step: ``first<k>``, which of their events was the first to complete step k (0:
        none), and ``gap<k>``, the time since step k - 1 was completed last before it."""
        window = parameters.bind(self.window_ms, "Int64")
        label = "" if self.breakdown is None else f"{first_label('at', 'bitTest(mask, 0)')} AS label, "
        each = (
            f"SELECT {label}arraySort(groupArray({_KEY})) AS keys FROM ({rows}) WHERE mask != 0 "
            "GROUP BY who HAVING bitTest(groupBitOr(mask), 0)"
        )
        kept = "" if self.breakdown is None else "label, "
        # Of each event: its time, and the start of the run whose step it completes (0: none).
        sql = (
            f"SELECT {kept}keys, arrayMap(key -> {_AT}, keys) AS times, "
            f"arrayMap(key -> if(bitTest(key, 0), {_AT}, 0), keys) AS starts FROM ({each})"
        )
        for k in range(2, len(self.steps) + 1):
            kept += f"first{k - 1}, gap{k - 1}, " if k > 2 else ""
            before = "arrayFill(start -> start != 0, arrayPushFront(arrayPopBack(starts), toInt64(0)))"
            completes = f"bitTest(key, {k - 1}) AND before > 0 AND {_AT} - before <= {window}"
            then = f"arrayMap((key, before) -> if({completes}, before, 0), keys, {before})"
            done = "arrayMap((start, time) -> if(start > 0, time, 0), starts, times)"
            sql = (
                f"SELECT {kept}keys, times, {then} AS run, arrayFirstIndex(start -> start > 0, run) AS first{k}, "
                f"if(first{k} > 0, times[first{k}] - arrayMax(arraySlice({done}, 1, first{k} - 1)), 0) AS gap{k} "
                f"FROM ({sql})"
            )
            sql = f"SELECT * EXCEPT (run), run AS starts FROM ({sql})"
        return sql

    def _counted(self, taken: str) -> str:
        """Per step (and label): ``n`` who took it, and ``part``, the quantiles of the gaps as a state."""
        state = f"quantilesExactStateIf({_QUANTILES})"
        steps = [f"(1, count(), {state}(toInt64(0), 0))"]
        steps += [
            f"({k}, countIf(first{k} > 0), {state}(toInt64(gap{k}), first{k} > 0))"
            for k in range(2, len(self.steps) + 1)
        ]
        label, group = ("", "") if self.breakdown is None else ("label, ", " GROUP BY label")
        return (
            f"SELECT {label}toUInt8(one.1) AS step, one.2 AS n, one.3 AS part "
            f"FROM (SELECT {label}[{', '.join(steps)}] AS steps FROM ({taken}){group}) ARRAY JOIN steps AS one WHERE n > 0"
        )

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """A row for each step (of each value of the breakdown), those that nobody took included."""
        groups: dict[Any, dict[int, tuple[int, list[int]]]] = {} if self.breakdown is not None else {None: {}}
        for row in found.to_pylist():
            steps = groups.setdefault(row.get("breakdown"), {})
            steps[row["step"]] = (row["reached"], row["gaps"])
        rows = [
            self._row(label, k, step, steps) for label, steps in groups.items() for k, step in enumerate(self.steps, 1)
        ]
        kinds = _COLUMNS if self.breakdown is not None else _COLUMNS.remove(0)
        return pa.Table.from_pylist(rows, kinds), {}

    def _row(self, label: Any, k: int, step: Selection, steps: dict[int, tuple[int, list[int]]]) -> dict[str, Any]:
        count, gaps = steps.get(k, (0, []))
        first, before = steps.get(1, (0, []))[0], steps.get(k - 1, (0, []))[0]
        timed = k > 1 and count > 0
        return {
            "breakdown": label,
            "step": k,
            "event": step.event,
            "count": count,
            "conversion": count / first if first else None,
            "step_conversion": (count / before if before else None) if k > 1 else (1.0 if first else None),
            "p50_ms": gaps[0] if timed else None,
            "p95_ms": gaps[1] if timed else None,
        }


_COLUMNS: Final = pa.schema(
    [
        ("breakdown", pa.string()),
        ("step", pa.int64()),
        ("event", pa.string()),
        ("count", pa.int64()),
        ("conversion", pa.float64()),
        ("step_conversion", pa.float64()),
        ("p50_ms", pa.int64()),
        ("p95_ms", pa.int64()),
    ]
)


def parse(body: Any) -> Funnel:
    """Check a request's body. Raises ``QueryError`` naming the key and what it takes."""
    body = read_object(body, _KEYS)
    steps = body.get("steps")
    if not isinstance(steps, list) or not 2 <= len(steps) <= STEPS_MAX:
        raise QueryError(f'steps must be a list of 2 to {STEPS_MAX} steps like {{"event": "Product Viewed"}}')
    read = tuple(_step(each, f"steps[{i}]") for i, each in enumerate(steps))
    return Funnel(
        read, read_span(body), read_duration(body.get("window", WINDOW), "window", WINDOW_MS_MAX),
        read_choice(body, "measure", tuple(WHO), "devices"), read_breakdown(body.get("breakdown")),
        read_filters(body.get("filters")), read_number(body, "limit", LIMIT, LIMIT_MAX),
    )  # fmt: skip


def _step(given: Any, where: str) -> Selection:
    step = read_selection(given, where)
    if step.event is None and not step.filters:
        raise QueryError(f"{where} must name an event or have filters: any event at all is no step")
    return step
