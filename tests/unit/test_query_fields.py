"""What a trends body may say, and how mistakes are answered."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import QueryError
from eventmill.query.fields import LIST_MAX, OPERATORS, TEXT_COLUMNS, Parameters, parse_field, parse_filter, parse_time
from eventmill.query.trends import parse

BODY = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

SET = {"field": "event", "op": "is_set"}


def nested(depth: int) -> dict[str, Any]:
    return SET if depth == 0 else {"any": [nested(depth - 1)]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"from": None}, "from"),
        ({"from": "yesterday"}, "from is 'yesterday'"),
        ({"to": "1969-12-31T00:00:00Z"}, "years 1970"),
        ({"to": "2026-11-01T00:00:00Z"}, "to must lie after from"),
        ({"to": "2150-11-01T00:00:00Z", "interval": "minute"}, "buckets"),
        ({"interval": "week"}, "minute, hour, day"),
        ({"interval": ["hour"]}, "minute, hour, day"),
        ({"event": 5}, "event must be"),
        ({"measure": "clicks"}, "events, devices, users, sessions"),
        ({"measure": "sum:country"}, "needs a number"),
        ({"measure": "sum:properties"}, "there is no field 'properties'"),
        ({"measure": "sum:"}, "there is no field"),
        ({"measure": "median:properties.price"}, "measure is 'median"),
        ({"measure": None}, "measure is 'None'"),
        ({"breakdown": "nation"}, "there is no field 'nation'"),
        ({"breakdown": "timestamp"}, "breakdown cannot be timestamp"),
        ({"breakdown": []}, "a list of 1 to 3 fields"),
        ({"breakdown": ["event", "platform", "country", "tier"]}, "a list of 1 to 3 fields"),
        ({"breakdown": ["event", "event"]}, "names a field twice"),
        ({"breakdown": ["event", None]}, "names a field twice, or null"),
        ({"breakdown": ["event", ["platform"]]}, "breakdown must be a field's name"),
        ({"breakdown": ["event", "sent_at"]}, "breakdown cannot be sent_at"),
        ({"breakdown": "event_id"}, "breakdown cannot be event_id"),
        ({"breakdown": "properties..a"}, "there is no field"),
        ({"breakdown": "properties." + ".".join("a" * 20)}, "levels deep"),
        ({"breakdown": "event; DROP TABLE events"}, "there is no field"),
        ({"compare": "next"}, "compare is 'next'"),
        ({"compare": ["previous"]}, "compare is"),
        ({"compare": "previous", "from": "1970-01-01", "to": "1970-02-01"}, "begins before 1970"),
        ({"cumulative": 1}, "cumulative must be true or false"),
        ({"limit": 0}, "limit must be"),
        ({"limit": True}, "limit must be"),
        ({"filter": []}, "there is no key 'filter'"),
        ({"filters": {}}, "filters must be a list"),
        ({"filters": ["x"]}, r"filters\[0\] must be an object"),
        ({"filters": [{"any": []}]}, r"filters\[0\].any must be a list of at least one condition"),
        ({"filters": [{"all": {}}]}, r"filters\[0\].all must be a list of at least one condition"),
        ({"filters": [{"any": [SET], "all": [SET]}]}, r"filters\[0\] must be .*without other keys"),
        ({"filters": [{"any": [SET], "op": "eq"}]}, r"filters\[0\] must be .*without other keys"),
        ({"filters": [{"any": [SET, {"all": ["x"]}]}]}, r"filters\[0\].any\[1\].all\[0\] must be an object"),
        ({"filters": [nested(5)]}, "4 deep"),
        ({"filters": [{"any": [SET] * 26}, {"all": [SET] * 25}]}, "at most 50 conditions"),
        ({"filters": [{"any": [SET] * 51}]}, r"filters\[0\].any must be a list of at most 50"),
        (
            {"filters": [{"field": "event", "op": "like", "value": "x"}]},
            r"filters\[0\].op is 'like'; it is one of eq, ne",
        ),
        ({"filters": [{"field": "event", "op": "eq"}]}, r"filters\[0\].value must be text"),
        ({"filters": [{"field": "event", "op": "eq", "value": 5}]}, "must be text for event"),
        ({"filters": [{"field": "event", "op": "eq", "value": "x", "not": 1}]}, "has no key 'not'"),
        ({"filters": [{"field": "event", "op": "is_set", "value": "x"}]}, "takes no value"),
        ({"filters": [{"field": "event", "op": "in", "value": "x"}]}, f"a list of 1 to {LIST_MAX}"),
        ({"filters": [{"field": "event", "op": "in", "value": []}]}, f"a list of 1 to {LIST_MAX}"),
        ({"filters": [{"field": "properties.a", "op": "in", "value": ["x", 1]}]}, "values of one kind"),
        ({"filters": [{"field": "flags", "op": "eq", "value": "1"}]}, "must be an integer"),
        ({"filters": [{"field": "flags", "op": "eq", "value": 2**63}]}, "must be an integer"),
        ({"filters": [{"field": "flags", "op": "contains", "value": "1"}]}, "contains needs a text field"),
        ({"filters": [{"field": "timestamp", "op": "gt", "value": "soon"}]}, "write a time like"),
        ({"filters": [{"field": "event_id", "op": "gt", "value": "x"}]}, "event_id takes eq"),
        ({"filters": [{"field": "properties.a", "op": "eq", "value": float("inf")}]}, "must be text, a number"),
        ({"filters": [{"field": "event", "op": "eq", "value": "x" * 5_000}]}, "4096 characters"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        parse(BODY | change, 100_000)


@given(JSON)
def test_any_body_is_taken_or_refused(body: Any) -> None:
    with pytest.raises(QueryError):
        parse(body, 100_000)


@given(st.sampled_from(["event", "measure", "interval", "breakdown", "filters", "limit", "from", "to"]), JSON)
def test_any_value_is_taken_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(QueryError):
        parse(BODY | {key: value}, 100_000)


@given(
    st.sampled_from([*TEXT_COLUMNS, "properties.a.b", "context.x"]),
    st.sampled_from(OPERATORS[:6]),
    st.text(max_size=50),
)
def test_a_value_is_never_in_the_sql(field: str, op: str, value: str) -> None:
    marked = f"{value}⟦mark⟧"
    parameters = Parameters()
    found = parse_filter({"field": field, "op": op, "value": [marked] if op in ("in", "not_in") else marked}, "filter")
    assert "⟦mark⟧" not in found.sql(parameters)
    assert marked in parameters.values.values()


@given(
    st.lists(
        st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=16
    )
)
def test_a_path_is_never_in_the_sql(path: list[str]) -> None:
    parameters = Parameters()
    sql = parse_field("properties." + ".".join(path), "field").text(parameters)
    assert list(parameters.values.values()) == path
    assert (
        sql == f"JSONExtract(properties, {', '.join(f'{{p{i}:String}}' for i in range(len(path)))}, 'Nullable(String)')"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("2026-11-23T04:00:00Z", 1_795_406_400_000),
        ("2026-11-23T05:00:00.123456+01:00", 1_795_406_400_123),
        ("2026-11-23 04:00", 1_795_406_400_000),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert parse_time(text, "from") == expected
