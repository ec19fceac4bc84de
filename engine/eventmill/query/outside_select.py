"""Questions in SQL over the lake alone that another engine answers, translated for it (``trino_select``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from eventmill.core.errors import QueryError, StoreError
from eventmill.core.lakefile import LakeFile
from eventmill.query import trino_select, trino_sql
from eventmill.query.asker import LAKE, Asker, Estimate
from eventmill.query.legs import rows_of
from eventmill.query.outside import Engine
from eventmill.query.select import FEWER, TRINO, Selects


@dataclass(frozen=True, slots=True)
class Translated:
    """A query in the other engine's SQL. ``shown`` has the lake's name here; ``rows`` are all of the lake."""

    statement: str
    shown: str
    rows: int
    unbounded: bool


class OutsideSelects:
    """Safe to share between threads. ``engine`` is null where there is none; ``snapshot_of`` and ``files_of`` tell of the lake
    as ``lake_source`` gives it; of one project, if ``project`` is not null."""

    def __init__(
        self,
        selects: Selects,
        asker: Asker,
        engine: Engine | None,
        lake_source: Callable[[], str | None],
        snapshot_of: Callable[[str], int | None],
        files_of: Callable[[str], tuple[LakeFile, ...] | None],
        project: str | None,
    ) -> None:
        self._selects = selects
        self._asker = asker
        self._engine = engine
        self._lake_source = lake_source
        self._snapshot_of = snapshot_of
        self._files_of = files_of
        self._project = project

    @staticmethod
    def wanted(body: Any) -> bool:
        """Whether a request's body names the other engine."""
        return isinstance(body, dict) and body.get("engine") == TRINO

    def check(self, body: Any) -> Translated:
        """Raises ``QueryError`` for what is not allowed, or not translated."""
        guarded, parameters = self._selects.read(body)
        if guarded.tables != {LAKE}:
            raise QueryError(f"engine trino answers SQL over {LAKE} alone; leave engine out to ask ClickHouse")
        table = self._named().table
        source = self._lake_source()
        snapshot, files = (None, None) if source is None else (self._snapshot_of(source), self._files_of(source))
        if snapshot is None or files is None:
            raise StoreError("the lake has no snapshot for Trino at this moment; try again")
        columns = ", ".join(map(self._column, trino_select.COLUMNS))
        where = (
            "" if self._project is None else f" WHERE {trino_sql.quoted('project')} = {trino_sql.text(self._project)}"
        )
        lake = f"(SELECT {columns} FROM {table} FOR VERSION AS OF {snapshot}{where})"
        statement = trino_select.translated(body["query"], parameters, lake)
        unbounded = not guarded.aggregated and not guarded.limited
        return Translated(statement, statement.replace(lake, LAKE), rows_of(files), unbounded)

    def _column(self, name: str) -> str:
        """A column of the lake; an event is called as it is now."""
        quoted, known = trino_sql.quoted(name), self._asker.renames.resolved()
        if name != "event" or not known:
            return quoted
        names = " ".join(f"WHEN {trino_sql.text(old)} THEN {trino_sql.text(now)}" for old, now in known.items())
        return f"CASE {quoted} {names} ELSE {quoted} END AS {quoted}"

    def estimate(self, query: Translated) -> Estimate:
        """Rows that it will read at most. Raises ``QueryError`` when they are too many."""
        if query.unbounded:
            self._asker.refuse(query.rows, FEWER)
        return {LAKE: query.rows}

    def answer(self, query: Translated, seconds: float, rows_max: int) -> pa.Table:
        """The query's own columns."""
        return self._named().select(query.statement, seconds, rows_max)

    def _named(self) -> Engine:
        if self._engine is None:
            raise QueryError("there is no Trino here: name one by trino.url, or leave engine out to ask ClickHouse")
        return self._engine
