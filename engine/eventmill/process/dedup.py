"""Duplicates: every event whose id the Bloom filter may have seen becomes a suspect.

An event's own time is ``original_timestamp``, as the client wrote it: the same in each retry, while ``timestamp`` is corrected
anew by when the retry was sent. An event without one, or with an absurd one, is late to the filter.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from eventmill.core.config import DedupConfig
from eventmill.core.schema import Flag
from eventmill.core.stage import Outcome
from eventmill.kernels.event_bloom import EventTimeBloom
from eventmill.kernels.gather import take


def build_filter(dedup: DedupConfig, *, secret: bytes | None = None, populate: bool = False) -> EventTimeBloom:
    """The filter as configured; see ``EventTimeBloom``."""
    return EventTimeBloom(
        dedup.capacity,
        dedup.fpr,
        dedup.window,
        dedup.slice,
        dedup.lateness,
        dedup.late_share,
        secret=secret,
        populate=populate,
    )


class Dedup:
    """Stateful. A row flagged ``RESCUED`` passes whatever the filter says: the exact look-up has judged it already."""

    name: Final = "dedup"

    def __init__(self, bloom: EventTimeBloom) -> None:
        self._bloom = bloom

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Rows not seen before go on, the others are suspects."""
        if batch.num_rows == 0:
            return Outcome(batch)
        times = batch.column("received_at"), batch.column("original_timestamp")
        fresh = self._bloom.observe(batch.column("event_id"), *times)
        seen = np.flatnonzero(~fresh.to_numpy(zero_copy_only=False))
        flags = batch.column("flags").to_numpy()[seen]
        suspects = seen[flags & int(Flag.RESCUED) == 0]
        if len(suspects) == 0:
            return Outcome(batch)
        passes = np.ones(batch.num_rows, np.bool_)
        passes[suspects] = False
        return Outcome(take(batch, np.flatnonzero(passes)), suspects=take(batch, suspects))

    def snapshot(self) -> bytes:
        """The filter with its parameters and secret."""
        return self._bloom.snapshot()

    def restore(self, state: bytes) -> None:
        """See ``EventTimeBloom.restore``."""
        self._bloom.restore(state)
