"""Grouping rows, and Kafka's key hash."""

from typing import Any

def order(codes: Any, starts: Any, rows: Any) -> None:
    """Stable counting sort: ``rows`` (int64) gets row numbers by group, ``starts`` (int64, groups + 1, zeroed) the bounds.

    ``codes`` (int32) must be below the number of groups. Releases the GIL.
    """

def murmur2(key: bytes) -> int:
    """Murmur2 as Apache Kafka's Java client hashes keys: a signed 32-bit number."""
