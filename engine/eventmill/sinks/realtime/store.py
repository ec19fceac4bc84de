"""The real-time store's one writer and its readers.

How an insert is exactly once. ClickHouse commits a part (the rows of one partition of one table) atomically, but not the
parts of one insert together, and its duplicate check remembers a block in a file beside the part, so a kill between
the two leaves a block that is remembered and missing, or there and forgotten. Therefore an insert whose fate is unknown
(the first after a start, one after an error) does not ask the duplicate check. It asks the tables: offsets only ever
grow, so a partition that holds an offset of the insert has it already, and one that does not lacks it. What is missing is
inserted table by table with the views detached. All later inserts are one statement each, with the token.

On a cluster the tables are replicated, where ClickHouse writes a part and remembers its block in one step (a transaction of
its Keeper); there the token alone is enough, and an insert whose fate is unknown is the same insert again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from eventmill.core.errors import StoreError
from eventmill.core.schema import Flag
from eventmill.core.typed import Typed
from eventmill.sinks.realtime import ddl, migrations
from eventmill.sinks.realtime.clients import Clients, Connections
from eventmill.sinks.realtime.encode import checked, columns, offsets_of, pieces, select
from eventmill.sinks.realtime.properties import Properties
from eventmill.sinks.realtime.rollups import RollUp
from eventmill.sinks.realtime.shape import DATABASE, WINDOW, Shape
from eventmill.sinks.realtime.twins import Twins

logger = logging.getLogger(__name__)

_WHOLE: Final = 1_000_000_000
_VIEWS: Final = f"SELECT name FROM system.tables WHERE database = '{DATABASE}' AND engine = 'MaterializedView'"
_EMPTY: Final = f"SELECT count() = 0 FROM (SELECT 1 FROM {ddl.EVENTS} LIMIT 1)"
#: One insert is one block, so that each partition gets one part of it.
_INSERT_SETTINGS: Final = (
    "async_insert = 0, max_insert_threads = 1, max_threads = 2, max_partitions_per_insert_block = 0, "
    f"min_insert_block_size_rows = {_WHOLE}, min_insert_block_size_bytes = 0, "
    f"min_insert_block_size_rows_for_materialized_views = {_WHOLE}, "
    "min_insert_block_size_bytes_for_materialized_views = 0, "
    # A roll-up's rows come out of GROUP BY: nothing is left to merge in them.
    f"optimize_on_insert = 0, parallel_view_processing = 1, {ddl.INDEXES_BY_MERGES}, "
    "deduplicate_blocks_in_dependent_materialized_views = 1, deduplicate_insert_select = 'enable_even_for_bad_queries'"
)
_COUNTS: Final = f"""
    SELECT hour, sum(rows), sum(ids) FROM (
        SELECT toInt64(toUnixTimestamp(toStartOfHour(received_at))) AS hour, count() AS rows, 0 AS ids
        FROM {ddl.EVENTS} GROUP BY hour
        UNION ALL
        SELECT hour, 0 AS rows, count() AS ids FROM (
            SELECT toInt64(toUnixTimestamp(toStartOfHour(min(received_at)))) AS hour FROM {ddl.EVENTS} GROUP BY event_id
        ) GROUP BY hour
    ) GROUP BY hour ORDER BY hour"""
#: Every row with the event id ``{id:String}`` (hexadecimal).
FIND: Final = f"""
    SELECT _part, log_offset, toUnixTimestamp64Milli(inserted_at), event, toUnixTimestamp64Milli(timestamp),
           toUnixTimestamp64Milli(received_at), session_id, flags
    FROM {ddl.EVENTS} WHERE event_id = unhex({{id:String}}) ORDER BY log_offset"""


class HourRows(NamedTuple):
    """One hour of ``received_at`` (``hour``: its start, ms since the epoch). An id counts in the hour of its first row."""

    hour: int
    rows: int
    distinct: int


class RealtimeStore:
    """The store in a folder of its own, made and brought up to date when it is opened; or on a server (``connections``), where
    ``eventmill schema apply`` does that. Safe to share between threads; one process writes.

    Raises ``StoreError`` when it cannot be opened. ``shape`` says how its tables are written down.
    """

    def __init__(
        self, path: Path, *, window: int = WINDOW, connections: Connections | None = None, shape: Shape | None = None
    ) -> None:
        self.path = path
        self.shape = shape or Shape(window)
        self._embedded = connections is None
        self._clients = connections or _in_folder(path)
        self._twins = Twins(self._clients, ddl.EVENTS)
        self._insert_lock = threading.Lock()
        self._known_lock = threading.Lock()
        #: The last offset stored; null while the fate of the last insert is unknown.
        self._stored_through: int | None = None
        #: The last offset known to be stored, also while more are being inserted.
        self._known_through: int | None = None
        try:
            self._open()
            self._properties = Properties(self._clients, self.shape)
        except StoreError as error:
            self._clients.close()
            where = f"in {path}" if self._embedded else "on the server"
            raise StoreError(f"cannot open the real-time store {where}: {error}", error.code) from error

    def _open(self) -> None:
        if self._embedded:
            for done in migrations.apply(self._clients, self.shape):
                logger.info("real-time store: version %d, %s", done.version, done.name)
        elif waiting := migrations.pending(self._clients):
            names = ", ".join(f"{each.version} ({each.name})" for each in waiting)
            raise StoreError(f"its tables lack {names}; run `eventmill schema apply`")
        if self.shape.cluster:
            self._attach(Properties(self._clients, self.shape).typed)
        elif not self._clients.query(_VIEWS).num_rows and self._clients.query(_EMPTY).column(0)[0].as_py():
            self._attach(Properties(self._clients, self.shape).typed)
            self._stored_through = -1

    @property
    def typed(self) -> Typed:
        """The properties that have columns of their own."""
        return self._properties.typed

    @property
    def roll_ups(self) -> tuple[RollUp, ...]:
        """All that is filled from ``events``."""
        return ddl.roll_ups(self.typed)

    def declare(self, wanted: Typed) -> None:
        """Give each of these properties a column, and the numbers among them a place in the roll-ups, from the oldest event
        on. Columns that are there stay. While the fate of an insert is unknown it waits for the next one; where it
        fails (no right to, say) that is logged, and tried again after the next insert."""
        with self._insert_lock:
            self._properties.want(wanted)
            if self._stored_through is None:
                return
            try:
                self._declare()
            except StoreError as error:
                logger.warning("declared properties get no columns of their own: %s", error)

    def _declare(self) -> None:
        """Do what ``declare`` has left to do; every insert has come to its end. An error in between leaves the views in doubt,
        and so the next insert's fate as well."""
        if not self._properties.changes:
            return
        known, self._stored_through = self._stored_through, None
        self._run(ddl.detach_views(self.shape))
        try:
            self._properties.make()
        finally:
            self._attach(self.typed)
        self._stored_through = known

    def insert(self, batch: pa.RecordBatch | pa.Table, token: str) -> None:
        """Store the rows (EVENT's columns and uint64 ``log_offset``, in its order) exactly once.

        Rows go in by ascending ``log_offset``, call by call. After a crash or an error the next call must bring the
        same rows under the same offsets again; whatever had been stored of them is kept, the rest is added. Raises
        ``StoreError``, also when the store holds offsets beyond these rows: then it belongs to another log.
        """
        rows = checked(batch)
        if rows.num_rows == 0:
            return
        last = int(offsets_of(rows)[-1])
        with self._insert_lock:
            if self._stored_through is not None and last <= self._stored_through:
                return
            certain, self._stored_through = self._stored_through is not None or bool(self.shape.cluster), None
            if self.shape.cluster:
                self._attach(self.typed)
            if not certain:
                self._clients.settle()
                self._refuse_foreign(last)
                self._run(ddl.detach_views(self.shape))
            for number, piece in enumerate(pieces(rows)):
                if certain:
                    self._append(piece, f"{token}/{number}")
                else:
                    self._complete(piece)
            if not certain:
                self._attach(self.typed)
            self._stored_through = last
            with self._known_lock:
                self._known_through = last
            try:
                self._declare()
            except StoreError as error:
                # The rows are stored; that is what was asked for.
                logger.warning("declared properties get no columns of their own: %s", error)

    def stored_through(self) -> int:
        """The newest log offset of which all rows are stored; -1 = none. A query the first time only."""
        if self._known_through is None:
            found = self._clients.query(f"SELECT if(count() = 0, -1, toInt64(max(log_offset))) FROM {ddl.EVENTS}")
            newest = int(found.column(0)[0].as_py())
            with self._known_lock:
                self._known_through = newest if self._known_through is None else self._known_through
        return self._known_through

    def contains(self, ids: pa.Array, events: pa.Array, timestamps: pa.Array) -> pa.BooleanArray:
        """Which ids (16 bytes each) are stored; event names and times only say where to look first."""
        return self._twins.contains(ids, events, timestamps)

    def counts_by_hour(self) -> list[HourRows]:
        """Rows and distinct event ids of every hour that has any."""
        table = self._clients.query(_COUNTS, settings={"max_bytes_before_external_group_by": 1_000_000_000})
        columns = [column.to_pylist() for column in table.columns]
        return [HourRows(hour * 1000, rows, ids) for hour, rows, ids in zip(*columns, strict=True)]

    def find(self, event_id: bytes) -> list[dict[str, Any]]:
        """Every row with that id: ``part``, ``offset`` in the enriched topic, ``at_ms`` (when it was inserted), ``event``,
        ``timestamp_ms``, ``received_at_ms``, ``session_id`` and the names of its ``flags``."""
        if len(event_id) != 16:
            raise StoreError(f"an event id has 16 bytes, not {len(event_id)}")
        table = self._clients.query(FIND, {"id": event_id.hex()})
        names = ["part", "offset", "at_ms", "event", "timestamp_ms", "received_at_ms", "session_id", "flags"]
        rows: list[dict[str, Any]] = table.rename_columns(names).to_pylist() if table.num_rows else []
        return [{**row, "flags": [flag.name for flag in Flag(row["flags"])]} for row in rows]

    def query_arrow(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        """Run a SELECT of ours. ``parameters`` are bound where it says ``{name:Type}``. Raises ``StoreError`` with a code."""
        return self._clients.query(sql, parameters, settings)

    def query_rows(
        self,
        rows: pa.Table,
        sql: Callable[[str], str],
        settings: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """Run the SELECT that ``sql`` makes of a FROM expression for ``rows``. Raises ``StoreError`` with a code."""
        return self._clients.query(sql(self._clients.source), parameters, settings, rows)

    def query_readonly(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str = DATABASE,
    ) -> pa.Table:
        """Run a SELECT of somebody else, on a connection that cannot write and is held to ``settings`` (limits).

        Names without a database are of ``database``. Raises ``StoreError`` with a code.
        """
        return self._clients.query_readonly(sql, parameters, settings, database)

    def explain_readonly(
        self,
        kind: str,
        sql: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str = DATABASE,
    ) -> list[list[str]]:
        """Rows of ``EXPLAIN kind`` as text, on a connection as in ``query_readonly``."""
        return self._clients.explain_readonly(kind, sql, parameters, settings, database)

    @contextmanager
    def nothing_inserted(self) -> Iterator[None]:
        """No insert runs inside the block."""
        with self._insert_lock:
            yield

    def command(self, statement: str) -> None:
        """Run a statement of ours that answers nothing."""
        self._clients.command(statement)

    def close(self) -> None:
        """Wait for running statements and close."""
        with self._insert_lock:
            self._clients.close()

    def _run(self, statements: list[str]) -> None:
        for statement in statements:
            self._clients.command(statement)

    def _attach(self, typed: Typed) -> None:
        self._run(ddl.attach_views(self.shape, typed))

    def _append(self, rows: pa.Table, token: str) -> None:
        """One piece into all tables."""
        settings = f"{_INSERT_SETTINGS}, insert_deduplication_token = '{token}'"
        if self.shape.cluster:
            settings += ", distributed_foreground_insert = 1"
        self._clients.insert(self._head, select(self.typed), rows, settings)

    @property
    def _head(self) -> str:
        return f"INSERT INTO {ddl.EVENTS} ({', '.join(columns(self.typed))})"

    def _complete(self, rows: pa.Table) -> None:
        """What the tables lack of one piece, table by table; the views are detached."""
        ask, source = self._clients, f"(SELECT {select(self.typed)} FROM {self._clients.source})"
        offsets = offsets_of(rows)
        first, last = int(offsets[0]), int(offsets[-1])
        settings = f"SETTINGS {_INSERT_SETTINGS}, insert_deduplicate = 0"
        wanted = ask.query(f"SELECT {ddl.EVENTS_PARTITION}, count() FROM {source} GROUP BY 1", rows=rows)
        missing = _missing(wanted, self._events_between(first, last))
        if missing:
            partition = f"toString({ddl.EVENTS_PARTITION})"
            ask.command(f"{self._head} SELECT * FROM {source} WHERE {partition} IN {missing} {settings}", rows)
        for table in self.roll_ups:
            wanted = ask.query(f"SELECT {table.partition}, count() FROM {table.rows(source)} GROUP BY 1", rows=rows)
            missing = _missing(wanted, self._rolled_up_from(table, first), counts=False)
            if missing:
                made = table.query(source, f"toString({table.partition}) IN {missing}")
                names = ", ".join(column.name for column in table.table.columns)
                ask.command(f"INSERT INTO {table.name} ({names}) SELECT {names} FROM ({made}) {settings}", rows)

    def _events_between(self, first: int, last: int) -> pa.Table:
        """(partition, rows) of ``events`` with these offsets."""
        return self._clients.query(
            f"SELECT {ddl.EVENTS_PARTITION}, count() FROM {ddl.EVENTS} "
            "WHERE log_offset BETWEEN {first:UInt64} AND {last:UInt64} GROUP BY 1",
            {"first": first, "last": last},
        )

    def _rolled_up_from(self, table: RollUp, first: int) -> pa.Table:
        """(partition, rows) of a roll-up with this offset or a later one."""
        return self._clients.query(
            f"SELECT {table.own_partition}, count() FROM {table.name} WHERE offset_max >= {{first:UInt64}} GROUP BY 1",
            {"first": first},
        )

    def _refuse_foreign(self, last: int) -> None:
        beyond = self._clients.query(
            f"SELECT max(log_offset) FROM {ddl.EVENTS} WHERE log_offset > {{last:UInt64}} HAVING count() > 0",
            {"last": last},
        )
        if beyond.num_rows:
            raise StoreError(
                f"the real-time store {self.path} holds log offset {beyond.column(0)[0]}, but the log is only at {last}: "
                "it was filled from another log. Put that log back, or move the folder away and replay"
            )


def _in_folder(path: Path) -> Clients:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {path}: {error.strerror}") from error
    return Clients(path)


def _missing(wanted: pa.Table, present: pa.Table, *, counts: bool = True) -> str:
    """The partitions to insert, as an SQL list; empty when there are none."""
    there = _pairs(present)
    absent = []
    for partition, rows in _pairs(wanted).items():
        if partition not in there:
            absent.append(partition)
        elif counts and there[partition] != rows:
            raise StoreError(
                f"partition {partition} of the real-time store holds {there[partition]} rows of these log offsets "
                f"instead of {rows}: it was filled from another log. Put that log back, or move the folder away and replay"
            )
    return f"({', '.join(repr(partition) for partition in absent)})" if absent else ""


def _pairs(table: pa.Table) -> dict[str, int]:
    if not table.num_rows:
        return {}
    return dict(zip(map(str, table.column(0).to_pylist()), table.column(1).to_pylist(), strict=True))
