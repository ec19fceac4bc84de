"""Trends against a slow twin: random bodies, over the real-time store, the lake, and both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from query_twin import iso, rows_of, trends

from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError
from eventmill.core.rollup import ACCURACY
from eventmill.core.schema import EVENT
from eventmill.core.typed import Typed
from eventmill.lake.table import Lake
from eventmill.query.service import QueryService
from eventmill.query.trends import OF_VALUES
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, NAMES, START_MS, TYPED, events

DAYS = 3
COUNT = 30_000
#: The middle of the last day.
NOW = START_MS + DAYS * DAY_MS - DAY_MS // 2
HOUR_MS = 3_600_000
FIELDS = (
    "event", "type", "device_id", "user_id", "anonymous_id", "platform", "country", "locale", "properties.category",
    "properties.mixed", "properties.mixed.a", "properties.cart.items", "properties.cart.vip",
    "context.os.name", "properties.none",
)  # fmt: skip
NUMBERS = (
    "properties.price",
    "properties.mixed",
    "properties.cart.items",
    "properties.cart.vip",
    "context.app.build",
    "flags",
    "properties.none",
)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return rows_of(events(COUNT, seed=11, days=DAYS))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, QueryService]]:
    """Three services over the same events: all of them in real time, all in the lake, each bucket from one of the two.

    For the last, the stores hold only what they are asked for, and rubbish where the other must be asked.
    """
    folder = tmp_path_factory.mktemp("query")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a service moves the process; this puts it back in the end
        batch = events(COUNT, seed=11, days=DAYS)
        store, lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        store.declare(TYPED)
        for at in range(0, COUNT, 20_000):
            store.insert(batch.slice(at, 20_000), str(at))
        lake.append(batch.select(EVENT.names), group="lake", ranges={0: (0, 1)})
        config = QueryConfig()
        made = {
            "realtime": QueryService(store, lambda: None, config, window_ms=DAY_MS, clock=lambda: NOW),
            "lake": QueryService(store, lake.source_sql, config, window_ms=1, clock=lambda: NOW + 9 * DAY_MS),
            "both": QueryService(
                store, lake.source_sql, config, window_ms=DAY_MS, watermark=lake.watermark, clock=lambda: NOW
            ),
        }
        yield made
        for service in made.values():
            service.close()
        store.close()


def random_filter(rng: np.random.Generator, rows: list[dict[str, Any]]) -> dict[str, Any]:
    def one(options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    name = one(FIELDS)
    kind = rng.integers(0, 8)
    if kind == 0:
        return {"field": name, "op": one(["is_set", "is_not_set"])}
    if kind == 1:
        value = one([0, 3, -1.25, 42.42, 100])
        return {
            "field": one([n for n in NUMBERS if "." in n]),
            "op": one(["eq", "ne", "gt", "gte", "lt", "lte"]),
            "value": value,
        }
    if kind == 2:
        return {
            "field": "timestamp",
            "op": one(["gte", "lt"]),
            "value": iso(START_MS + int(rng.integers(0, DAYS * DAY_MS))),
        }
    if kind == 3:
        if rng.integers(2):
            return {"field": "flags", "op": one(["in", "not_in"]), "value": [1, 3]}
        return {"field": "flags", "op": one(["eq", "ne", "gt"]), "value": 2}
    if kind == 4:
        return {"field": "properties.cart.vip", "op": one(["eq", "ne"]), "value": bool(rng.integers(2))}
    values = [
        "shoes",
        "hats",
        "bücher",
        "",
        "other",
        "x\ny",
        "o'clock",
        "100%",
        "ios",
        "DE",
        "device-7",
        "user-5",
        "true",
        "2",
        "0.5",
        '{"a":[1]}',
        *NAMES,
    ]
    if kind == 5:
        return {
            "field": name,
            "op": one(["in", "not_in"]),
            "value": [one(values) for _ in range(int(rng.integers(1, 5)))],
        }
    if kind == 6:
        return {"field": name, "op": "contains", "value": one(["e", "o", "'", "0", "ü", "%", ""])}
    return {"field": name, "op": one(["eq", "ne", "gt", "gte", "lt", "lte"]), "value": one(values)}


def random_body(rng: np.random.Generator, rows: list[dict[str, Any]]) -> dict[str, Any]:
    def one(options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    interval = one(["minute", "hour", "hour", "day"])
    start = START_MS + int(rng.integers(-DAY_MS // 2, DAYS * DAY_MS))
    length = int(rng.integers(1, {"minute": 2 * HOUR_MS, "hour": 2 * DAY_MS, "day": 5 * DAY_MS}[interval]))
    if rng.integers(2):
        start, length = start // 60_000 * 60_000, -(-length // 60_000) * 60_000
    elif rng.integers(3):  # a row that is just within, and one that is just without
        first, last = sorted(one(rows)["timestamp"] for _ in range(2))
        start, length = (first, last - first) if interval == "day" and last > first else (first, length)
    body: dict[str, Any] = {"from": iso_ms(start), "to": iso_ms(start + length), "interval": interval}
    body["measure"] = one(
        [
            "events",
            "events",
            "devices",
            "users",
            "sessions",
            *(f"{f}:{one(NUMBERS)}" for f in ("sum", "avg", "min", "max", "p50", "p95", "p99")),
        ]
    )
    if rng.integers(2):
        body["event"] = one([*NAMES, "no such event"])
    if rng.integers(2):
        body["breakdown"] = one([*FIELDS, "flags"])
        body["limit"] = int(one([1, 2, 3, 20]))
    if rng.integers(3):
        body["filters"] = [random_filter(rng, rows) for _ in range(int(rng.integers(1, 4)))]
        if rng.integers(3) == 0:
            body["filters"] = [{"field": "platform", "op": one(["eq", "ne"]), "value": "ios"}]
    return body


def iso_ms(at: int) -> str:
    return f"{iso(at)[:-1]}.{at % 1_000:03}Z"


def assert_same(answer: dict[str, Any], expected: dict[tuple[Any, ...], Any], body: dict[str, Any]) -> None:
    found = {tuple(row[:-1]): row[-1] for row in answer["rows"]}
    assert len(found) == len(answer["rows"]), "a bucket came twice"
    assert [row[0] for row in answer["rows"]] == sorted(row[0] for row in answer["rows"])
    function = body["measure"].partition(":")[0]
    if function.startswith("p") or function in ("avg", "min", "max"):
        expected = {key: value for key, value in expected.items() if value is not None or key in found}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value is None or found[key] is None:
            assert found[key] is None
            assert value is None
        elif function.startswith("p"):
            assert found[key] == pytest.approx(value, rel=3 * ACCURACY, abs=1e-6)
        elif ":" in body["measure"]:
            assert math.isclose(found[key], value, rel_tol=1e-9, abs_tol=1e-6)
        else:
            assert found[key] == value


def test_the_edges_of_the_range(services: dict[str, QueryService], rows: list[dict[str, Any]]) -> None:
    times = sorted(row["timestamp"] for row in rows)
    for first, last in ((times[0], times[-1]), (times[100], times[-100]), (times[-2_000], times[-1])):
        body = {"from": iso_ms(first), "to": iso_ms(last), "interval": "day", "measure": "events"}
        inside = sum(first <= at < last for at in times)
        for service in services.values():
            assert sum(row[1] for row in service.ask("trends", body)["rows"]) == inside


def test_the_roll_up_answers_what_it_can(services: dict[str, QueryService]) -> None:
    body = {"from": iso(START_MS), "to": iso(START_MS + DAYS * DAY_MS), "interval": "day"}
    service = services["realtime"]
    raw = service.ask("trends", body | {"breakdown": "country"})["meta"]["estimated_rows"]
    assert raw == COUNT
    rolled = service.ask("trends", body | {"breakdown": "event", "measure": "users"})["meta"]["estimated_rows"]
    assert 0 < rolled < COUNT


def moment(step: int) -> int:
    """A time that lies on a minute, an hour or a day, or on none."""
    return START_MS - DAY_MS // 2 + step


NUMBERED = st.fixed_dictionaries(
    {
        "event": st.sampled_from(["purchase", "tap"]),
        "measure": st.sampled_from([f"{function}:properties.price" for function in OF_VALUES]),
        "interval": st.sampled_from(["minute", "hour", "hour", "day"]),
    },
    optional={
        "breakdown": st.sampled_from(["platform", "event", ["event", "platform"]]),
        "filters": st.just([{"field": "platform", "op": "eq", "value": "ios"}]),
        "compare": st.just("previous"),
        "cumulative": st.booleans(),
        "limit": st.sampled_from([1, 20]),
    },
)
STEPS = st.integers(0, 3 * DAY_MS)
STEPS |= st.integers(0, 3 * 24).map(lambda hour: hour * HOUR_MS) | st.integers(0, 6).map(
    lambda half: half * DAY_MS // 2
)


class NotRolledUp:
    """A store that says of its roll-ups that they have no number of any event."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def typed(self) -> Typed:
        return Typed.of(replace(each, events=()) for each in self._store.typed.properties.values())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=NUMBERED, start=STEPS, length=STEPS.filter(bool))
def test_numbers_from_roll_ups_are_those_of_the_events(
    services: dict[str, QueryService], body: dict[str, Any], start: int, length: int
) -> None:
    """To the last digit, quantiles too; sums differ by the order of adding."""
    length = min(length, DAY_MS // 8) if body["interval"] == "minute" else length
    body = body | {"from": iso_ms(moment(start)), "to": iso_ms(moment(start + length))}
    rolled = services["both" if start % 2 else "realtime"]
    raw = QueryService(
        NotRolledUp(rolled._store), rolled._lake_source, rolled.config, window_ms=DAY_MS, watermark=rolled._watermark,
        clock=lambda: NOW,
    )  # fmt: skip
    one, other = rolled.ask("trends", body)["rows"], raw.ask("trends", body)["rows"]
    raw.close()
    assert len(one) == len(other)
    added = body["measure"].startswith(("sum", "avg"))
    for found, wanted in zip(
        (cell for row in one for cell in row), (cell for row in other for cell in row), strict=True
    ):
        assert found == (pytest.approx(wanted, rel=1e-9, abs=1e-6) if added and isinstance(wanted, float) else wanted)


def test_numbers_are_read_from_the_roll_ups_that_have_them(services: dict[str, QueryService]) -> None:
    body = {"from": iso(START_MS + HOUR_MS), "to": iso(START_MS + 2 * DAY_MS), "interval": "day", "event": "purchase"}

    def tables(**more: Any) -> set[str]:
        return {each["table"] for each in services["realtime"].explain("trends", body | more)["tables"]}

    for measure in OF_VALUES:
        assert tables(measure=f"{measure}:properties.price") == {"eventmill.numbers_1h", "eventmill.numbers_1d"}
    of = "sum:properties.price"
    assert tables(measure=of, breakdown="platform") == {"eventmill.numbers_1h", "eventmill.numbers_1d"}
    for more in (
        {"breakdown": "country"}, {"event": "screen"}, {"event": None}, {"measure": "sum:properties.cart.items"},
        {"measure": "sum:context.price"}, {"filters": [{"field": "properties.price", "op": "gt", "value": 5}]},
    ):  # fmt: skip
        assert tables(**{"measure": of, **more}) == {"eventmill.events"}, more


def test_meta(services: dict[str, QueryService]) -> None:
    body = {"from": iso(START_MS), "to": iso(START_MS + DAYS * DAY_MS), "interval": "day"}
    meta = services["both"].ask("trends", body)["meta"]
    assert meta["stores"] == ["realtime", "lake"]
    assert meta["boundary"] == iso(START_MS + DAY_MS)
    assert meta["cached"] is False
    assert meta["elapsed_ms"] > 0
    assert services["realtime"].ask("trends", body)["meta"]["boundary"] is None


def test_too_much_to_read_is_refused(services: dict[str, QueryService]) -> None:
    of = services["both"]
    small = QueryService(
        of._store, of._lake_source, QueryConfig(scan_rows_max=1_000), window_ms=DAY_MS, clock=lambda: NOW
    )
    body = {"from": iso(START_MS), "to": iso(START_MS + DAYS * DAY_MS), "interval": "day"}
    with pytest.raises(QueryError, match=r"would read about \d+,\d+ rows .* 1,000 are the most: narrow"):
        small.ask("trends", body | {"breakdown": "country"})
    with pytest.raises(QueryError, match="would read about"):
        small.ask("sql", {"query": "SELECT * FROM events"})
    assert small.ask("sql", {"query": "SELECT count() FROM events"})["rows"] == [[COUNT]]
    assert len(small.ask("sql", {"query": "SELECT event FROM events LIMIT 3"})["rows"]) == 3
    small.close()


def test_random_bodies(services: dict[str, QueryService], rows: list[dict[str, Any]]) -> None:
    """The three services agree with the twin. What ranks equal may be ranked otherwise by a rounding, so no sums there."""
    rng = np.random.default_rng(21)
    asked: set[str] = set()
    for _ in range(45):
        body = random_body(rng, rows)
        expected = trends(rows, body)
        for name, service in services.items():
            answer = service.ask("trends", body)
            assert_same(answer, expected, body)
            asked.add(f"{name}: {'+'.join(answer['meta']['stores'])}")
    assert asked >= {"realtime: realtime", "lake: lake", "both: realtime+lake", "both: lake", "both: realtime"}
