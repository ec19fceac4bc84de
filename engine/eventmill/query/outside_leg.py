"""One SELECT of a plan over the lake's events: as a statement of Trino's, and over the rows it gives. See ``outside``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import pyarrow as pa

from eventmill.query import trino_sql
from eventmill.query.fields import JSON_COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS, TIME_COLUMNS
from eventmill.query.legs import DAY_MS
from eventmill.query.retention import Retention
from eventmill.query.scan import Plan, Question
from eventmill.query.sql_text import around, call, split
from eventmill.query.trends import Trends

#: The lake's place in a plan.
MARK: Final = "eventmill_lake"
#: The columns of a row that say how many events it stands for, and to which leg it belongs.
MANY: Final = "many"
LEG: Final = "leg"
_FROM: Final = f" FROM {MARK} WHERE "
_UNION: Final = " UNION ALL "
_TAILS: Final = (" GROUP BY ", " ORDER BY ", " LIMIT ")
_COLUMNS: Final = (*TEXT_COLUMNS, *NUMBER_COLUMNS, *TIME_COLUMNS, *JSON_COLUMNS, "event_id", "event_date", "project")
_NAMED: Final = re.compile(rf"\b({'|'.join(_COLUMNS)})\b")
_NEVER_NULL: Final = ("event", "type", "device_id", "session_id", *JSON_COLUMNS)
_EXTRACTED: Final = re.compile(r"JSONExtract\((properties|context)((?:, \{\w+:String\})+), '[^']*'\)")
_KEY: Final = re.compile(r"\{(\w+):String\}")
_LOWER: Final = re.compile(r"timestamp >= fromUnixTimestamp64Milli\(\{(\w+):Int64\}, 'UTC'\)")
#: A condition on the very time of an event, unlike one on what is made of it.
_TIMED: Final = re.compile(r"\btimestamp (?:[=!<>]|IN |NOT IN )")
_EPOCH: Final = "TIMESTAMP '1970-01-01 00:00:00 UTC'"
#: The aggregate functions for which one number stands for several: of it, so many times, they give what they give of those.
_REPRESENTED: Final = {"sum": "avg", "avgState": "avg", "min": "min", "max": "max"}
_SAME_OF_EQUALS: Final = ("min", "max", "uniqCombined64State")
_STATES: Final = ("avgState", "quantileDDState", "quantilesDDState")

#: A JSON column and the keys that lead to a value in it.
Path = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Leg:
    """It stands from ``start`` to ``end`` in the plan's SQL. ``statement`` gives rows of ``columns``; ``shown`` makes the
    lake's columns of those, with ``parameters``. ``head``, ``conditions`` and ``tail`` are what is left to ClickHouse;
    ``counted``: a row stands for ``MANY`` events."""

    start: int
    end: int
    statement: str
    columns: dict[str, pa.DataType]
    shown: tuple[str, ...]
    parameters: dict[str, str]
    head: str
    conditions: tuple[str, ...]
    tail: str
    counted: bool

    def sql(self, source: str, number: int, most: int) -> str:
        """The leg over the rows in ``source``, of which its own bear its ``number``; none stands for more than ``most``."""
        where = f" WHERE {' AND '.join(self.conditions)}" if self.conditions else ""
        head = _weighted(self.head, most) if self.counted else self.head
        return f"SELECT {head} FROM (SELECT {', '.join(self.shown)} FROM {source} WHERE {LEG} = {number}){where}{self.tail}"


def legs_of(plan: Plan, question: Question, table: str, project: str | None) -> tuple[Leg, ...]:
    """All legs of a plan, in their order. ``table`` is the lake in Trino's SQL; of one project, if it is not null."""
    found: list[Leg] = []
    at = plan.sql.find(_FROM)
    while at >= 0:
        start, end = around(plan.sql, at, _UNION)
        found.append(_Making(plan, question, start, end, len(found)).leg(table, project))
        at = plan.sql.find(_FROM, end)
    return tuple(found)


@dataclass(slots=True)
class _Making:
    plan: Plan
    question: Question
    start: int
    end: int
    number: int
    head: str = ""
    tail: str = ""
    conditions: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    lower: int = 0
    #: Column of the rows to the SQL that gives it, and its type; the lake's columns made of those.
    taken: dict[str, tuple[str, pa.DataType]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)

    def leg(self, table: str, project: str | None) -> Leg:
        self._read()
        looks_at = " ".join([self.head, *self.conditions, self.tail])
        paths = self._paths(looks_at)
        for name in dict.fromkeys(_NAMED.findall(_EXTRACTED.sub(" ", looks_at))):
            self._take(name)
        tokens = self._take_json({path for path in paths if path[0] not in self.taken})
        counted = _weighted(self.head, 1) != ""
        alike = counted or isinstance(self.question, Retention)
        where = [*self.bounds, *([] if project is None else [f'"project" = {trino_sql.text(project)}'])]
        source = f"{table} WHERE {' AND '.join(where)}" if where else table
        number = self._represented(paths, tokens) if counted else None
        statement = self._rows(source) if number is None else self._represent(*number, source)
        if number is None and alike:
            places = ", ".join(map(str, range(1, len(self.taken) + 1)))
            statement = self._rows(source, f", count(*) AS {MANY}" if counted else "") + f" GROUP BY {places}"
        columns = {name: kind for name, (_, kind) in self.taken.items()}
        if counted:
            columns[MANY] = pa.int64()
            self.shown.append(f"toUInt64(assumeNotNull({MANY})) AS {MANY}")
        return Leg(
            self.start, self.end, statement, columns, tuple(self.shown), self.parameters, self.head,
            tuple(self.conditions), self.tail, counted,
        )  # fmt: skip

    def _read(self) -> None:
        """Take the SELECT apart. What Trino has seen to need not be looked at again."""
        head, rest = self.plan.sql[self.start : self.end].split(_FROM)
        self.head = head.removeprefix("SELECT ")
        where = min((split(rest, tail)[0] for tail in _TAILS), key=len)
        self.tail = rest[len(where) :]
        for condition in _conjuncts(where):
            lower = _LOWER.fullmatch(condition)
            self.lower = int(self.plan.parameters[lower[1]]) if lower else self.lower
            bound = trino_sql.bound(condition, self.plan.parameters)
            if not bound.exact:
                self.conditions.append(condition)
            if bound.sql != "true":
                self.bounds.append(bound.sql)

    def _rows(self, source: str, more: str = "") -> str:
        taken = ", ".join(f"{sql} AS {trino_sql.quoted(name)}" for name, (sql, _) in self.taken.items())
        return f"SELECT {taken}{more} FROM {source}"

    def _take(self, name: str) -> None:
        """A column of the lake."""
        of, kind, shown = trino_sql.quoted(name), pa.string(), name
        if name in TIME_COLUMNS:
            of, kind = f"date_diff('millisecond', {_EPOCH}, {of})", pa.int64()
            of = self._bucket(of) if name == "timestamp" else of
            never = name in ("timestamp", "received_at")
            shown = f"fromUnixTimestamp64Milli({f'assumeNotNull({name})' if never else name}, 'UTC')"
        elif name == "event_date":
            of, kind = f"date_diff('day', DATE '1970-01-01', {of})", pa.int64()
            shown = f"toDate32(assumeNotNull({name}))"
        elif name == "event_id":
            of, shown = f"to_hex({of})", f"toFixedString(unhex(assumeNotNull({name})), 16)"
        elif name == "flags":
            kind, shown = pa.int64(), f"toInt32(assumeNotNull({name}))"
        elif name in _NEVER_NULL:
            kind, shown = pa.int64() if name == "session_id" else kind, f"assumeNotNull({name})"
        self.taken[name] = (of, kind)
        self.shown.append(f"{shown} AS {name}" if shown != name else name)

    def _bucket(self, at: str) -> str:
        """The time as far as it counts."""
        question = self.question
        if _TIMED.search(" ".join([self.head, *self.conditions])):
            return at
        if isinstance(question, Trends):
            later = question.length_ms if question.compare and self.lower < question.asked.start else 0
            length = question.bucket_ms
        elif isinstance(question, Retention):
            later, length = 0, DAY_MS
        else:
            return at
        return f"greatest(BIGINT '{self.lower}', ({at} + {later}) / {length} * {length} - {later})"

    def _paths(self, looks_at: str) -> list[Path]:
        """Of each value that is taken out of JSON."""
        found = _EXTRACTED.findall(looks_at)
        return [(column, tuple(str(self.plan.parameters[key]) for key in _KEY.findall(keys))) for column, keys in found]

    def _take_json(self, paths: set[Path]) -> dict[str, Path]:
        """The values at ``paths``, from which JSON of as much is made again; the whole where Trino knows no such path."""
        tokens: dict[str, Path] = {}
        for column in sorted({column for column, _ in paths}):
            mine = sorted(keys for of, keys in paths if of == column)
            # What lies within a value comes with it.
            outer = [keys for keys in mine if not any(keys[:depth] in mine for depth in range(1, len(keys)))]
            if any(trino_sql.json_path(keys) is None for keys in outer):
                self._take(column)
                continue
            tree: dict[str, Any] = {}
            for keys in outer:
                name = f"j{len(tokens)}"
                tokens[name] = (column, keys)
                self.taken[name] = (trino_sql.token(column, trino_sql.json_path(keys) or ""), pa.string())
                inner = tree
                for key in keys[:-1]:
                    inner = inner.setdefault(key, {})
                inner[keys[-1]] = name
            self.shown.append(f"concat({', '.join(self._pieces(tree))}) AS {column}")
        return tokens

    def _pieces(self, tree: dict[str, Any]) -> list[str]:
        """SQL for the texts that make an object together."""
        pieces, mark = [], "{"
        for key, value in tree.items():
            opening = f"{mark}{orjson.dumps(key).decode()}:"
            inner = [f"ifNull({value}, 'null')"] if isinstance(value, str) else self._pieces(value)
            pieces += [self._bind(opening), *inner]
            mark = ","
        return [*pieces, self._bind("}")]

    def _bind(self, value: str) -> str:
        name = f"leg{self.number}_{len(self.parameters)}"
        self.parameters[name] = value
        return f"{{{name}:String}}"

    def _represented(self, paths: list[Path], tokens: dict[str, Path]) -> tuple[str, str] | None:
        """The token of the numbers that are added up or compared, and nothing else, and the function that one is made by."""
        question = self.question
        if not isinstance(question, Trends) or question.measure.of is None:
            return None
        of, name = question.measure.of, _part(self.head)[0]
        mine = [token for token, path in tokens.items() if path == (of.column, of.path)]
        alone = sum(path[0] == of.column and path[1][: len(of.path)] == of.path for path in paths) == 1
        return (mine[0], _REPRESENTED[name]) if mine and alone and name in _REPRESENTED else None

    def _represent(self, token: str, function: str, source: str) -> str:
        """Rows in which the numbers at ``token`` are one of each bucket; what is no number there stands as it is."""
        others = [name for name in self.taken if name != token]
        kept = "".join(f'"{name}", ' for name in others)
        is_number = trino_sql.is_number(token)
        made = (
            f"SELECT {kept}CASE WHEN {token} IS NULL THEN 'null' WHEN {is_number} THEN NULL ELSE {token} END AS other, "
            f"CASE WHEN {is_number} THEN CAST({token} AS double) END AS number FROM ({self._rows(source)})"
        )
        self.taken = {name: self.taken[name] for name in [*others, token]}
        return (
            f"SELECT {kept}coalesce(other, CAST({function}(number) AS varchar)) AS {token}, count(*) AS {MANY} "
            f"FROM ({made}) GROUP BY {kept}other"
        )


def _conjuncts(where: str) -> list[str]:
    """What is joined by AND."""
    found: list[str] = []
    for part in split(where, " AND "):
        if found and len(split(found[-1], " BETWEEN ")) == 2 and " AND " not in found[-1].rpartition(" BETWEEN ")[2]:
            found[-1] += f" AND {part}"
        else:
            found.append(part)
    return found


def _part(head: str) -> tuple[str, str, str]:
    """The call, with which a trend's leg makes its partial result; empty where it is none."""
    *_, part, matched = ["", *split(head, ", ")]
    found = call(part.removesuffix(" AS part")) if part.endswith(" AS part") else None
    return found or ("", "", "") if matched == "count() AS matched" else ("", "", "")


def _weighted(head: str, most: int) -> str:
    """Columns of a trend's leg over rows of which each stands for ``MANY`` events; empty where that cannot be said."""
    name, given, of = _part(head)
    weighed = ""
    if name == "count":
        weighed = f"sum({MANY})"
    elif name == "sum":
        weighed = f"sum({of} * {MANY})"
    elif name in _SAME_OF_EQUALS:
        weighed = f"{name}{given}({of})"
    elif name in _STATES:
        # A state can be multiplied by a constant only: so there is one of the rows with each bit of their number.
        states = [
            f"{name}{given}(if(bitTest({MANY}, {bit}), {of}, NULL)) * {1 << bit}" for bit in range(most.bit_length())
        ]
        weighed = f"arrayReduce('{name.removesuffix('State')}MergeState{given}', [{', '.join(states)}])"
    if not weighed:
        return ""
    *keys, _, _ = split(head, ", ")
    return ", ".join([*keys, f"{weighed} AS part", f"sum({MANY}) AS matched"])
