"""Taking Arrow data from anyone, and the addresses that kernels need."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill.core.schema import EVENT, EVENT_ID

Int64s = npt.NDArray[np.int64]


def as_batch(data: Any) -> pa.RecordBatch:
    """``data`` (a record batch, a table, or anything with ``__arrow_c_array__`` or ``__arrow_c_stream__``) as a batch."""
    if isinstance(data, pa.RecordBatch):
        return data
    if hasattr(data, "__arrow_c_array__"):
        return pa.record_batch(data)
    table = data if isinstance(data, pa.Table) else pa.table(data)
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def as_array(data: Any, kind: pa.DataType) -> pa.Array:
    """``data`` (an Arrow array, or a sequence) as one contiguous array of ``kind``. Raises ``TypeError`` when it can't be."""
    try:
        if not isinstance(data, (pa.Array, pa.ChunkedArray)):
            data = pa.array(data) if hasattr(data, "__arrow_c_array__") else pa.array(data, kind)
        if isinstance(data, pa.ChunkedArray):
            data = data.combine_chunks()
        return data if data.type.equals(kind) else data.cast(kind)
    except (pa.ArrowException, TypeError) as error:
        raise TypeError(f"{kind} is needed here: {error}") from error


def ids_address(ids: pa.Array) -> int:
    """Address of the first id of a fixed_size_binary(16) array without nulls."""
    if ids.type != EVENT_ID or ids.null_count:
        raise TypeError("ids must be fixed_size_binary(16) without nulls")
    return _address(ids.buffers()[1]) + ids.offset * 16


def string_addresses(strings: pa.Array) -> tuple[int, int]:
    """Addresses of the offsets (of the first value) and of the data of a string array."""
    _, offsets, data = strings.buffers()
    return _address(offsets) + strings.offset * 4, _address(data)


def validity(array: pa.Array) -> tuple[int, int]:
    """Address of the validity bitmap (0 = no nulls) and the first value's bit."""
    bitmap = array.buffers()[0]
    return (0, 0) if bitmap is None or not array.null_count else (bitmap.address, array.offset)


def _address(buffer: pa.Buffer | None) -> int:
    return 0 if buffer is None else int(buffer.address)


def times_ms(times: Any) -> Int64s:
    """Milliseconds since the epoch, int64, of a timestamp or int64 array without nulls."""
    array = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
    if not isinstance(array, pa.Array):
        array = pa.array(array)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("ms", array.type.tz), safe=False)
    if array.null_count:
        raise TypeError("times must not be null")
    values: Int64s = np.ascontiguousarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False))
    return values


def with_columns(batch: pa.RecordBatch, columns: dict[str, tuple[pa.Field, pa.Array]]) -> pa.RecordBatch:
    """The batch with columns added or replaced; where all names are an event's, in the order of ``core.schema.EVENT``."""
    merged = {field.name: (field, column) for field, column in zip(batch.schema, batch.columns, strict=True)}
    merged.update(columns)
    names = list(merged)
    if all(name in EVENT.names for name in names):
        names.sort(key=EVENT.names.index)
    return pa.RecordBatch.from_arrays(
        [merged[name][1] for name in names],
        schema=pa.schema([merged[name][0] for name in names], batch.schema.metadata),
    )
