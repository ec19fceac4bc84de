"""Splitting a batch into one batch per event name, with a bound on the number of names."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native import partition as native
from eventmill.kernels.arrow import as_batch

OVERFLOW: Final = "__other__"

murmur2 = native.murmur2


class Names:
    """The first ``names_max`` distinct names keep a bucket of their own, all later ones share ``overflow``.

    So hostile cardinality is bounded; the name itself stays in its column.
    """

    def __init__(self, names_max: int, overflow: str = OVERFLOW) -> None:
        if names_max < 1:
            raise ValueError("names_max must be at least 1")
        self.names_max, self.overflow = names_max, overflow
        self._known: set[str] = set()

    def bucket(self, name: str) -> str:
        """The bucket of a name."""
        if name in self._known:
            return name
        if len(self._known) >= self.names_max:
            return self.overflow
        self._known.add(name)
        return name


class Partitioner:
    """Splits batches by a string column; see ``Names`` for the bound, which holds over all batches.

    >>> import pyarrow as pa
    >>> batch = pa.record_batch({"event": ["a", "b", "a"], "n": [1, 2, 3]})
    >>> [(name, part.column("n").to_pylist()) for name, part in Partitioner().split(batch)]
    [('a', [1, 3]), ('b', [2])]
    """

    def __init__(self, names_max: int = 1_000, overflow: str = OVERFLOW, column: str = "event") -> None:
        self.column = column
        self._names = Names(names_max, overflow)

    def split(self, batch: Any) -> list[tuple[str, pa.RecordBatch]]:
        """(bucket, its rows in order), by first appearance. The parts are views of one gathered batch."""
        rows = as_batch(batch)
        if rows.num_rows == 0:
            return []
        encoded = pc.dictionary_encode(rows.column(self.column), null_encoding="encode")
        buckets: dict[str, int] = {}
        of_value = np.array(
            [
                buckets.setdefault(self._names.bucket("" if value is None else value), len(buckets))
                for value in encoded.dictionary.to_pylist()
            ],
            np.int32,
        )
        codes = of_value[encoded.indices.to_numpy(zero_copy_only=False)]
        if len(buckets) == 1:
            return [(next(iter(buckets)), rows)]
        starts = np.zeros(len(buckets) + 1, np.int64)
        order = np.empty(rows.num_rows, np.int64)
        native.order(codes, starts, order)
        gathered = rows.take(pa.array(order))
        return [
            (name, gathered.slice(starts[group], starts[group + 1] - starts[group])) for name, group in buckets.items()
        ]


def partition(batch: Any, column: str = "event", names_max: int = 1_000) -> list[tuple[str, pa.RecordBatch]]:
    """One batch per distinct value of ``column``; past ``names_max`` values the rest share one. See ``Partitioner``."""
    return Partitioner(names_max, column=column).split(batch)
