"""What a process that moves batches wants of the interpreter."""

from __future__ import annotations

import gc
import sys
from typing import Final

import numpy as np
import pyarrow as pa

_SWITCH_S: Final = 0.001
_GC_THRESHOLDS: Final = (50_000, 20, 50)


def tune() -> None:
    """Call when all is imported and before traffic comes.

    Batches hold few Python objects and no cycles, so full collections find nothing; threads that come back from a kernel
    must not wait 5 ms for the interpreter; pyarrow imports pandas at the first conversion if it is installed.
    """
    pa.array(np.zeros(1))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_S)
