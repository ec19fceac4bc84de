"""One cycle of the lake's upkeep, in which flagged events are put right in both stores."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from eventmill.core import groups
from eventmill.core.config import Config
from eventmill.core.log import Log
from eventmill.core.schema import Flag, Topic
from eventmill.process.dimensions.source import Dimensions
from eventmill.process.put_right import put_right
from eventmill.process.schemas.ruling import Ruling
from eventmill.serve.dimensions import known_now, revise_dimensions
from eventmill.serve.revise import any_flagged, revise_realtime
from eventmill.serve.stores import Stores
from eventmill.serve.upkeep import keep_up

#: A place beyond all events.
_EVERYWHERE: Final = (1 << 63) - 1


def _in_lake(log: Log) -> int:
    """Below this place of the real-time store all events are in the lake too."""
    partitions = log.partitions(Topic.ENRICHED)
    if len(partitions) == 1:
        return log.committed(groups.LAKE, Topic.ENRICHED, partitions[0])
    # The two stores may have taken the partitions in different order.
    return 0 if any(log.lag(groups.LAKE, Topic.ENRICHED, each) for each in partitions) else _EVERYWHERE


def mended(stores: Stores, config: Config, newest: Ruling | None, dimensions: Dimensions) -> dict[str, Any]:
    """Compact, tidy, and put right what can be: by the ``newest`` schemas, and by what ``dimensions`` knows now."""
    realtime = stores.realtime
    ruling = newest if newest is not None and any_flagged(realtime, Flag.SCHEMA_UNKNOWN) else None
    end = _in_lake(stores.log)
    known = known_now(realtime, dimensions, end) if any_flagged(realtime, Flag.DIMENSIONS_UNKNOWN) else None

    def enrich(batch: pa.RecordBatch) -> pa.RecordBatch:
        return put_right(batch, ruling, known)

    report = keep_up(stores.lake, config, put_right=enrich if ruling is not None or known is not None else None)
    if ruling is not None:
        report["schemas_known"] = revise_realtime(realtime, ruling, end)
    if known is not None:
        report["dimensions_known"] = revise_dimensions(realtime, known, end)
    return report
