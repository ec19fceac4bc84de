"""Exact sessions of the dates that compaction touches, and the rows whose session is another one now.

Invariant: after a compaction every row's session is what a batch computation over all rows gives. New rows of some dates can
change sessions of those dates, and of other dates only where one chain of activity (each event within the gap of the one
before) crosses the midnights between. So the dates are computed whole, and chains are followed beyond them on both sides.

A device is its hash here, of which its sessions' ids are made; see ``kernels.sessionize.device_hashes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eventmill.kernels.sessionize import device_hashes, sessions_of_hashes
from eventmill.lake.duplicates import contains
from eventmill.lake.files import DAY_MS, Indices, by_index, parquet, side_by_side
from eventmill.lake.iceberg import LiveFile

#: Rows whose keys are held in memory at once; more are computed device bucket by device bucket.
ROWS_MAX: Final = 8_000_000
#: What a row takes meanwhile.
ROW_BYTES: Final = 90
_ROW_BITS: Final = 32
Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Keys:
    """What sessions need of rows: device, time in ms, session id, and where the row lies (file's index and row in it)."""

    device: Hashes
    time: Indices
    session: Indices
    place: Indices

    def __len__(self) -> int:
        return len(self.device)

    def where(self, mask: Bools) -> Keys:
        """Some of the rows."""
        return Keys(self.device[mask], self.time[mask], self.session[mask], self.place[mask])

    @staticmethod
    def joined(parts: list[Keys]) -> Keys:
        """All rows of the parts."""
        empty = np.empty(0, np.int64)
        return Keys(
            np.concatenate([np.empty(0, np.uint64), *(part.device for part in parts)]),
            *(
                np.concatenate([empty, *(getattr(part, name) for part in parts)])
                for name in ("time", "session", "place")
            ),
        )


def changed_sessions(
    files: list[LiveFile],
    removed: Mapping[int, Indices],
    dates: Iterable[int],
    gap_ms: int,
    *,
    rows_max: int = ROWS_MAX,
) -> dict[int, tuple[Indices, Indices]]:
    """Per index of ``files``: rows whose session changes, and their new session ids.

    ``removed`` names rows, per index too, that count no more; ``dates`` (days since the epoch) are computed whole.
    """
    found: dict[int, list[tuple[Indices, Indices]]] = {}
    for first, last in _runs(dates):
        start, end = first * DAY_MS, (last + 1) * DAY_MS
        rows = sum(file.rows for file in files if first <= file.date <= last)
        buckets = -(-rows // rows_max)
        for bucket in range(buckets):
            reader = KeyReader(files, removed, bucket, buckets)
            keys = reader.read(start, end)
            if len(keys) == 0:
                continue
            beyond = [_chained(reader, keys, start, gap_ms, 1), _chained(reader, keys, end, gap_ms, -1)]
            if any(map(len, beyond)):
                keys = Keys.joined([keys, *beyond])
            ids = sessions_of_hashes(keys.device, keys.time, gap_ms)
            different = np.flatnonzero(ids != keys.session)
            places = keys.place[different]
            of_file, rows_of = places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)
            ids_of = by_index(of_file, ids[different])
            for index, its_rows in by_index(of_file, rows_of).items():
                found.setdefault(index, []).append((its_rows, ids_of[index]))
    return {
        index: (np.concatenate([rows for rows, _ in parts]), np.concatenate([ids for _, ids in parts]))
        for index, parts in found.items()
    }


def _runs(dates: Iterable[int]) -> Iterator[tuple[int, int]]:
    ordered = sorted(dates)
    first = last = None
    for date in ordered:
        if first is None or last is None:
            first = last = date
        elif date == last + 1:
            last = date
        else:
            yield first, last
            first = last = date
    if first is not None and last is not None:
        yield first, last


class KeyReader:
    """Reads the keys of one bucket of the devices."""

    def __init__(self, files: list[LiveFile], removed: Mapping[int, Indices], bucket: int, buckets: int) -> None:
        self._files, self._removed = files, removed
        self._bucket, self._buckets = bucket, buckets
        self.start = min((file.start_ms for file in files), default=0)
        self.end = max((file.end_ms for file in files), default=0)

    def read(self, start_ms: int, end_ms: int, devices: Hashes | None = None) -> Keys:
        """The rows with ``start_ms <= time < end_ms``, of those devices (ascending) or all."""
        chosen = [index for index, file in enumerate(self._files) if file.start_ms < end_ms and file.end_ms >= start_ms]
        parts = side_by_side(lambda index: self._read_file(index, start_ms, end_ms, devices), chosen)
        return Keys.joined([part for file in parts for part in file])

    def _read_file(self, index: int, start_ms: int, end_ms: int, devices: Hashes | None) -> list[Keys]:
        keys = []
        with parquet(self._files[index]) as file:
            first = 0
            for group, rows in _row_groups(file, start_ms, end_ms):
                if group is not None:
                    table = file.read_row_group(group, ["device_id", "timestamp", "session_id"], use_threads=False)
                    keys.append(self._keys(index, first, table, start_ms, end_ms, devices))
                first += rows
        return keys

    def _keys(
        self, index: int, first: int, table: pa.Table, start_ms: int, end_ms: int, devices: Hashes | None
    ) -> Keys:
        times = table.column("timestamp").cast(pa.int64()).to_numpy() // 1000
        rows = np.arange(first, first + len(times))
        chunks = table.column("device_id").chunks
        device = np.concatenate([np.empty(0, np.uint64), *(device_hashes(chunk) for chunk in chunks)])
        keys = Keys(device, times, table.column("session_id").to_numpy(), rows | (index << _ROW_BITS))
        keep = (times >= start_ms) & (times < end_ms)
        if (removed := self._removed.get(index)) is not None:
            its = removed[(removed >= first) & (removed < first + len(times))]
            keep[its - first] = False
        if self._buckets > 1:
            keep &= device % np.uint64(self._buckets) == self._bucket
        if devices is not None:
            keep &= contains(devices, device)
        return keys if keep.all() else keys.where(keep)


def _row_groups(file: pq.ParquetFile, start_ms: int, end_ms: int) -> Iterator[tuple[int | None, int]]:
    """Every row group's number (null where it holds no such time) and rows."""
    position = file.schema_arrow.get_field_index("timestamp")
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        bounds = group.column(position).statistics
        if bounds is not None and bounds.has_min_max:
            least, most = (int(value) // 1000 for value in (bounds.min_raw, bounds.max_raw))
            if most < start_ms or least >= end_ms:
                yield None, group.num_rows
                continue
        yield number, group.num_rows


def _chained(reader: KeyReader, base: Keys, edge_ms: int, gap_ms: int, sign: int) -> Keys:
    """The rows beyond ``edge_ms`` that a chain of activity joins to rows of ``base``.

    ``sign`` 1: ``base`` begins at the edge, and earlier rows are sought; -1: it ends before the edge, and later rows are.
    Times are turned round in that second case, so that the way always leads down from ``edge``.
    """
    edge = edge_ms if sign == 1 else 1 - edge_ms
    lowest = reader.start if sign == 1 else -reader.end
    near = base.where(base.time * sign < edge + gap_ms)
    near_count = len(near)
    devices = np.unique(near.device)
    rows, floor, width = near, edge, gap_ms
    chained = np.ones(near_count, np.bool_)
    while len(devices) and floor > lowest:
        begin, end = (floor - width, floor) if sign == 1 else (1 - floor, 1 - floor + width)
        rows = Keys.joined([rows, reader.read(begin, end, devices)])
        floor, width = floor - width, width * 2
        chained, open_ended = _links(rows, rows.time * sign, near_count, gap_ms, floor)
        devices = np.unique(rows.device[open_ended])
    chained[:near_count] = False
    return rows.where(chained)


def _links(rows: Keys, times: Indices, near_count: int, gap_ms: int, floor: int) -> tuple[Bools, Bools]:
    """Which rows belong to the chains of the first ``near_count`` rows, and which of them could go on below ``floor``."""
    order = np.lexsort((times, rows.device))
    by_device, by_time = rows.device[order], times[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (by_device[1:] != by_device[:-1]) | (by_time[1:] - by_time[:-1] > gap_ms)
    chain = np.empty(len(order), np.int64)
    chain[order] = np.cumsum(begins) - 1
    earliest = by_time[np.flatnonzero(begins)]
    of_near = np.zeros(len(earliest), np.bool_)
    of_near[chain[:near_count]] = True
    chained = of_near[chain]
    return chained, chained & (earliest[chain] < floor + gap_ms)
