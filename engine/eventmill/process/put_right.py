"""Events that were stored while their schema, or their user's dimensions, were not known: as they are by what is known now."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.frame import conform, to_batch
from eventmill.core.schema import EVENT, RAW, Flag
from eventmill.kernels.enrich import Enricher
from eventmill.process.schemas.ruling import Ruling

_DIMENSIONS: Final = int(Flag.DIMENSIONS_UNKNOWN)
_SCHEMA: Final = int(Flag.SCHEMA_UNKNOWN)
_BROKEN: Final = int(Flag.SCHEMA_BROKEN)


def put_right(batch: pa.RecordBatch, ruling: Ruling | None, known: Enricher | None) -> pa.RecordBatch:
    """The rows (EVENT), in any order, by what ``ruling`` and ``known`` say now; null: they say nothing."""
    judged = batch if ruling is None else revised(batch, ruling)
    return judged if known is None else dimensioned(judged, known)


def revised(batch: pa.RecordBatch, ruling: Ruling) -> pa.RecordBatch:
    """The rows (EVENT) with the flags that the schemas give them now; those whose schema is still unknown as they were."""
    flags = batch.column("flags").to_numpy()
    changed = np.where(flags & _SCHEMA != 0, _judged(batch, ruling, flags), flags)
    place = batch.schema.get_field_index("flags")
    return batch.set_column(place, batch.schema.field(place), pa.array(changed.astype(np.int32)))


def _judged(batch: pa.RecordBatch, ruling: Ruling, flags: np.ndarray[tuple[int], np.dtype[np.int32]]) -> pa.Array:
    verdict = ruling.judge(conform(batch, RAW))
    after = flags & ~np.int32(_SCHEMA)
    if verdict is not None:
        after[list(verdict.broken)] |= np.int32(_BROKEN)
        after[verdict.unknown] |= np.int32(_SCHEMA)
    return after


def dimensioned(batch: pa.RecordBatch, known: Enricher) -> pa.RecordBatch:
    """The rows (EVENT), those flagged as unknown with what is known, in another order."""
    flagged = pa.array(np.asarray(batch.column("flags")) & _DIMENSIONS != 0)
    again = known.apply(batch.filter(flagged)).select(EVENT.names).cast(EVENT)
    parts = [batch.filter(pc.invert(flagged)).select(EVENT.names).cast(EVENT), again]
    return to_batch(pa.Table.from_batches(parts))


def answers(users: pa.Array, known: Enricher) -> pa.RecordBatch:
    """``user_id`` and the dimensions of those of ``users`` (distinct) of whom it is known what they are."""
    rows = known.apply(pa.record_batch({"user_id": users, "flags": np.full(len(users), _DIMENSIONS, np.int32)}))
    return rows.filter(pc.equal(rows.column("flags"), 0)).drop_columns(["flags"])
