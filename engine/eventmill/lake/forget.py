"""Which rows of the lake a tombstone covers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eventmill.core.tombstones import COLUMNS, Tombstone
from eventmill.kernels.partition import OVERFLOW
from eventmill.lake.files import Indices, read
from eventmill.lake.iceberg import LiveFile


def covered(
    files: list[LiveFile], tombstone: Tombstone, removed: Mapping[int, Indices] | None = None
) -> dict[int, Indices]:
    """Per index of ``files``, the rows that it covers, but for those ``removed`` already. Raises ``StoreError``.

    Memory: four columns of one file.
    """
    found = {}
    for index, file in enumerate(files):
        if not _may_hold(file, tombstone):
            continue
        rows = np.flatnonzero(tombstone.mask(read(file, list(COLUMNS))))
        if removed is not None and index in removed:
            rows = np.setdiff1d(rows, removed[index], assume_unique=True)
        if len(rows):
            found[index] = rows
    return found


def _may_hold(file: LiveFile, tombstone: Tombstone) -> bool:
    return (
        (tombstone.event is None or file.group in (tombstone.event, OVERFLOW))
        and (tombstone.from_ms is None or file.end_ms >= tombstone.from_ms)
        and (tombstone.to_ms is None or file.start_ms < tombstone.to_ms)
    )
