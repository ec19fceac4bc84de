"""The gather kernel; ``eventmill.kernels.gather.take`` is its public face.

Sources are buffers of Arrow arrays (any object with contiguous bytes) of which the first ``offset`` values are left out, as
in a sliced array; ``to`` is writable and does not overlap them. Every call releases the GIL and raises ``ValueError`` when
sizes do not fit together.
"""

from typing import Any

#: Bytes that ``Rows.strings`` may write beyond the last string.
PADDING: int

class Rows:
    """Numbers of rows (int32, C-contiguous) of columns of ``limit`` rows; they must not change meanwhile. Thread-safe.

    Raises ``IndexError`` for a number that is negative or not below ``limit``.
    """

    def __init__(self, rows: Any, limit: int) -> None: ...
    def fixed(self, source: Any, offset: int, width: int, to: Any) -> None:
        """``to`` gets the rows' values; ``width``: bytes of one, a power of two up to 16."""

    def bits(self, source: Any, offset: int, to: Any) -> int:
        """``to`` gets the rows' bits of a bitmap; how many of them are set."""

    def offsets(self, offsets: Any, offset: int, data: Any, to: Any) -> int:
        """``to`` (int32, one more than rows) gets the offsets of the rows' strings; bytes of all of them.

        Where those are more than 2**31 - 1, ``to`` is of no use.
        """

    def strings(self, offsets: Any, offset: int, data: Any, total: int, to: Any) -> None:
        """``to`` gets the rows' strings, ``total`` bytes as ``offsets`` said, and up to ``PADDING`` bytes behind them."""

class Places:
    """Where rows lie in parts of ``sizes`` rows each, through which ``rows`` (int32, C-contiguous) are numbered. Immutable.

    Raises ``IndexError`` for a number that is no row's, ``ValueError`` for 2**31 rows or more.
    """

    def __init__(self, rows: Any, sizes: list[int]) -> None: ...

class PartStrings:
    """A column of strings in parts: rows, offset (as above), offsets and data of each. Thread-safe."""

    def __init__(self, columns: list[tuple[int, int, Any, Any]]) -> None: ...
    def offsets(self, places: Places, to: Any) -> int:
        """As ``Rows.offsets``."""

    def strings(self, places: Places, total: int, to: Any) -> None:
        """As ``Rows.strings``."""
