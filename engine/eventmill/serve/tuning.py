"""What a process that moves batches wants of the interpreter."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

import numpy as np
import pyarrow as pa

_SWITCH_S: Final = 0.001
_GC_THRESHOLDS: Final = (50_000, 20, 50)
#: The C library's allocator (mallopt's parameters): one heap for all threads, for what one thread frees is what the next
#: one wants; blocks below 32 MiB come from it, and what is freed stays in it.
_MALLOPT: Final = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 32 << 20), "M_TRIM_THRESHOLD": (-1, 1 << 30)}


def tune() -> None:
    """Call when all is imported, before threads are started and traffic comes.

    Batches hold few Python objects and no cycles, so full collections find nothing; threads that come back from a kernel
    must not wait 5 ms for the interpreter; pyarrow imports pandas at the first conversion if it is installed. And memory
    must stay: a batch's megabytes that go back to the kernel, or lie in another thread's heap, come anew as pages to be
    zeroed, which under load was a third of all time. So Arrow uses the C library's allocator, and that keeps one heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have no such parameters
        for parameter, value in _MALLOPT.values():
            mallopt(parameter, value)
        pa.set_memory_pool(pa.system_memory_pool())
    pa.array(np.zeros(1))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_S)
