"""The dimension join's kernel; ``eventmill.kernels.enrich.Enricher`` is its public face.

``offsets`` (int32, rows + 1) and ``data`` (uint8, at least one) are the buffers of an Arrow string column. Arrays are
C-contiguous. Every call releases the GIL and raises ``ValueError`` when sizes do not fit together.
"""

from typing import Any

SECRET_BYTES: int
SLOT_BYTES: int

class Dimension:
    """Numbers (int32, from 0) under keys; ``slots``: uint8, a power of two of SLOT_BYTES, more than keys, zeroed.

    Raises ``KeyError(row)`` for a key that is there twice. Look-ups are thread-safe.
    """

    def __init__(self, offsets: Any, data: Any, numbers: Any, slots: Any, secret: bytes) -> None: ...
    def find(self, offsets: Any, data: Any, valid: Any, valid_offset: int, missing: int, found: Any) -> None:
        """``found`` (int32) gets each value's number, or ``missing`` for nulls and strangers.

        ``valid``: an Arrow validity bitmap (uint8) that begins at bit ``valid_offset``, or ``None``.
        """
