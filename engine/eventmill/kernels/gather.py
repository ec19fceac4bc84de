"""Rows of a batch picked by number, all columns at once."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native import gather as native
from eventmill.kernels.arrow import Int32s, as_array

_OFFSET_MAX: Final = 2**31 - 1
#: Fewer rows are taken by pyarrow, which needs less time a column and more time a row.
_ROWS_FEW: Final = 1_000
_STRINGS: Final = frozenset({pa.lib.Type_STRING, pa.lib.Type_BINARY})
#: Types whose values lie side by side, of a power of two of bytes (of ``FIXED_SIZE_BINARY`` that is looked at).
_PLAIN: Final = frozenset(
    {
        pa.lib.Type_INT8, pa.lib.Type_INT16, pa.lib.Type_INT32, pa.lib.Type_INT64,
        pa.lib.Type_UINT8, pa.lib.Type_UINT16, pa.lib.Type_UINT32, pa.lib.Type_UINT64,
        pa.lib.Type_HALF_FLOAT, pa.lib.Type_FLOAT, pa.lib.Type_DOUBLE,
        pa.lib.Type_DATE32, pa.lib.Type_DATE64, pa.lib.Type_TIME32, pa.lib.Type_TIME64,
        pa.lib.Type_TIMESTAMP, pa.lib.Type_DURATION, pa.lib.Type_FIXED_SIZE_BINARY,
    }
)  # fmt: skip
_WIDTHS: Final = frozenset({1, 2, 4, 8, 16})


def take(batch: pa.RecordBatch, rows: Any) -> pa.RecordBatch:
    """The rows with those numbers (int32 or int64), in that order, with the batch's schema.

    Columns of words keep their dictionary; columns of other types than events have are gathered by pyarrow. Raises
    ``IndexError`` for a number that is no row's, ``TypeError`` for nulls and what are no whole numbers, and ``ValueError``
    where a column of strings would get 2 GiB or more.

    >>> import pyarrow as pa
    >>> take(pa.record_batch({"n": [1, 2, 3]}), [2, 0]).column("n").to_pylist()
    [3, 1]
    """
    numbers = _numbers(rows, batch.num_rows)
    picked = native.Rows(numbers, batch.num_rows)
    if len(numbers) < _ROWS_FEW:
        return batch.take(pa.array(numbers))
    columns = [_taken(values, numbers, picked) for values in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _numbers(rows: Any, limit: int) -> Int32s:
    if isinstance(rows, np.ndarray) and rows.dtype == np.int32:
        return np.ascontiguousarray(rows)
    array = as_array(rows, pa.int64())
    if array.null_count:
        raise TypeError("numbers of rows must not be null")
    wide = array.to_numpy()
    if len(wide) and (wide.min() < 0 or wide.max() >= min(limit, _OFFSET_MAX)):
        raise IndexError(f"rows must be numbers from 0 to {limit - 1}")
    numbers: Int32s = wide.astype(np.int32)
    return numbers


def _taken(values: pa.Array, rows: Int32s, picked: native.Rows) -> pa.Array:
    kind = values.type
    if kind.id in _STRINGS:
        return _strings(values, len(rows), picked)
    if kind.id in _PLAIN and kind.byte_width in _WIDTHS:
        return _fixed(values, kind.byte_width, len(rows), picked)
    if kind.id == pa.lib.Type_DICTIONARY and kind.index_type.id == pa.lib.Type_INT32:
        indices = _fixed(values.indices, 4, len(rows), picked)
        return pa.DictionaryArray.from_arrays(indices, values.dictionary, ordered=kind.ordered, safe=False)
    return pc.take(values, pa.array(rows))


def _fixed(values: pa.Array, width: int, count: int, picked: native.Rows) -> pa.Array:
    bitmap, source = values.buffers()
    to = pa.allocate_buffer(count * width)
    picked.fixed(source, values.offset, width, to)
    valid, nulls = _validity(values, bitmap, count, picked)
    return pa.Array.from_buffers(values.type, count, [valid, to], nulls)


def _strings(values: pa.Array, count: int, picked: native.Rows) -> pa.Array:
    bitmap, places, source = values.buffers()
    source = b"" if source is None else source
    offsets = pa.allocate_buffer((count + 1) * 4)
    total = picked.offsets(places, values.offset, source, offsets)
    if total > _OFFSET_MAX:
        raise ValueError(
            f"a column of strings would get {total:,} bytes, and holds {_OFFSET_MAX:,} at most; take fewer rows"
        )
    data = pa.allocate_buffer(total + native.PADDING)
    picked.strings(places, values.offset, source, total, data)
    valid, nulls = _validity(values, bitmap, count, picked)
    return pa.Array.from_buffers(values.type, count, [valid, offsets, data.slice(0, total)], nulls)


def _validity(
    values: pa.Array, bitmap: pa.Buffer | None, count: int, picked: native.Rows
) -> tuple[pa.Buffer | None, int]:
    """The bitmap of the rows picked (``None`` where the column has no nulls), and how many of them are null."""
    if bitmap is None or not values.null_count:
        return None, 0
    valid = pa.allocate_buffer(-(-count // 8))
    return valid, count - picked.bits(bitmap, values.offset, valid)
