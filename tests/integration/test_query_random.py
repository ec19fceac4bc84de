"""Random questions over spans across the boundary, against DuckDB over all events in one table: none may be wrong.

Each store holds its side of the boundary; beyond it, events that never happened, which no answer may count. In the second
world some events are stored under names that they had before, and questions name them by any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import query_duck
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from query_duck import Duck
from query_questions import (
    BOUNDARY,
    DAYS,
    FUNNELS,
    NOW,
    PATHS,
    RETENTIONS,
    ROLLED,
    SESSIONS,
    TIMELINES,
    TRENDS,
    TRENDS_BY,
    WINDOW_MS,
    WINDOWS,
)
from query_twin import ms, rows_of

from eventmill.core.config import QueryConfig
from eventmill.core.renames import Renames
from eventmill.core.schema import EVENT
from eventmill.core.typed import Kind, Typed, TypedProperty
from eventmill.lake.table import Lake
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.lake_rollups import LakeRollUps
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, NAMES, TYPED, events

COUNT = 12_000
#: One event of one old name, one of two, one of an odd one.
RENAMES = Renames.parse(
    {"tapped": "tap", "bought": "purchased", "purchased": "purchase", "sc'r {x:String} %s \\ \"een": "screen"}
)
#: The roll-ups of numbers have all names of one event, and only one of the other's.
TYPED_NAMES = Typed.of(
    [
        *TYPED.properties.values(),
        TypedProperty("price", Kind.NUMBER, ("bought", "purchase", "purchased", "tap")),
    ]
)
World = tuple[QueryService, Duck]
#: A trend's boundary lies at the start of a bucket, so both stores hold the day before the other kinds' boundary.
FIRST = BOUNDARY // DAY_MS * DAY_MS
QUESTIONS = st.one_of(
    st.tuples(st.just("trends"), TRENDS),
    st.tuples(st.just("trends"), TRENDS_BY),
    st.tuples(st.just("trends"), ROLLED),
    st.tuples(st.just("funnel"), FUNNELS),
    st.tuples(st.just("retention"), RETENTIONS),
    st.tuples(st.just("sessions"), SESSIONS),
    st.tuples(st.just("timeline"), TIMELINES),
    st.tuples(st.just("paths"), PATHS),
)


def between(batch: pa.RecordBatch, start: int, end: int) -> pa.RecordBatch:
    at = batch.column("timestamp").cast(pa.int64())
    return batch.filter(pc.and_(pc.greater_equal(at, start), pc.less(at, end)))


def joined(*batches: pa.RecordBatch) -> pa.Table:
    """With the log offsets that a store asks for."""
    table = pa.Table.from_batches(batches).combine_chunks().unify_dictionaries()
    offsets = pa.array(np.arange(table.num_rows) // 500, pa.uint64())
    return table.set_column(table.schema.get_field_index("log_offset"), "log_offset", offsets)


def as_it_was(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same events, each under one of the names that it has had."""
    known = {name: sorted(RENAMES.stored([name])) for name in NAMES}
    names = enumerate(batch.column("event").cast(pa.string()).to_pylist())
    at = batch.schema.get_field_index("event")
    old = pa.array([known[name][place % len(known[name])] for place, name in names])
    return batch.set_column(at, batch.schema.field(at), old.cast(batch.schema.field(at).type))


def by_old_names(body: Any, key: str = "") -> Any:
    """The same question, which names events by the last of all their names."""
    if isinstance(body, dict):
        named = body.get("field") == "event" and body.get("op") in ("eq", "ne", "in", "not_in")
        return {
            name: by_old_names(value, "event" if named and name == "value" else name) for name, value in body.items()
        }
    if isinstance(body, list):
        return [by_old_names(each, key) for each in body]
    return max(RENAMES.stored([body])) if key in ("event", "start", "end") and body is not None else body


@pytest.fixture(scope="module", params=["as sent", "renamed"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, renamed = tmp_path_factory.mktemp("random"), request.param == "renamed"
    stored = as_it_was if renamed else lambda batch: batch
    config = QueryConfig(renames=RENAMES) if renamed else QueryConfig()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a service moves the process; this puts it back in the end
        truth = events(COUNT, seed=41, days=DAYS, devices=300, coarse_ms=3_600_000)
        duck = Duck(rows_of(truth))
        truth, rubbish = stored(truth), stored(events(COUNT // 2, seed=42, days=DAYS, devices=300))
        store, lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        store.declare(TYPED_NAMES if renamed else TYPED)
        store.insert(joined(between(truth, FIRST, 1 << 60), between(rubbish, 0, FIRST)), "token")
        in_lake = joined(between(truth, 0, BOUNDARY), between(rubbish, BOUNDARY, 1 << 60))
        rows, middle = in_lake.select(EVENT.names), in_lake.num_rows // 2
        lake.append(rows.slice(0, middle), group="lake", ranges={0: (0, 1)})
        lake.append(rows.slice(middle), group="lake", ranges={0: (1, 2)})
        rolled = LakeRollUps(store)
        source = lake.source_sql()
        assert source is not None
        files = lake.files_of(source)
        assert files is not None
        assert len(files) > 12
        # Some of the files, as if a compaction had written them and the others were new.
        half = [replace(file, compacted=True) for number, file in enumerate(files) if number % 3]
        assert rolled.keep_up(source, half) == len(half)
        service = QueryService(
            store, lake.source_sql, config, window_ms=WINDOW_MS, watermark=lambda: NOW, clock=lambda: NOW,
            files_of=lake.files_of, is_rolled_up=rolled.has,
        )  # fmt: skip
        yield service, duck
        service.close()
        store.close()


def check(service: QueryService, duck: Duck, kind: str, body: dict[str, Any]) -> None:
    """The service's answer is DuckDB's; where there are old names, half of the questions say those."""
    asked = by_old_names(body) if service.config.renames and len(str(body)) % 2 else body
    rows = service.ask(kind, asked | ({"limit": 1_000} if kind == "timeline" else {}))["rows"]
    CHECKS[kind](rows, duck, body)


def is_close(body: dict[str, Any], found: float, exact: float) -> bool:
    """Sums differ by the order of adding; distinct counts are exact as long as they are small."""
    counted = body["measure"] in query_duck.WHO
    small = 1e-9 if not counted or exact <= 2_000 else 0.02
    return math.isclose(found, exact, rel_tol=small, abs_tol=0.0 if counted else 1e-6)


def check_trends(rows: list[Any], duck: Duck, body: dict[str, Any]) -> None:
    expected = query_duck.trends(duck, body)
    by = body.get("breakdown")
    labels = len(by) if isinstance(by, list) else int(by is not None)
    columns = ["previous", "value"] if body.get("compare") else ["value"]
    assert {len(row) for row in rows} <= {1 + labels + len(columns)}
    found = {
        (column, ms(row[0]), tuple(row[1 : 1 + labels]) if isinstance(by, list) else row[1] if labels else None): value
        for row in rows
        for column, value in zip(columns, row[-len(columns) :], strict=True)
    }
    if body.get("cumulative"):
        # A bucket without events has what the one before it has.
        known: dict[Any, Any] = {}
        for key in sorted(found, key=lambda key: key[1]):
            series = key[0], key[2]
            known[series] = expected.get(key, known.get(series))
            if key not in expected and found[key]:
                assert is_close(body, found[key], known[series])
                expected[key] = found[key]
    filled = {key: value for key, value in found.items() if value or key in expected}
    assert filled.keys() == {key for key, value in expected.items() if value is not None or key in found}
    for key, value in filled.items():
        assert value == expected[key] or is_close(body, value, expected[key])


def check_funnel(rows: list[Any], duck: Duck, body: dict[str, Any]) -> None:
    expected = query_duck.funnel(duck, body, WINDOWS[body["window"]])
    by = body.get("breakdown") is not None
    found = [(row[0] if by else None, *row[-7:]) for row in rows]
    taken = [(label, step, n, p50 or 0, p95 or 0) for label, step, _, n, _, _, p50, p95 in found if n]
    assert taken == expected
    sizes = {label: n for label, step, _, n, *_ in found if step == 1}
    assert all(row[4] == (row[3] / sizes[row[0]] if sizes[row[0]] else None) for row in found)


def check_retention(rows: list[Any], duck: Duck, body: dict[str, Any]) -> None:
    assert {(row[0], row[1]): row[2] for row in rows if row[2]} == query_duck.retention(duck, body)


def check_sessions(rows: list[Any], duck: Duck, body: dict[str, Any]) -> None:
    expected = query_duck.sessions(duck, body)
    by = body.get("breakdown") is not None
    found = {}
    for row in rows:
        sessions, bounced, _, size, _, *lengths = row[2 if by else 1 :]
        if sessions:
            found[ms(row[0]), row[1] if by else None] = (sessions, bounced, size, *lengths)
    assert found == expected


def check_timeline(rows: list[Any], duck: Duck, body: dict[str, Any]) -> None:
    assert [row[1].replace("-", "") for row in rows] == query_duck.timeline(duck, body)


def check_paths(rows: list[Any], duck: Duck, body: dict[str, Any]) -> None:
    assert {tuple(row[:3]): row[3] for row in rows} == query_duck.paths(duck, body)


CHECKS = {
    "trends": check_trends,
    "funnel": check_funnel,
    "retention": check_retention,
    "sessions": check_sessions,
    "timeline": check_timeline,
    "paths": check_paths,
}
HOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=35, **HOW)
@given(question=QUESTIONS)
def test_no_answer_is_wrong(world: World, question: tuple[str, dict[str, Any]]) -> None:
    check(*world, *question)


@pytest.mark.soak
@settings(max_examples=2_000, phases=[Phase.generate, Phase.shrink], **HOW)
@given(question=QUESTIONS)
def test_not_one_of_two_thousand_answers_is_wrong(world: World, question: tuple[str, dict[str, Any]]) -> None:
    check(*world, *question)


def test_the_stores_hold_what_never_happened(world: World) -> None:
    """A negative control: a boundary that is somewhere else gives other answers."""
    service, duck = world
    wrong = QueryService(
        service._store, service._lake_source, service.config, window_ms=WINDOW_MS, clock=lambda: NOW + 2 * DAY_MS
    )
    body = {"from": "2026-05-27T00:00:00Z", "to": "2026-06-08T00:00:00Z"}
    for kind, more in (
        ("trends", {"measure": "events", "interval": "hour"}),
        ("trends", {"measure": "sum:properties.price", "interval": "day", "event": "tap"}),
        ("trends", {"measure": "sum:properties.price", "interval": "day", "event": "purchase"}),
        ("funnel", {"steps": [{"event": "tap"}, {"event": "purchase"}], "window": "3d"}),
        ("retention", {"interval": "day"}),
        ("sessions", {"interval": "day"}),
        ("timeline", {"device": "device-7"}),
        ("paths", {"start": "tap"}),
    ):
        check(service, duck, kind, body | more)
        with pytest.raises(AssertionError):
            check(wrong, duck, kind, body | more)
    wrong.close()
