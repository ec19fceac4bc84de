"""The lake as the rest of Eventmill sees it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from eventmill.core.config import LakeConfig
from eventmill.core.retention import LakeView
from eventmill.core.schema import Topic
from eventmill.lake import scan
from eventmill.lake.aggregates import Aggregates, retired
from eventmill.lake.iceberg import LakeTable
from eventmill.lake.versions import DateVersions
from eventmill.lake.writer import LakeWriter


class Lake(LakeTable):
    """The lake, fed from the enriched topic. See ``LakeTable``."""

    def __init__(
        self,
        folder: Path,
        partitions_max: int = 1_000,
        *,
        settings: LakeConfig | None = None,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(folder, partitions_max, settings=settings)
        self._versions = DateVersions()
        self._writer = LakeWriter(self, topic=Topic.ENRICHED, checkpoint=checkpoint)

    def append(
        self,
        batch: pa.RecordBatch | pa.Table,
        *,
        group: str,
        ranges: Mapping[int, tuple[int, int]],
        forgotten: pa.Table | None = None,
    ) -> None:
        """See ``LakeWriter.append``."""
        self._writer.append(batch, group=group, ranges=ranges, forgotten=forgotten)

    def committed_offset(self, partition: int = 0) -> int:
        """The next offset to store. Raises ``StateError`` when the newest snapshot carries no offsets."""
        return self._writer.committed_offset(partition)

    def asked(self) -> LakeView | None:
        """The newest snapshot, and the aggregates that belong to it, for questions; null while there is none."""
        table = self.view()
        if table.current_snapshot() is None:
            return None
        events = self._source_of(table)
        named = retired(table)
        if not named.minutes:
            return LakeView(events, retired=named)
        tables = Aggregates.of(self)
        minutes, sessions = tables.minutes.source_sql(named.minutes), tables.sessions.source_sql(named.sessions)
        return LakeView(events, minutes, sessions, named)

    def version(self, source: str, first: int, last: int) -> Hashable | None:
        """Changes when a row of the dates from ``first`` to ``last`` (days since the epoch, both included) does.

        Null when ``source`` is not, or is not made of, the newest ``source_sql``.
        """
        table = self.view()
        if table.current_snapshot() is None or self._source_of(table) not in source:
            return None
        return self._versions.of(table, first, last)

    def counts_by_hour(self) -> list[scan.HourCount]:
        """See ``scan.counts_by_hour``."""
        return scan.counts_by_hour(self)

    def find(self, event_id: bytes, around_ms: int | None = None) -> list[dict[str, Any]]:
        """See ``scan.find``."""
        return scan.find(self, event_id, around_ms)
