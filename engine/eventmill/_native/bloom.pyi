"""The rotating Bloom filter's kernel; ``eventmill.kernels.bloom.RotatingBloom`` is its public face.

Arrays are C-contiguous. Every call releases the GIL and raises ``ValueError`` when sizes do not fit together.
"""

from typing import Any

CELLS: int
"""Bytes of a block: bits of each of its eight filters."""
PROBES: int
"""Bits that an id sets in a block."""
SLICES_MAX: int

class Bloom:
    """A view of ``cells`` (uint8, blocks * CELLS, zeroed) as a filter, keyed by two 64-bit words. Not thread-safe."""

    def __init__(self, cells: Any, key0: int, key1: int, slices: int, slice_ms: int) -> None: ...
    def position(self) -> tuple[int, int, list[int]]:
        """The state beside the cells.

        Number of the current slice (the smallest int64 before the first id), blocks cleared for the next one, and the ids
        in each of the eight filters.
        """
    def set_position(self, slice_number: int, swept: int, ids: list[int]) -> None:
        """Restore what ``position`` gave."""
    def observe(self, ids: Any, at_ms: Any, fresh: Any) -> None:
        """Test and insert ``len(fresh)`` ids (uint8, 16 bytes each); ``at_ms``: int64, one or one an id.

        ``fresh`` (uint8) gets 1 for an id not seen before within the window.
        """
    def contains(self, ids: Any, seen: Any) -> None:
        """Test only; ``seen`` (uint8) gets 1 for an id that may have been seen."""

def hash_ids(ids: Any, key0: int, key1: int, hashes: Any) -> None:
    """SipHash-1-3 (uint64) of each id (uint8, 16 bytes each) under two little-endian words of key."""
