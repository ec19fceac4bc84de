"""Dead letters: the envelope round what was refused, and its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from eventmill.core.log import StoredFrame


def with_offsets(letters: pa.RecordBatch, raw_ids: pa.Array, frames: Sequence[StoredFrame]) -> pa.RecordBatch:
    """The letters (DEAD) with the offset of the raw frame that each one's event came from.

    ``raw_ids`` are the event ids of all ``frames``, in order.
    """
    rows = pc.index_in(letters.column("event_id"), value_set=raw_ids)
    ends = np.cumsum([stored.events for stored in frames])
    offsets = np.array([stored.offset for stored in frames], np.int64)
    at = rows.fill_null(0).to_numpy(zero_copy_only=False)
    found = pa.array(
        offsets[np.searchsorted(ends, at, side="right")], mask=rows.is_null().to_numpy(zero_copy_only=False)
    )
    place = letters.schema.get_field_index("raw_offset")
    return letters.set_column(place, letters.schema.field(place), found)


def fingerprint(reason: str, event: str | None, schema: str | None, path: str | None, rule: str | None) -> str:
    """Names the cause: letters of one cause have one fingerprint, whatever the values in them. 12 hex digits.

    Indices of arrays do not count: ``/items/3/price`` is as ``/items/0/price``.
    """
    plain = "/".join("*" if segment.isdigit() else segment for segment in (path or "").split("/"))
    cause = "\0".join((reason, event or "", schema or "", plain, rule or ""))
    return str(xxhash.xxh3_64_hexdigest(cause.encode()))[:12]
