"""Columnar schema checks beside the jsonschema library: the same verdict on every document."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.errors import SchemaError
from eventmill.process.schemas.columnar import Checker
from eventmill.process.schemas.compile import DRAFT_7, DRAFT_2020

NAMES = ["a", "b", "price", "ü", 'q"', "x/y~z"]
TWINS = {DRAFT_2020: jsonschema.Draft202012Validator, DRAFT_7: jsonschema.Draft7Validator}
numbers = st.one_of(
    st.integers(-12, 12), st.sampled_from([0.5, -0.5, 1.0, 2.5, 1e3, 2**53, 2**53 + 2, 10**20, 1e-7, 0.1, -0.0])
)
words = st.sampled_from(["", "a", "ab", "abc", "ABC", "ü", "日本", "a\nb", 'q"', "\\", "12", "2026-11-23", "😀"])
scalars = st.one_of(st.none(), st.booleans(), numbers, words)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
bounds = st.integers(0, 3)
kinds = st.sampled_from(["null", "boolean", "object", "array", "string", "number", "integer"])


def keywords(inner):
    """A schema whose keywords are any of those compiled, and some that are not."""
    return st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
            "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
            "additionalProperties": inner,
            "items": inner,
            "enum": st.lists(scalars | st.just([]), min_size=1, max_size=4, unique_by=json.dumps),
            "const": scalars,
            "minimum": numbers,
            "maximum": numbers,
            "exclusiveMinimum": numbers,
            "exclusiveMaximum": numbers,
            "multipleOf": st.integers(1, 4),
            "minLength": bounds,
            "maxLength": bounds,
            "minItems": bounds,
            "maxItems": bounds,
            "pattern": st.sampled_from(["^a", "b$", "^[A-Z]{3}$", "c+", "^[0-9]+$"]),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "uniqueItems": st.booleans(),
            "minProperties": bounds,
            "$ref": st.just("#/$defs/shared"),
            "title": words,
        },
    )


schemas = st.recursive(
    st.booleans() | keywords(st.booleans()), lambda inner: st.booleans() | keywords(inner), max_leaves=6
).filter(lambda schema: isinstance(schema, dict))
spelled = st.sampled_from(
    [
        lambda value: orjson.dumps(value).decode() if not _big(value) else json.dumps(value),
        lambda value: json.dumps(value),
        lambda value: json.dumps(value, indent=1, ensure_ascii=False),
    ]
)


def _big(value):
    return "100000000000000000000" in json.dumps(value)


def twin(schema):
    return TWINS[schema["$schema"]](schema)


def verdicts(schema, texts):
    failures = Checker(schema).failures(pa.array(texts, pa.string()))
    return [row not in failures for row in range(len(texts))]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([DRAFT_2020, DRAFT_7]), schemas, keywords(st.booleans()).filter(lambda s: "$ref" not in s),
       st.lists(documents, min_size=1, max_size=8), spelled)  # fmt: skip
def test_any_schema_gives_the_verdicts_of_the_library_on_any_document(draft, schema, shared, values, spell):
    schema = {"$schema": draft, **schema, "$defs": {"shared": shared}}
    texts = [spell(value) for value in values]
    expected = [twin(schema).is_valid(orjson.loads(text)) for text in texts]
    assert verdicts(schema, texts) == expected


TYPICAL = {
    "$schema": DRAFT_2020,
    "type": "object",
    "required": ["price", "currency"],
    "additionalProperties": False,
    "properties": {
        "price": {"type": "number", "minimum": 0, "exclusiveMaximum": 1000},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "count": {"type": "integer", "minimum": 1, "multipleOf": 2},
        "kind": {"enum": ["a", "b", 3, None, True]},
        "lines": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {
        "line": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string", "minLength": 2}}}
    },
}
mutated = st.fixed_dictionaries(
    {"price": numbers, "currency": st.sampled_from(["EUR", "eur", "USD", "E\u00dcR"])},
    optional={
        "count": numbers,
        "kind": scalars,
        "lines": st.lists(st.dictionaries(st.sampled_from(["sku", "n"]), words, max_size=2), max_size=3),
        "other": scalars,
    },
)


@settings(max_examples=400, deadline=None)
@given(st.lists(mutated, min_size=1, max_size=12), st.data())
def test_events_that_are_nearly_right_are_judged_as_by_the_library_also_row_by_row(values, data):
    texts = [json.dumps(value) for value in values]
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1))
    failures = Checker(TYPICAL).failures(pa.array(texts), np.array(rows, np.int32))
    assert [at not in failures for at in range(len(rows))] == [
        twin(TYPICAL).is_valid(orjson.loads(texts[row])) for row in rows
    ]


def test_what_is_usual_passes_without_the_library():
    """Negative control too: were the kernel to pass nothing, the verdicts above would be equal all the same."""
    checker = Checker(TYPICAL)
    texts = ['{"price": 9.99, "currency": "EUR", "kind": "a", "count": 2, "lines": [{"sku": "ab"}]}'] * 50
    assert checker.failures(pa.array(texts)) == {}
    assert checker.judged == 0
    assert checker.failures(pa.array(['{"price": 9.99, "currency": "eur"}'])) != {}
    assert checker.judged == 1


@pytest.mark.parametrize(("format_", "good", "odd", "bad"), [
    ("date-time", ["2026-11-23T10:00:00Z", "2026-01-28T23:59:59.123456+05:30"], ["2024-02-29T00:00:00Z"],
     ["2026-02-30T00:00:00Z", "2026-11-23", "2026-11-23T25:00:00Z", "2026-11-23 10:00:00Z", ""]),
    ("uuid", ["0186a3c5-6b2e-7def-8abc-0123456789ab", "0186A3C5-6B2E-7DEF-8ABC-0123456789AB"], [],
     ["0186a3c56b2e7def8abc0123456789ab", "x", "0186a3c5-6b2e-7def-8abc-0123456789ag"]),
    ("email", ["ada@example.org", "a.b+c@mail.example.com"], ['"a b"@example.org'], ["ada", "@x.org", "a@", "a b@example.org"]),
    ("uri", ["https://example.org/a/b?x=1&y=2", "http://a.b"], ["urn:isbn:0451450523", "https://u@h:8080/#f"],
     ["/a/b", "not a uri", "http://[", "https://a b"]),
])  # fmt: skip
@pytest.mark.parametrize("draft", [DRAFT_2020, DRAFT_7])
def test_formats_are_checked_in_both_drafts(draft, format_, good, odd, bad):
    checker = Checker({"$schema": draft, "type": "object", "properties": {"v": {"format": format_}}})
    texts = [orjson.dumps({"v": value}).decode() for value in [*good, *odd, *bad]]
    failures = checker.failures(pa.array(texts))
    assert sorted(failures) == list(range(len(good) + len(odd), len(texts)))
    assert str(failures[len(texts) - 1]) == "/v: format"
    assert checker.judged == len(odd) + len(bad)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(["date-time", "uuid", "email", "uri"]), st.text("0129-:.TtZ+@/htpsa? =&#é", max_size=40) | st.from_regex(
    r"\A(20[0-9]{2}-[0-3][0-9]-[0-3][0-9]T[0-3][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]+)?(Z|\+[0-2][0-9]:[0-6][0-9])"
    r"|https?://[a-z0-9.-]{1,12}(/[a-z?=&]*)?|[a-z.+-]{1,6}@[a-z0-9.-]{1,12}"
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z"))  # fmt: skip
def test_the_kernels_formats_take_nothing_that_the_library_does_not(format_, text):
    checker = Checker({"format": format_})
    columnar = checker.failures(pa.array([orjson.dumps(text).decode()])) == {}
    assert columnar == (checker.failure(orjson.dumps(text)) is None)


def test_a_failure_names_path_and_rule():
    schema = {"properties": {"a": {"type": "array", "items": {"properties": {"x/y": {"maximum": 3}}}}}}
    failures = Checker(schema).failures(pa.array(['{"a": [{}, {"x/y": 4}]}', "{}"]))
    assert {row: str(failure) for row, failure in failures.items()} == {0: "/a/1/x~1y: maximum"}


def test_a_member_twice_counts_by_its_last_value():
    checker = Checker({"properties": {"a": {"type": "integer"}}})
    assert list(checker.failures(pa.array(['{"a": 1, "a": "x"}', '{"a": "x", "a": 1}']))) == [0]


def test_references_to_other_documents_are_followed():
    money = {
        "type": "object",
        "required": ["amount"],
        "properties": {"amount": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"type": "number"}},
    }
    checker = Checker({"properties": {"price": {"$ref": "money.json"}}}, {"money.json": money})
    assert list(
        checker.failures(pa.array(['{"price": {"amount": 1}}', '{"price": {"amount": "1"}}', '{"price": {}}']))
    ) == [1, 2]


def test_a_schema_that_refers_to_itself():
    tree = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}}}
    checker = Checker(tree)
    assert list(checker.failures(pa.array(['{"v": 1, "next": {"v": 2}}', '{"v": 1, "next": {"v": "x"}}']))) == [1]


@pytest.mark.parametrize(("schema", "message"), [
    ({"type": "text"}, "no valid JSON Schema"),
    ({"$schema": "http://json-schema.org/draft-04/schema#"}, "dialect"),
    ({"$ref": "http://127.0.0.1:1/x.json"}, "no valid JSON Schema"),
    ({"pattern": "("}, "no valid JSON Schema"),
])  # fmt: skip
def test_what_is_no_schema_is_an_error(schema, message):
    with pytest.raises(SchemaError, match=message):
        Checker(schema)
