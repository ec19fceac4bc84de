"""Trino, by its own client: one SELECT at a time, its rows as Arrow, cancelled when its time or its room is over."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa

from eventmill.core.config import Config, TrinoConfig
from eventmill.core.errors import ConfigError, QueryError, StoreError, StoreUnavailable
from eventmill.core.schema import EVENT_ID, TIME
from eventmill.query.asker import OUT_OF_TIME

#: Rows that stand as Python objects at once.
_PAGE: Final = 65_536
_TIMEOUT_S: Final = 10.0
_ATTEMPTS: Final = 2
#: Trino's names for what passes, for what takes too long, and for what does not fit.
_MEMORY: Final = frozenset(["EXCEEDED_LOCAL_MEMORY_LIMIT", "EXCEEDED_GLOBAL_MEMORY_LIMIT", "CLUSTER_OUT_OF_MEMORY"])
_MISSING: Final = frozenset(["CATALOG_NOT_FOUND", "SCHEMA_NOT_FOUND", "TABLE_NOT_FOUND", "COLUMN_NOT_FOUND"])


#: Trino's types in Arrow.
_KINDS: Final = {
    **dict.fromkeys(("bigint", "integer", "smallint", "tinyint"), pa.int64()),
    **dict.fromkeys(("double", "real"), pa.float64()),
    **dict.fromkeys(("varchar", "char", "unknown"), pa.string()),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": TIME,
    "varbinary": pa.binary(),
}


class _Late(Exception):
    pass


def open_engine(config: Config) -> Trino | None:
    """The Trino that the settings name, if they do. Raises ``ConfigError`` where it could not read the lake."""
    if not config.trino.url:
        return None
    if not config.lake.warehouse or not config.lake.catalog:
        raise ConfigError(
            "trino.url needs a lake that Trino can read: its files in a bucket (lake.warehouse), its catalog on a server "
            "(lake.catalog)"
        )
    return Trino(config.trino)


class Trino:
    """An ``outside.Engine``. Safe to share between threads; raises ``ConfigError`` when it cannot be what the settings say."""

    def __init__(self, settings: TrinoConfig) -> None:
        try:
            from trino import auth, dbapi, exceptions
        except ImportError as error:
            raise ConfigError(
                "trino.url is set, but Trino's client is missing: pip install 'eventmill[trino]'"
            ) from error
        self._dbapi, self._exceptions = dbapi, exceptions
        self._rows_max = settings.rows_max
        self.table = _table(settings.table)
        self._shown, where = _address(settings)
        self._where = {
            **where, "user": settings.user, "source": "eventmill", "max_attempts": _ATTEMPTS,
            "request_timeout": _TIMEOUT_S, "legacy_primitive_types": True, "timezone": "UTC",
            "auth": auth.BasicAuthentication(settings.user, settings.password) if settings.password else None,
        }  # fmt: skip

    def fetch(self, statement: str, columns: Mapping[str, pa.DataType], seconds: float) -> pa.Table:
        """See ``outside.Engine``. What has not ended in time is cancelled."""
        schema = pa.schema(list(columns.items()))
        return self._ask(lambda cursor, ends: self._read(cursor, statement, schema, ends), seconds)

    def select(self, statement: str, seconds: float, rows_max: int) -> pa.Table:
        """See ``outside.Engine``. Raises ``QueryError`` for mistakes in it, and over so many rows."""

        def read(cursor: Any, ends: float) -> pa.Table:
            cursor.execute(statement)
            names = [column.name for column in cursor.description]
            kinds = [_KINDS.get(column.type_code.partition("(")[0]) for column in cursor.description]
            if None in kinds:
                raise QueryError(f"the column {names[kinds.index(None)]} is of a type that Trino cannot hand over here")
            rows = cursor.fetchmany(rows_max + 1)
            if len(rows) > rows_max:
                raise QueryError(f"the answer has over {rows_max} rows; aggregate more, or add a limit")
            if time.monotonic() > ends:
                raise _Late
            columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
            return pa.table([_column(*each) for each in zip(columns, kinds, strict=True)], names=names)

        return self._ask(read, seconds, theirs=True)

    def _ask(self, read: Callable[[Any, float], pa.Table], seconds: float, *, theirs: bool = False) -> pa.Table:
        """What ``read`` makes of a cursor until a moment of the monotonic clock. What has not ended then is cancelled."""
        ends = time.monotonic() + seconds
        # Trino ends it by itself, too, should nobody be left to cancel it.
        properties = {"query_max_run_time": f"{max(seconds, 1.0):.0f}s"}

        def look(_: Any) -> None:
            if time.monotonic() > ends:
                raise _Late

        connect: Any = self._dbapi.connect
        with contextlib.closing(connect(**self._where, session_properties=properties)) as connection:
            cursor = connection.cursor(stats_callback=look)
            try:
                return read(cursor, ends)
            except BaseException as error:
                if not isinstance(error, self._exceptions.TrinoConnectionError):
                    self._cancel(cursor)
                if isinstance(error, _Late):
                    raise StoreError(f"Trino at {self._shown} took too long", OUT_OF_TIME) from None
                if isinstance(error, (self._exceptions.Error, self._exceptions.HttpError)):
                    raise self._failure(error, theirs) from error
                raise

    def _read(self, cursor: Any, statement: str, schema: pa.Schema, ends: float) -> pa.Table:
        cursor.execute(statement)
        pages: list[pa.RecordBatch] = []
        count = 0
        while rows := cursor.fetchmany(_PAGE):
            count += len(rows)
            if count > self._rows_max:
                raise QueryError(
                    f"Trino would hand over more than trino.rows_max = {self._rows_max:,} rows of the lake; narrow from "
                    "and to, filter, or break down by a field with fewer values"
                )
            if time.monotonic() > ends:
                raise _Late
            values = zip(*rows, strict=True)
            arrays = [pa.array(each, field.type) for each, field in zip(values, schema, strict=True)]
            pages.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        return pa.Table.from_batches(pages, schema)

    def _cancel(self, cursor: Any) -> None:
        try:
            cursor.cancel()
        except (self._exceptions.Error, self._exceptions.HttpError):
            pass  # it may have ended, or be away; its own limit on time holds

    def _failure(self, error: Exception, theirs: bool) -> Exception:
        name = getattr(error, "error_name", None)
        told = str(getattr(error, "message", error))[:500]
        refused = isinstance(error, self._exceptions.HttpError) and "error 401" in told
        if refused or isinstance(error, self._exceptions.TrinoAuthError):
            return StoreError(f"Trino at {self._shown} does not let us in; check trino.user and trino.password")
        if isinstance(error, (self._exceptions.TrinoConnectionError, self._exceptions.HttpError)):
            return StoreUnavailable(f"Trino at {self._shown} does not answer; check trino.url, and that it runs")
        if name == "EXCEEDED_TIME_LIMIT":
            return StoreError(f"Trino at {self._shown} took too long", OUT_OF_TIME)
        if name in _MEMORY:
            return QueryError(
                "the query needs too much memory in Trino; narrow its time range, or ask for fewer values"
            )
        if name in _MISSING:
            return StoreError(f"Trino at {self._shown} has no lake at trino.table = {self.table}: {told}")
        if "snapshot" in told.lower():
            return StoreUnavailable(
                f"Trino at {self._shown} does not see the lake's newest snapshot ({told}); its catalog must be lake.catalog"
            )
        if theirs and getattr(error, "error_type", None) == "USER_ERROR":
            return QueryError(f"the query does not work in Trino: {told}")
        return StoreError(f"Trino at {self._shown}: {told}")


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values as Trino's protocol has them: times and dates are text, bytes are base64."""
    if pa.types.is_date(kind):
        return pa.array([None if value is None else date.fromisoformat(value) for value in values], kind)
    if pa.types.is_timestamp(kind):
        return pa.array(
            [None if value is None else datetime.fromisoformat(value.replace(" UTC", "+00:00")) for value in values],
            kind,
        )
    if pa.types.is_binary(kind):
        known = [None if value is None else base64.b64decode(value) for value in values]
        ids = bool(known) and all(value is None or len(value) == 16 for value in known)
        return pa.array(known, EVENT_ID if ids else kind)
    return pa.array(values, kind)


def _table(name: str) -> str:
    """``catalog.schema.table`` in SQL."""
    parts = name.split(".")
    if len(parts) != 3 or not all(parts):
        raise ConfigError(f"trino.table = {name!r} must be CATALOG.SCHEMA.TABLE, like iceberg.eventmill.events")
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _address(settings: TrinoConfig) -> tuple[str, dict[str, Any]]:
    """What a message may say of it, and what the client takes."""
    cure = "write it like https://trino.example.net:8443 (http:// without a password)"
    try:
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
            raise ValueError
        port = parts.port or (443 if parts.scheme == "https" else 8080)
    except ValueError:
        raise ConfigError(f"trino.url is no server's address: {cure}") from None
    if settings.password and parts.scheme != "https":
        raise ConfigError("trino.password would go over http as it is: name Trino's https address in trino.url")
    return f"{parts.hostname}:{port}", {"host": parts.hostname, "port": port, "http_scheme": parts.scheme}
