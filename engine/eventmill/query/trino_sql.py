"""Conditions of our own ClickHouse SQL in Trino's, by sqlglot.

What becomes of a condition is another that holds wherever it does: the same where the two engines mean the same (columns and
values), a weaker one where they need not (numbers and texts in JSON that are spelt otherwise than JSON spells them). The rows
that Trino lets pass for the latter go through the condition itself once more, in ClickHouse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import SqlglotError

from eventmill.query.fields import JSON_COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS, TIME_COLUMNS

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Columns whose values mean the same in both, compared by the same operators: text by its bytes.
_PLAIN: Final = frozenset([*TEXT_COLUMNS, *NUMBER_COLUMNS, *TIME_COLUMNS, "project", "event_date", "event_group"])
#: The name of the file that a row stands in.
_FILE: Final = "element_at(split(\"$path\", '/'), -1)"
_COMPARED: Final = {exp.EQ: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="}
_NUMBER: Final = "'^[-0-9]'"


@dataclass(frozen=True, slots=True)
class Bound:
    """A condition of Trino's. ``exact``: it holds, fails and is null where the given one does; else it may hold for more."""

    sql: str
    exact: bool


#: What says nothing.
ANY: Final = Bound("true", False)


class Untranslatable(Exception):
    """There is no Trino SQL that means the same."""


def text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def moment(at_ms: int) -> str:
    """A time (ms since the epoch) in SQL."""
    at = EPOCH + timedelta(milliseconds=at_ms)
    return f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}.{at_ms % 1_000:03} UTC'"


def date(at_ms: int) -> str:
    """The day of a time in SQL."""
    return f"DATE '{EPOCH + timedelta(milliseconds=at_ms):%Y-%m-%d}'"


def json_path(keys: Sequence[str]) -> str | None:
    """A path into JSON as Trino's functions take it; null for keys that they would take for something else."""
    if any(not key.isprintable() or '"' in key or "\\" in key or key.lstrip("-").isdigit() for key in keys):
        return None
    return "$" + "".join(f'["{key}"]' for key in keys)


def token(column: str, path: str) -> str:
    """SQL for the JSON text of what stands at a path; null where nothing does."""
    return f"json_format(json_extract({quoted(column)}, {text(path)}))"


def is_number(of: str) -> str:
    """Whether a JSON text (not null) is a number's."""
    return f"regexp_like({of}, {_NUMBER})"


def quoted(column: str) -> str:
    """A column's name in SQL."""
    return f'"{column}"'


def bound(condition: str, parameters: Mapping[str, Any]) -> Bound:
    """A condition of ClickHouse's with ``{name:Type}`` for values, in Trino's SQL with the values themselves."""
    try:
        tree = sqlglot.parse_one(condition, dialect=ClickHouse)
    except SqlglotError:
        return ANY
    return _Translation(parameters).of(tree, holds=True)


class _Translation:
    """Of a condition (``holds``), or of its contrary."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters

    def of(self, node: exp.Expression, *, holds: bool) -> Bound:
        try:
            return self._of(node, holds)
        except Untranslatable:
            return ANY

    def _of(self, node: exp.Expression, holds: bool) -> Bound:
        if isinstance(node, exp.Paren):
            return self.of(node.this, holds=holds)
        if isinstance(node, exp.Not):
            return self.of(node.this, holds=not holds)
        if isinstance(node, (exp.And, exp.Or)):
            both = [self.of(side, holds=holds) for side in (node.left, node.right)]
            word = "AND" if isinstance(node, exp.And) == holds else "OR"
            return Bound(f"({both[0].sql} {word} {both[1].sql})", both[0].exact and both[1].exact)
        if isinstance(node, exp.Coalesce) and holds and _is_zero(node.expressions):
            return self.of(node.this, holds=True)
        if isinstance(node, exp.Literal) and not node.is_string:
            return Bound("true" if bool(int(node.name)) == holds else "false", True)
        return self._leaf(node, holds)

    def _leaf(self, node: exp.Expression, holds: bool) -> Bound:
        left: Any = node.this
        left = left.this if isinstance(left, exp.StrPosition) else left
        json = self._json(left)
        if json is None:
            plain = self._plain(node, self._column(left))
            return Bound(plain if holds else f"(NOT {plain})", True)
        (of, scalar), kind = json
        if isinstance(node, exp.Is):
            return Bound(self._absent(of, kind, holds), False)
        known, value = (is_number(of), f"CAST({of} AS double)") if "Float64" in kind else (f"{of} LIKE '\"%'", scalar)
        compared = self._plain(node, value)
        # Nothing there compares with nothing; what is of another kind is ClickHouse's to read.
        told = f"WHEN {known} THEN {compared if holds else f'(NOT {compared})'}"
        return Bound(f"(CASE WHEN {of} IS NULL OR {of} = 'null' THEN false {told} ELSE true END)", False)

    @staticmethod
    def _absent(of: str, kind: str, holds: bool) -> str:
        """That a JSON value is null (or is not) as a text or a number; what is no JSON number may spell one."""
        nothing = f"({of} IS NULL OR {of} = 'null')"
        if not holds:
            return f"(NOT {nothing})"
        return nothing if "String" in kind else f"({nothing} OR NOT {is_number(of)})"

    def _plain(self, node: exp.Expression, left: str) -> str:
        """A comparison of ``left``, which is never of another kind than the values."""
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return f"({left} IS NULL)"
        if isinstance(node, exp.In) and node.expressions:
            return f"({left} IN ({', '.join(self._value(each) for each in node.expressions)}))"
        if isinstance(node, exp.Between):
            return f"({left} BETWEEN {self._value(node.args['low'])} AND {self._value(node.args['high'])})"
        operator = _COMPARED.get(type(node))
        if operator is None:
            raise Untranslatable
        if isinstance(node.this, exp.StrPosition):
            if operator != ">" or not _is_zero([node.expression]):
                raise Untranslatable
            return f"(strpos({left}, {self._value(node.this.args['substr'])}) > 0)"
        return f"({left} {operator} {self._value(node.expression)})"

    def _column(self, node: Any) -> str:
        if isinstance(node, exp.Column) and not node.table:
            if node.name in _PLAIN:
                return quoted(node.name)
            if node.name == "_file":
                return _FILE
        raise Untranslatable

    def _json(self, node: Any) -> tuple[tuple[str, str], str] | None:
        """The JSON text of what is extracted, the text that it spells if it is a string, and the type that is extracted."""
        if not isinstance(node, exp.Anonymous) or node.name != "JSONExtract":
            return None
        column, *keys, kind = node.expressions
        path = json_path([str(self._parameters[key.name]) for key in keys if isinstance(key, exp.Placeholder)])
        if column.name not in JSON_COLUMNS or path is None:
            raise Untranslatable
        scalar = f"json_extract_scalar({quoted(column.name)}, {text(path)})"
        return (token(column.name, path), scalar), kind.name

    def _value(self, node: Any) -> str:
        if isinstance(node, exp.Placeholder):
            value = self._parameters[node.name]
            if isinstance(value, str):
                return text(value)
            if isinstance(value, float):
                return f"DOUBLE '{value!r}'"
            if isinstance(value, int):
                return f"BIGINT '{value}'"
        if isinstance(node, exp.Literal) and node.is_string:
            return text(node.name)
        if isinstance(node, exp.Anonymous) and node.name in ("fromUnixTimestamp64Milli", "toDate32"):
            (given, *_) = node.expressions
            if node.name == "fromUnixTimestamp64Milli" and isinstance(given, exp.Placeholder):
                return moment(int(self._parameters[given.name]))
            if (
                node.name == "toDate32"
                and isinstance(given, exp.Anonymous)
                and given.name == "fromUnixTimestamp64Milli"
            ):
                return date(int(self._parameters[given.expressions[0].name]))
        raise Untranslatable


def _is_zero(nodes: Sequence[Any]) -> bool:
    return len(nodes) == 1 and isinstance(nodes[0], exp.Literal) and nodes[0].name == "0"
