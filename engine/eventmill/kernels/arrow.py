"""Taking Arrow data from anyone, and columns as the kernels take them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill.core.schema import EVENT, EVENT_ID, RAW

Bytes = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

#: What the views that Polars exports become: pyarrow gathers no views.
_PLAIN: Final = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
#: Times beyond this many ms from the epoch are refused, so that sums of times and spans fit 64 bits.
_TIME_MAX: Final = 1 << 61
_NO_TIME: Final = -(1 << 63)


def as_batch(data: Any) -> pa.RecordBatch:
    """``data`` (a record batch, a table, or anything with ``__arrow_c_array__`` or ``__arrow_c_stream__``) as a batch.

    Columns of string or binary views become plain ones. Raises ``TypeError`` for anything else.
    """
    try:
        if isinstance(data, pa.RecordBatch) or hasattr(data, "__arrow_c_array__"):
            return _plain(pa.record_batch(data))
        table = _plain(data if isinstance(data, pa.Table) else pa.table(data))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TypeError(f"an Arrow record batch or table is needed here: {error}") from error
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _plain(rows: pa.RecordBatch | pa.Table) -> pa.RecordBatch | pa.Table:
    if not any(field.type in _PLAIN for field in rows.schema):
        return rows
    return rows.cast(pa.schema([field.with_type(_PLAIN.get(field.type, field.type)) for field in rows.schema]))


def as_array(data: Any, kind: pa.DataType) -> pa.Array:
    """``data`` (an Arrow array or a sequence) as one contiguous array of ``kind``. Raises ``TypeError`` if it can't be."""
    try:
        array = _contiguous(data, kind)
        return array if array.type.equals(kind) else array.cast(kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TypeError(f"{kind} is needed here: {error}") from error


def _contiguous(data: Any, kind: pa.DataType | None = None) -> pa.Array:
    if not isinstance(data, (pa.Array, pa.ChunkedArray)):
        if hasattr(data, "__arrow_c_array__"):
            data = pa.array(data)
        elif hasattr(data, "__arrow_c_stream__"):
            data = pa.chunked_array(data)
        else:
            data = pa.array(data, kind)
    if isinstance(data, pa.ChunkedArray):
        data = data.combine_chunks()
        # Depending on its version, pyarrow gives one array here or still a chunked one.
        data = pa.concat_arrays(data.chunks) if isinstance(data, pa.ChunkedArray) else data
    return data.storage if isinstance(data, pa.ExtensionArray) else data


def column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The batch's column of that name. Raises ``ValueError`` naming it when there is none, or two."""
    position = batch.schema.get_field_index(name)
    if position < 0:
        raise ValueError(f"the batch needs one column {name!r}; it has {', '.join(batch.schema.names) or 'none'}")
    return batch.column(position)


class Strings(NamedTuple):
    """A string column's buffers: value i is ``data[offsets[i]:offsets[i + 1]]``; ``data`` has at least one byte."""

    offsets: Int32s
    data: Bytes


def strings(array: pa.Array) -> Strings:
    """The buffers of an array of type string; the views keep them alive."""
    _, offsets, data = array.buffers()
    some = data is not None and data.size > 0
    content = np.frombuffer(data, np.uint8) if some else np.zeros(1, np.uint8)
    if len(array) == 0:
        return Strings(np.zeros(1, np.int32), content)
    return Strings(np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1], content)


def id_bytes(ids: Any) -> Bytes:
    """The bytes of 16-byte ids, one after the other. Raises ``TypeError`` for other widths and nulls."""
    array = as_array(ids, EVENT_ID)
    if array.null_count:
        raise TypeError("ids must not be null")
    if len(array) == 0:
        return np.zeros(0, np.uint8)
    begin = array.offset * EVENT_ID.byte_width
    return np.frombuffer(array.buffers()[1], np.uint8)[begin : begin + len(array) * EVENT_ID.byte_width]


def booleans(values: Bytes) -> pa.BooleanArray:
    """Bytes 0 and 1 as an array without nulls."""
    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def validity(array: pa.Array) -> tuple[Bytes | None, int]:
    """The validity bitmap (``None`` = no nulls) and the first value's bit."""
    bitmap = array.buffers()[0]
    if bitmap is None or not array.null_count:
        return None, 0
    return np.frombuffer(bitmap, np.uint8), array.offset


def _milliseconds(times: Any) -> pa.Array:
    try:
        array = _contiguous(times)
        if pa.types.is_timestamp(array.type):
            # What is in ms already is looked at as it is: a cast would cost more than the kernels that use it.
            array = array if array.type.unit == "ms" else array.cast(pa.timestamp("ms", array.type.tz), safe=False)
            return array.view(pa.int64())
        return array.cast(pa.int64())
    except (pa.ArrowException, TypeError) as error:
        raise TypeError(f"times must be timestamps or int64 milliseconds: {error}") from error


def times_ms(times: Any) -> Int64s:
    """Milliseconds since the epoch, int64, of a timestamp or int64 array without nulls.

    Raises ``TypeError`` for other types and nulls, ``ValueError`` for times more than 2**61 ms from the epoch.
    """
    array = _milliseconds(times)
    if array.null_count:
        raise TypeError("times must not be null")
    values: Int64s = np.ascontiguousarray(array.to_numpy(zero_copy_only=False))
    if len(values) and (int(values.min()) < -_TIME_MAX or int(values.max()) > _TIME_MAX):
        raise ValueError("times must lie within 2**61 ms of the epoch")
    return values


def own_times_ms(times: Any) -> Int64s:
    """As ``times_ms``, but any times, and the smallest int64 for a null. Raises ``TypeError`` for other types."""
    array = _milliseconds(times)
    filled = array.fill_null(_NO_TIME) if array.null_count else array
    values: Int64s = np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))
    return values


def with_columns(batch: pa.RecordBatch, columns: dict[str, tuple[pa.Field, pa.Array]]) -> pa.RecordBatch:
    """The batch with columns replaced, or added at its end.

    A batch that has all columns of ``core.schema.RAW`` gets the order of ``core.schema.EVENT``, others after it.
    """
    merged = {field.name: (field, values) for field, values in zip(batch.schema, batch.columns, strict=True)}
    merged.update(columns)
    names = list(merged)
    if all(name in merged for name in RAW.names):
        known = [name for name in EVENT.names if name in merged]
        names = known + [name for name in names if name not in EVENT.names]
    return pa.RecordBatch.from_arrays(
        [merged[name][1] for name in names],
        schema=pa.schema([merged[name][0] for name in names], batch.schema.metadata),
    )
