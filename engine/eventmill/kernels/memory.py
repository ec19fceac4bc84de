"""Zeroed memory for filters and tables."""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np
import numpy.typing as npt

_HUGE_BYTES: Final = 1 << 22
_MADV_POPULATE_WRITE: Final = 23


def zeroed(nbytes: int, *, populate: bool = False) -> npt.NDArray[np.uint8]:
    """``nbytes`` (at least 1) zero bytes, aligned to pages; what is never written to takes no memory.

    Large ones ask for huge pages: at random access into gigabytes, half of the time goes into address translation.
    ``populate`` takes all memory now instead of at the first writing to each page.
    Raises ``MemoryError`` when the system refuses.
    """
    try:
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"the system refuses {nbytes:,} bytes: {error}") from error
    if nbytes >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            pages.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # A kernel without huge pages serves small ones.
    if populate:
        try:
            pages.madvise(_MADV_POPULATE_WRITE)
        except OSError:
            pass  # Kernels before 5.14 take it page by page.
    return np.frombuffer(pages, np.uint8)
