"""Which declared properties get columns."""

from __future__ import annotations

from typing import Any

import pytest

from eventmill.core.typed import Kind
from eventmill.process.schemas.sets import NO_SCHEMAS, Schema, SchemaSet
from eventmill.serve.typed import typed_of


def schemas(**by_event: dict[str, Any]) -> SchemaSet:
    return SchemaSet.of(
        Schema(event, "1", event, {"type": "object", "properties": properties})
        for event, properties in by_event.items()
    )


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "number"}, Kind.NUMBER),
        ({"type": "integer", "minimum": 0}, Kind.NUMBER),
        ({"type": ["number", "null"]}, Kind.NUMBER),
        ({"type": ["integer", "number"]}, Kind.NUMBER),
        ({"type": "boolean"}, Kind.WORD),
        ({"type": "string", "maxLength": 64}, Kind.WORD),
        ({"type": "string", "enum": ["EUR", "USD"]}, Kind.WORD),
        ({"type": ["string", "null"], "enum": ["EUR", None]}, Kind.WORD),
        ({"type": "string", "const": "x"}, Kind.WORD),
        ({"type": "string"}, None),
        ({"type": "string", "maxLength": 65}, None),
        ({"type": "string", "enum": ["x" * 65]}, None),
        ({"type": ["string", "number"]}, None),
        ({"type": "object"}, None),
        ({"type": "null"}, None),
        ({"$ref": "#/$defs/money"}, None),
        ({}, None),
        (True, None),
    ],
)
def test_kinds(schema: Any, kind: Kind | None) -> None:
    found = typed_of(schemas(purchase={"it": schema})).properties
    assert [each.kind for each in found.values()] == ([] if kind is None else [kind])


def test_events_that_agree_and_events_that_do_not() -> None:
    number, word = {"type": "number"}, {"type": "boolean"}
    found = typed_of(schemas(b={"price": number, "vip": word}, a={"price": number, "vip": number}, c={"vip": word}))
    assert {name: each.events for name, each in found.properties.items()} == {"price": ("a", "b")}


def test_the_newest_version_counts() -> None:
    versions = [
        Schema("e", number, number, {"properties": {name: {"type": "number"}}})
        for number, name in (("9", "old"), ("10", "new"))
    ]
    assert list(typed_of(SchemaSet.of(versions)).properties) == ["new"]


def test_documents_that_declare_nothing() -> None:
    assert not typed_of(NO_SCHEMAS).properties
    odd = [Schema(str(i), "1", "x", document) for i, document in enumerate([True, {}, {"properties": 5}])]
    assert not typed_of(SchemaSet.of(odd)).properties
