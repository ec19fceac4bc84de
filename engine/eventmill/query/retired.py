"""Questions about times whose events are retired: what the lake's aggregates answer, and what nothing can."""

from __future__ import annotations

from typing import Any, Final

from eventmill.core.errors import QueryError
from eventmill.core.renames import Renames
from eventmill.core.retention import LakeView
from eventmill.core.rollup import DISTINCT_TYPES, restored
from eventmill.query.fields import Parameters
from eventmill.query.render import iso
from eventmill.query.routing import Route, Span
from eventmill.query.scan import Plan

_STATES: Final = ", ".join(f"{restored(name)} AS {name}" for name in DISTINCT_TYPES)
_CURE: Final = (
    "ask for events, devices, users or sessions by event and platform on whole minutes, which the aggregates answer"
)


def minutes(view: LakeView, span: Span, parameters: Parameters) -> str:
    """The lake's minutes of a stretch of time as a FROM expression with the columns of the real-time store's roll-up."""
    return (
        f"(SELECT toDateTime(minute, 'UTC') AS minute, event, platform, project, toUInt64(events) AS events, {_STATES} "
        f"FROM {view.minutes} WHERE {_dates(span, parameters)})"
    )


def sessions(view: LakeView, span: Span, parameters: Parameters) -> str:
    """Sessions with events within a stretch of whole days as a SELECT: ``session_id``, ``first`` and ``last`` (ms),
    ``number``."""
    return (
        "SELECT session_id, toUnixTimestamp64Milli(started) AS first, toUnixTimestamp64Milli(ended) AS last, "
        f"toUInt64(events) AS number FROM {view.sessions} WHERE {_dates(span, parameters)}"
    )


def _dates(span: Span, parameters: Parameters) -> str:
    first, last = parameters.time(span.start), parameters.time(span.end - 1)
    return f"event_date BETWEEN toDate32({first}) AND toDate32({last})"


def refuse(plan: Plan, way: Route) -> None:
    """Raises ``QueryError`` when what the plan needs of the lake is not there any more."""
    if way.view is None or way.lake is None:
        return
    of = way.view.retired
    if plan.aggregated:
        first, what, cure = of.aggregates_from_ms, "aggregates", "ask about a later time"
    else:
        first, what, cure = of.raw_from_ms(plan.events), "single events", _CURE
        others = of.raw_from_ms(())
        if plan.events is None and first > others:
            names = sorted({way.renames.now(name) for name, date in of.events.items() if date > of.raw_before})
            cure = f"{cure}; or, back to {iso(others)}, name events other than {', '.join(names)[:200]}"
    if way.lake.start < first:
        raise QueryError(
            f"{what} from before {iso(first)} are retired (see [retention]), and this question needs them: "
            f"ask from then on, or {cure}"
            if what != "aggregates"
            else f"everything from before {iso(first)} is retired (see [retention]): {cure}"
        )


def kept_since(view: LakeView | None, renames: Renames) -> dict[str, Any]:
    """For ``meta``: since when single events and aggregates are all there; nothing where none are retired."""
    if view is None or not view.minutes:
        return {}
    of = view.retired
    found: dict[str, Any] = {"raw_from": iso(of.raw_from_ms(())), "aggregates_from": iso(of.aggregates_from_ms)}
    if of.events:
        names = sorted(set(map(renames.now, of.events)))
        found["downsampled"] = {name: iso(of.raw_from_ms(renames.stored([name]))) for name in names}
    return {"kept": found}
