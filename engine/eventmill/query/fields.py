"""The fields a query may name, and how each becomes SQL.

A field is a column of the list below or a path into the JSON of ``properties`` or ``context``. Names are looked up, never
copied into SQL; path segments and values are bound parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from eventmill.core.errors import QueryError
from eventmill.core.ids import parse_event_id
from eventmill.core.renames import AS_STORED, Renames
from eventmill.core.typed import NOTHING, Kind, Typed

TEXT_COLUMNS: Final = (
    "event", "type", "device_id", "user_id", "anonymous_id", "message_id", "app_version", "platform", "os_version",
    "device_model", "locale", "country", "segment", "tier",
)  # fmt: skip
NUMBER_COLUMNS: Final = ("session_id", "flags")
TIME_COLUMNS: Final = ("timestamp", "original_timestamp", "sent_at", "received_at")
JSON_COLUMNS: Final = ("properties", "context")
_NEVER_NULL: Final = frozenset(
    ["event", "type", "device_id", "session_id", "flags", "timestamp", "received_at", "event_id"]
)

TEXT_CHARS_MAX: Final = 4_096
LIST_MAX: Final = 1_000
DEPTH_MAX: Final = 16

_COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OPERATORS: Final = ("eq", "ne", "in", "not_in", *_COMPARISONS, "contains", "is_set", "is_not_set")


class Parameters:
    """The bound values of one statement. ``typed`` are the properties that have columns where it reads now, ``renames`` the
    events that are called otherwise than they are stored."""

    def __init__(self, renames: Renames = AS_STORED) -> None:
        self.values: dict[str, Any] = {}
        self.typed: Typed = NOTHING
        self.renames = renames
        self._event = ""

    def bind(self, value: Any, kind: str) -> str:
        """The placeholder of ``value`` as ClickHouse type ``kind``."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"{{{name}:{kind}}}"

    def time(self, at_ms: int) -> str:
        """SQL for a moment in ms since the epoch."""
        return f"fromUnixTimestamp64Milli({self.bind(at_ms, 'Int64')}, 'UTC')"

    def event(self) -> str:
        """SQL for what an event is called now, a String."""
        if not self._event:
            self._event = "CAST(event, 'String')"
            if known := self.renames.resolved():
                old, now = (self.bind(list(names), "Array(String)") for names in (known, known.values()))
                self._event = f"transform({self._event}, {old}, {now})"
        return self._event

    def named(self, names: Iterable[str]) -> str:
        """The condition that an event is called one of ``names``."""
        listed = [self.bind(name, "String") for name in sorted(self.renames.stored(names))]
        return f"event = {listed[0]}" if len(listed) == 1 else f"event IN ({', '.join(listed)})"


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or a path into a JSON column."""

    name: str
    column: str
    path: tuple[str, ...] = ()

    @property
    def nullable(self) -> bool:
        """Whether an event may lack it."""
        return self.column not in _NEVER_NULL or bool(self.path)

    def text(self, parameters: Parameters) -> str:
        """SQL for its value as Nullable(String). JSON numbers, booleans, objects and arrays are their JSON text."""
        if column := self._typed(Kind.WORD, parameters):
            return f"CAST({column}, 'Nullable(String)')"
        if self.path:
            return self._extract("Nullable(String)", parameters)
        if self.column == "event" and parameters.renames:
            return f"toNullable({parameters.event()})"
        if self.column in TEXT_COLUMNS:
            return f"CAST({self.column}, 'Nullable(String)')"
        return f"toNullable(toString({self.column}))"

    def number(self, parameters: Parameters) -> str:
        """SQL for its value as Nullable(Float64): a JSON number, a string that spells one, or 1 and 0 for true and false."""
        if column := self._typed(Kind.NUMBER, parameters):
            return column
        if self.path:
            return self._extract("Nullable(Float64)", parameters)
        return f"toNullable(toFloat64({self.column}))"

    def _typed(self, kind: Kind, parameters: Parameters) -> str | None:
        """The column that holds the same as the JSON does, if there is one."""
        if self.column != "properties" or len(self.path) != 1:
            return None
        column = parameters.typed.column(self.path[0], kind)
        return f"`{column}`" if column else None

    def _extract(self, kind: str, parameters: Parameters) -> str:
        keys = ", ".join(parameters.bind(key, "String") for key in self.path)
        return f"JSONExtract({self.column}, {keys}, '{kind}')"


def parse_field(name: Any, where: str) -> Field:
    """The field called ``name``. Raises ``QueryError`` naming ``where`` and what is allowed."""
    if not isinstance(name, str) or len(name) > TEXT_CHARS_MAX:
        raise QueryError(f"{where} must be a field's name; {_allowed()}")
    if name in TEXT_COLUMNS or name in NUMBER_COLUMNS or name in TIME_COLUMNS or name == "event_id":
        return Field(name, name)
    column, *path = name.split(".")
    if column in JSON_COLUMNS and path and all(path):
        if len(path) > DEPTH_MAX:
            raise QueryError(f"{where} goes {len(path)} levels deep; {DEPTH_MAX} are the most")
        return Field(name, column, tuple(path))
    raise QueryError(f"{where}: there is no field {name[:100]!r}; {_allowed()}")


def _allowed() -> str:
    columns = ", ".join((*TEXT_COLUMNS, *NUMBER_COLUMNS, *TIME_COLUMNS, "event_id"))
    return f"a field is one of {columns}, or a path like properties.price or context.device.type"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition. ``ne`` and ``not_in`` hold for events that lack the field."""

    field: Field
    op: str
    value: Any = None

    @property
    def fields(self) -> tuple[Field, ...]:
        """What it looks at."""
        return (self.field,)

    def sql(self, parameters: Parameters) -> str:
        """The condition."""
        of = self.field
        if self.op == "is_set":
            return f"({self._set(parameters)})" if of.nullable else "1"
        if self.op == "is_not_set":
            return f"(NOT {self._set(parameters)})" if of.nullable else "0"
        many = self.op in ("in", "not_in")
        if of.name == "event" and self.op in ("eq", "ne", "in", "not_in"):
            condition = parameters.named(self.value if many else [self.value])
            return f"(NOT ({condition}))" if self.op in ("ne", "not_in") else f"({condition})"
        left, cast = self._left(parameters)
        right = f"({', '.join(cast(value) for value in self.value)})" if many else cast(self.value)
        if self.op == "contains":
            return f"(position({left}, {right}) > 0)"
        if self.op in ("ne", "not_in"):
            condition = f"{left} {'!=' if self.op == 'ne' else 'NOT IN'} {right}"
            return f"({left} IS NULL OR {condition})" if of.nullable else f"({condition})"
        return f"({left} {'=' if self.op == 'eq' else 'IN' if self.op == 'in' else _COMPARISONS[self.op]} {right})"

    def _set(self, parameters: Parameters) -> str:
        return f"({self.field.text(parameters) if self.field.path else self.field.column} IS NOT NULL)"

    def _left(self, parameters: Parameters) -> tuple[str, Any]:
        of = self.field
        if of.name == "event_id":
            return "event_id", lambda value: f"toFixedString(unhex({parameters.bind(value.hex(), 'String')}), 16)"
        if of.column in TIME_COLUMNS:
            return of.column, parameters.time
        sample = self.value[0] if isinstance(self.value, tuple) else self.value
        if of.column in NUMBER_COLUMNS:
            return of.column, lambda value: parameters.bind(value, "Int64")
        if of.name == "event" and parameters.renames:
            return parameters.event(), lambda value: parameters.bind(value, "String")
        if isinstance(sample, float):
            return of.number(parameters), lambda value: parameters.bind(value, "Float64")
        return (of.text(parameters) if of.path else of.column), lambda value: parameters.bind(value, "String")


def parse_filter(given: Any, where: str) -> Filter:
    """``{"field", "op", "value"}``. Raises ``QueryError`` naming ``where``."""
    if not isinstance(given, dict):
        raise QueryError(f'{where} must be an object {{"field", "op", "value"}}')
    unknown = sorted(set(given) - {"field", "op", "value"})
    if unknown:
        raise QueryError(f"{where} has no key {unknown[0]!r}; its keys are field, op, value")
    of, op = parse_field(given.get("field"), f"{where}.field"), given.get("op")
    if op not in OPERATORS:
        raise QueryError(f"{where}.op is {str(op)[:100]!r}; it is one of {', '.join(OPERATORS)}")
    if op in ("is_set", "is_not_set"):
        if given.get("value") is not None:
            raise QueryError(f"{where}: {op} takes no value")
        return Filter(of, op)
    if op == "contains" and (not _is_text(of)):
        raise QueryError(f"{where}: contains needs a text field, not {of.name}")
    if of.name == "event_id" and op not in ("eq", "ne", "in", "not_in"):
        raise QueryError(f"{where}: event_id takes eq, ne, in and not_in, not {op}")
    value, at = given.get("value"), f"{where}.value"
    if op not in ("in", "not_in"):
        return Filter(of, op, _value(of, value, at, contains=op == "contains"))
    if not isinstance(value, list) or not 1 <= len(value) <= LIST_MAX:
        raise QueryError(f"{at} must be a list of 1 to {LIST_MAX} values for {op}")
    values = tuple(_value(of, each, at) for each in value)
    if len({type(each) for each in values}) > 1:
        raise QueryError(f"{at} must hold values of one kind")
    return Filter(of, op, values)


def _is_text(of: Field) -> bool:
    return bool(of.path) or of.column in TEXT_COLUMNS


def _value(of: Field, value: Any, where: str, *, contains: bool = False) -> Any:
    """A value as the field compares it: text, float (JSON paths only), int (number columns), ms, or 16 bytes."""
    if of.column in TIME_COLUMNS:
        return parse_time(value, where)
    if of.column in NUMBER_COLUMNS:
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise QueryError(f"{where} must be an integer for {of.name}")
        return value
    if of.path and not contains:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX:
        kinds = "text, a number, true or false" if of.path and not contains else "text"
        raise QueryError(f"{where} must be {kinds} for {of.name} (at most {TEXT_CHARS_MAX} characters)")
    return parse_event_id(value) if of.name == "event_id" else value


def parse_time(value: Any, where: str) -> int:
    """ISO 8601 (without an offset: UTC) as ms since the epoch. Raises ``QueryError`` naming ``where``."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise QueryError(f"{where} is {str(value)[:100]!r}; write a time like 2026-11-23T04:00:00Z") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if not 1970 <= moment.year < 2200:
        raise QueryError(f"{where} must lie between the years 1970 and 2199")
    return (int(moment.timestamp()) * 1_000) + moment.microsecond // 1_000
