"""The sessionizer's kernel; ``eventmill.kernels.sessionize`` is its public face."""

from typing import Any

DEVICE_BYTES: int

class Sessions:
    """A hash table of devices over ``table`` (uint8, a power of two of slots of DEVICE_BYTES, zeroed). Not thread-safe."""

    def __init__(self, table: Any, gap_ms: int, seed: int) -> None: ...
    @property
    def slots(self) -> int: ...
    @property
    def used(self) -> int:
        """Devices in the table."""
    @property
    def latest(self) -> int:
        """Newest event time seen, ms."""
    def set_position(self, used: int, latest: int) -> None:
        """Restore the two numbers above from a snapshot."""
    def assign(self, offsets: int, data: int, at_ms: Any, begin: int, limit: int, session_ids: Any) -> int:
        """Session ids (int64) of the rows from ``begin`` on; gives the first row not done (the table is at ``limit``).

        ``offsets`` and ``data`` are addresses of an Arrow string column's buffers. Releases the GIL.
        """
    def count(self, keep_from_ms: int) -> int:
        """Devices whose newest event is at or after that time."""
    def move_to(self, to: Sessions, keep_from_ms: int) -> None:
        """Move those devices into an empty, larger table."""

def session_ids(offsets: int, data: int, starts_ms: Any, ids: Any) -> None:
    """The ids of sessions: XXH3-64 of device bytes and start (int64, ms), top bit cleared. Releases the GIL."""
