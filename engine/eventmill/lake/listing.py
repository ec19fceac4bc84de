"""The files of the newest snapshot, for engines that read Parquet and know nothing of Iceberg."""

from __future__ import annotations

from typing import Any

import numpy as np

from eventmill.kernels.partition import OVERFLOW
from eventmill.lake.iceberg import LakeTable


def files(
    lake: LakeTable, *, event: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> dict[str, Any]:
    """``snapshot_id`` (null for an empty lake), ``files``, and ``rows`` and ``bytes`` in all.

    Of a file: ``path``, ``event_date``, ``event_group``, ``rows``, ``bytes``, ``first_ms`` and ``last_ms`` (event times).
    ``event`` leaves out files that cannot hold events of that name, ``from_ms`` and ``to_ms`` (exclusive) those that lie
    outside; what is left may hold other events too. Raises ``StoreError``.
    """
    table = lake.load()
    snapshot = table.current_snapshot()
    found = [
        {
            "path": file.path,
            "event_date": str(np.datetime64(file.date, "D")),
            "event_group": file.group,
            "rows": file.rows,
            "bytes": file.data_file.file_size_in_bytes,
            "first_ms": file.start_ms,
            "last_ms": file.end_ms,
        }
        for file in lake.live_files(table)
        if (event is None or file.group in (event, OVERFLOW))
        and (from_ms is None or file.end_ms >= from_ms)
        and (to_ms is None or file.start_ms < to_ms)
    ]
    return {
        "snapshot_id": None if snapshot is None else snapshot.snapshot_id,
        "rows": sum(file["rows"] for file in found),
        "bytes": sum(file["bytes"] for file in found),
        "files": found,
    }
