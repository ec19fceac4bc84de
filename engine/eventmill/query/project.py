"""One project's view of the stores: whatever is asked through it, ClickHouse itself leaves out every other project's rows.

``additional_table_filters`` puts a condition behind each table of a query, wherever the table stands in it, before anything
else sees a row (https://clickhouse.com/docs/operations/settings/settings#additional_table_filters). On the connections for
SQL that others wrote the setting is fixed by ``readonly = 1``. The lake's files, which our own statements read by a table
function, get the same condition in a subquery of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa

from eventmill.core.lake_rollups import LAKE_ROLL_UPS
from eventmill.core.lakefile import LakeFile
from eventmill.core.retention import LakeView
from eventmill.core.typed import Typed
from eventmill.query.asker import LAKE, Store
from eventmill.query.renamed import LAKE_AS_STORED
from eventmill.query.sql import DATABASE, TABLES

_SETTING: Final = "additional_table_filters"


def condition(project: str) -> str:
    """SQL that holds for the project's rows only. A project's name has no character that would need escaping."""
    if not project.replace("_", "").replace(".", "").replace("-", "").isalnum() or not project.isascii():
        raise ValueError(f"{project!r} is no project's name")
    return f"project = '{project}'"


def filters(project: str) -> str:
    """The setting's value."""
    of_row = condition(project).replace("'", "\\'")
    lakes = (LAKE, LAKE_AS_STORED)
    # On a cluster each server reads tables of its own: see ``sinks.realtime.shape``.
    stored = (f"{DATABASE}.{table}{suffix}" for table in TABLES for suffix in ("", "_local"))
    tables = (*stored, *(table.name for table in LAKE_ROLL_UPS), *lakes)
    return "{" + ", ".join(f"'{table}': '{of_row}'" for table in tables) + "}"


def lake_of(project: str, source: Callable[[], str | None]) -> Callable[[], str | None]:
    """The lake's rows of the project as a FROM expression."""
    begin, end = _around(project)

    def narrowed() -> str | None:
        whole = source()
        return None if whole is None else f"{begin}{whole}{end}"

    return narrowed


def view_of(project: str, view: Callable[[], LakeView | None]) -> Callable[[], LakeView | None]:
    """The same of the lake and its aggregates."""

    def narrowed() -> LakeView | None:
        whole = view()
        if whole is None:
            return None
        begin, end = _around(project)
        minutes, sessions = (
            None if source is None else f"(SELECT * FROM {source} WHERE {condition(project)})"
            for source in (whole.minutes, whole.sessions)
        )
        return LakeView(f"{begin}{whole.events}{end}", minutes, sessions, whole.retired)

    return narrowed


def files_of_project(
    project: str, files_of: Callable[[str], tuple[LakeFile, ...] | None]
) -> Callable[[str], tuple[LakeFile, ...] | None]:
    """The files of such an expression: they hold rows of other projects, too."""
    begin, end = _around(project)
    return lambda narrowed: files_of(narrowed.removeprefix(begin).removesuffix(end))


def _around(project: str) -> tuple[str, str]:
    # The file's name is no column, so it has to be named.
    return "(SELECT *, _file FROM ", f" WHERE {condition(project)})"


class ProjectStore:
    """A ``query.asker.Store`` that shows one project's rows."""

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._fixed = {_SETTING: filters(project)}

    def query_arrow(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        """See ``Store``."""
        return self._store.query_arrow(sql, parameters, {**(settings or {}), **self._fixed})

    def query_rows(
        self,
        rows: pa.Table,
        sql: Callable[[str], str],
        settings: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """See ``Store``. The rows are the caller's: no filter is put on them."""
        return self._store.query_rows(rows, sql, {**(settings or {}), **self._fixed}, parameters)

    def query_readonly(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str = DATABASE,
    ) -> pa.Table:
        """See ``Store``."""
        return self._store.query_readonly(sql, parameters, {**settings, **self._fixed}, database)

    def explain_readonly(
        self,
        kind: str,
        sql: str,
        parameters: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        database: str = DATABASE,
    ) -> list[list[str]]:
        """See ``Store``."""
        return self._store.explain_readonly(kind, sql, parameters, {**settings, **self._fixed}, database)

    def command(self, statement: str) -> None:
        """See ``Store``."""
        self._store.command(statement)

    @property
    def typed(self) -> Typed:
        """See ``Store``."""
        return self._store.typed

    def stored_through(self) -> int:
        """See ``Store``."""
        return self._store.stored_through()
