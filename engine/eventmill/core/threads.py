"""Names of threads where the system shows them."""

from __future__ import annotations

import ctypes
from typing import Final

_PR_SET_NAME: Final = 15


def name_thread(name: str) -> None:
    """Give the calling thread a name (15 bytes of it count) for ``top -H``, ``/proc`` and profilers. Linux only."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
