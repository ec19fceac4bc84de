"""Plans of which another engine reads the lake: what it is asked, and what becomes of rows that stand for many events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eventmill.core.config import QueryConfig
from eventmill.query.asker import Asker
from eventmill.query.outside import Outside
from eventmill.query.outside_leg import MANY, MARK
from eventmill.query.routing import Route
from eventmill.query.service import KINDS
from eventmill.sinks.realtime.store import RealtimeStore

START, DAY = 1_779_840_000_000, 86_400_000  # a midnight
BODY = {"from": "2026-05-27T00:00:00Z", "to": "2026-05-30T12:00:00Z"}
FILTERS = [
    {"field": "platform", "op": "eq", "value": "ios"},
    {"field": "properties.vip", "op": "eq", "value": True},
    {"any": [{"field": "country", "op": "is_set"}, {"field": "user_id", "op": "contains", "value": "7"}]},
]


def outside(kind: str, more: dict[str, Any], project: str | None = None) -> tuple[Any, Outside]:
    question = KINDS[kind](BODY | more, 100_000, START)
    way = Route(question.span, None, question.span.end)
    return question, Outside.of(question.plan(way, MARK), question, "lake", 5, project)


def columns(kind: str, more: dict[str, Any]) -> list[list[str]]:
    return [list(leg.columns) for leg in outside(kind, more)[1].legs]


def test_only_what_a_question_looks_at_is_brought():
    by_hour = {"interval": "hour", "filters": FILTERS}
    # What Trino has seen to (platform, country, user_id, the event's name) is not brought; JSON is looked at again.
    assert columns("trends", {"event": "tap", **by_hour}) == [["timestamp", "j0", MANY]]
    assert columns("trends", {"measure": "users", **by_hour}) == [["timestamp", "user_id", "j0", MANY]]
    assert columns("retention", {}) == [["device_id", "event_date"]] * 2
    assert columns("paths", {"start": "tap"}) == [["session_id", "timestamp", "event"]]
    assert columns("funnel", {"steps": [{"event": "a"}, {"event": "b", "filters": FILTERS}]}) == [
        ["device_id", "timestamp", "event", "platform", "country", "user_id", "j0"]
    ]
    assert "properties" in columns("timeline", {"user": "u"})[0]


def test_a_path_that_trino_reads_otherwise_brings_the_whole_json():
    assert columns("trends", {"breakdown": "properties.0.a", "interval": "hour"}) == [["timestamp", "properties", MANY]]
    assert columns("trends", {"breakdown": ["properties.a", "properties.a.b"], "interval": "hour"}) == [
        ["timestamp", "j0", MANY]
    ]


def test_a_snapshot_and_a_project_and_the_buckets_are_in_what_is_asked():
    _, found = outside("trends", {"interval": "hour", "compare": "previous"}, "web")
    previous, asked = found.statements
    for statement in found.statements:
        assert " FROM lake FOR VERSION AS OF 5 WHERE " in statement
        assert statement.count("\"project\" = 'web'") == 1
    length = 3 * DAY + DAY // 2
    assert f"+ {length}) / 3600000 * 3600000 - {length})" in previous
    assert f"greatest(BIGINT '{START}', " in asked
    assert f"greatest(BIGINT '{START - length}', " in previous


def test_a_condition_on_the_very_time_keeps_the_very_time():
    filters = [{"any": [{"field": "timestamp", "op": "gt", "value": "2026-05-28"}, FILTERS[1]]}]
    _, found = outside("trends", {"interval": "hour", "filters": filters})
    assert "greatest" not in found.statements[0]


def test_numbers_stand_for_one_another_only_where_nothing_else_looks_at_them():
    price = {"measure": "avg:properties.price", "interval": "hour"}
    assert "CAST(avg(number) AS varchar)" in outside("trends", price)[1].statements[0]
    assert "max(number)" in outside("trends", price | {"measure": "max:properties.price"})[1].statements[0]
    for more in (
        {"measure": "p95:properties.price"},
        {"breakdown": "properties.price"},
        {"filters": [{"field": "properties.price", "op": "gt", "value": 3}]},
        {"measure": "sum:flags"},
    ):
        assert "number" not in outside("trends", price | more)[1].statements[0]


class Given:
    """An engine that gives the rows that it was given."""

    table = "lake"

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def fetch(self, statement: str, columns: dict[str, pa.DataType], seconds: float) -> pa.Table:
        assert self._rows.schema == pa.schema(list(columns.items())) or not statement
        return self._rows


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    store = RealtimeStore(Path(tmp_path_factory.mktemp("outside")) / "realtime")
    yield Asker(store, QueryConfig())
    store.close()


@pytest.mark.parametrize(
    "measure",
    ["events", "devices", *(f"{each}:properties.price" for each in ("sum", "avg", "min", "max", "p50", "p95"))],
)
def test_a_row_that_stands_for_many_counts_as_so_many_rows(asker: Asker, measure: str) -> None:
    rng = np.random.default_rng(3)
    question, plan = outside("trends", {"interval": "hour", "measure": measure, "breakdown": "platform"})
    (leg,) = plan.legs
    count = 60
    values = {
        "timestamp": START + rng.integers(0, 5, count) * 3_600_000,
        "platform": [["ios", "web", None][i] for i in rng.integers(0, 3, count)],
        "device_id": [f"d{i}" for i in rng.integers(0, 9, count)],
        "j0": [["2", '"3.5"', "true", "null", "[1]", "1e3", "-0.25"][i] for i in rng.integers(0, 7, count)],
        MANY: rng.integers(1, 1_000, count),
    }
    rows = pa.table([pa.array(values[name], kind) for name, kind in leg.columns.items()], list(leg.columns))
    each = rows.take(pa.array(np.repeat(np.arange(count), rows.column(MANY).to_numpy())))
    each = each.set_column(each.column_names.index(MANY), MANY, pa.array(np.ones(each.num_rows, np.int64)))
    found, expected = (question.answer(plan.answer(Given(given), asker, 30.0))[0].to_pydict() for given in (rows, each))
    assert {name: found[name] for name in ("time", "breakdown")} == {
        name: expected[name] for name in ("time", "breakdown")
    }
    assert found["value"] == pytest.approx(expected["value"], rel=1e-9)
    assert len(found["time"]) > 5


def test_no_rows_at_all_are_an_answer(asker: Asker) -> None:
    for kind, more in {"trends": {}, "retention": {}, "paths": {"start": "tap"}, "timeline": {"user": "u"}}.items():
        question, plan = outside(kind, more)
        none = [pa.table([pa.array([], each) for each in leg.columns.values()], list(leg.columns)) for leg in plan.legs]
        found = question.answer(plan.answer(Given(none[0]), asker, 30.0))[0]
        assert not any(value for value in found.column(found.num_columns - 1).to_pylist())
