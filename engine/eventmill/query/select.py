"""Questions in SQL that somebody else wrote: guarded (see ``sql``), then run on a connection that can only read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.core.schema import EVENT
from eventmill.core.typed import Typed
from eventmill.query import renamed
from eventmill.query import sql as guard
from eventmill.query.asker import LAKE, Asker, Estimate
from eventmill.query.render import typed

#: Who may be asked; null is ClickHouse.
TRINO: Final = "trino"
ENGINES: Final = (None, "clickhouse", TRINO)
#: What would bring fewer rows.
FEWER: Final = "add a condition on timestamp, aggregate, or add LIMIT without ORDER BY"


@dataclass(frozen=True, slots=True)
class Checked:
    """A query that may run: ``text`` as ClickHouse's own parser understands it."""

    text: str
    parameters: dict[str, Any]
    stores: list[str]
    reads_lake: bool
    unbounded: bool
    #: Where the stores meet (ms since the epoch), if it asks both by the view.
    boundary: int | None = None


class Shown:
    """Which snapshot of the lake stands as ``lake.events``, where the view over both stores parts them, and of which typed
    columns the views of renamed events know; one for all."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.source: str | None = None
        self.boundary: int | None = None
        self.typed: Typed | None = None


class Selects:
    """Safe to share between threads. ``lake_source`` gives the lake as a FROM expression, or null while there is none;
    ``boundary`` the time before which the lake answers, in ms since the epoch."""

    def __init__(
        self,
        asker: Asker,
        lake_source: Callable[[], str | None],
        boundary: Callable[[], int | None],
        shown: Shown | None = None,
    ) -> None:
        self._boundary = boundary
        self._asker = asker
        self._lake_source = lake_source
        self._functions: guard.Functions | None = None
        self.shown = shown or Shown()

    def read(self, body: Any) -> tuple[guard.Guarded, dict[str, Any]]:
        """A request's body, ``{"query", "parameters", "engine"}``, behind the first wall; no store is asked. Raises
        ``QueryError``."""
        if not isinstance(body, dict) or set(body) - {"query", "parameters", "engine"}:
            raise QueryError(
                'the body must be a JSON object {"query": "SELECT …", "parameters": {…}, "engine": "clickhouse"}'
            )
        if body.get("engine") not in ENGINES:
            raise QueryError(
                f"engine is {str(body['engine'])[:100]!r}; it is clickhouse, or trino for SQL over lake.events"
            )
        guarded = guard.parse(body.get("query"))
        return guarded, _parameters(body.get("parameters"), guarded.parameters)

    def check(self, body: Any) -> Checked:
        """The same behind all walls. Raises ``QueryError``."""
        guarded, parameters = self.read(body)
        boundary = self._boundary() if guarded.reads_both else None
        reads_lake = guarded.names_lake or boundary is not None
        if reads_lake:
            self._show_lake()
        if self._asker.renames:
            self._show_renamed()
        if guarded.reads_both:
            self._show_both(boundary)
        unbounded = not guarded.aggregated and not guarded.limited
        text = self._checked(body["query"], parameters)
        stores = [store for store in guarded.stores if store != "lake" or reads_lake]
        return Checked(text, parameters, stores, reads_lake, unbounded, boundary)

    def estimate(self, query: Checked) -> Estimate:
        """Rows that it will read. Raises ``QueryError`` when they are too many."""
        found = self._asker.rows_read(query.text, query.parameters, theirs=True)
        if query.reads_lake:
            found[LAKE] = self._asker.count(f"SELECT count() FROM {LAKE}", {})
        if query.unbounded:
            rows = sum(found.values())
            self._asker.refuse(rows, FEWER)
        return found

    def answer(self, query: Checked) -> pa.Table:
        """The query's own columns."""
        kinds = self._run(f"DESCRIBE ({query.text})", query.parameters, self._asker.about)
        table = self._run(query.text, query.parameters, self._asker.limits)
        if not table.num_columns:
            table = pa.table({name: pa.array([], pa.null()) for name in kinds.column("name").to_pylist()})
        described = dict(zip(kinds.column("name").to_pylist(), kinds.column("type").to_pylist(), strict=True))
        return typed(table, described)

    def _run(self, text: str, parameters: dict[str, Any], limits: dict[str, Any]) -> pa.Table:
        asker = self._asker
        return asker.run(lambda: asker.store.query_readonly(text, parameters, limits, asker.database), theirs=True)

    def _checked(self, query: str, parameters: dict[str, Any]) -> str:
        asker = self._asker
        if self._functions is None:
            self._functions = guard.Functions(asker.store.query_arrow(guard.FUNCTIONS).to_pylist())
        spelt = asker.run(lambda: asker.store.query_arrow(guard.CANONICAL, {"query": query}), theirs=True)
        text = str(spelt.column(0)[0])
        about, database = asker.about, asker.database
        lines = asker.run(lambda: asker.store.explain_readonly("AST", text, parameters, about, database), theirs=True)
        guard.check_syntax_tree(["\t".join(line) for line in lines], self._functions)
        return text

    def _show_lake(self) -> None:
        """``lake.events`` becomes the lake's newest snapshot. A query that reads an older one keeps it."""
        source = self._lake_source()
        if source is None:
            raise QueryError("there is no lake.events yet: nothing has been stored in the lake")
        with self.shown.lock:
            if source != self.shown.source:
                # A table, because a read-only connection may not call the table function itself.
                store, renames = self._asker.store, self._asker.renames
                table = renamed.LAKE_AS_STORED if renames else LAKE
                store.command(f"CREATE DATABASE IF NOT EXISTS {guard.LAKE[0]}")
                store.command(f"CREATE OR REPLACE TABLE {table} AS {source}")
                if renames:
                    store.command(renamed.lake_view(renames))
                self.shown.source = source

    def _show_renamed(self) -> None:
        """A view for each table, anew when that has got columns."""
        store = self._asker.store
        with self.shown.lock:
            typed = store.typed
            if typed != self.shown.typed:
                for statement in renamed.views(self._asker.renames):
                    store.command(statement)
                self.shown.typed = typed

    def _show_both(self, boundary: int | None) -> None:
        """The view has each event once: what happened before ``boundary`` (null: there is no lake) from the lake."""
        columns = ", ".join(EVENT.names)
        legs = f"SELECT {columns} FROM {self._asker.database}.events"
        if boundary is not None:
            at = f"fromUnixTimestamp64Milli(toInt64({boundary}), 'UTC')"
            legs += (
                f" WHERE timestamp >= {at} UNION ALL SELECT {columns} FROM {LAKE} "
                f"WHERE timestamp < {at} AND event_date <= toDate32({at})"
            )
        with self.shown.lock:
            if boundary is None or boundary != self.shown.boundary:
                for database in sorted({guard.DATABASE, self._asker.database}):
                    self._asker.store.command(f"CREATE OR REPLACE VIEW {database}.{guard.BOTH} AS {legs}")
                self.shown.boundary = boundary


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
