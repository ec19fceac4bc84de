"""Counting rows for the ledger, per hour of ``received_at``."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.log import Count
from eventmill.core.schema import Hop

HOUR_MS: Final = 3_600_000


def hours(batch: pa.RecordBatch) -> list[tuple[int, int]]:
    """(hour in ms since the epoch, rows) of a batch that has ``received_at``."""
    received = batch.column("received_at").cast(pa.int64()).to_numpy(zero_copy_only=False)
    starts, rows = np.unique(received // HOUR_MS, return_counts=True)
    return [(int(start) * HOUR_MS, int(count)) for start, count in zip(starts, rows, strict=True)]


def counts(hop: Hop, batch: pa.RecordBatch | None) -> list[Count]:
    """Ledger entries of a batch; a batch with a ``reason`` column is counted by reason too."""
    if batch is None or batch.num_rows == 0:
        return []
    if "reason" not in batch.schema.names:
        return [Count(hop, hour, rows) for hour, rows in hours(batch)]
    entries = []
    for reason in batch.column("reason").unique().to_pylist():
        chosen = batch.filter(pc.equal(batch.column("reason"), reason))
        entries += [Count(hop, hour, rows, reason) for hour, rows in hours(chosen)]
    return entries
