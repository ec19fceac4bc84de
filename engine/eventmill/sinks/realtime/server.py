"""Connections to a ClickHouse server over HTTP: the same client and the same SQL as embedded.

Rows go as Arrow streams, compressed. Those of an insert stand in the request's body; those that a question needs beside it are
an external table of that request (https://clickhouse.com/docs/engines/table-engines/special/external-data). No session: so
requests of many threads run beside one another, and a server behind a balancer may be another one each time.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.external import ExternalData
from urllib3.exceptions import HTTPError

from eventmill.core.errors import ConfigError, StoreError, StoreUnavailable
from eventmill.core.schema import EVENT_ID, TIME, WORD
from eventmill.sinks.realtime.shape import DATABASE

# What goes wrong is told by whoever asked.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)

_SCHEMES: Final = {"clickhouse": ("http", 8123), "clickhouses": ("https", 8443)}
_ROWS: Final = "eventmill_rows"
_WRITES: Final = "eventmill-write-"
_SETTLE_S: Final = 600.0
#: ClickHouse's codes for what passes: too many queries or parts, its network, its Keeper, its memory, a shutdown.
_PASSING: Final = frozenset([159, 202, 203, 209, 210, 225, 236, 241, 242, 252, 279, 319, 439, 999])
_BASE: Final = {"output_format_arrow_compression_method": "none", "output_format_arrow_string_as_string": "1"}
#: Of the columns that are sent; those of text may be null, as in ``Python(…)``.
_TYPES: Final = {
    EVENT_ID: "Nullable(FixedString(16))",
    TIME: "Nullable(DateTime64(3, 'UTC'))",
    WORD: "LowCardinality(Nullable(String))",
    pa.string(): "Nullable(String)",
    pa.int64(): "Nullable(Int64)",
    pa.int32(): "Nullable(Int32)",
    pa.uint64(): "Nullable(UInt64)",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and as whom it is asked. ``shown`` is what a message may say of it."""

    interface: str
    host: str
    port: int
    user: str
    password: str

    @property
    def shown(self) -> str:
        """Without the password."""
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def parse_url(url: str) -> Address:
    """``clickhouse://user:password@host:8123`` (``clickhouses``: with TLS). Raises ``ConfigError``, which shows no password."""
    cure = "write it like clickhouse://user:password@host:8123 (clickhouses:// for TLS)"
    try:
        parts = urlsplit(url)
        interface, port = _SCHEMES[parts.scheme]
        if not parts.hostname or parts.path.strip("/") not in ("", DATABASE) or parts.query or parts.fragment:
            raise ValueError
        return Address(
            interface, parts.hostname, parts.port or port, unquote(parts.username or "default"), unquote(parts.password or "")
        )  # fmt: skip
    except (KeyError, ValueError):
        raise ConfigError(f"realtime.url is no server's address: {cure}") from None


class Server:
    """``Connections`` to one server. Raises ``StoreUnavailable`` when it does not answer."""

    source = _ROWS

    def __init__(self, address: Address, *, timeout_s: int = 300) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = False

    def command(self, statement: str, rows: pa.Table | None = None) -> None:
        """Run a statement that answers nothing; never twice."""
        self._run(
            lambda client: client.command(
                statement,
                use_database=False,
                settings={"query_id": f"{_WRITES}{uuid.uuid4().hex}"},
                external_data=_external(rows),
            )
        )

    def insert(self, head: str, select: str, rows: pa.Table, settings: str) -> None:
        """See ``Connections``. ``settings`` hold the token: the client may send it again."""
        statement = f"{head} SELECT {select} FROM input('{_structure(rows).replace(chr(39), chr(92) + chr(39))}') "
        body = f"{statement} SETTINGS {settings} FORMAT ArrowStream\n".encode() + _stream(rows)
        compressed = pa.Codec("zstd", compression_level=1).compress(body, asbytes=True)
        self._run(
            lambda client: client.raw_insert(
                None, None, compressed, compression="zstd", settings={"query_id": f"{_WRITES}{uuid.uuid4().hex}"}
            )
        )

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        rows: pa.Table | None = None,
    ) -> pa.Table:
        """See ``Connections``."""
        return self._arrow(statement, parameters, settings or {}, rows=rows)

    def query_readonly(
        self, statement: str, parameters: Mapping[str, Any] | None, settings: Mapping[str, Any], database: str
    ) -> pa.Table:
        """As ``query``; it can neither write nor change a setting."""
        return self._arrow(statement, parameters, {**settings, "readonly": 1, "database": database})

    def explain_readonly(
        self,
        kind: str,
        statement: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str,
    ) -> list[list[str]]:
        """Rows of ``EXPLAIN kind``, as text."""
        given = dict(parameters) if parameters else None
        answer = self._run(
            lambda client: client.raw_query(
                f"EXPLAIN {kind} {statement}",
                given,
                settings={**settings, "readonly": 1, "database": database},
                use_database=False,
            )
        )
        return [line.split("\t") for line in answer.decode("utf-8", "replace").splitlines()]

    def settle(self) -> None:
        """End the writes that a client before this one has left running: the server goes on with what it was sent.

        Raises ``StoreError`` when they do not end.
        """
        ends = time.monotonic() + _SETTLE_S
        while self.query(f"SELECT 1 FROM system.processes WHERE startsWith(query_id, '{_WRITES}')").num_rows:
            if time.monotonic() > ends:
                raise StoreError(f"an insert on {self._address.shown} does not end; see system.processes there")
            self._run(
                lambda client: client.command(
                    f"KILL QUERY WHERE startsWith(query_id, '{_WRITES}') SYNC", use_database=False
                )
            )

    def close(self) -> None:
        """No request after this."""
        with self._lock:
            self._closed = True
            if self._client is not None:
                self._client.close()

    def _arrow(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        *,
        rows: pa.Table | None = None,
    ) -> pa.Table:
        answer = self._run(
            lambda client: client.raw_query(
                statement,
                dict(parameters) if parameters else None,
                settings={**_BASE, **settings},
                fmt="Arrow",
                use_database=False,
                external_data=_external(rows),
            )
        )
        return pa.ipc.open_file(pa.py_buffer(answer)).read_all() if answer else pa.table({})

    def _run(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(self._connected())
        except ClickHouseError as error:
            code = getattr(error, "code", None) or 0
            if not code:
                raise StoreUnavailable(f"the ClickHouse server {self._address.shown} does not answer") from error
            kind = StoreUnavailable if code in _PASSING else StoreError
            raise kind(self._told(error), code) from error
        except (HTTPError, OSError) as error:
            raise StoreUnavailable(f"the ClickHouse server {self._address.shown} does not answer") from error

    def _connected(self) -> Any:
        with self._lock:
            if self._closed:
                raise StoreError("the real-time store is closed")
            if self._client is None:
                at = self._address
                client = clickhouse_connect.get_client(
                    interface=at.interface, host=at.host, port=at.port, username=at.user, password=at.password,
                    send_receive_timeout=self._timeout_s, compress=True, autogenerate_session_id=False,
                    dedicated_pool=True, client_name="eventmill", show_clickhouse_errors="scrub",
                )  # fmt: skip
                client.database = DATABASE
                self._client = client
            return self._client

    def _told(self, error: ClickHouseError) -> str:
        """ClickHouse's words without the password, wherever that may have got in."""
        text = str(error)
        return text.replace(self._address.password, "…") if self._address.password else text


def _structure(rows: pa.Table) -> str:
    return ", ".join(f"{field.name} {_TYPES[field.type]}" for field in rows.schema)


def _stream(rows: pa.Table) -> bytes:
    """The rows as one record batch: one block."""
    sink = pa.BufferOutputStream()
    whole = rows.combine_chunks()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _external(rows: pa.Table | None) -> ExternalData | None:
    if rows is None:
        return None
    return ExternalData(file_name=_ROWS, data=_stream(rows), fmt="ArrowStream", structure=[_structure(rows)])
