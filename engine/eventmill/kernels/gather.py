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
        raise ValueError(_too_long(total))
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


class Parts:
    """A table that lies in parts, of which rows are picked by number without joining the parts first.

    ``batches`` have one schema; a column of words has one dictionary in all of them (``pa.Table.unify_dictionaries``). Rows
    are numbered through all batches. Not thread-safe.

    >>> import pyarrow as pa
    >>> parts = Parts([pa.record_batch({"n": ["a", "b"]}), pa.record_batch({"n": ["c"]})])
    >>> parts.take([2, 0]).column("n").to_pylist()
    ['c', 'a']
    """

    def __init__(self, batches: list[pa.RecordBatch], buffers: dict[str, pa.Buffer] | None = None) -> None:
        """``buffers`` (empty at first) is memory to use again and again, instead of new memory for every call: what ``take``
        gives then holds only until anybody's next ``take`` with the same ``buffers``."""
        if not batches:
            raise ValueError("there must be a batch")
        self.schema = batches[0].schema
        self._sizes = [len(batch) for batch in batches]
        self._buffers = buffers
        joined = {}
        self._texts: dict[int, tuple[native.PartStrings, pa.Array | None]] = {}
        for number, field in enumerate(self.schema):
            arrays = [batch.column(number) for batch in batches]
            if field.type.id in _STRINGS:
                valid = pa.concat_arrays([array.is_valid() for array in arrays])
                some_null = any(array.null_count for array in arrays)
                self._texts[number] = (
                    native.PartStrings([_part(array) for array in arrays]),
                    valid if some_null else None,
                )
            else:
                joined[field.name] = pa.concat_arrays(arrays)
        self._joined = pa.RecordBatch.from_arrays(list(joined.values()), names=list(joined))

    def __len__(self) -> int:
        return sum(self._sizes)

    def take(self, rows: Any) -> pa.RecordBatch:
        """As the function ``take``, with the same errors."""
        numbers = _numbers(rows, len(self))
        places = native.Places(numbers, self._sizes)
        picked = native.Rows(numbers, len(self))
        others = iter(self._joined.columns)
        columns = [
            self._text(field, *self._texts[number], places, picked, len(numbers))
            if number in self._texts
            else _taken(next(others), numbers, picked)
            for number, field in enumerate(self.schema)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _text(
        self, field: pa.Field, parts: native.PartStrings, valid: pa.Array | None, places: native.Places,
        picked: native.Rows, count: int,
    ) -> pa.Array:  # fmt: skip
        offsets = pa.allocate_buffer((count + 1) * 4)
        total = parts.offsets(places, offsets)
        if total > _OFFSET_MAX:
            raise ValueError(_too_long(total))
        data = self._buffer(field.name, total + native.PADDING)
        parts.strings(places, total, data)
        bitmap, nulls = None, 0
        if valid is not None:
            bitmap = pa.allocate_buffer(-(-count // 8))
            nulls = count - picked.bits(valid.buffers()[1], valid.offset, bitmap)
        return pa.Array.from_buffers(field.type, count, [bitmap, offsets, data.slice(0, total)], nulls)

    def _buffer(self, name: str, size: int) -> pa.Buffer:
        if self._buffers is None:
            return pa.allocate_buffer(size)
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = pa.allocate_buffer(size + size // 8)
        return self._buffers[name]


def _part(array: pa.Array) -> tuple[int, int, Any, Any]:
    _, offsets, data = array.buffers()
    return len(array), array.offset, offsets, b"" if data is None else data


def _too_long(total: int) -> str:
    return f"a column of strings would get {total:,} bytes, and holds {_OFFSET_MAX:,} at most; take fewer rows"
