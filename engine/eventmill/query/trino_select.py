"""SQL that somebody wrote for ClickHouse over ``lake.events``, in Trino's, by sqlglot.

Only what means the same in both is translated, or can be written so that it does: the nodes of the syntax tree that are listed
here. Everything else is refused by its name, so no answer differs in silence from ClickHouse's. What is left: ``min``, ``max``
and ``avg`` of no rows are null in Trino, and what is true or false is so, not 1 or 0.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.dialects.trino import Trino
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify

from eventmill.core.errors import QueryError
from eventmill.core.schema import EVENT
from eventmill.query import trino_sql
from eventmill.query.fields import JSON_COLUMNS, TIME_COLUMNS, parse_time
from eventmill.query.sql import LAKE

#: A number as ClickHouse takes it out of JSON, where it may be a text, too.
_SPELT: Final = "^-?[0-9]+(\\.[0-9]*)?([eE][-+]?[0-9]+)?$"
#: The lake's columns, for names and for ``*``.
COLUMNS: Final = ("event_date", "event_group", *EVENT.names)
#: What is written alike, or what sqlglot writes otherwise with the same meaning.
_SAME: Final = (
    exp.Select, exp.From, exp.Where, exp.Having, exp.Group, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Distinct,
    exp.Subquery, exp.Union, exp.With, exp.CTE, exp.TableAlias, exp.Alias, exp.Identifier, exp.Column, exp.Literal, exp.Boolean,
    exp.Null, exp.Paren, exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between,
    exp.Is, exp.Like, exp.Case, exp.If, exp.Coalesce, exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.Min, exp.Max, exp.Avg,
    exp.CountIf, exp.Star, exp.Table,
)  # fmt: skip
_CLAUSES: Final = {
    exp.Select: {
        "expressions",
        "from_",
        "from",
        "where",
        "group",
        "having",
        "order",
        "limit",
        "offset",
        "distinct",
        "with_",
        "with",
    },
    exp.Group: {"expressions"},
    exp.Ordered: {"this", "desc", "nulls_first"},
    exp.Limit: {"expression"},
    exp.Distinct: {"expressions"},
    # Nulls in a subquery are no members in ClickHouse, and unknown ones in Trino.
    exp.In: {"this", "expressions"},
}
_TRUNCATED: Final = ("MINUTE", "HOUR", "DAY")
_CAN: Final = (
    "count, countIf, sum, sumIf, avg, min, max, uniqExact, if, coalesce, toDate, toStartOfMinute, toStartOfHour, toStartOfDay, "
    "JSONExtractFloat"
)


def translated(query: str, parameters: Mapping[str, Any], source: str) -> str:
    """A SELECT over ``lake.events`` that the guard has let pass, over ``source``. Raises ``QueryError``."""
    tree = sqlglot.parse_one(query, dialect=ClickHouse)
    tree = tree.transform(lambda node: _given(node, parameters))
    try:
        tree = qualify(tree, dialect=ClickHouse, schema={LAKE[0]: {LAKE[1]: dict.fromkeys(COLUMNS, "String")}})
    except SqlglotError as error:
        raise QueryError(f"query does not read: {str(error).splitlines()[0][:300]}") from error
    mark = f"lake_{uuid.uuid4().hex}"
    made = tree.transform(lambda node: _node(node, mark))
    return str(made.sql(dialect=Trino, identify=True)).replace(f'"{mark}"', source)


def _refuse(what: str) -> QueryError:
    return QueryError(f"{what} is not translated for Trino; leave engine out to ask ClickHouse. There are {_CAN}")


def _given(node: exp.Expression, parameters: Mapping[str, Any]) -> exp.Expression:
    if not isinstance(node, exp.Placeholder):
        return node
    value = parameters[node.name]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _refuse(f"the parameter {node.name[:100]}")
    return exp.Literal.string(value) if isinstance(value, str) else exp.Literal.number(repr(value))


def _node(node: exp.Expression, mark: str) -> exp.Expression:
    """What a node becomes. Its children come after it."""
    special = _SPECIAL.get(type(node))
    if special is not None:
        return special(node)
    if isinstance(node, exp.Table):
        return _table(node, mark)
    # What has been made here of others needs no look.
    if node.meta.get("made"):
        return node
    if not isinstance(node, _SAME):
        raise _refuse(_name(node))
    known = _CLAUSES.get(type(node))
    if known is not None:
        more = [clause for clause, value in node.args.items() if value and clause not in known]
        if more:
            raise _refuse(more[0].upper().replace("_", " ").strip())
    if isinstance(node, exp.Literal) and not node.is_string and not node.name.isdigit():
        return _made(f"DOUBLE '{float(node.name)!r}'")
    if isinstance(node, exp.In) and any(isinstance(each, exp.Null) for each in node.expressions):
        raise _refuse("NULL in IN")
    if isinstance(node, exp.Like) and "\\" in node.expression.name:
        raise _refuse("a backslash in LIKE")
    if isinstance(node, (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In)):
        _moments(node)
    return node


def _table(node: exp.Table, mark: str) -> exp.Expression:
    if (node.db, node.name) == LAKE:
        node.set("db", None)
        node.set("this", exp.to_identifier(mark, quoted=True))
    return node


def _moments(node: exp.Expression) -> None:
    """Texts that are compared with a time are times in ClickHouse."""
    of = node.this
    if not isinstance(of, exp.Column) or of.name not in (*TIME_COLUMNS, "event_date"):
        return
    for literal in [each for each in node.iter_expressions() if isinstance(each, exp.Literal) and each.is_string]:
        at = parse_time(literal.name, "a time in query")
        literal.replace(_made(trino_sql.date(at) if of.name == "event_date" else trino_sql.moment(at)))


def _made(sql: str) -> exp.Expression:
    """A piece of Trino's SQL that needs no look."""
    found = sqlglot.parse_one(sql, dialect=Trino)
    for node in found.walk():
        node.meta["made"] = True
    return found


def _count(node: exp.Count) -> exp.Expression:
    if node.this is None and not node.expressions:
        node.set("this", exp.Star())
    if node.expressions:
        raise _refuse("count of several columns")
    return node


def _sum(node: exp.Sum) -> exp.Expression:
    """Of no rows it is 0 in ClickHouse; of nothing but nulls it would be null."""
    if node.find(exp.Null):
        raise _refuse("a sum of nulls")
    return _over("coalesce(sum({0}), 0)", [node.this])


def _over(sql: str, arguments: list[Any]) -> exp.Expression:
    """SQL of Trino's over translated arguments."""
    inner = [_translate(each).sql(dialect=Trino, identify=True) for each in arguments]
    return _made(sql.format(*inner))


def _translate(node: exp.Expression) -> exp.Expression:
    return node.copy().transform(lambda each: _node(each, ""))


def _combined(node: exp.Expression) -> exp.Expression:
    arguments = list(node.expressions)
    if node.name == "uniqExact" and len(arguments) == 1:
        return _over("count(DISTINCT {0})", arguments)
    if node.name == "sumIf" and len(arguments) == 2:
        return _over("coalesce(sum(CASE WHEN {1} THEN {0} END), 0)", arguments)
    raise _refuse(_name(node))


def _division(node: exp.Div) -> exp.Expression:
    return _over("(CAST({0} AS double) / CAST({1} AS double))", [node.this, node.expression])


def _truncated(node: exp.TimestampTrunc) -> exp.Expression:
    if node.unit.name not in _TRUNCATED or not _is_time(node.this):
        raise _refuse(f"a time cut to a {node.unit.name.lower()}")
    return _over(f"date_trunc('{node.unit.name.lower()}', {{0}})", [node.this])


def _is_time(node: Any) -> bool:
    return isinstance(node, exp.Column) and node.name in TIME_COLUMNS


def _function(node: exp.Anonymous) -> exp.Expression:
    arguments = list(node.expressions)
    if node.name == "toDate" and len(arguments) == 1 and _is_time(arguments[0]):
        return _over("CAST({0} AS date)", arguments)
    if node.name == "JSONExtractFloat" and len(arguments) > 1:
        return _number(arguments[0], arguments[1:])
    raise _refuse(_name(node))


def _number(column: Any, keys: list[Any]) -> exp.Expression:
    """A JSON number, or a text that spells one; else 0."""
    path = trino_sql.json_path([each.name for each in keys])
    named = all(isinstance(each, exp.Literal) and each.is_string for each in keys)
    if not isinstance(column, exp.Column) or column.name not in JSON_COLUMNS or path is None or not named:
        raise _refuse("JSONExtractFloat of this")
    scalar = "json_extract_scalar({0}, {1})"
    number = f"CASE WHEN regexp_like({scalar}, '{_SPELT}') THEN CAST({scalar} AS double) ELSE 0e0 END"
    return _over(number, [column, exp.Literal.string(path)])


def _name(node: exp.Expression) -> str:
    if isinstance(node, (exp.Anonymous, exp.AnonymousAggFunc)):
        return str(node.name)[:100]
    return type(node).__name__.lower()


_SPECIAL: Final[dict[type, Callable[[Any], exp.Expression]]] = {
    exp.Count: _count,
    exp.Sum: _sum,
    exp.Div: _division,
    exp.TimestampTrunc: _truncated,
    exp.Anonymous: _function,
    exp.AnonymousAggFunc: _combined,
    exp.CombinedAggFunc: _combined,
}
