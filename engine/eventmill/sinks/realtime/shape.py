"""How a table of the store is written down: on one server, or on a cluster of them, from the same definition.

On a cluster each shard has the rows of its devices in a replicated table ``NAME_local``, and ``NAME`` is the Distributed
table over all of them, so that whoever asks need not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from eventmill.core.errors import ConfigError

DATABASE: Final = "eventmill"
#: Blocks that a table remembers for its duplicate check. Every partition that an insert touches takes one.
WINDOW: Final = 10_000
#: Rows of a device are on one shard, and so are its sessions.
_SHARD: Final = "cityHash64(device_id)"
#: How long a replicated table remembers a block: longer than a sink may be down.
_WINDOW_S: Final = 7 * 86_400
_CLUSTER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Column:
    """A column. ``tail`` is what follows its type: default, codec."""

    name: str
    kind: str
    tail: str = ""

    @property
    def sql(self) -> str:
        """As CREATE TABLE takes it."""
        return f"{self.name} {self.kind} {self.tail}".rstrip()


@dataclass(frozen=True, slots=True)
class Table:
    """A table: ``engine`` is that of one server, without ``Replicated``; ``shard`` places what is inserted into it."""

    name: str
    columns: tuple[Column, ...]
    engine: str
    partition: str
    order: str
    indexes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    shard: str = "rand()"

    @property
    def full_name(self) -> str:
        """With its database."""
        return f"{DATABASE}.{self.name}"


@dataclass(frozen=True, slots=True)
class Shape:
    """One server, or the cluster of that name. ``window`` is that of the duplicate check; 0 turns it off."""

    window: int = WINDOW
    cluster: str = ""

    def __post_init__(self) -> None:
        if self.cluster and not _CLUSTER.fullmatch(self.cluster):
            raise ConfigError(f"{self.cluster!r} is no cluster's name: letters, digits, '_', '.' and '-'")

    @property
    def on(self) -> str:
        """What follows a name in each statement that changes a table."""
        return f" ON CLUSTER '{self.cluster}'" if self.cluster else ""

    def stored(self, name: str) -> str:
        """The table that holds the rows of ``name`` (with its database), on each server."""
        return f"{name}_local" if self.cluster else name

    def database(self) -> str:
        """Makes it where it is missing."""
        return f"CREATE DATABASE IF NOT EXISTS {DATABASE}{self.on}"

    def create(self, table: Table, name: str | None = None) -> list[str]:
        """Make the table where it is missing; ``name`` (with its database) is another than its own."""
        name = name or table.full_name
        columns = ", ".join([*(column.sql for column in table.columns), *table.indexes])
        made = (
            f"CREATE TABLE IF NOT EXISTS {self.stored(name)}{self.on} ({columns}) ENGINE = {self._engine(table)} "
            f"PARTITION BY {table.partition} ORDER BY ({table.order}) SETTINGS {', '.join(self._settings(table))}"
        )
        return [made, self.distributed(table, name)] if self.cluster else [made]

    def distributed(self, table: Table, name: str) -> str:
        """The table over all shards."""
        database, _, local = self.stored(name).partition(".")
        shard = _SHARD if any(column.name == "device_id" for column in table.columns) else table.shard
        return (
            f"CREATE TABLE IF NOT EXISTS {name}{self.on} AS {self.stored(name)} "
            f"ENGINE = Distributed('{self.cluster}', '{database}', '{local}', {shard})"
        )

    def altered(self, name: str) -> str:
        """The beginning of a statement that changes the rows of ``name`` (with its database), on each server: the Distributed
        table over them takes no ALTER of rows. One with a subquery has to say ``allow_nondeterministic_mutations = 1``: every
        replica runs it for itself."""
        return f"ALTER TABLE {self.stored(name)}{self.on}"

    def alter(self, name: str, change: str) -> list[str]:
        """The same change to the table, and on a cluster to the Distributed one over it."""
        names = [self.stored(name), name] if self.cluster else [name]
        return [f"ALTER TABLE {each}{self.on} {change}" for each in names]

    def _engine(self, table: Table) -> str:
        if not self.cluster:
            return table.engine
        family, _, arguments = table.engine.partition("(")
        arguments = arguments.removesuffix(")")
        path = f"'/clickhouse/tables/{{shard}}/{DATABASE}/{table.name}', '{{replica}}'"
        return f"Replicated{family}({path}{', ' if arguments else ''}{arguments})"

    def _settings(self, table: Table) -> list[str]:
        window = (
            [
                f"replicated_deduplication_window = {self.window}",
                f"replicated_deduplication_window_seconds = {_WINDOW_S}",
            ]
            if self.cluster
            else [f"non_replicated_deduplication_window = {self.window}"]
        )
        return [
            *window,
            # An insert is on disk when it returns.
            "fsync_after_insert = 1",
            "fsync_part_directory = 1",
            # Statistics of every column would be a tenth of each merge; nothing here asks by them.
            "auto_statistics_types = ''",
            *table.settings,
        ]
