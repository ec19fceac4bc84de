"""Guarding SQL that somebody else wrote.

Three walls, each of which would do alone against most attacks. sqlglot parses the text: one SELECT over the tables below.
Then ClickHouse's own parser writes down what it understood, and that text, not the given one, is what goes on; its syntax
tree (``EXPLAIN AST``) may hold known kinds of nodes, known functions, these tables and no table functions. Then it runs on
a connection with ``readonly = 1`` and limits that it cannot change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlglot
from sqlglot import exp

# The class, not its name: sqlglot loads a named dialect at its first use, and other threads then see it half made.
from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import SqlglotError

from eventmill.core.errors import QueryError

DATABASE: Final = "eventmill"
TABLES: Final = (
    "events", "events_1m", "events_1h", "events_1d", "sessions", "numbers_1m", "numbers_1h", "numbers_1d",
)  # fmt: skip
LAKE: Final = ("lake", "events")
#: Each event once, from the store that answers for its time.
BOTH: Final = "all_events"
QUERY_CHARS_MAX: Final = 50_000

#: Categories of ``system.functions`` that only compute from their arguments.
_CATEGORIES: Final = frozenset(
    [
        "Aggregate Functions", "Arithmetic", "Arrays", "Bit", "Bitmap", "Comparison", "Conditional", "Dates and Times",
        "Distance", "Encoding", "Financial", "Geo", "Geo Polygon", "Hash", "IP Address", "JSON", "Logical", "Map",
        "Mathematical", "Null", "NumericIndexedVector", "Random Number", "Rounding", "String", "String Replacement",
        "String Search", "String Splitting", "Time Series", "Time Window", "Tuple", "Type Conversion", "URL", "UUID",
    ]
)  # fmt: skip
_OTHERS: Final = frozenset(
    [
        "bar", "caseWithExpression", "countDigits", "exists", "finalizeAggregation", "formatReadableDecimalSize",
        "formatReadableQuantity", "formatReadableSize", "formatReadableTimeDelta", "identity", "ignore",
        "initializeAggregation", "lambda", "materialize", "neighbor", "rowNumberInAllBlocks", "runningAccumulate",
        "runningDifference", "toTypeName", "transform", "grouping", "_CAST",
    ]
)  # fmt: skip
_COMBINATORS: Final = (
    "SimpleState", "MergeState", "State", "Merge", "If", "Array", "Map", "ForEach", "Distinct", "OrDefault", "OrNull",
    "Resample", "ArgMin", "ArgMax",
)  # fmt: skip
_NODES: Final = frozenset(
    [
        "ArrayJoin", "Asterisk", "ColumnsExceptTransformer", "ColumnsListMatcher", "ColumnsRegexpMatcher",
        "ColumnsReplaceTransformer", "ColumnsReplaceTransformer::Replacement", "ColumnsTransformerList",
        "ExpressionList", "Function", "Identifier", "Literal", "OrderByElement", "QualifiedAsterisk", "QueryParameter",
        "SampleRatio", "SelectIntersectExceptQuery", "SelectQuery",
        "SelectWithUnionQuery", "Subquery", "TableExpression", "TableIdentifier", "TableJoin", "TablesInSelectQuery",
        "TablesInSelectQueryElement", "WindowDefinition", "WindowListElement", "WithElement",
    ]
)  # fmt: skip
_MEMBERSHIP: Final = re.compile(r"(global)?(not)?(null)?in(ignoreset)?", re.IGNORECASE)
_ALLOWED: Final = f"tables are {', '.join(TABLES)} (real time), {'.'.join(LAKE)}, and {BOTH} (both)"
#: Gives the rows for ``Functions``.
FUNCTIONS: Final = (
    "SELECT name, alias_to, is_aggregate, categories, case_insensitive FROM system.functions WHERE origin = 'System'"
)
#: Gives ``query`` as ClickHouse's parser writes it: one statement, no comments.
CANONICAL: Final = "SELECT formatQuerySingleLine({query:String})"


@dataclass(frozen=True, slots=True)
class Guarded:
    """What the first wall found out. ``tables`` are those that it reads, ``parameters`` the names of those it takes.

    ``aggregated``: it gives less than the rows that it reads; ``limited``: it may stop reading before the end.
    """

    tables: frozenset[str]
    parameters: frozenset[str]
    aggregated: bool
    limited: bool

    @property
    def reads_lake(self) -> bool:
        """Whether it asks the lake."""
        return self.names_lake or self.reads_both

    @property
    def names_lake(self) -> bool:
        """Whether it asks it by its name."""
        return ".".join(LAKE) in self.tables

    @property
    def reads_both(self) -> bool:
        """Whether it asks the view over both stores."""
        return BOTH in self.tables

    @property
    def stores(self) -> list[str]:
        """The stores that are asked."""
        realtime = ["realtime"] if any(table in (*TABLES, BOTH) for table in self.tables) else []
        return [*realtime, *(["lake"] if self.reads_lake else [])]


def parse(query: Any) -> Guarded:
    """The first wall. Raises ``QueryError`` telling what is not allowed."""
    if not isinstance(query, str) or not query.strip():
        raise QueryError("query must be the text of a SELECT")
    if len(query) > QUERY_CHARS_MAX:
        raise QueryError(f"query has {len(query)} characters; {QUERY_CHARS_MAX} are the most")
    if "\x00" in query:
        raise QueryError("query holds a NUL character")
    try:
        statements = [each for each in sqlglot.parse(query, dialect=ClickHouse) if each is not None]
    except SqlglotError as error:
        raise QueryError(f"query does not parse: {_first_line(error)}") from error
    except RecursionError:
        raise QueryError("query is nested too deep") from None
    if len(statements) != 1:
        raise QueryError(f"query must be one statement, not {len(statements)}")
    tree = statements[0]
    if not isinstance(tree, (exp.Select, exp.SetOperation, exp.Subquery)):
        raise QueryError("query must be a SELECT")
    try:
        return _check(tree)
    except RecursionError:
        raise QueryError("query is nested too deep") from None


def _first_line(error: Exception) -> str:
    return re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()[0][:300]


def _check(tree: exp.Expression) -> Guarded:
    named = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables, parameters = set(), set()
    for node in tree.walk():
        if isinstance(node, (exp.Command, exp.DDL, exp.DML, exp.Into, exp.Set)) and not isinstance(node, exp.Query):
            raise QueryError("query must be a SELECT and nothing else")
        for clause in ("settings", "format", "into"):
            if node.args.get(clause):
                raise QueryError(f"query must not have {clause.upper()}: settings and output are fixed")
        if isinstance(node, exp.Placeholder):
            if "identifier" in str(node.args.get("kind", "")).lower():
                raise QueryError("a parameter must be a value, not an Identifier")
            parameters.add(node.name)
        if isinstance(node, exp.Table):
            tables.add(_table(node, named))
    tables.discard("")
    selects = list(tree.find_all(exp.Select))
    aggregated = any(each.args.get("group") or each.args.get("distinct") or _aggregates(each) for each in selects)
    limited = bool(tree.unnest().args.get("limit")) and not any(each.args.get("order") for each in selects)
    return Guarded(frozenset(tables), frozenset(parameters), aggregated, limited)


def _table(node: exp.Table, named: set[str]) -> str:
    if not isinstance(node.this, exp.Identifier):
        raise QueryError(f"table functions are not allowed; {_ALLOWED}")
    if node.catalog:
        raise QueryError(f"there is no table {node.catalog}.{node.db}.{node.name}; {_ALLOWED}")
    name = str(node.name)
    if not node.db and name in named:
        return ""
    if node.db in ("", DATABASE) and name in (*TABLES, BOTH):
        return name
    if (node.db, node.name) == LAKE:
        return ".".join(LAKE)
    raise QueryError(f"there is no table {f'{node.db}.' if node.db else ''}{node.name}; {_ALLOWED}")


def _aggregates(select: exp.Select) -> bool:
    """Whether it looks like an aggregation without GROUP BY: a call of an aggregate function among its columns."""
    nodes = (node for column in select.expressions for node in column.walk())
    return any(isinstance(node, exp.AggFunc) for node in nodes) and not select.find(exp.Window)


class Functions:
    """The functions that a query may call, by what ClickHouse itself says about each."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._exact: set[str] = set(_OTHERS)
        self._any_case: set[str] = set()
        self._aggregates: set[str] = set()
        known = {row["name"]: row for row in rows}
        for name, row in known.items():
            meant = known.get(row["alias_to"], row)
            if row["is_aggregate"] or meant["is_aggregate"]:
                self._aggregates.add(name)
            elif meant["categories"] not in _CATEGORIES and meant["name"] not in _OTHERS:
                continue
            self._exact.add(name)
            if row["case_insensitive"]:
                self._any_case.add(name.lower())

    def allows(self, name: str) -> bool:
        """Whether a query may call it."""
        if name in self._exact or name.lower() in self._any_case or _MEMBERSHIP.fullmatch(name):
            return True
        return self._aggregate(name)

    def _aggregate(self, name: str) -> bool:
        if name in self._aggregates or name.lower() in self._any_case:
            return True
        ends = [suffix for suffix in _COMBINATORS if name.endswith(suffix) and name != suffix]
        return any(self._aggregate(name.removesuffix(suffix)) for suffix in ends)


_LINE: Final = re.compile(r"( *)(\S+) ?(.*)")
_ANNOTATIONS: Final = re.compile(r"(?: ?\((?:alias [^()]*|children \d+)\))+$")
_TABLE_NAMES: Final = frozenset([*TABLES, BOTH, *(f"{DATABASE}.{table}" for table in (*TABLES, BOTH)), ".".join(LAKE)])


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    name: str
    parent: int
    place: int


def check_syntax_tree(lines: Iterable[str], functions: Functions) -> None:
    """The second wall: the lines of ``EXPLAIN AST``. Raises ``QueryError``.

    A name with a line break in it can only add lines here, so it can only make a query be refused.
    """
    nodes = _nodes(lines)
    if not nodes or nodes[0].kind != "SelectWithUnionQuery" or sum(node.parent < 0 for node in nodes) != 1:
        raise QueryError("query must be a SELECT and nothing else")
    if any(node.parent == 0 and node.kind != "ExpressionList" for node in nodes):
        raise QueryError("query must not say where its output goes")
    for node in nodes:
        parent = nodes[node.parent]
        if node.kind not in _NODES:
            raise QueryError(f"query must not use {node.kind[:100]}")
        if node.kind == "Function" and parent.kind == "TableExpression":
            raise QueryError(f"table functions are not allowed; {_ALLOWED}")
        if node.kind == "Function" and not functions.allows(node.name):
            raise QueryError(f"the function {node.name[:100]} is not allowed")
        # On the right of IN a name may be a table's.
        grandparent = nodes[parent.parent]
        member = node.place == 1 and grandparent.kind == "Function" and _MEMBERSHIP.fullmatch(grandparent.name)
        is_table = node.kind == "TableIdentifier" or (node.kind == "Identifier" and member)
        if is_table and "." in node.name and node.name not in _TABLE_NAMES:
            raise QueryError(f"there is no table {node.name[:100]}; {_ALLOWED}")


def _nodes(lines: Iterable[str]) -> list[_Node]:
    nodes: list[_Node] = []
    path: list[int] = []
    children: list[int] = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise QueryError("query could not be checked: give its columns plain names")
        depth = min(len(match[1]), len(path))
        del path[depth:]
        parent = path[-1] if path else -1
        place = 0
        if parent >= 0:
            place = children[parent]
            children[parent] += 1
        path.append(len(nodes))
        nodes.append(_Node(match[2], _ANNOTATIONS.sub("", match[3]), parent, place))
        children.append(0)
    return nodes
