"""What the lake holds of one user."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.lake.files import parquet, read
from eventmill.lake.iceberg import LakeTable


def events_of(lake: LakeTable, user_id: str) -> Iterator[pa.Table]:
    """The rows (EVENT) with that ``user_id``, each event once, a table for each file that has any. Raises ``StoreError``.

    Memory: one file's rows of the user, and 16 bytes and a set's entry for each event.
    """
    seen: set[bytes] = set()
    for file in lake.live_files():
        with parquet(file) as opened:
            users = opened.read(["user_id"]).column(0)
        at = np.flatnonzero(pc.fill_null(pc.equal(users, user_id), False).to_numpy())
        if not len(at):
            continue
        rows = read(file).take(pa.array(at))
        fresh = []
        for number, event_id in enumerate(rows.column("event_id").to_pylist()):
            if event_id not in seen:
                seen.add(event_id)
                fresh.append(number)
        if fresh:
            yield rows.take(pa.array(fresh))
