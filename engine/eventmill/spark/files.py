"""Files of the lake that Spark's executors write: rows come as one Arrow table, and leave as one Parquet file.

The driver describes the files to Iceberg from their footers, and commits them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from eventmill.core.schema import EVENT, WORD, Flag
from eventmill.kernels.gather import Parts
from eventmill.lake.files import ROW_GROUP, FileWriter, Indices, parquet_metadata, placed, write_file
from eventmill.lake.iceberg import COLUMNS, DATE, GROUP, Kind
from eventmill.lake.merge import Enrich, enriched, one_dictionary
from eventmill.lake.storage import Storage

#: What an executor tells of a file, as Spark's DDL: ``size`` in bytes, ``name`` of the group, and of how many flagged rows all
#: is ``known`` now.
WRITTEN: Final = "location string, size long, date int, name string, known long"
_UNKNOWN: Final = int(Flag.DIMENSIONS_UNKNOWN | Flag.SCHEMA_UNKNOWN)
_FILE: Final = pa.schema(
    {"location": pa.string(), "size": pa.int64(), "date": pa.int32(), "name": pa.string(), "known": pa.int64()}
)


def described(writer: FileWriter, storage: Storage, file: Any) -> DataFile:
    """A file that an executor tells of, as Iceberg wants it described."""
    footer = parquet_metadata(storage, storage.path(file.location))
    return writer.described(file.location, footer, file.size, file.date, file.name)


def pack_writer(storage: Storage, folder: str, run: str, enrich: Enrich | None) -> Callable[[pa.Table], pa.Table]:
    """Makes one file of the rows of a pack: EVENT's columns, the partition's ``DATE`` and ``GROUP``, ``pack`` (its number), and
    ``place`` and ``row``, which order rows of equal times. Gives a row of ``WRITTEN``."""

    def write(given: pa.Table) -> pa.Table:
        rows = stored(given)
        # As the files have them, one after the other.
        order = np.lexsort((given.column("row").to_numpy(), given.column("place").to_numpy()))
        batches, order, known = _put_right(rows, order, enrich)
        whole = pa.Table.from_batches(batches)
        times = whole.column("timestamp").cast(pa.int64()).to_numpy()
        order = order[np.argsort(times[order], kind="stable")]
        flags = whole.column("flags").to_numpy()[order]
        kind = Kind.FLAGGED if (flags & _UNKNOWN).any() else Kind.COMPACTED
        date = given.column(DATE).cast(pa.int32())[0].as_py()
        group, pack = given.column(GROUP)[0].as_py(), given.column("pack")[0].as_py()
        # A task that is tried again writes another file; what it left before belongs to nobody, and is cleaned up.
        location = f"{folder}/{placed(date, f'{kind}-{run}-{pack:05d}-{uuid.uuid4().hex[:8]}')}"
        parts = Parts(batches)
        tables = (
            pa.Table.from_batches([parts.take(order[begin : begin + ROW_GROUP])])
            for begin in range(0, len(order), ROW_GROUP)
        )
        _, size = write_file(storage, storage.path(location), tables, date, group)
        found = {"location": location, "size": size, "date": date, "name": group, "known": known}
        return pa.Table.from_pylist([found], _FILE)

    return write


def _put_right(rows: pa.Table, order: Indices, enrich: Enrich | None) -> tuple[list[pa.RecordBatch], Indices, int]:
    """The rows, those that were flagged once more at the end; the places of those that count, in order; and how many of
    them are known now."""
    batches = rows.to_batches()
    flagged = (rows.column("flags").to_numpy() & _UNKNOWN)[order] != 0
    if enrich is None or not flagged.any():
        return batches, order, 0
    again, known = enriched(Parts(batches).take(order[flagged]), enrich)
    places = np.concatenate([order[~flagged], np.arange(rows.num_rows, rows.num_rows + int(flagged.sum()))])
    return one_dictionary(batches + again), places, known


def stored(rows: pa.Table) -> pa.Table:
    """Spark's columns as the lake stores them, in one piece; words as dictionaries."""
    columns = []
    for field in EVENT:
        column = rows.column(field.name).cast(COLUMNS.field(field.name).type)
        columns.append(pc.dictionary_encode(column) if field.type == WORD else column)
    return pa.Table.from_arrays(columns, EVENT.names).unify_dictionaries().combine_chunks()


def ms(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Spark's timestamps (µs) as ms since the epoch."""
    found: npt.NDArray[np.int64] = times.cast(pa.int64()).to_numpy() // 1000
    return found
