"""The lake's upkeep: compact, then tidy what that leaves behind."""

from __future__ import annotations

from typing import Any

from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import Config
from eventmill.lake.compact import CompactReport, compact
from eventmill.lake.maintain import maintain
from eventmill.lake.merge import Enrich, Progress
from eventmill.lake.table import Lake


def planned(lake: Lake, config: Config) -> dict[str, Any]:
    """What a compaction would do; nothing is changed."""
    return _compact(lake, config, dry_run=True).as_dict()


def keep_up(
    lake: Lake,
    config: Config,
    *,
    put_right: Enrich | None = None,
    progress: Progress = lambda _done, _total: None,
) -> dict[str, Any]:
    """Compact the lake, expire old snapshots and remove unreferenced files; gives both reports as one.

    ``put_right`` gets the rows that are flagged as unknown, and gives them back; ``progress`` is told rows done and in all.
    """
    compacted = _compact(lake, config, enrich=put_right, progress=progress)
    return {**compacted.as_dict(), **maintain(lake, now_ms=now_ms()).as_dict()}


def _compact(lake: Lake, config: Config, **options: Any) -> CompactReport:
    gap_ms = parse_duration_ms(config.process.session_gap)
    memory_bytes = config.lake.compact_memory_bytes_max
    return compact(lake, gap_ms=gap_ms, now_ms=now_ms(), memory_bytes=memory_bytes, **options)
