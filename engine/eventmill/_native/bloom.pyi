"""The rotating Bloom filter's kernel; ``eventmill.kernels.bloom.RotatingBloom`` is its public face."""

from typing import Any

SECRET_BYTES: int
WORDS: int

class Bloom:
    """A view of ``words`` (uint32, blocks * generations * WORDS, C-contiguous, zeroed) as a filter.

    Raises ``ValueError`` when the sizes do not fit together. Not thread-safe.
    """

    def __init__(self, words: Any, secret: bytes, generations: int, slice_ms: int) -> None: ...
    @property
    def slice(self) -> int:
        """Number of the current slice; the smallest int64 before the first id."""
    @property
    def inserted(self) -> int:
        """Ids observed in the current slice."""
    def set_position(self, slice_number: int, inserted: int) -> None:
        """Restore the two numbers above from a snapshot."""
    def observe(self, ids: int, at_ms: Any, fresh: Any) -> None:
        """Test and insert ``len(fresh)`` ids at address ``ids`` (16 bytes each); ``at_ms``: int64, one or one an id.

        ``fresh`` (uint8) gets 1 for an id not seen before within the window. Releases the GIL.
        """
    def contains(self, ids: int, seen: Any) -> None:
        """Test only; ``seen`` (uint8) gets 1 for an id that may have been seen. Releases the GIL."""
