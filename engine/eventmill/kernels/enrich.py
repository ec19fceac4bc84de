"""Dimensions by user: a columnar join against a hash table kept between batches."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native import enrich as native
from eventmill.core.schema import DIMENSION_NAMES, EVENT, Flag
from eventmill.kernels.arrow import Int32s, Int64s, as_array, as_batch, column, strings, validity, with_columns
from eventmill.kernels.memory import zeroed


class Enricher:
    """Adds a table's columns to batches, by ``key``.

    ``table``: a string column ``key`` without nulls or repeats, and the dimensions. A row whose key is null or not in the
    table gets nulls. If the batch has ``flags``, ``flag`` is set where a row has a key that is not in the table, so that it
    can be put right later, and cleared everywhere else: enriching once more puts it right. Raises ``ValueError`` for a table
    that is not as said. Safe to share between threads.

    >>> import pyarrow as pa
    >>> enricher = Enricher(pa.table({"user_id": ["u1"], "tier": ["gold"]}))
    >>> enricher.apply(pa.record_batch({"user_id": ["u1", "u2", None]})).column("tier").to_pylist()
    ['gold', None, None]
    """

    def __init__(self, table: Any, key: str = "user_id", flag: int = Flag.DIMENSIONS_UNKNOWN) -> None:
        dimensions = as_batch(table)
        if key not in dimensions.schema.names:
            raise ValueError(f"the table has no column {key!r}; it has {', '.join(dimensions.schema.names)}")
        if dimensions.num_columns == 1:
            raise ValueError(f"the table has no columns beside {key!r}; add the dimensions")
        self.key, self.flag = key, int(flag)
        keys = as_array(dimensions.column(key), pa.string())
        if keys.null_count:
            raise ValueError(f"the column {key!r} has nulls; leave those rows out")
        self._distinct, numbers = _distinct_rows(_as_events_have(dimensions.drop_columns([key])))
        self._known = len(keys)
        self._slots = zeroed((len(keys) * 2 // native.LINE_SLOTS + 1) * native.LINE_SLOTS * native.SLOT_BYTES)
        try:
            self._native = native.Dimension(*strings(keys), numbers, self._slots, os.urandom(native.SECRET_BYTES))
        except KeyError as error:
            twice = keys[error.args[0]].as_py()
            raise ValueError(f"the key {twice!r} is in the table twice; keep one row a key") from None

    @classmethod
    def empty(cls, key: str = "user_id") -> Enricher:
        """No dimensions known: country, segment and tier null, and nothing flagged, since nothing could put it right."""
        return cls(pa.table({name: pa.array([], pa.string()) for name in (key, *DIMENSION_NAMES)}), key)

    @property
    def nbytes(self) -> int:
        """Bytes of memory beside the table itself."""
        return self._slots.nbytes

    def apply(self, batch: Any) -> pa.RecordBatch:
        """The batch with the dimension columns added or replaced, in the order of ``core.schema.EVENT`` if it is of events.

        Raises ``TypeError`` or ``ValueError`` when the key's column is missing or no string.
        """
        rows = as_batch(batch)
        keys = as_array(column(rows, self.key), pa.string())
        if self._known == 0:
            nulls = [pa.nulls(rows.num_rows, field.type) for field in self._distinct.schema]
            return with_columns(rows, _fields(self._distinct.schema, nulls))
        missing = self._distinct.num_rows - 2
        found = np.empty(len(keys), np.int32)
        self._native.find(*strings(keys), *validity(keys), missing, found)
        return joined(rows, self._distinct, found, self.flag)


def joined(
    rows: pa.RecordBatch, distinct: pa.RecordBatch, found: Int32s, flag: int = Flag.DIMENSIONS_UNKNOWN
) -> pa.RecordBatch:
    """``rows`` with the columns of ``distinct``: row ``found[i]`` of it for row i.

    The last two rows of ``distinct`` are nulls: of them the first one stands for what is unknown, which sets ``flag``; every
    other row clears it.
    """
    missing = distinct.num_rows - 2
    columns = _fields(distinct.schema, [_gather(values, found) for values in distinct.columns])
    if "flags" in rows.schema.names:
        flags = as_array(column(rows, "flags"), pa.int32()).to_numpy(zero_copy_only=False)
        flagged = np.empty_like(found)
        native.flagged(found, missing, int(flag), flags, flagged)
        columns["flags"] = (rows.schema.field("flags"), pa.array(flagged))
    return with_columns(rows, columns)


def _fields(schema: pa.Schema, values: list[pa.Array]) -> dict[str, tuple[pa.Field, pa.Array]]:
    return {field.name: (field, array) for field, array in zip(schema, values, strict=True)}


def _gather(values: pa.Array, found: Int32s) -> pa.Array:
    """``values.take(found)``; of words, their codes are gathered in one pass."""
    if not pa.types.is_dictionary(values.type) or values.type.index_type != pa.int32():
        return pc.take(values, pa.array(found))
    codes_of = values.indices.fill_null(-1).to_numpy()
    codes, valid = np.empty(len(found), np.int32), np.empty(-(-len(found) // 8), np.uint8)
    native.gather(found, codes_of, codes, valid)
    indices = pa.Array.from_buffers(pa.int32(), len(found), [pa.py_buffer(valid), pa.py_buffer(codes)])
    return pa.DictionaryArray.from_arrays(indices, values.dictionary, ordered=values.type.ordered, safe=False)


def _as_events_have(dimensions: pa.RecordBatch) -> pa.RecordBatch:
    names = [field.name for field in dimensions.schema if field.name in DIMENSION_NAMES]
    try:
        for kind in (pa.string(), None):  # what is no string becomes one first
            fields = [
                field if field.name not in names else field.with_type(kind) if kind else EVENT.field(field.name)
                for field in dimensions.schema
            ]
            dimensions = dimensions.cast(pa.schema(fields))
        return dimensions
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"the table's columns {', '.join(DIMENSION_NAMES)} must be strings: {error}") from error


def _distinct_rows(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Int32s]:
    """The distinct rows and, at the end, two of nulls; and each row's number among them.

    Dimensions have few values, so few combinations: those stay in the processor's cache when batches are joined.
    """
    numbers = np.zeros(rows.num_rows, np.int64)
    for values in rows.columns:
        # Numbers and codes stay below the number of rows, so a pair of them fits 64 bits.
        pairs = numbers * rows.num_rows + _codes(values)
        numbers = _codes(pa.array(pairs))
    firsts = np.zeros(int(numbers.max(initial=-1)) + 1, np.int64)
    firsts[numbers[::-1]] = np.arange(rows.num_rows)[::-1]
    distinct = rows.take(pa.array([*firsts.tolist(), None, None], pa.int64()))
    return distinct, numbers.astype(np.int32)


def _codes(values: pa.Array) -> Int64s:
    """A number for each distinct value, null included, counted from 0 by first appearance."""
    plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    codes: Int64s = pc.dictionary_encode(plain, null_encoding="encode").indices.to_numpy(zero_copy_only=False)
    return codes.astype(np.int64)
