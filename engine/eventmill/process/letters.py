"""Dead letters: the envelope round what was refused, and its fingerprint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from eventmill.core import frame
from eventmill.core.letters import at_ingest
from eventmill.core.log import StoredFrame
from eventmill.core.schema import REJECT


def with_offsets(letters: pa.RecordBatch, raw_ids: pa.Array, frames: Sequence[StoredFrame]) -> pa.RecordBatch:
    """The letters (DEAD) with partition and offset of the raw frame that each one's event came from.

    ``raw_ids`` are the event ids of all ``frames``, in order.
    """
    rows = pc.index_in(letters.column("event_id"), value_set=raw_ids)
    ends = np.cumsum([stored.events for stored in frames])
    offsets = np.array([stored.offset for stored in frames], np.int64)
    at = rows.fill_null(0).to_numpy(zero_copy_only=False)
    found = pa.array(
        offsets[np.searchsorted(ends, at, side="right")], mask=rows.is_null().to_numpy(zero_copy_only=False)
    )
    partitions = np.full(len(letters), frames[0].partition, np.int32)
    return _placed(letters, pa.array(partitions, mask=rows.is_null().to_numpy(zero_copy_only=False)), found)


def of_foreign(frames: Sequence[StoredFrame]) -> Iterator[pa.RecordBatch]:
    """What could not be taken of messages that others have written, as letters (DEAD) in their order: a batch for each in which
    they were decoded."""
    refused = [(stored, stored.rejects) for stored in frames if stored.rejects is not None]
    for _, group in itertools.groupby(refused, lambda each: each[1].shared):
        together = list(group)
        letters = at_ingest(frame.gather((rejects for _, rejects in together), REJECT))
        partitions, offsets = (
            np.repeat(np.array(values, kind), [rejects.size for _, rejects in together])
            for values, kind in (
                ([stored.partition for stored, _ in together], np.int32),
                ([stored.offset for stored, _ in together], np.int64),
            )
        )
        yield _placed(letters, pa.array(partitions), pa.array(offsets))


def _placed(letters: pa.RecordBatch, partitions: pa.Array, offsets: pa.Array) -> pa.RecordBatch:
    for name, values in (("raw_partition", partitions), ("raw_offset", offsets)):
        place = letters.schema.get_field_index(name)
        letters = letters.set_column(place, letters.schema.field(place), values)
    return letters


def fingerprint(reason: str, event: str | None, schema: str | None, path: str | None, rule: str | None) -> str:
    """Names the cause: letters of one cause have one fingerprint, whatever the values in them. 12 hex digits.

    Indices of arrays do not count: ``/items/3/price`` is as ``/items/0/price``.
    """
    plain = "/".join("*" if segment.isdigit() else segment for segment in (path or "").split("/"))
    cause = "\0".join((reason, event or "", schema or "", plain, rule or ""))
    return str(xxhash.xxh3_64_hexdigest(cause.encode()))[:12]
