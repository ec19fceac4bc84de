"""The lake's upkeep: compact, then tidy what that leaves behind."""

from __future__ import annotations

from typing import Any

from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import Config
from eventmill.lake.compact import Enrich, compact
from eventmill.lake.maintain import maintain
from eventmill.lake.table import Lake


def keep_up(lake: Lake, config: Config, *, put_right: Enrich | None = None) -> dict[str, Any]:
    """Compact the lake, expire old snapshots and remove unreferenced files; gives both reports as one.

    ``put_right`` gets the rows that are flagged as unknown, and gives them back.
    """
    gap_ms = parse_duration_ms(config.process.session_gap)
    compacted = compact(lake, gap_ms=gap_ms, now_ms=now_ms(), enrich=put_right)
    return {**compacted.as_dict(), **maintain(lake, now_ms=now_ms()).as_dict()}
