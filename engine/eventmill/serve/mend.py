"""One cycle of the lake's upkeep, in which flagged events are put right in both stores."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from eventmill.core.config import Config
from eventmill.core.schema import Flag
from eventmill.process.dimensions.source import Dimensions
from eventmill.process.put_right import put_right
from eventmill.process.schemas.ruling import Ruling
from eventmill.serve.dimensions import known_now, revise_dimensions
from eventmill.serve.place import in_lake
from eventmill.serve.revise import any_flagged, revise_realtime
from eventmill.serve.stores import Stores
from eventmill.serve.upkeep import keep_up

#: How long the lake may take to have what the real-time store has; it writes every few seconds.
_CATCH_UP_S: Final = 30.0


def mended(stores: Stores, config: Config, newest: Ruling | None, dimensions: Dimensions) -> dict[str, Any]:
    """Compact, tidy, and put right what can be: by the ``newest`` schemas, and by what ``dimensions`` knows now."""
    realtime = stores.realtime
    ruling = newest if newest is not None and any_flagged(realtime, Flag.SCHEMA_UNKNOWN) else None
    asks = any_flagged(realtime, Flag.DIMENSIONS_UNKNOWN)
    end = in_lake(stores.log, _CATCH_UP_S) if asks or ruling is not None else 0
    known = known_now(realtime, dimensions, end) if asks else None

    def enrich(batch: pa.RecordBatch) -> pa.RecordBatch:
        return put_right(batch, ruling, known)

    report = keep_up(stores.lake, config, put_right=enrich if ruling is not None or known is not None else None)
    if ruling is not None:
        report["schemas_known"] = revise_realtime(realtime, ruling, end)
    if known is not None:
        report["dimensions_known"] = revise_dimensions(realtime, known, end)
    return report
