"""Exact duplicates: rows with the same event id, of which the one that was received first stays."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill.core.errors import StoreError
from eventmill.lake.files import Indices, by_index, read, side_by_side, stream
from eventmill.lake.iceberg import LiveFile

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
HOUR_MS: Final = 3_600_000
#: New rows whose ids are compared at once.
ROWS_MAX: Final = 8_000_000
#: What a row takes meanwhile, the more the more of them are duplicates.
ROW_BYTES: Final = 64

Words = npt.NDArray[np.uint64]


def words(ids: pa.Array | pa.ChunkedArray) -> Words:
    """The ids as two unsigned 64-bit words each, shape (n, 2)."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if isinstance(array, pa.ChunkedArray):
        raise StoreError("a lake file of over 2 GiB of ids cannot be read; compact with smaller files")
    if len(array) == 0:
        return np.empty((0, 2), np.uint64)
    return np.frombuffer(array.buffers()[1], np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]


def mixed(ids: Words) -> Words:
    """One word for each id: equal for equal ids, and hardly ever else. Whoever needs to know compares the ids."""
    hashes: Words = ids[:, 0] ^ (ids[:, 1] * _ODD)
    return hashes


def repeated(hashes: Words) -> Words:
    """Values that occur more than once, ascending."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def contains(ordered: Words, values: Words) -> npt.NDArray[np.bool_]:
    """Which of ``values`` are in ``ordered`` (ascending)."""
    if len(ordered) == 0:
        return np.zeros(len(values), np.bool_)
    at = np.searchsorted(ordered, values)
    found: npt.NDArray[np.bool_] = ordered[np.minimum(at, len(ordered) - 1)] == values
    return found


def duplicates(files: list[LiveFile], dates: set[int], *, rows_max: int = ROWS_MAX) -> dict[int, Indices]:
    """Per index of ``files``, the rows to remove.

    New rows (of files that were appended) are compared with one another and with the rows of ``dates`` and of the dates
    beside them: a repeated event has the same event time but for the drift of the phone's clock between two sendings.
    Memory: ``ROW_BYTES`` for each of ``rows_max`` new rows; where there are more, ids are read several times.
    """
    near = {date + day for date in dates for day in (-1, 0, 1)}
    scope = [index for index, file in enumerate(files) if file.date in near]
    new = sum(files[index].rows for index in scope if files[index].appended)
    passes = -(-new // rows_max)
    found: dict[int, list[Indices]] = defaultdict(list)
    for number in range(passes):
        candidates = _candidates(files, scope, number, passes)
        if len(candidates):
            for index, rows in _later(files, scope, candidates).items():
                found[index].append(rows)
    return {index: np.sort(np.concatenate(parts)) for index, parts in found.items()}


def _candidates(files: list[LiveFile], scope: list[int], number: int, passes: int) -> Words:
    """The hashes of one pass that occur more than once, at least once of them in a new row; ascending."""

    def own(index: int) -> Words:
        hashes = mixed(words(read(files[index], ["event_id"]).column(0)))
        return hashes if passes == 1 else hashes[hashes % np.uint64(passes) == number]

    def old(index: int) -> Words:
        seen = [mixed(words(batch.column(0))) for batch in stream(files[index], ["event_id"])]
        return np.concatenate([part[contains(hashes, part)] for part in seen] or [hashes[:0]])

    hashes = np.concatenate(side_by_side(own, [index for index in scope if files[index].appended]))
    hashes.sort()
    again = side_by_side(old, [index for index in scope if not files[index].appended])
    return np.unique(np.concatenate([hashes[1:][hashes[1:] == hashes[:-1]], *again]))


def _later(files: list[LiveFile], scope: list[int], candidates: Words) -> dict[int, Indices]:
    """All but the first received of every id whose hash is a candidate; of equal times the older file's stays."""

    def look(index: int) -> tuple[Words, Indices, Indices, Indices]:
        table = read(files[index], ["event_id", "received_at"])
        ids = words(table.column("event_id"))
        rows = np.flatnonzero(contains(candidates, mixed(ids)))
        received = table.column("received_at").cast(pa.int64()).to_numpy()[rows]
        return ids[rows], received, np.full(len(rows), index), rows

    parts = side_by_side(look, scope)
    ids, received, of_file, of_row = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((of_row, of_file, received, ids[:, 1], ids[:, 0]))
    ordered = ids[order]
    again = order[1:][(ordered[1:] == ordered[:-1]).all(axis=1)]
    return by_index(of_file[again], of_row[again])


def by_hour(files: list[LiveFile], removed: dict[int, Indices]) -> Counter[int]:
    """How many of the removed rows were received in each hour (its start, ms since the epoch)."""
    found: Counter[int] = Counter()
    for index, rows in removed.items():
        received = read(files[index], ["received_at"]).column(0).cast(pa.int64()).to_numpy()[rows]
        hours, counts = np.unique(received // 1000 // HOUR_MS * HOUR_MS, return_counts=True)
        found.update(dict(zip(hours.tolist(), counts.tolist(), strict=True)))
    return found
