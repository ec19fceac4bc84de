"""The sessionizer's kernels; ``eventmill.kernels.sessionize`` is their public face.

``offsets`` (int32, rows + 1) and ``data`` (uint8, at least one) are the buffers of an Arrow string column. Arrays are
C-contiguous. Every call releases the GIL and raises ``ValueError`` when sizes do not fit together.
"""

from typing import Any

DEVICE_BYTES: int
VISIT_BYTES: int
BITS_MAX: int
SECRET_BYTES: int
LATENESS_MAX_MS: int
#: Slots that a table has besides the others.
SPARE: int

class Sessions:
    """The sessions of devices in ``table``: uint8, zeroed, aligned to 64, with DEVICE_BYTES for each slot, SPARE included.

    Not thread-safe.
    """

    def __init__(
        self,
        table: Any,
        secret: bytes,
        gap_ms: int,
        lateness_ms: int,
        devices_max: int,
        evicted: int = 0,
        latest: int = ...,
    ) -> None: ...
    @property
    def slots(self) -> int:
        """Of the table, without SPARE."""
    @property
    def count(self) -> int:
        """Devices."""
    @property
    def evicted(self) -> int:
        """Devices forgotten for want of room."""
    @property
    def latest(self) -> int:
        """Newest event time, ms; the smallest int64 before the first event."""
    def enter(self, table: Any, devices: Any) -> bool:
        """Take another table and enter ``devices`` (uint8: what ``pack`` gave, or a table). False when it is too small."""
    def pack(self) -> bytearray:
        """All devices, DEVICE_BYTES each, in the order of the table."""
    def assign(self, offsets: Any, data: Any, at_ms: Any, begin: int, session_ids: Any) -> int:
        """Session ids (int64) of the rows from ``begin`` on; gives the first row not done, for want of a larger table."""

def device_hashes(offsets: Any, data: Any, hashes: Any) -> None:
    """``hashes`` (uint64) gets XXH3-64 of each device's bytes."""

def exact(
    devices: Any, at_ms: Any, gap_ms: int, bits: int, starts: Any, visits: Any, spare: Any, session_ids: Any
) -> None:
    """Final session ids (int64) of a whole data set.

    ``devices`` (uint64) are hashes. To work in: ``starts`` (int64, zeroed, 2**bits + 1; 1 to BITS_MAX bits), ``visits`` and
    ``spare`` (uint8, VISIT_BYTES a row). Raises ``ValueError`` when sizes do not fit together.
    """

def session_ids(offsets: Any, data: Any, starts_ms: Any, ids: Any) -> None:
    """The ids of sessions: XXH3-64 of (XXH3-64 of device bytes, start in ms as int64), top bit cleared."""
