"""JSON text against compiled schemas; ``eventmill.process.schemas.columnar`` is its public face.

Arrays are C-contiguous. The call releases the GIL and raises ``ValueError`` when sizes do not fit together.
"""

from typing import Any

NODE_BYTES: int
KEY_BYTES: int
VALUE_BYTES: int

def check(
    nodes: Any, keys: Any, values: Any, text: Any, offsets: Any, data: Any, rows: Any, passes: Any, deferred: Any
) -> int:
    """Check JSON values against a schema; ``csrc/schema.h`` tells what each array holds.

    ``nodes``, ``keys``, ``values``: the structures' bytes (uint8); ``text``: uint8, at least one. ``offsets`` (int32), ``data``
    (uint8, at least one): an Arrow string column's buffers. ``rows``: int32 row numbers within the column, or ``None`` for all.
    ``passes`` (uint8, one a row) gets 1 for a valid row and 0 for one that a library must judge. ``deferred`` (int32, 4 rows:
    place in ``passes``, node, begin, end in ``data``) gets the strings that the caller must judge; gives how many there are.
    """
