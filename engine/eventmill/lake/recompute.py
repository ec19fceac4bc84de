"""Exact sessions of the dates that compaction touches, and the rows whose session is another one now.

Invariant: after a compaction every row's session is what a batch computation over all rows gives. New rows of some dates can
change sessions of those dates, and of other dates only where one chain of activity (each event within the gap of the one
before) crosses the midnights between. So the dates are computed whole, and chains are followed beyond them on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventmill.kernels.sessionize import sessions_exact
from eventmill.lake.files import DAY_MS, Indices, by_index, parquet
from eventmill.lake.iceberg import LiveFile

#: Rows whose keys are held in memory at once; more are computed device by device bucket.
ROWS_MAX: Final = 8_000_000
_KEYS: Final = pa.schema(
    [
        pa.field("device_id", pa.string()),
        pa.field("time", pa.int64()),
        pa.field("session_id", pa.int64()),
        pa.field("file", pa.int32()),
        pa.field("row", pa.int64()),
    ]
)
Bools = npt.NDArray[np.bool_]


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
            base = reader.read(start, end)
            if base.num_rows == 0:
                continue
            keys = pa.concat_tables(
                [base, _chained(reader, base, start, gap_ms, 1), _chained(reader, base, end, gap_ms, -1)]
            )
            ids = np.asarray(sessions_exact(keys.column("device_id"), keys.column("time"), gap_ms))
            different = np.flatnonzero(ids != np.asarray(keys.column("session_id")))
            of_file = np.asarray(keys.column("file"))[different].astype(np.int64)
            rows_of = by_index(of_file, np.asarray(keys.column("row"))[different])
            ids_of = by_index(of_file, ids[different])
            for index, its_rows in rows_of.items():
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
    """Reads what sessions need: device, time, session id, and where the row lies; one bucket of the devices."""

    def __init__(self, files: list[LiveFile], removed: Mapping[int, Indices], bucket: int, buckets: int) -> None:
        self._files, self._removed = files, removed
        self._bucket, self._buckets = bucket, buckets
        self.start = min((file.start_ms for file in files), default=0)
        self.end = max((file.end_ms for file in files), default=0)

    def read(self, start_ms: int, end_ms: int, devices: pa.Array | None = None) -> pa.Table:
        """The rows with ``start_ms <= time < end_ms``, of those devices or all."""
        parts = [
            part
            for index, file in enumerate(self._files)
            if file.start_ms < end_ms and file.end_ms >= start_ms
            for part in self._read_file(index, file, start_ms, end_ms, devices)
        ]
        return pa.Table.from_batches(parts, _KEYS)

    def _read_file(
        self, index: int, source: LiveFile, start_ms: int, end_ms: int, devices: pa.Array | None
    ) -> Iterator[pa.RecordBatch]:
        removed = self._removed.get(index)
        with parquet(source) as file:
            first = 0
            for group, rows in _row_groups(file, start_ms, end_ms):
                if group is not None:
                    table = file.read_row_group(group, ["device_id", "timestamp", "session_id"])
                    yield self._keys(index, first, table, start_ms, end_ms, devices, removed)
                first += rows

    def _keys(
        self,
        index: int,
        first: int,
        table: pa.Table,
        start_ms: int,
        end_ms: int,
        devices: pa.Array | None,
        removed: Indices | None,
    ) -> pa.RecordBatch:
        times = table.column("timestamp").cast(pa.int64()).to_numpy() // 1000
        rows = np.arange(first, first + len(times))
        device = table.column("device_id").combine_chunks()
        device = device.chunk(0) if isinstance(device, pa.ChunkedArray) else device
        keep = (times >= start_ms) & (times < end_ms)
        if removed is not None:
            keep &= ~np.isin(rows, removed)
        if self._buckets > 1:
            keep &= _bucket(device, self._buckets) == self._bucket
        if devices is not None:
            keep &= np.asarray(pc.is_in(device, value_set=devices))
        columns = [device, times, table.column("session_id").to_numpy(), np.full(len(times), index, np.int32), rows]
        batch = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=_KEYS)
        return batch.filter(pa.array(keep))


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


def _bucket(device: pa.StringArray, buckets: int) -> npt.NDArray[np.uint64]:
    """A number below ``buckets`` from the last 8 bytes of each string; any function of the string would do."""
    if len(device) == 0:
        return np.empty(0, np.uint64)
    _, offsets, data = device.buffers()
    ends = np.frombuffer(offsets, np.int32)[device.offset : device.offset + len(device) + 1].astype(np.int64)
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    mixed = np.zeros(len(device), np.uint64)
    for back in range(1, 9):
        position = ends[1:] - back
        inside = position >= ends[:-1]
        byte = np.where(inside, content[np.where(inside, position, 0)], 0).astype(np.uint64)
        mixed = (mixed ^ byte) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(32)) % np.uint64(buckets)


def _chained(reader: KeyReader, base: pa.Table, edge_ms: int, gap_ms: int, sign: int) -> pa.Table:
    """The rows beyond ``edge_ms`` that a chain of activity joins to rows of ``base``.

    ``sign`` 1: ``base`` begins at the edge, and earlier rows are sought; -1: it ends before the edge, and later rows are.
    Times are turned round in that second case, so that the way always leads down from ``edge``.
    """
    edge = edge_ms if sign == 1 else 1 - edge_ms
    lowest = reader.start if sign == 1 else -reader.end
    near = base.filter(pc.less(_turned(base, sign), edge + gap_ms))
    near_count = near.num_rows
    devices = pc.unique(near.column("device_id"))
    rows, floor, width = near, edge, gap_ms
    chained = np.ones(near_count, np.bool_)
    while len(devices) and floor > lowest:
        begin, end = (floor - width, floor) if sign == 1 else (1 - floor, 1 - floor + width)
        rows = pa.concat_tables([rows, reader.read(begin, end, devices)])
        floor, width = floor - width, width * 2
        chained, open_ended = _links(rows, _turned(rows, sign).to_numpy(), near_count, gap_ms, floor)
        devices = pc.unique(rows.column("device_id").filter(pa.array(open_ended)))
    chained[:near_count] = False
    return rows.filter(pa.array(chained))


def _turned(rows: pa.Table, sign: int) -> pa.ChunkedArray:
    return pc.multiply(rows.column("time"), sign)


def _links(rows: pa.Table, times: Indices, near_count: int, gap_ms: int, floor: int) -> tuple[Bools, Bools]:
    """Which rows belong to the chains of the first ``near_count`` rows, and which of them could go on below ``floor``."""
    codes = pc.dictionary_encode(rows.column("device_id").combine_chunks())
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    devices = codes.indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((times, devices))
    by_device, by_time = devices[order], times[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (by_device[1:] != by_device[:-1]) | (by_time[1:] - by_time[:-1] > gap_ms)
    chain = np.empty(len(order), np.int64)
    chain[order] = np.cumsum(begins) - 1
    earliest = by_time[np.flatnonzero(begins)]
    of_near = np.zeros(len(earliest), np.bool_)
    of_near[chain[:near_count]] = True
    chained = of_near[chain]
    return chained, chained & (earliest[chain] < floor + gap_ms)
