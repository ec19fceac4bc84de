"""The query service: trends and SQL over the real-time store and the lake."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import orjson
import pyarrow as pa

from eventmill.core.clock import now_ms
from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError, StoreError
from eventmill.core.threads import name_thread
from eventmill.net.messages import Request, Response
from eventmill.query import sql as guard
from eventmill.query import trends as statements
from eventmill.query.fields import Parameters
from eventmill.query.render import Answer, iso, typed
from eventmill.query.routing import Route, route

PREFIX: Final = "/v1/query/"
BODY_BYTES_MAX: Final = 262_144
RESULT_BYTES_MAX: Final = 256_000_000
#: Queries that wait for a place, for each that runs.
WAITING_PER_PLACE: Final = 4
_OUT_OF_TIME: Final = 159
_TOO_MUCH_RESULT: Final = 396
_OUT_OF_MEMORY: Final = 241
_READ_ONLY: Final = 164
#: ClickHouse's codes for troubles of its own: a file gone, the disk full, a checksum wrong. 0 is not ClickHouse's.
_TROUBLES: Final = frozenset([0, 40, 74, 75, 76, 107, 228, 243, 271, 1000, 1001])


class Store(Protocol):
    """What is asked of the real-time store. Every method may raise ``StoreError`` with ClickHouse's code."""

    def query_arrow(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        """Run a SELECT of ours."""
        ...

    def query_readonly(self, sql: str, parameters: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> pa.Table:
        """Run a SELECT of somebody else."""
        ...

    def explain_readonly(
        self, kind: str, sql: str, parameters: Mapping[str, Any] | None, settings: Mapping[str, Any]
    ) -> list[list[str]]:
        """Rows of ``EXPLAIN kind``."""
        ...

    def command(self, statement: str) -> None:
        """Run a statement of ours that answers nothing."""
        ...


class QueryService:
    """Safe to share between threads.

    Making one moves the process to the root directory. ``lake_source`` gives the lake as a FROM expression, or null while
    there is none; ``watermark`` the newest ``received_at`` in it (ms since the epoch); ``window_ms`` is how far back the
    real-time store answers; ``clock`` is now.
    """

    def __init__(
        self,
        store: Store,
        lake_source: Callable[[], str | None],
        config: QueryConfig,
        *,
        window_ms: int,
        watermark: Callable[[], int | None] = lambda: None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        # chdb reads a lake only below the working directory, which it looks up at every query.
        os.chdir("/")
        self._store = store
        self._lake_source = lake_source
        self._config = config
        self._window_ms = window_ms
        self._watermark = watermark
        self._clock = clock
        self._pool = ThreadPoolExecutor(config.concurrency_max, "query", name_thread, ("query",))
        self._places = threading.BoundedSemaphore(config.concurrency_max * (1 + WAITING_PER_PLACE))
        self._functions: guard.Functions | None = None
        self._lake_lock = threading.Lock()
        self._lake_shown: str | None = None
        self._limits = {
            "max_execution_time": config.seconds_max,
            "timeout_overflow_mode": "throw",
            "max_result_rows": config.result_rows_max,
            "max_result_bytes": RESULT_BYTES_MAX,
            "result_overflow_mode": "throw",
            "max_memory_usage": config.memory_bytes_max,
        }

    async def handle(self, request: Request) -> Response:
        """A ``net.messages.Handler`` for everything below ``/v1/query/``."""
        ask = {"trends": self.answer_trends, "sql": self.answer_sql}.get(request.path.removeprefix(PREFIX))
        if ask is None:
            return Response.error(404, f"there is no {request.path}; there are {PREFIX}trends and {PREFIX}sql")
        if request.method != "POST":
            return Response.error(405, f"{request.path} takes POST", {"Allow": "POST"})
        if len(request.body) > BODY_BYTES_MAX:
            return Response.error(413, f"the body has over {BODY_BYTES_MAX} bytes")
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            return Response.error(400, f"the body is not JSON: {error}")
        if not self._places.acquire(blocking=False):
            return Response.error(503, "too many queries are waiting; try again", {"Retry-After": "1"})
        accept = request.headers.get("accept", "")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._respond, ask, body, accept)

    def _respond(self, ask: Callable[[Any], Answer], body: Any, accept: str) -> Response:
        try:
            return ask(body).response(accept)
        except QueryError as error:
            return Response.error(400, str(error))
        except StoreError as error:
            if error.code == _OUT_OF_TIME:
                return Response.error(504, f"the query took over {self._config.seconds_max} s; narrow its time range")
            return Response.error(503, f"the store cannot answer now: {error}", {"Retry-After": "1"})
        finally:
            self._places.release()

    def trends(self, body: Any) -> dict[str, Any]:
        """As ``POST /v1/query/trends`` with this body. Raises ``QueryError``, ``StoreError``."""
        return self.answer_trends(body).as_dict()

    def sql(self, body: Any) -> dict[str, Any]:
        """As ``POST /v1/query/sql`` with this body. Raises ``QueryError``, ``StoreError``."""
        return self.answer_sql(body).as_dict()

    def answer_trends(self, body: Any) -> Answer:
        """See ``trends``: columns ``time`` (UTC, start of the bucket), with a breakdown ``breakdown``, and ``value``.

        Without a breakdown, counts and sums have every bucket of the range, empty ones with 0.
        """
        started = time.monotonic()
        query = statements.parse(body, self._config.result_rows_max)
        source = self._lake_source()
        way = route(
            query.span,
            query.interval_ms,
            lake_exists=source is not None,
            watermark=None if source is None else self._watermark(),
            now=self._clock(),
            window_ms=self._window_ms,
        )
        estimate = self._estimate_trends(query, way, source)
        statement, parameters = statements.statement(query, way, source)
        table = self._run(lambda: self._store.query_arrow(statement, parameters, self._limits))
        boundary = None if way.boundary is None else iso(way.boundary)
        return Answer(statements.table(query, table), self._meta(way.stores, boundary, estimate, started))

    def answer_sql(self, body: Any) -> Answer:
        """See ``sql``: the query's own columns."""
        started = time.monotonic()
        if not isinstance(body, dict) or set(body) - {"query", "parameters"}:
            raise QueryError('the body must be a JSON object {"query": "SELECT …", "parameters": {…}}')
        guarded = guard.parse(body.get("query"))
        parameters = _parameters(body.get("parameters"), guarded.parameters)
        if guarded.reads_lake:
            self._show_lake()
        text = self._checked(body["query"], parameters)
        estimate = self._estimate_sql(guarded, text, parameters)
        kinds = self._run(
            lambda: self._store.query_readonly(f"DESCRIBE ({text})", parameters, self._limits), theirs=True
        )
        table = self._run(lambda: self._store.query_readonly(text, parameters, self._limits), theirs=True)
        if not table.num_columns:
            table = pa.table({name: pa.array([], pa.null()) for name in kinds.column("name").to_pylist()})
        described = dict(zip(kinds.column("name").to_pylist(), kinds.column("type").to_pylist(), strict=True))
        return Answer(typed(table, described), self._meta(guarded.stores, None, estimate, started))

    def _meta(self, stores: list[str], boundary: str | None, estimate: int, started: float) -> dict[str, Any]:
        elapsed_ms = round((time.monotonic() - started) * 1_000, 3)
        return {
            "stores": stores,
            "boundary": boundary,
            "estimated_rows": estimate,
            "elapsed_ms": elapsed_ms,
            "cached": False,
        }

    def _run(self, ask: Callable[[], Any], *, theirs: bool = False) -> Any:
        """Tells the querier's mistakes (``QueryError``) from the store's troubles (``StoreError``).

        What is wrong with SQL is the querier's mistake only where the SQL is ``theirs``.
        """
        try:
            return ask()
        except StoreError as error:
            if error.code == _TOO_MUCH_RESULT:
                raise QueryError(
                    f"the answer has over {self._config.result_rows_max} rows or {RESULT_BYTES_MAX} bytes; "
                    "aggregate more, or add a limit"
                ) from error
            if error.code == _OUT_OF_MEMORY:
                raise QueryError(
                    "the query needs too much memory; narrow its time range or break down by a field with fewer values"
                ) from error
            if not theirs or error.code == _OUT_OF_TIME or error.code in _TROUBLES:
                raise
            if error.code == _READ_ONLY:
                raise QueryError("query must only read the tables of Eventmill") from error
            raise QueryError(_reason(error)) from error

    # Estimates

    def _estimate_trends(self, query: statements.Trends, way: Route, source: str | None) -> int:
        parameters = Parameters()
        parts = statements.partial_queries(query, way, source, parameters)
        rows = 0
        for table in ("events", "events_1m"):
            if table in parts:
                rows += self._estimated(parts[table], parameters.values, theirs=False)
        raw = rows if "events" in parts else 0
        if way.lake is not None and source is not None:
            statement, bound = statements.lake_rows(query, way.lake, source)
            lake = self._count(statement, bound)
            rows, raw = rows + lake, raw + lake
        self._refuse(
            raw,
            "narrow from and to, name an event, or take a measure and fields that the minute roll-up has "
            "(events, devices, users, sessions by event and platform)",
        )
        return rows

    def _estimate_sql(self, guarded: guard.Guarded, text: str, parameters: dict[str, Any]) -> int:
        rows = self._estimated(text, parameters, theirs=True)
        if guarded.reads_lake:
            rows += self._count(f"SELECT count() FROM {'.'.join(guard.LAKE)}", {})
        if not guarded.aggregated and not guarded.limited:
            self._refuse(rows, "add a condition on timestamp, aggregate, or add LIMIT without ORDER BY")
        return rows

    def _estimated(self, text: str, parameters: dict[str, Any], *, theirs: bool) -> int:
        """Rows in the parts and granules of the real-time store that ClickHouse would read."""
        rows = self._run(
            lambda: self._store.explain_readonly("ESTIMATE", text, parameters, self._limits), theirs=theirs
        )
        return sum(int(row[3]) for row in rows if len(row) > 3)

    def _count(self, statement: str, parameters: dict[str, Any]) -> int:
        found = self._run(lambda: self._store.query_arrow(statement, parameters, self._limits))
        return int(found.column(0)[0].as_py())

    def _refuse(self, rows: int, hint: str) -> None:
        if rows > self._config.scan_rows_max:
            raise QueryError(
                f"the query would read about {rows:,} rows without an aggregate to answer from; "
                f"{self._config.scan_rows_max:,} are the most: {hint}"
            )

    # SQL

    def _checked(self, query: str, parameters: dict[str, Any]) -> str:
        """The query as ClickHouse's own parser understands it, checked."""
        if self._functions is None:
            self._functions = guard.Functions(self._store.query_arrow(guard.FUNCTIONS).to_pylist())
        spelt = self._run(lambda: self._store.query_arrow(guard.CANONICAL, {"query": query}), theirs=True)
        text = str(spelt.column(0)[0])
        lines = self._run(lambda: self._store.explain_readonly("AST", text, parameters, self._limits), theirs=True)
        guard.check_syntax_tree(["\t".join(line) for line in lines], self._functions)
        return text

    def _show_lake(self) -> None:
        """``lake.events`` becomes the lake's newest snapshot. A query that reads an older one keeps it."""
        source = self._lake_source()
        if source is None:
            raise QueryError("there is no lake.events yet: nothing has been stored in the lake")
        with self._lake_lock:
            if source != self._lake_shown:
                # A table, because a read-only connection may not call the table function itself.
                self._store.command(f"CREATE DATABASE IF NOT EXISTS {guard.LAKE[0]}")
                self._store.command(f"CREATE OR REPLACE TABLE {'.'.join(guard.LAKE)} AS {source}")
                self._lake_shown = source

    def close(self) -> None:
        """Wait for running queries and stop."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _parameters(given: Any, known: frozenset[str]) -> dict[str, Any]:
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise QueryError('parameters must be an object, like {"name": "value"} for {name:String}')
    for name, value in given.items():
        if name not in known:
            raise QueryError(f"query takes no parameter {name[:100]!r}; write it as {{{name[:100]}:String}}")
        items = value if isinstance(value, list) else [value]
        if not all(item is None or isinstance(item, (str, int, float, bool)) for item in items):
            raise QueryError(f"parameter {name[:100]!r} must be text, a number, true, false, null or a list of those")
    missing = sorted(known - set(given))
    if missing:
        raise QueryError(f"parameters lack {missing[0]!r}, which query takes")
    return given


def _reason(error: StoreError) -> str:
    """ClickHouse's own words without its decoration."""
    text = re.sub(r"^.*?DB::\w*Exception: ", "", str(error), flags=re.DOTALL)
    text = re.sub(r"\s*\(version .*$", "", text, flags=re.DOTALL)
    return f"the query does not work: {text[:500]}"
