"""Questions of every kind, made by Hypothesis, for the events of ``realtime_events``."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from query_twin import iso

from realtime_events import DAY_MS, NAMES, START_MS

DAYS = 12
#: Half a day before the last event.
NOW = START_MS + DAYS * DAY_MS - DAY_MS // 2
WINDOW_MS = 5 * DAY_MS
BOUNDARY = NOW - WINDOW_MS
EVENTS = st.sampled_from([*NAMES, *NAMES, "no such event"])
FIELDS = (
    "event", "type", "device_id", "user_id", "anonymous_id", "platform", "country", "locale", "properties.category",
    "properties.mixed", "properties.mixed.a", "properties.cart.items", "properties.cart.vip", "context.os.name",
    "properties.none",
)  # fmt: skip
NUMBERS = ("properties.price", "properties.mixed", "properties.cart.items", "context.app.build", "properties.none")
VALUES = (
    "shoes", "hats", "bücher", "", "other", "x\ny", "o'clock", "100%", "ios", "DE", "device-7", "user-5", "true", "2",
    "0.5", '{"a":[1]}', *NAMES,
)  # fmt: skip
COMPARED = st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"])


def condition(field: Any, op: Any, value: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"field": field, "op": op, "value": value})


FILTERS = st.one_of(
    st.fixed_dictionaries({"field": st.sampled_from(FIELDS), "op": st.sampled_from(["is_set", "is_not_set"])}),
    condition(st.sampled_from(NUMBERS), COMPARED, st.sampled_from([0, 3, -1.25, 42.42, 100])),
    condition(st.just("flags"), st.sampled_from(["in", "not_in"]), st.just([1, 3])),
    condition(st.just("properties.cart.vip"), st.sampled_from(["eq", "ne"]), st.booleans()),
    condition(
        st.sampled_from(FIELDS),
        st.sampled_from(["in", "not_in"]),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=5),
    ),
    condition(st.sampled_from(FIELDS), st.just("contains"), st.sampled_from(["e", "o", "'", "0", "ü", "%", ""])),
    condition(st.sampled_from(FIELDS), COMPARED, st.sampled_from(VALUES)),
    condition(st.just("platform"), st.sampled_from(["eq", "ne"]), st.just("ios")),
)
GROUPED = st.recursive(
    FILTERS,
    lambda inner: st.tuples(st.sampled_from(["any", "any", "all"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda pair: {pair[0]: pair[1]}
    ),
    max_leaves=5,
)
FEW_FILTERS = st.one_of(
    st.none(), st.none(), st.none(), st.lists(FILTERS, max_size=2), st.lists(GROUPED, min_size=1, max_size=2)
)


def written(at: int) -> str:
    return f"{iso(at)[:-1]}.{at % 1_000:03}Z"


@st.composite
def spans(draw: st.DrawFn) -> dict[str, Any]:
    """``from`` and ``to``; most are long, since a short one asks little, and most lie across the boundary."""
    length = draw(st.sampled_from([12 * DAY_MS, 6 * DAY_MS, 6 * DAY_MS, 2 * DAY_MS, DAY_MS // 4, 60_000]))
    start = BOUNDARY - length * draw(st.sampled_from([4, 2, 6, 0, 8])) // 8
    if draw(st.booleans()):
        start, length = start + draw(st.integers(-DAY_MS, DAY_MS)), length + draw(st.integers(0, DAY_MS))
    return {"from": written(start), "to": written(start + length)}


def selections(*, needed: bool) -> st.SearchStrategy[dict[str, Any] | None]:
    some = st.fixed_dictionaries({"event": EVENTS}, optional={"filters": FEW_FILTERS})
    if needed:
        only_filters = st.fixed_dictionaries({"filters": st.lists(FILTERS, min_size=1, max_size=2)})
        return some | only_filters
    return st.none() | some | st.fixed_dictionaries({}, optional={"event": st.none(), "filters": FEW_FILTERS})


@st.composite
def bodies(draw: st.DrawFn, required: Any, optional: Any) -> dict[str, Any]:
    return draw(spans()) | draw(st.fixed_dictionaries(required, optional=optional))


BREAKDOWN = st.none() | st.sampled_from([*FIELDS, "flags"])
LIMIT = st.sampled_from([1, 2, 3, 20])
WINDOWS = {"1h": 3_600_000, "90s": 90_000, "24h": DAY_MS, "3d": 3 * DAY_MS, "10ms": 10, "30d": 30 * DAY_MS}
MEASURES = ("events", "devices", "users", "sessions", *(f"{f}:properties.price" for f in ("sum", "avg", "min", "max")))
WHO = st.sampled_from(["devices", "users"])
COMPARE = st.sampled_from([None, "previous"])
TRENDS = bodies(
    {"interval": st.sampled_from(["hour", "day"]), "measure": st.sampled_from(MEASURES)},
    {"event": EVENTS, "filters": FEW_FILTERS, "compare": COMPARE, "cumulative": st.booleans()},
)
BREAKDOWNS = BREAKDOWN | st.lists(st.sampled_from([*FIELDS, "flags"]), min_size=1, max_size=3, unique=True)
TRENDS_BY = bodies(
    {"interval": st.just("day"), "measure": st.sampled_from(MEASURES[:4]), "breakdown": BREAKDOWNS},
    {"event": EVENTS, "filters": FEW_FILTERS, "limit": LIMIT, "compare": COMPARE, "cumulative": st.booleans()},
)
#: What roll-ups have; most lie on whole hours. Those of a number have it of events whose schema declares it.
ROLLED = bodies(
    {"interval": st.sampled_from(["hour", "day"]), "measure": st.sampled_from(MEASURES)},
    {
        "event": EVENTS, "breakdown": st.sampled_from([None, "platform", "event"]), "compare": COMPARE,
        "filters": st.none() | st.just([{"field": "platform", "op": "eq", "value": "ios"}]),
        "cumulative": st.booleans(), "limit": LIMIT,
    },
)  # fmt: skip
FUNNELS = bodies(
    {"steps": st.lists(selections(needed=True), min_size=2, max_size=5), "window": st.sampled_from(sorted(WINDOWS))},
    {"measure": WHO, "breakdown": BREAKDOWN, "filters": FEW_FILTERS, "limit": LIMIT},
)
RETENTIONS = bodies(
    {"interval": st.sampled_from(["day", "day", "week", "month"])},
    {
        "first": selections(needed=False), "returning": selections(needed=False), "measure": WHO,
        "cohort": st.sampled_from(["first", "any"]), "filters": FEW_FILTERS,
    },
)  # fmt: skip
SESSIONS = bodies(
    {"interval": st.sampled_from(["hour", "day", "total"])},
    {"event": EVENTS, "breakdown": BREAKDOWN, "filters": FEW_FILTERS, "limit": LIMIT},
)
TIMELINES = bodies(
    {}, {"event": EVENTS, "filters": FEW_FILTERS, "limit": st.sampled_from([1, 2, 7, 100, 1000])}
).flatmap(
    lambda body: st.one_of(
        st.just(body | {"device": "device-7"}),
        st.just(body | {"device": "device-16"}),
        st.just(body | {"user": "user-5"}),
        st.just(body | {"id": "user-5"}),
        st.just(body | {"id": "device-9"}),
        st.just(body | {"id": "nobody"}),
        st.just(body | {"user": "' OR 1 = 1 --"}),
    )
)
PATHS = bodies(
    {},
    {"depth": st.integers(1, 5), "top": st.sampled_from([1, 2, 3, 50]), "filters": FEW_FILTERS},
).flatmap(lambda body: EVENTS.flatmap(lambda name: st.sampled_from([body | {"start": name}, body | {"end": name}])))
