"""The dimension join's kernel; ``eventmill.kernels.enrich.Enricher`` is its public face.

``offsets`` (int32, rows + 1) and ``data`` (uint8, at least one) are the buffers of an Arrow string column. Arrays are
C-contiguous. Every call releases the GIL and raises ``ValueError`` when sizes do not fit together.
"""

from typing import Any

SECRET_BYTES: int
SLOT_BYTES: int
#: Slots in a line; tables have whole lines.
LINE_SLOTS: int

class Dimension:
    """Numbers (int32, from 0) under keys; ``slots``: uint8, SLOT_BYTES each, whole lines, more than keys, zeroed.

    Raises ``KeyError(row)`` for a key that is there twice. Look-ups are thread-safe.
    """

    def __init__(self, offsets: Any, data: Any, numbers: Any, slots: Any, secret: bytes) -> None: ...
    def find(self, offsets: Any, data: Any, valid: Any, valid_offset: int, missing: int, found: Any) -> None:
        """``found`` (int32) gets each value's number, ``missing`` for strangers, ``missing + 1`` for nulls.

        ``valid``: an Arrow validity bitmap (uint8) that begins at bit ``valid_offset``, or ``None``.
        """

def gather(found: Any, codes_of: Any, codes: Any, valid: Any) -> None:
    """``codes`` (int32) gets ``codes_of[found]`` (int32), ``valid`` (uint8) an Arrow bitmap; negative codes are null."""

def flagged(found: Any, missing: int, flag: int, flags: Any, given: Any) -> None:
    """``given`` (int32) gets ``flags`` (int32), with ``flag`` where ``found`` is ``missing``, and without it elsewhere."""
