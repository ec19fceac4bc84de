"""The dimension join's kernel; ``eventmill.kernels.enrich.Enricher`` is its public face."""

from typing import Any

SLOT_BYTES: int

class Dimension:
    """A hash table over a string column of ``n`` keys, given by the addresses of its Arrow buffers.

    ``slots``: uint8, a power of two of SLOT_BYTES, at least 2 * n slots, filled with 0xff. The buffers must outlive the
    object. Raises ``KeyError(row)`` for a key that is there twice.
    """

    def __init__(self, slots: Any, seed: int, offsets: int, data: int, n: int) -> None: ...
    def find(self, offsets: int, data: int, valid: int, valid_offset: int, rows: Any) -> None:
        """``rows`` (int32) gets each value's row, -1 for nulls and strangers; ``valid`` 0 = no nulls. Releases the GIL."""
