"""Asking the real-time store's ClickHouse, which reads the lake too: limits, estimates, and whose mistake an error is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import pyarrow as pa

from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError, StoreError
from eventmill.core.typed import Typed
from eventmill.query.renamed import RENAMED
from eventmill.query.routing import Span
from eventmill.query.scan import EVENTS, Plan
from eventmill.query.sql import DATABASE

RESULT_BYTES_MAX: Final = 256_000_000
OUT_OF_TIME: Final = 159
_TOO_MUCH_RESULT: Final = 396
_OUT_OF_MEMORY: Final = 241
_READ_ONLY: Final = 164
#: ClickHouse's codes for troubles of its own: a file gone, the disk full, a checksum wrong. 0 is not ClickHouse's.
_TROUBLES: Final = frozenset([0, 40, 74, 75, 76, 107, 228, 243, 271, 1000, 1001])
#: The lake's name among the tables.
LAKE: Final = "lake.events"
_ROW_BYTES: Final = (
    "SELECT sum(bytes_on_disk) / greatest(sum(rows), 1) FROM system.parts "
    "WHERE active AND database = {database:String} AND table IN ({table:String}, concat({table:String}, '_local'))"
)
_EVENTS: Final = dict(zip(("database", "table"), EVENTS.split("."), strict=True))
#: All rows; as the table itself would tell them, but whatever rows of it the asking project may see.
_ROWS: Final = (
    "SELECT ifNull(max(total_rows), 0) FROM system.tables WHERE database = {database:String} AND name = {table:String}"
)
#: The rows of a stretch of time (seconds since the epoch), those of a part that sticks out taken for spread evenly.
_ROWS_WITHIN: Final = """
    SELECT toUInt64(sum(rows * (1 + least(last, {end:Int64} - 1) - greatest(first, {start:Int64})) / (1 + last - first))) FROM (
        SELECT rows, toInt64(toUnixTimestamp(min_time)) AS first, toInt64(toUnixTimestamp(max_time)) AS last FROM system.parts
        WHERE active AND database = {database:String} AND table = {table:String}
    ) WHERE first < {end:Int64} AND last >= {start:Int64}"""
#: Rows to be read, by table.
Estimate = dict[str, int]


class TooManyRows(QueryError):
    """A question that would read too many rows. ``rows`` is the estimate, ``most`` the limit, ``hint`` what would fit."""

    def __init__(self, rows: int, most: int, hint: str) -> None:
        super().__init__(
            f"the query would read about {rows:,} rows without an aggregate to answer from; {most:,} are the most: {hint}"
        )
        self.rows, self.most, self.hint = rows, most, hint

    def facts(self) -> dict[str, Any]:
        """What the answer's body tells beside the message."""
        return {"estimated_rows": self.rows, "rows_max": self.most, "hint": self.hint}


class Store(Protocol):
    """What is asked of the real-time store. Every method may raise ``StoreError`` with ClickHouse's code."""

    def query_arrow(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        """Run a SELECT of ours."""
        ...

    def query_rows(
        self,
        rows: pa.Table,
        sql: Callable[[str], str],
        settings: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """Run the SELECT of ours that ``sql`` makes of a FROM expression for ``rows``."""
        ...

    def query_readonly(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str = DATABASE,
    ) -> pa.Table:
        """Run a SELECT of somebody else. Names without a database are of ``database``."""
        ...

    def explain_readonly(
        self,
        kind: str,
        sql: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str = DATABASE,
    ) -> list[list[str]]:
        """Rows of ``EXPLAIN kind``."""
        ...

    def command(self, statement: str) -> None:
        """Run a statement of ours that answers nothing."""
        ...

    @property
    def typed(self) -> Typed:
        """The properties that have columns of their own."""
        ...

    def stored_through(self) -> int:
        """The newest log offset of which all rows are stored; -1 = none."""
        ...


class Asker:
    """Safe to share between threads."""

    def __init__(self, store: Store, config: QueryConfig) -> None:
        self.store = store
        self.renames = config.renames
        #: Where names without a database are looked up in SQL that others wrote.
        self.database = RENAMED if config.renames else DATABASE
        self._config = config
        self.limits: dict[str, Any] = {
            "max_execution_time": config.seconds_max,
            "timeout_overflow_mode": "throw",
            "max_result_rows": config.result_rows_max,
            "max_result_bytes": RESULT_BYTES_MAX,
            "result_overflow_mode": "throw",
            "max_memory_usage": config.memory_bytes_max,
        }
        #: For what we ask about a question: that takes as many rows as it takes.
        self.about = {name: value for name, value in self.limits.items() if name != "max_result_rows"}

    def run(self, ask: Callable[[], Any], *, theirs: bool = False) -> Any:
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
            if not theirs or error.code == OUT_OF_TIME or error.code in _TROUBLES:
                raise
            if error.code == _READ_ONLY:
                raise QueryError("query must only read the tables of Eventmill") from error
            raise QueryError(_reason(error)) from error

    def answer(self, plan: Plan) -> pa.Table:
        """What a plan's statement gives."""
        return self.run(lambda: self.store.query_arrow(plan.sql, plan.parameters, self.limits))

    def answer_over(
        self, rows: pa.Table, sql: Callable[[str], str], parameters: Mapping[str, Any], seconds: float
    ) -> pa.Table:
        """What a statement of ours gives that also reads ``rows``, within so many seconds."""
        limits = self.limits | {"max_execution_time": max(math.ceil(seconds), 1)}
        return self.run(lambda: self.store.query_rows(rows, sql, limits, parameters))

    def estimate(self, plan: Plan) -> Estimate:
        """Rows that a plan will read. Raises ``QueryError`` when they are too many."""
        # To look each part's index up takes a while where there are so many rows; their number alone is known at once.
        if plan.unpruned and self.count(_ROWS, _EVENTS) > self._config.scan_rows_max:
            self.refuse(sum(self._rows_within(span) for span in plan.unpruned), plan.hint)
        found: Estimate = {}
        for part in plan.parts.values():
            found |= self.rows_read(part, plan.parameters)
        if plan.lake_rows is not None:
            found[LAKE] = plan.lake_rows if isinstance(plan.lake_rows, int) else self.count(*plan.lake_rows)
        self.refuse(found.get(EVENTS, 0) + found.get(LAKE, 0), plan.hint)
        return found

    def rows_read(self, text: str, parameters: dict[str, Any], *, theirs: bool = False) -> Estimate:
        """Rows in the parts and granules of the real-time store that ClickHouse would read."""
        database = self.database if theirs else DATABASE
        rows = self.run(
            lambda: self.store.explain_readonly("ESTIMATE", text, parameters, self.about, database), theirs=theirs
        )
        found: Estimate = {}
        for database, table, _, count, *_ in (row for row in rows if len(row) > 3):
            name = f"{database}.{table}"
            found[name] = found.get(name, 0) + int(count)
        return found

    def _rows_within(self, span: Span) -> int:
        """About how many events the real-time store has of a stretch of time."""
        return self.count(_ROWS_WITHIN, _EVENTS | {"start": span.start // 1_000, "end": -(-span.end // 1_000)})

    def row_bytes(self, table: str) -> float:
        """Bytes on disk of an average row of a table of the real-time store."""
        database, _, name = table.partition(".")
        found = self.run(lambda: self.store.query_arrow(_ROW_BYTES, {"database": database, "table": name}))
        return float(found.column(0)[0].as_py() or 0.0)

    def count(self, statement: str, parameters: dict[str, Any]) -> int:
        """The number that a statement gives."""
        found = self.run(lambda: self.store.query_arrow(statement, parameters, self.limits))
        return int(found.column(0)[0].as_py())

    def refuse(self, rows: int, hint: str) -> None:
        """Raises ``QueryError`` when so many rows are too many."""
        if rows > self._config.scan_rows_max:
            raise TooManyRows(rows, self._config.scan_rows_max, hint)


def _reason(error: StoreError) -> str:
    """ClickHouse's own words without its decoration."""
    text = re.sub(r"^.*?DB::\w*Exception: ", "", str(error), flags=re.DOTALL)
    text = re.sub(r"\s*\(version .*$", "", text, flags=re.DOTALL)
    return f"the query does not work: {text[:500]}"
