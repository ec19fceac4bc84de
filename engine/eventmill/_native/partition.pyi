"""Grouping rows, and Kafka's key hash; ``eventmill.kernels.partition`` is their public face.

``offsets`` (int32, rows + 1) and ``data`` (uint8, at least one) are the buffers of an Arrow string column. Arrays are
C-contiguous. The calls over rows release the GIL and raise ``ValueError`` when sizes do not fit together.
"""

from typing import Any

SECRET_BYTES: int
SLOT_BYTES: int
#: Slots in a line; tables have whole lines.
LINE_SLOTS: int

def groups(offsets: Any, data: Any, slots: Any, secret: bytes, numbers: Any, firsts: Any) -> int:
    """Number the distinct strings by first appearance; gives how many there are.

    ``numbers`` (int32) gets each row's, ``firsts`` (int32, as long) the row where each appears first. ``slots``: uint8,
    SLOT_BYTES each, whole lines, more than rows, zeroed.
    """

def order(numbers: Any, starts: Any, rows: Any) -> None:
    """Stable counting sort: ``rows`` (int32) gets row numbers by group, ``starts`` (int64, groups + 1, zeroed) the bounds.

    ``numbers`` (int32) must be below the number of groups.
    """

def murmur2(key: bytes) -> int:
    """Murmur2 as Apache Kafka's Java client hashes keys: a signed 32-bit number."""

def key_partitions(offsets: Any, data: Any, count: int, numbers: Any) -> None:
    """``numbers`` (int32, one a row) gets each string's partition among ``count``, as Kafka's Java client chooses it."""
