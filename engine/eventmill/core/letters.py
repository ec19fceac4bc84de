"""Dead letters of what was never decoded."""

from __future__ import annotations

import pyarrow as pa

from eventmill.core.frame import conform
from eventmill.core.schema import AT_INGEST, DEAD


def at_ingest(rejects: pa.RecordBatch) -> pa.RecordBatch:
    """What the decoder has refused (REJECT, with its project or without) as letters (DEAD)."""
    letters = conform(rejects, DEAD)
    place = letters.schema.get_field_index("stage")
    return letters.set_column(place, DEAD.field(place), pa.array([AT_INGEST] * len(letters), pa.string()))
