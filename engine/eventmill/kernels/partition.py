"""Splitting a batch into one batch per event name, with a bound on the number of names."""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
import pyarrow as pa

from eventmill._native import partition as native
from eventmill.kernels.arrow import Int32s, Strings, as_array, as_batch, column, strings
from eventmill.kernels.gather import take

OVERFLOW: Final = "__other__"

#: Keys the hash tables of this process, whose results do not depend on it.
_SECRET: Final = os.urandom(native.SECRET_BYTES)


def murmur2(key: bytes) -> int:
    """The hash by which Apache Kafka's Java client partitions keys, as a signed 32-bit number."""
    return native.murmur2(key)


def key_partitions(keys: Any, count: int) -> Int32s:
    """The partition of each string among ``count``, as Apache Kafka's Java client chooses it; a null is as the empty string.

    Raises ``TypeError`` for what are no strings.
    """
    values = as_array(keys, pa.string())
    numbers = np.empty(len(values), np.int32)
    native.key_partitions(*strings(values.fill_null("") if values.null_count else values), count, numbers)
    return numbers


def by_key(batch: Any, column_name: str, count: int) -> list[tuple[int, pa.RecordBatch]]:
    """(partition, its rows in order) by the partition of a string column among ``count``; a null counts as the empty string.

    As Apache Kafka's Java client places messages with these keys. The parts are views of one gathered batch. Raises
    ``TypeError`` or ``ValueError`` when the column is missing or no strings.
    """
    rows = as_batch(batch)
    if rows.num_rows == 0:
        return []
    if count == 1:
        return [(0, rows)]
    numbers = key_partitions(column(rows, column_name), count)
    starts, order = np.zeros(count + 1, np.int64), np.empty(rows.num_rows, np.int32)
    native.order(numbers, starts, order)
    gathered = take(rows, order)
    return [
        (number, gathered.slice(starts[number], starts[number + 1] - starts[number]))
        for number in range(count)
        if starts[number] != starts[number + 1]
    ]


def group_numbers(values: Strings) -> tuple[Int32s, Int32s]:
    """Each value's group, numbered by first appearance, and the row where each group appears first."""
    n = len(values.offsets) - 1
    slots = (n * 2 // native.LINE_SLOTS + 1) * native.LINE_SLOTS
    numbers, firsts = np.empty(n, np.int32), np.empty(n, np.int32)
    count = native.groups(*values, np.zeros(slots * native.SLOT_BYTES, np.uint8), _SECRET, numbers, firsts)
    return numbers, firsts[:count]


def _grouped(values: pa.Array) -> tuple[Int32s, Int32s, list[str]]:
    """As ``group_numbers``, and the groups' names; a null counts as the empty string."""
    if pa.types.is_dictionary(values.type) and values.null_count == 0 and values.dictionary.null_count == 0:
        codes = values.indices.cast(pa.int32()).to_numpy()
        words = as_array(values.dictionary, pa.string()).to_pylist()
        if len(set(words)) == len(words):
            # Written from the last row to the first, so the first one stays.
            firsts_of = np.full(len(words), -1, np.int32)
            firsts_of[codes[::-1]] = np.arange(len(codes) - 1, -1, -1, dtype=np.int32)
            present = np.flatnonzero(firsts_of >= 0)
            present = present[np.argsort(firsts_of[present])]
            number_of = np.empty(len(words), np.int32)
            number_of[present] = np.arange(len(present), dtype=np.int32)
            return number_of[codes], firsts_of[present], [words[code] for code in present]
    plain = as_array(values, pa.string())
    plain = plain.fill_null("") if plain.null_count else plain
    numbers, firsts = group_numbers(strings(plain))
    return numbers, firsts, plain.take(firsts).to_pylist()


class Names:
    """The first ``names_max`` distinct names keep a bucket of their own, all later ones share ``overflow``.

    So hostile cardinality is bounded; the name itself stays in its column. ``known``: names that have a bucket already; new
    ones are added to it.
    """

    def __init__(self, names_max: int, overflow: str = OVERFLOW, known: set[str] | None = None) -> None:
        if names_max < 1:
            raise ValueError("names_max must be at least 1")
        self.names_max, self.overflow = names_max, overflow
        self.known = set() if known is None else known

    def bucket(self, name: str) -> str:
        """The bucket of a name."""
        if name in self.known:
            return name
        if len(self.known) >= self.names_max:
            return self.overflow
        self.known.add(name)
        return name


class Partitioner:
    """Splits batches by a string column; see ``Names`` for the bound, which holds over all batches. Not thread-safe.

    >>> import pyarrow as pa
    >>> batch = pa.record_batch({"event": ["a", "b", "a"], "n": [1, 2, 3]})
    >>> [(name, part.column("n").to_pylist()) for name, part in Partitioner().split(batch)]
    [('a', [1, 3]), ('b', [2])]
    """

    def __init__(
        self,
        names_max: int = 1_000,
        overflow: str = OVERFLOW,
        column: str = "event",
        known: set[str] | None = None,
    ) -> None:
        self.column = column
        self.names = Names(names_max, overflow, known)

    def split(self, batch: Any) -> list[tuple[str, pa.RecordBatch]]:
        """(bucket, its rows in order), by first appearance; a null counts as the empty name.

        The parts are views of one gathered batch. Raises ``TypeError`` or ``ValueError`` when the column is missing or no
        strings.
        """
        rows = as_batch(batch)
        if rows.num_rows == 0:
            return []
        numbers, firsts, names = _grouped(column(rows, self.column))
        buckets: dict[str, int] = {}
        of_group = np.array(
            [buckets.setdefault(self.names.bucket(name), len(buckets)) for name in names],
            np.int32,
        )
        if len(buckets) == 1:
            return [(next(iter(buckets)), rows)]
        if len(buckets) < len(firsts):
            numbers = of_group[numbers]
        starts = np.zeros(len(buckets) + 1, np.int64)
        order = np.empty(rows.num_rows, np.int32)
        native.order(numbers, starts, order)
        gathered = take(rows, order)
        return [
            (name, gathered.slice(starts[group], starts[group + 1] - starts[group])) for name, group in buckets.items()
        ]


def partition(
    batch: Any,
    column: str = "event",
    names_max: int = 1_000,
    overflow: str = OVERFLOW,
    known: set[str] | None = None,
) -> list[tuple[str, pa.RecordBatch]]:
    """One batch per distinct value of ``column``; past ``names_max`` values the rest share one. See ``Partitioner``."""
    return Partitioner(names_max, overflow, column, known).split(batch)
