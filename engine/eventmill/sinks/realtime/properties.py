"""Typed properties in the store: a column of ``events`` each, and the numbers among them in the roll-ups.

What is there is told by the columns' own comments, so a column and what is known of it are made in one step. The roll-ups of
a number are filled from the events that are stored before the comment names them: interrupted in between, they are filled
anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from eventmill.core.errors import StoreError
from eventmill.core.typed import NOTHING, PREFIX, Kind, Typed, TypedProperty
from eventmill.sinks.realtime import ddl
from eventmill.sinks.realtime.clients import Connections, literal
from eventmill.sinks.realtime.rollups import numbers
from eventmill.sinks.realtime.shape import DATABASE, Shape

#: Columns that a store has at most; each is a file in each large part.
COLUMNS_MAX: Final = 64
_COLUMNS: Final = (
    f"SELECT name, comment FROM system.columns WHERE database = '{DATABASE}' AND table = 'events' "
    f"AND startsWith(name, '{PREFIX}') AND comment != ''"
)


class Properties:
    """Those of one store. Not thread-safe: the store holds its lock for inserts round every call that changes something."""

    def __init__(self, clients: Connections, shape: Shape) -> None:
        self._clients = clients
        self._shape = shape
        self._wanted = NOTHING
        self.typed = self._read()

    def _read(self) -> Typed:
        rows = self._clients.query(_COLUMNS).to_pylist()
        return Typed.of(_described(row["comment"]) for row in rows)

    def want(self, wanted: Typed) -> None:
        """What ``make`` is to bring about."""
        self._wanted = wanted

    @property
    def changes(self) -> list[TypedProperty]:
        """What is wanted and not there yet, as it will be: a column keeps its kind, and the events that it had."""
        found, free = [], COLUMNS_MAX - len(self.typed.properties)
        for name, each in self._wanted.properties.items():
            there = self.typed.properties.get(name)
            if there is None:
                free -= 1
                if free >= 0:
                    found.append(each)
            elif there.kind is each.kind and set(each.events) - set(there.events):
                found.append(TypedProperty(name, each.kind, tuple(sorted({*there.events, *each.events}))))
        return found

    def make(self) -> None:
        """Bring it about. The views must be detached, and every insert must have come to its end."""
        changes = self.changes
        added = [each for each in changes if each.name not in self.typed.properties]
        if added:
            self._alter(_addition(each) for each in added)
        new = Typed.of(self._new(each) for each in changes if each.kind is Kind.NUMBER)
        self._fill(Typed.of(each for each in new.properties.values() if each.events))
        self._alter(f"COMMENT COLUMN `{each.column}` {_comment(each)}" for each in changes)
        self.typed = self._read()

    def _alter(self, parts: Iterable[str]) -> None:
        """One statement for all: each is a change of the table's metadata."""
        for statement in self._shape.alter(ddl.EVENTS, ", ".join(parts)):
            self._clients.command(statement)

    def _new(self, each: TypedProperty) -> TypedProperty:
        there = self.typed.properties.get(each.name)
        known = there.events if there is not None else ()
        return TypedProperty(each.name, each.kind, tuple(event for event in each.events if event not in known))

    def _fill(self, new: Typed) -> None:
        """The roll-ups of numbers with the events that are stored, after what an interrupted call has left of these."""
        if not new.properties:
            return
        pairs = ", ".join(
            f"({literal(each.name)}, unhex('{event.encode().hex()}'))"
            for each in new.properties.values()
            for event in each.events
        )
        for table in numbers(new):
            names = ", ".join(column.name for column in table.table.columns)
            left = f"(property::String, event::String) IN ({pairs})"
            there = self._clients.query(f"SELECT count() FROM {table.name} WHERE {left}").column(0)[0].as_py()
            if there:
                self._clients.command(
                    f"{self._shape.altered(table.name)} DELETE WHERE {left} SETTINGS mutations_sync = 2"
                )
            self._clients.command(
                f"INSERT INTO {table.name} ({names}) SELECT {names} FROM ({table.query(ddl.EVENTS)}) "
                "SETTINGS insert_deduplicate = 0, max_bytes_before_external_group_by = 1000000000"
            )


def _comment(each: TypedProperty) -> str:
    """What ``_described`` reads, in SQL."""
    told = orjson.dumps({"property": each.name, "kind": each.kind, "events": each.events}).decode()
    return literal(told)


def _addition(each: TypedProperty) -> str:
    """The column, as nobody's yet. Parts from before it have no such file: their rows get it from the JSON."""
    nobodys = _comment(TypedProperty(each.name, each.kind, ()))
    return (
        f"ADD COLUMN IF NOT EXISTS `{each.column}` {each.kind.stored} DEFAULT {each.extract} COMMENT {nobodys} "
        "CODEC(ZSTD(1))"
    )


def _described(comment: str) -> TypedProperty:
    try:
        told: dict[str, Any] = orjson.loads(comment)
        return TypedProperty(told["property"], Kind(told["kind"]), tuple(told["events"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"a typed column's comment does not read ({error}): {comment[:200]}") from error
