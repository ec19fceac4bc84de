"""The store's schema as numbered migrations, recorded in a table of their own.

Each may be interrupted anywhere and run again: it makes what is missing, and what it fills it fills beside and puts in its
place in one step. The first one is what there was before there were numbers, so older folders need no case of their own.
A released migration is never changed; the next one mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import pyarrow as pa

from eventmill.core.errors import StoreError
from eventmill.sinks.realtime import ddl
from eventmill.sinks.realtime.rollups import RollUp
from eventmill.sinks.realtime.shape import DATABASE, Column, Shape, Table

APPLIED: Final = Table(
    "migrations",
    (
        Column("version", "UInt32"),
        Column("name", "String"),
        Column("applied_at", "DateTime64(3, 'UTC')", "DEFAULT now64(3)"),
    ),
    "MergeTree",
    "tuple()",
    "version",
)


class Database(Protocol):
    """What migrations need of a store's connections. Every method may raise ``StoreError``."""

    def command(self, statement: str) -> None:
        """Run a statement that answers nothing."""
        ...

    def query(self, statement: str) -> pa.Table:
        """Run a SELECT."""
        ...


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: what it is, and the statements for a shape."""

    version: int
    name: str
    statements: Callable[[Shape], list[str]]


def _tables(*tables: Table) -> Callable[[Shape], list[str]]:
    return lambda shape: [statement for table in tables for statement in shape.create(table)]


def _filled(*roll_ups: RollUp) -> Callable[[Shape], list[str]]:
    """Make roll-ups out of what feeds them, where they are missing. No view fills them yet, and nobody inserts. A cluster has
    had all of them from its first event on."""

    def statements(shape: Shape) -> list[str]:
        if shape.cluster:
            return _tables(*(each.table for each in roll_ups))(shape)
        found = []
        for each in roll_ups:
            new = f"{each.name}_new"
            found += [
                f"DROP TABLE IF EXISTS {new} SYNC",
                *shape.create(each.table, new),
                f"INSERT INTO {new} {each.merged(each.feeder)}",
                # Empty where the migration runs again, so that the exchange has something to give away.
                *shape.create(each.table),
                f"EXCHANGE TABLES {each.name} AND {new}",
                f"DROP TABLE {new} SYNC",
            ]
        return found

    return statements


def _recoded(shape: Shape) -> list[str]:
    kinds = {column.name: column.kind for column in ddl.EVENTS_TABLE.columns}
    changes = ", ".join(f"MODIFY COLUMN {name} {kinds[name]} {codec}" for name, codec in ddl.CODECS.items())
    return [f"{shape.altered(ddl.EVENTS)} {changes}"]


def _indexed(shape: Shape) -> list[str]:
    """New parts get the indexes when they are merged; older ones meanwhile, which nobody waits for."""
    alter = shape.altered(ddl.EVENTS)
    added = ", ".join(f"ADD INDEX IF NOT EXISTS {name} {what}" for name, what in ddl.INDEXES.items())
    return [f"{alter} {added}", f"{alter} {', '.join(f'MATERIALIZE INDEX {name}' for name in ddl.INDEXES)}"]


MIGRATIONS: Final = (
    Migration(1, "events, minutes, sessions", _tables(ddl.EVENTS_TABLE, ddl.MINUTES.table, ddl.SESSIONS.table)),
    Migration(2, "hours and days", _filled(ddl.HOURS, ddl.DAYS)),
    Migration(3, "numbers of declared properties", _tables(*(each.table for each in ddl.NUMBERS))),
    Migration(4, "codecs by measure", _recoded),
    Migration(5, "indexes for look-ups", _indexed),
)
NEWEST: Final = MIGRATIONS[-1].version


def applied(database: Database) -> list[int]:
    """The versions that are recorded; none where there is no such table."""
    there = database.query(f"SELECT name FROM system.tables WHERE database = '{DATABASE}' AND name = '{APPLIED.name}'")
    if not there.num_rows:
        return []
    rows = database.query(f"SELECT DISTINCT version FROM {APPLIED.full_name} ORDER BY version")
    return [int(version) for version in rows.column(0).to_pylist()] if rows.num_rows else []


def pending(database: Database) -> list[Migration]:
    """What is still to be applied. Raises ``StoreError`` when a newer Eventmill has been here."""
    known = applied(database)
    if known and known[-1] > NEWEST:
        raise StoreError(
            f"the tables are of version {known[-1]}, this Eventmill knows {NEWEST}: a newer one has been here; use that"
        )
    return [each for each in MIGRATIONS if each.version not in known]


def apply(database: Database, shape: Shape) -> Iterator[Migration]:
    """Apply what is pending, one by one; each is given back when it is recorded. Nobody may insert meanwhile, and the views
    must be attached anew afterwards."""
    found = pending(database)
    if found:
        for statement in (shape.database(), *shape.create(APPLIED)):
            database.command(statement)
    for each in found:
        for statement in each.statements(shape):
            database.command(statement)
        database.command(f"INSERT INTO {APPLIED.full_name} (version, name) VALUES ({each.version}, '{each.name}')")
        yield each


def differences(database: Database) -> list[str]:
    """Where the tables are not what the applied migrations make: one line each."""
    known = applied(database)
    if not known or known != [each.version for each in MIGRATIONS]:
        return []
    rows = database.query(f"SELECT table, name, type FROM system.columns WHERE database = '{DATABASE}'")
    there: dict[tuple[str, str], str] = {(row["table"], row["name"]): row["type"] for row in _rows(rows)}
    found = []
    for table in _all_tables():
        for column in table.columns:
            kind = there.get((table.name, column.name))
            if kind is None:
                found.append(f"{table.full_name} lacks the column {column.name} {column.kind}")
            elif kind != column.kind:
                found.append(f"{table.full_name}.{column.name} is {kind} instead of {column.kind}")
    return found + _missing_indexes(database)


def _missing_indexes(database: Database) -> list[str]:
    # On a cluster it is the table of each server that has them.
    rows = database.query(
        f"SELECT DISTINCT name FROM system.data_skipping_indices WHERE database = '{DATABASE}' "
        "AND table IN ('events', 'events_local')"
    )
    there = set(rows.column(0).to_pylist()) if rows.num_rows else set()
    return [f"{ddl.EVENTS} lacks the index {name} ({what})" for name, what in ddl.INDEXES.items() if name not in there]


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _all_tables() -> list[Table]:
    return [ddl.EVENTS_TABLE, *(each.table for each in (*ddl.FIXED, *ddl.NUMBERS))]
