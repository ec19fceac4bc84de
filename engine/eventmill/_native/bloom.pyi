"""The Bloom filters' kernels; ``eventmill.kernels.bloom`` and ``eventmill.kernels.event_bloom`` are their public faces.

Arrays are C-contiguous. Every call releases the GIL and raises ``ValueError`` when sizes do not fit together.
"""

from typing import Any

CELLS: int
"""Bytes of a block: bits of each of its eight filters."""
PROBES: int
"""Bits that an id sets in a block."""
SLICES_MAX: int
WORDS: int
"""64-bit words of an ``EventBloom``'s block, and bits that an id sets in it."""
BLOCK_BYTES: int
"""Bytes of such a block."""
SLOTS_BESIDES: int
"""Slots beyond the slices of window and lateness."""

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

class EventBloom:
    """A filter by own times in ``memory`` (uint8, ``shape.nbytes``, zeroed, aligned to 64); see csrc/event_bloom.h.

    ``ids``, ``waiting``: uint64, zeroed, ``shape.slots`` each; ``shape``: ``kernels.event_bloom.Shape``. Not thread-safe.
    """

    def __init__(self, memory: Any, ids: Any, waiting: Any, key0: int, key1: int, shape: Any) -> None: ...
    def position(self) -> tuple[int, int, tuple[int, int, list[int]]]:
        """The state beside the arrays.

        Number of the current slice (the smallest int64 before the first id), the latest time, the late part's position as
        ``Bloom.position`` gives it.
        """
    def set_position(self, slice_number: int, latest: int, late: Any) -> None:
        """Restore what ``position`` gave, after the arrays."""
    def observe(self, ids: Any, at_ms: Any, own_ms: Any, fresh: Any) -> None:
        """Test and insert ``len(fresh)`` ids (uint8, 16 bytes each); ``at_ms``, ``own_ms``: int64, one or one an id.

        The smallest int64 stands for no own time. ``fresh`` (uint8) gets 1 for an id not seen before within the window.
        """
    def contains(self, ids: Any, own_ms: Any, seen: Any) -> None:
        """Test only; ``seen`` (uint8) gets 1 for an id that ``observe`` would call seen now."""

def hash_ids(ids: Any, key0: int, key1: int, hashes: Any) -> None:
    """SipHash-1-3 (uint64) of each id (uint8, 16 bytes each) under two little-endian words of key."""
