"""Several files of a partition into one: rows left out, sessions put right, enriched again, by event time.

Rows stay in the types and dictionaries that they are stored in, each text is copied once, and two files are made side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from eventmill.core.errors import StoreError
from eventmill.core.frame import to_batch
from eventmill.core.schema import EVENT, Flag
from eventmill.kernels.gather import Parts
from eventmill.lake.files import ROW_GROUP, FileWriter, Indices, read_stored, side_by_side
from eventmill.lake.iceberg import Kind, LiveFile

Enrich = Callable[[pa.RecordBatch], pa.RecordBatch]
Progress = Callable[[int, int], None]
_UNKNOWN = int(Flag.DIMENSIONS_UNKNOWN | Flag.SCHEMA_UNKNOWN)


@dataclass(frozen=True, slots=True)
class Changes:
    """Per index of ``files``, the rows to leave out, and rows with their new session ids."""

    files: list[LiveFile]
    removed: Mapping[int, Indices]
    sessions: Mapping[int, tuple[Indices, Indices]]


class Merger:
    """Merges files. ``enrich`` gets the flagged rows and gives each of them back, in any order."""

    def __init__(self, writer: FileWriter, changes: Changes, enrich: Enrich | None, progress: Progress) -> None:
        self._writer, self._changes, self._enrich, self._progress = writer, changes, enrich, progress
        self._lock = threading.Lock()
        self._done = self._total = 0
        self._local = threading.local()
        #: Rows of unknown dimensions or schema that are known now.
        self.enriched = 0

    def merge(self, packs: list[list[int]], run: str, paths: set[str]) -> list[DataFile]:
        """A file for each pack (indices of files of one partition) in which rows are left. Raises ``StoreError``.

        ``run`` goes into the files' names; every path is added to ``paths`` before its file is begun.
        """
        files = self._changes.files
        sizes = [sum(files[index].rows for index in pack) for pack in packs]
        self._total = sum(sizes)
        self._progress(0, self._total)

        def one(number: int) -> DataFile | None:
            file = self._one(packs[number], f"{run}-{number:05d}", paths)
            with self._lock:
                self._done += sizes[number]
                self._progress(self._done, self._total)
            return file

        # The largest first, so that the threads end together.
        written = side_by_side(one, sorted(range(len(packs)), key=lambda number: -sizes[number]))
        return [file for file in written if file is not None]

    def _one(self, pack: list[int], name: str, paths: set[str]) -> DataFile | None:
        batches, kept = self._rows(pack)
        flags = _column(batches, "flags")
        flagged = kept[(flags[kept] & _UNKNOWN) != 0]
        if self._enrich is not None and len(flagged):
            again, known = enriched(Parts(one_dictionary(batches)).take(flagged), self._enrich)
            with self._lock:
                self.enriched += known
            count = sum(map(len, batches))
            batches += again
            kept = np.concatenate([np.setdiff1d(kept, flagged), np.arange(count, count + len(flagged))])
            flags = _column(batches, "flags")
        if len(kept) == 0:
            return None
        kind = Kind.FLAGGED if (flags[kept] & _UNKNOWN).any() else Kind.COMPACTED
        order = kept[np.argsort(_column(batches, "timestamp")[kept], kind="stable")]
        first = self._changes.files[pack[0]]
        parts = self._ordered(batches, order)
        return self._writer.write_parts(parts, first.date, first.group, f"{kind}-{name}", paths)

    def _rows(self, pack: list[int]) -> tuple[list[pa.RecordBatch], Indices]:
        """The files' rows with their sessions as they are to be, and the numbers of those that stay."""
        changes = self._changes
        batches, keeps = [], []
        for index in pack:
            rows = read_stored(changes.files[index])
            keep = np.ones(sum(map(len, rows)), np.bool_)
            if index in changes.removed:
                keep[changes.removed[index]] = False
            if index in changes.sessions:
                rows = _with_sessions(rows, *changes.sessions[index])
            batches += rows
            keeps.append(keep)
        return batches, np.flatnonzero(np.concatenate(keeps))

    def _ordered(self, batches: list[pa.RecordBatch], order: Indices) -> Iterator[pa.Table]:
        # Memory that each file's row groups are gathered into, one after the other: new memory costs as much as copying.
        if not hasattr(self._local, "buffers"):
            self._local.buffers = {}
        parts = Parts(one_dictionary(batches), self._local.buffers)
        for begin in range(0, len(order), ROW_GROUP):
            yield pa.Table.from_batches([parts.take(order[begin : begin + ROW_GROUP])])


def _column(batches: list[pa.RecordBatch], name: str) -> Indices:
    values = [batch.column(name).cast(pa.int64()).to_numpy(zero_copy_only=False) for batch in batches]
    return np.concatenate(values) if values else np.empty(0, np.int64)


def one_dictionary(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The same batches, whose words are numbered alike."""
    unified: list[pa.RecordBatch] = pa.Table.from_batches(batches).unify_dictionaries().to_batches()
    return unified


def _with_sessions(batches: list[pa.RecordBatch], rows: Indices, ids: Indices) -> list[pa.RecordBatch]:
    sessions = _column(batches, "session_id").copy()
    sessions[rows] = ids
    given, begin = [], 0
    for batch in batches:
        own = pa.array(sessions[begin : begin + len(batch)])
        given.append(batch.set_column(EVENT.get_field_index("session_id"), batch.schema.field("session_id"), own))
        begin += len(batch)
    return given


def unknown(rows: pa.Table | pa.RecordBatch) -> pa.Array | pa.ChunkedArray:
    """Which rows' dimensions or schema are not known."""
    return pc.not_equal(pc.bit_wise_and(rows.column("flags"), _UNKNOWN), 0)


def enriched(rows: pa.RecordBatch, enrich: Enrich) -> tuple[list[pa.RecordBatch], int]:
    """Flagged rows (as stored) enriched again, and how many are known now. Raises ``StoreError`` when rows get lost."""
    given = pa.Table.from_batches([rows]).cast(EVENT)
    again = pa.Table.from_batches([enrich(to_batch(given))]).select(EVENT.names).cast(EVENT)
    if again.num_rows != rows.num_rows:
        raise StoreError(f"enriching gave {again.num_rows} rows for {rows.num_rows}; it must give every row back")
    known = again.num_rows - (pc.sum(unknown(again)).as_py() or 0)
    return again.cast(rows.schema).to_batches(), known
