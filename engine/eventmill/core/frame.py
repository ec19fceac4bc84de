"""Frames: record batches as Arrow IPC streams, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill.core.errors import FrameError
from eventmill.core.log import Frame, Rows, Shared, StoredFrame
from eventmill.core.schema import SCHEMA_VERSION, Topic

CONTENT_TYPE: Final = "application/vnd.apache.arrow.stream"
_WRITE: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
#: A frame's buffers are too small to be worth handing round.
_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)


def encode(
    topic: Topic,
    batch: pa.RecordBatch,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    partition: int = 0,
) -> Frame:
    """One frame of ``batch``: an Arrow IPC stream whose buffers are compressed by LZ4."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_WRITE) as writer:
        writer.write_batch(batch)
    return framed(topic, memoryview(sink.getvalue()), batch.num_rows, key=key, headers=headers, partition=partition)


def framed(
    topic: Topic,
    payload: bytes | memoryview,
    events: int,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    partition: int = 0,
) -> Frame:
    """One frame of a payload of so many events that ``encode`` has made."""
    return Frame(
        topic=topic,
        payload=payload,
        events=events,
        key=None if key is None else key.encode(),
        headers={"schema": str(SCHEMA_VERSION), "content-type": CONTENT_TYPE, **(headers or {})},
        partition=partition,
    )


def decode(frame: StoredFrame) -> pa.RecordBatch:
    """The batch of one frame. Raises ``FrameError`` naming topic and offset."""
    if frame.rows is not None:
        return _slice(frame.rows)
    try:
        with pa.ipc.open_stream(frame.payload, options=_READ) as reader:
            table = reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise FrameError(f"frame {frame.topic}/{frame.partition}@{frame.offset} does not read: {error}") from error
    return to_batch(table)


def decode_all(frames: Iterable[StoredFrame], schema: pa.Schema) -> pa.RecordBatch:
    """The frames' batches as one contiguous batch of ``schema``, in log order."""
    return _one([conform(batch, schema) for _, batch in batches(frames)], schema)


def batches(frames: Iterable[StoredFrame]) -> Iterator[tuple[list[StoredFrame], pa.RecordBatch]]:
    """The frames in order, each with its batch; those whose rows lie side by side in one, with it together.

    The rows of a frame are its ``events`` many, after those of the frames before it.
    """
    side: list[StoredFrame] = []
    for each in frames:
        if side and not _next_to(side[-1], each):
            yield side, _side(side)
            side = []
        if each.rows is None:
            yield [each], decode(each)
        else:
            side.append(each)
    if side:
        yield side, _side(side)


def owners(frames: Sequence[StoredFrame], rows: npt.NDArray[np.int64]) -> list[StoredFrame]:
    """Of each row (its index in the frames' batch, as ``batches`` gives it) the frame that it belongs to."""
    ends = np.cumsum([each.events for each in frames])
    return [frames[at] for at in np.searchsorted(ends, rows, side="right")]


def _next_to(one: StoredFrame, other: StoredFrame) -> bool:
    if one.rows is None or other.rows is None:
        return False
    return one.rows.shared is other.rows.shared and one.rows.begin + one.rows.size == other.rows.begin


def _side(frames: Sequence[StoredFrame]) -> pa.RecordBatch:
    rows = [each.rows for each in frames if each.rows is not None]
    return _slice(Rows(rows[0].shared, rows[0].begin, sum(each.size for each in rows)))


def gather(parts: Iterable[Rows], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of shared batches of ``schema`` as one contiguous batch, in that order."""
    return _one([_slice(each) for each in _neighbours(parts)], schema)


def _one(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return to_batch(pa.Table.from_batches(batches, schema))


def _slice(rows: Rows) -> pa.RecordBatch:
    return rows.shared.batch.slice(rows.begin, rows.size)


def _neighbours(parts: Iterable[Rows]) -> Iterator[Rows]:
    """The rows in order, those that lie side by side in a batch together."""
    shared: Shared | None = None
    begin = end = 0
    for part in parts:
        if part.shared is shared and part.begin == end:
            end += part.size
            continue
        if shared is not None and end > begin:
            yield Rows(shared, begin, end - begin)
        shared, begin, end = part.shared, part.begin, part.begin + part.size
    if shared is not None and end > begin:
        yield Rows(shared, begin, end - begin)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch under ``schema`` by name: a column that it lacks is null, one that ``schema`` lacks is left out."""
    if batch.schema.equals(schema):
        return batch
    columns = []
    for field in schema:
        position = batch.schema.get_field_index(field.name)
        columns.append(batch.column(position).cast(field.type) if position >= 0 else pa.nulls(len(batch), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def to_batch(table: pa.Table) -> pa.RecordBatch:
    """The table as one contiguous batch."""
    batches = table.combine_chunks().to_batches()
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    if len(batches) > 1:
        raise FrameError("a batch of over 2 GiB of text does not fit one frame; lower the batch sizes")
    return batches[0]
