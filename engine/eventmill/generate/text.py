"""Columns of text made without a Python string per row."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_UUID_PLACES: Final = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])
_TIME_CHARS: Final = 24


def fixed_strings(characters: npt.NDArray[np.uint8]) -> pa.Array:
    """A string array of a (rows, width) matrix of ASCII codes."""
    rows, width = characters.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.Array.from_buffers(
        pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters))]
    )


def hex_uuids(raw: bytes) -> pa.Array:
    """UUID texts of 16-byte ids, one after the other."""
    values = np.frombuffer(raw, np.uint8).reshape(-1, 16)
    characters = np.full((len(values), 36), ord("-"), np.uint8)
    digits = np.empty((len(values), 32), np.uint8)
    digits[:, 0::2] = _HEX[values >> 4]
    digits[:, 1::2] = _HEX[values & 15]
    characters[:, _UUID_PLACES] = digits
    return fixed_strings(characters)


def iso_times(ms: npt.NDArray[np.int64]) -> pa.Array:
    """``2026-11-23T02:16:51.050Z`` of milliseconds since the epoch."""
    days, in_day = np.divmod(ms, 86_400_000)
    unique, place = np.unique(days, return_inverse=True)
    dates = np.frombuffer(b"".join(str(np.datetime64(int(day), "D")).encode() for day in unique), np.uint8).reshape(
        -1, 10
    )
    characters = np.empty((len(ms), _TIME_CHARS), np.uint8)
    characters[:, :10] = dates[place]
    characters[:, [10, 13, 16, 19, 23]] = np.frombuffer(b"T::.Z", np.uint8)
    clock = in_day.astype(np.int32)
    for column, divisor, base in (
        (11, 36_000_000, 10), (12, 3_600_000, 10), (14, 600_000, 6), (15, 60_000, 10), (17, 10_000, 6),
        (18, 1_000, 10), (20, 100, 10), (21, 10, 10), (22, 1, 10),
    ):  # fmt: skip
        characters[:, column] = clock // divisor % base + ord("0")
    return fixed_strings(characters)
