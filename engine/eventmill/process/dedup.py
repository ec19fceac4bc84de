"""Duplicates: every event whose id the rotating Bloom filter may have seen becomes a suspect."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.schema import Flag
from eventmill.core.stage import Outcome
from eventmill.kernels.bloom import RotatingBloom


class Dedup:
    """Stateful. A row flagged ``RESCUED`` passes whatever the filter says: the exact look-up has judged it already."""

    name: Final = "dedup"

    def __init__(self, bloom: RotatingBloom) -> None:
        self._bloom = bloom

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Rows not seen before go on, the others are suspects."""
        if batch.num_rows == 0:
            return Outcome(batch)
        fresh = self._bloom.observe(batch.column("event_id"), batch.column("received_at"))
        rescued = pc.not_equal(pc.bit_wise_and(batch.column("flags"), int(Flag.RESCUED)), 0)
        passes = pc.or_(fresh, rescued)
        if pc.all(passes).as_py():
            return Outcome(batch)
        return Outcome(batch.filter(passes), suspects=batch.filter(pc.invert(passes)))

    def snapshot(self) -> bytes:
        """The filter with its parameters and secret."""
        return self._bloom.snapshot()

    def restore(self, state: bytes) -> None:
        """See ``RotatingBloom.restore``."""
        self._bloom.restore(state)
