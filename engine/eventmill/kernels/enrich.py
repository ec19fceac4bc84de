"""Dimensions by user: a columnar join against a hash table kept between batches."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native import enrich as native
from eventmill.core.schema import DIMENSION_NAMES, EVENT, Flag
from eventmill.kernels.arrow import as_array, as_batch, string_addresses, validity, with_columns


class Enricher:
    """Adds a table's columns to batches, by ``key``.

    ``table``: a string column ``key`` without nulls or repeats, and the dimensions. A row whose key is null or not in the
    table gets nulls; if it has a key and the batch has ``flags``, ``Flag.DIMENSIONS_UNKNOWN`` is set, so that it can be put
    right later. Safe to share between threads.

    >>> import pyarrow as pa
    >>> enricher = Enricher(pa.table({"user_id": ["u1"], "tier": ["gold"]}))
    >>> enricher.apply(pa.record_batch({"user_id": ["u1", "u2", None]})).column("tier").to_pylist()
    ['gold', None, None]
    """

    def __init__(self, table: Any, key: str = "user_id") -> None:
        dimensions = as_batch(table)
        if key not in dimensions.schema.names:
            raise ValueError(f"the table has no column {key!r}")
        self.key = key
        self._keys = as_array(dimensions.column(key), pa.string())
        if self._keys.null_count:
            raise ValueError(f"the column {key!r} has nulls")
        self._dimensions = {name: dimensions.column(name) for name in dimensions.schema.names if name != key}
        size = 1 << max(1, (2 * len(self._keys) - 1).bit_length())
        self._slots = np.full(size * native.SLOT_BYTES, 0xFF, np.uint8)
        seed = int.from_bytes(os.urandom(8), "little")
        try:
            self._native = native.Dimension(self._slots, seed, *string_addresses(self._keys), len(self._keys))
        except KeyError as error:
            twice = self._keys[error.args[0]].as_py()
            raise ValueError(f"the key {twice!r} is in the table twice; keep one row a key") from None

    @classmethod
    def empty(cls) -> Enricher:
        """No dimensions known: all null, and nothing flagged, since there is nothing to put right."""
        enricher = cls(pa.table({name: pa.array([], pa.string()) for name in ("user_id", *DIMENSION_NAMES)}))
        return enricher

    def apply(self, batch: Any) -> pa.RecordBatch:
        """The batch with the dimension columns added or replaced."""
        rows = as_batch(batch)
        keys = as_array(rows.column(self.key), pa.string())
        if len(self._keys) == 0:
            nulls = {name: pa.nulls(len(rows), column.type) for name, column in self._dimensions.items()}
            return with_columns(rows, {name: (_field(name, column), column) for name, column in nulls.items()})
        found = np.empty(len(keys), np.int32)
        self._native.find(*string_addresses(keys), *validity(keys), found)
        strange = found < 0
        indices = pa.array(found, mask=strange)
        added = {name: pc.take(column, indices) for name, column in self._dimensions.items()}
        columns = {name: (_field(name, column), column) for name, column in added.items()}
        if "flags" in rows.schema.names and strange.any():
            unknown = strange & pc.is_valid(keys).to_numpy(zero_copy_only=False)
            flags = rows.column("flags").to_numpy(zero_copy_only=False) | np.where(
                unknown, np.int32(Flag.DIMENSIONS_UNKNOWN), np.int32(0)
            )
            columns["flags"] = (rows.schema.field("flags"), pa.array(flags, pa.int32()))
        return with_columns(rows, columns)


def _field(name: str, column: pa.Array) -> pa.Field:
    return EVENT.field(name) if name in DIMENSION_NAMES else pa.field(name, column.type)
