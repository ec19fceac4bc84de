"""Duplicates: every event whose id the Bloom filter may have seen becomes a suspect.

An event's own time is ``original_timestamp``, as the client wrote it: the same in each retry, while ``timestamp`` is corrected
anew by when the retry was sent. An event without one, or with an absurd one, is late to the filter.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.config import DedupConfig
from eventmill.core.schema import Flag
from eventmill.core.stage import Outcome
from eventmill.kernels.event_bloom import EventTimeBloom


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
        rescued = pc.not_equal(pc.bit_wise_and(batch.column("flags"), int(Flag.RESCUED)), 0)
        passes = pc.or_(fresh, rescued)
        if pc.all(passes).as_py():
            return Outcome(batch)
        return Outcome(batch.filter(passes), suspects=batch.filter(pc.invert(passes)))

    def snapshot(self) -> bytes:
        """The filter with its parameters and secret."""
        return self._bloom.snapshot()

    def restore(self, state: bytes) -> None:
        """See ``EventTimeBloom.restore``."""
        self._bloom.restore(state)
