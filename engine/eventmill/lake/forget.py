"""Which rows of the lake a tombstone covers, and what stands of them in the aggregates.

Aggregates hold no id, so a user's share of them can neither be told nor taken out. An event's or a time's can, minute by
minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.tombstones import COLUMNS, Tombstone
from eventmill.kernels.partition import OVERFLOW
from eventmill.lake.aggregates import AggregateFile, Aggregates, AggregateTable, retired
from eventmill.lake.files import Indices, read
from eventmill.lake.iceberg import LakeTable, LiveFile
from eventmill.lake.lock import exclusive
from eventmill.lake.retire import name_aggregates


def covered(
    files: list[LiveFile], tombstone: Tombstone, removed: Mapping[int, Indices] | None = None
) -> dict[int, Indices]:
    """Per index of ``files``, the rows that it covers, but for those ``removed`` already. Raises ``StoreError``.

    Memory: four columns of one file.
    """
    found = {}
    for index, file in enumerate(files):
        if not _may_hold(file, tombstone):
            continue
        rows = np.flatnonzero(tombstone.mask(read(file, list(COLUMNS))))
        if removed is not None and index in removed:
            rows = np.setdiff1d(rows, removed[index], assume_unique=True)
        if len(rows):
            found[index] = rows
    return found


def _may_hold(file: LiveFile, tombstone: Tombstone) -> bool:
    return (
        (not tombstone.names or file.group in (*tombstone.names, OVERFLOW))
        and (tombstone.from_ms is None or file.end_ms >= tombstone.from_ms)
        and (tombstone.to_ms is None or file.start_ms < tombstone.to_ms)
    )


def count_aggregates(lake: LakeTable, tombstone: Tombstone) -> dict[str, int]:
    """``events`` that the covered rows of the aggregates count, in how many ``files``. Raises ``StoreError``."""
    tables, named = Aggregates.of(lake), retired(lake.load())
    minutes = _covered(tables.minutes, named.minutes, tombstone)
    sessions = _covered(tables.sessions, named.sessions, tombstone)
    events = (pc.sum(rows.filter(gone).column("events")).as_py() or 0 for _, rows, gone in minutes)
    return {"files": len(minutes) + len(sessions), "events": sum(events)}


def forget_aggregates(lake: LakeTable, tombstone: Tombstone) -> None:
    """Take out the covered rows, in one commit. Safe to repeat. Raises ``DataFolderBusy``, ``StoreError``."""
    with exclusive(lake.folder):
        tables, base = Aggregates.of(lake), retired(lake.load())
        state = replace(
            base,
            minutes=_without(tables.minutes, base.minutes, tombstone),
            sessions=_without(tables.sessions, base.sessions, tombstone),
        )
        if state != base:
            name_aggregates(lake, base, state)


def _without(table: AggregateTable, location: str, tombstone: Tombstone) -> str:
    found = _covered(table, location, tombstone)
    if not found:
        return location
    rest = pa.concat_tables([rows.filter(pc.invert(gone)) for _, rows, gone in found])
    return table.changed(location, [file for file, _, _ in found], rest)


def _covered(
    table: AggregateTable, location: str, tombstone: Tombstone
) -> list[tuple[AggregateFile, pa.Table, pa.ChunkedArray]]:
    """Files with covered rows, their rows, and which of those are covered whole: all that they count."""
    if tombstone.user is not None or ("started" in table.columns.names and tombstone.event is not None):
        return []
    found = []
    for file in table.files(location):
        rows = table.read([file])
        gone = pa.array(_whole(rows, tombstone))
        if pc.any(gone).as_py():
            found.append((file, rows, gone))
    return found


def _whole(rows: pa.Table, tombstone: Tombstone) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    first, last, more = ("minute", "minute", 60_000) if "minute" in rows.column_names else ("started", "ended", 1)
    start, end = (rows.column(name).cast(pa.int64()).to_numpy() // 1_000 for name in (first, last))
    to_ms = tombstone.before_ms if tombstone.to_ms is None else min(tombstone.to_ms, tombstone.before_ms)
    found = end + more <= to_ms
    if tombstone.from_ms is not None:
        found &= start >= tombstone.from_ms
    if tombstone.names:
        found &= np.asarray(pc.is_in(rows.column("event"), value_set=pa.array(tombstone.names)))
    return np.asarray(found, np.bool_)
