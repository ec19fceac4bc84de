"""Which properties the schemas declare so that they can have columns of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eventmill.core.typed import Kind, Typed, TypedProperty, can_be_typed
from eventmill.process.schemas.sets import SchemaSet

#: Characters of a string that is still short: a column of such holds few values.
SHORT_MAX: Final = 64


def typed_of(schemas: SchemaSet) -> Typed:
    """Of the newest version of each event's schema the numbers, booleans and short strings among the properties themselves.

    One that two events declare as different kinds has none; nor has what is only referred to.
    """
    kinds: dict[str, set[Kind]] = {}
    events: dict[str, list[str]] = {}
    for event in schemas.by_event:
        newest = schemas.newest(event)
        document = None if newest is None else newest.document
        declared = document.get("properties") if isinstance(document, Mapping) else None
        for name, schema in declared.items() if isinstance(declared, Mapping) else ():
            kind = _kind(schema)
            if kind is not None and can_be_typed(name):
                kinds.setdefault(name, set()).add(kind)
                events.setdefault(name, []).append(event)
    return Typed.of(
        TypedProperty(name, next(iter(found)), tuple(sorted(events[name])))
        for name, found in kinds.items()
        if len(found) == 1
    )


def _kind(schema: Any) -> Kind | None:
    if not isinstance(schema, Mapping):
        return None
    given = schema.get("type")
    types = {given} if isinstance(given, str) else set(given) if isinstance(given, list) else set()
    types.discard("null")
    if types and types <= {"number", "integer"}:
        return Kind.NUMBER
    if types == {"boolean"}:
        return Kind.WORD
    return Kind.WORD if types == {"string"} and _short(schema) else None


def _short(schema: Mapping[str, Any]) -> bool:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        return all(value is None or (isinstance(value, str) and len(value) <= SHORT_MAX) for value in values)
    longest = schema.get("maxLength")
    return isinstance(longest, int) and longest <= SHORT_MAX
