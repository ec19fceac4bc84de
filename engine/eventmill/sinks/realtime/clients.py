"""Connections to the embedded ClickHouse. Those to a server are in ``server``; both have the methods of ``Connections``.

A connection runs one statement at a time (clickhouse-connect holds a lock for that), the engine beneath runs as many as
there are connections; so each caller borrows one for itself. One process opens one path, and a path only once.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from eventmill.core.errors import StoreError

#: The settings that a connection has for good; of one that only reads, the first is the database of names without one.
Settings = tuple[tuple[str, str], ...]
_DATABASE: Final = "database"
#: Results stay in the process, so compressing them is waste.
_BASE: Final = {"output_format_arrow_compression_method": "none", "output_format_arrow_string_as_string": "1"}


class Connections(Protocol):
    """What the store asks of ClickHouse, wherever that runs. Safe to share between threads; all raise ``StoreError``.

    ``source`` is the FROM expression of the ``rows`` that go with a statement.
    """

    @property
    def source(self) -> str: ...

    def command(self, statement: str, rows: pa.Table | None = None) -> None: ...

    def insert(self, head: str, select: str, rows: pa.Table, settings: str) -> None:
        """``head`` (INSERT INTO …) the columns that ``select`` makes of the rows, as one block."""
        ...

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        rows: pa.Table | None = None,
    ) -> pa.Table: ...

    def query_readonly(
        self, statement: str, parameters: Mapping[str, Any] | None, settings: Mapping[str, Any], database: str
    ) -> pa.Table:
        """Names without a database are of ``database``."""
        ...

    def explain_readonly(
        self,
        kind: str,
        statement: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str,
    ) -> list[list[str]]: ...

    def settle(self) -> None:
        """Wait until no insert of an earlier process runs any more."""
        ...

    def close(self) -> None: ...


class Clients:
    """``Connections`` to the engine in this process: a pool for one path."""

    #: chdb finds the rows by the name of a variable of whoever calls it, and reads them without copying.
    source = "Python(eventmill_rows)"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: dict[Settings, list[Any]] = defaultdict(list)
        self._all: list[Any] = []
        self._closed = False

    def command(self, statement: str, rows: pa.Table | None = None) -> None:
        """Run a statement that answers nothing. Raises ``StoreError``."""
        eventmill_rows = rows  # noqa: F841 - see ``source``
        with self._borrow(()) as client:
            client.command(statement, use_database=False)

    def insert(self, head: str, select: str, rows: pa.Table, settings: str) -> None:
        """See ``Connections``."""
        self.command(f"{head} SELECT {select} FROM {self.source} SETTINGS {settings}", rows)

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        rows: pa.Table | None = None,
    ) -> pa.Table:
        """Run a SELECT with settings of its own. ``parameters`` are bound where it says ``{name:Type}``.

        Raises ``StoreError`` with ClickHouse's code.
        """
        eventmill_rows = rows  # noqa: F841 - see ``source``
        clause = ", ".join(f"{name} = {literal(value)}" for name, value in (settings or {}).items())
        return self._arrow((), f"{statement} SETTINGS {clause}" if clause else statement, parameters)

    def query_readonly(
        self, statement: str, parameters: Mapping[str, Any] | None, settings: Mapping[str, Any], database: str
    ) -> pa.Table:
        """As ``query``, on a connection that has ``settings`` for good: it can neither write nor change a setting, and
        every table function that reaches out of the database is refused."""
        return self._arrow(_fixed(settings, database), statement, parameters)

    def explain_readonly(
        self,
        kind: str,
        statement: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str,
    ) -> list[list[str]]:
        """Rows of ``EXPLAIN kind``, as text, on the same connection as ``query_readonly``."""
        with self._borrow(_fixed(settings, database)) as client:
            # Without a format: ClickHouse would take it for a part of the explained statement.
            answer = client.raw_query(f"EXPLAIN {kind} {statement}", dict(parameters) if parameters else None)
        return [line.split("\t") for line in answer.decode("utf-8", "replace").splitlines()]

    def settle(self) -> None:
        """In a process of its own the engine ends with whoever was inserting."""

    def _arrow(self, limits: Settings, statement: str, parameters: Mapping[str, Any] | None) -> pa.Table:
        with self._borrow(limits) as client:
            # Not query_arrow: it changes settings around each call, which a read-only connection refuses.
            # And no parameters means none: an empty dictionary would take each % for a placeholder.
            answer = client.raw_query(statement, dict(parameters) if parameters else None, fmt="Arrow")
        return pa.ipc.open_file(pa.py_buffer(answer)).read_all() if answer else pa.table({})

    @contextmanager
    def _borrow(self, limits: Settings) -> Iterator[Any]:
        with self._lock:
            if self._closed:
                raise StoreError("the real-time store is closed")
            idle = self._idle[limits]
            client = idle.pop() if idle else None
        try:
            if client is None:
                client = self._open(limits)
            yield client
        except ClickHouseError as error:
            # After an error chdb goes on to answer in that statement's format, so the connection is of no more use.
            self._drop(client)
            raise StoreError(self._message(error), getattr(error, "code", None) or 0) from error
        except BaseException:
            self._drop(client)
            raise
        with self._lock:
            self._idle[limits].append(client)

    def _drop(self, client: Any) -> None:
        if client is None:
            return
        with self._lock:
            if client in self._all:
                self._all.remove(client)
        client.close()

    def _open(self, limits: Settings) -> Any:
        client = clickhouse_connect.get_client(
            interface="chdb", path=str(self._path), settings=_BASE, show_clickhouse_errors="scrub"
        )
        if limits:
            (_, client.database), *settings = limits
            client.raw_query("SELECT 1")
            for name, value in settings:
                client.command(f"SET {name} = {literal(value)}")
            client.command("SET readonly = 1")
        with self._lock:
            self._all.append(client)
        return client

    def _message(self, error: ClickHouseError) -> str:
        return str(error).replace(str(self._path), "<realtime>")

    def close(self) -> None:
        """Wait for running statements and close every connection."""
        with self._lock:
            self._closed = True
            clients, self._all = self._all, []
            self._idle.clear()
        for client in clients:
            client.close()


def _fixed(settings: Mapping[str, Any], database: str) -> Settings:
    return (_DATABASE, database), *((name, str(value)) for name, value in settings.items())


def literal(value: Any) -> str:
    """A setting's value in SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if isinstance(value, str) else repr(value)
