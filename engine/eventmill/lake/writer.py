"""Appending to the lake, exactly once: rows and offsets in one commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table, Transaction

from eventmill.core import ledger
from eventmill.core.frame import to_batch
from eventmill.lake import offsets
from eventmill.lake.files import FileWriter, partition, remove, require, uncommitted
from eventmill.lake.iceberg import FORGOTTEN, LakeTable, added
from eventmill.lake.maintain import SNAPSHOTS_KEPT, expire_snapshots
from eventmill.lake.versions import changed

#: A commit's cost grows with the snapshots there are (by 3 ms of CPU each).
SNAPSHOTS_MAX: Final = 16


class LakeWriter:
    """Appends a topic. One thread at a time; any number of writers may race over the same offsets."""

    def __init__(
        self,
        lake: LakeTable,
        *,
        topic: str,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.lake = lake
        self._topic = str(topic)
        self._checkpoint = checkpoint
        self._files = FileWriter(lake, lake.load())

    def committed_offset(self, partition: int) -> int:
        """The next offset to store."""
        return offsets.committed(self.lake.load().current_snapshot(), self._topic, partition)

    def append(
        self,
        batch: pa.RecordBatch | pa.Table,
        *,
        group: str,
        ranges: Mapping[int, tuple[int, int]],
        forgotten: pa.Table | None = None,
    ) -> None:
        """Store the rows (EVENT) and each partition's offsets (from inclusive, to exclusive) in one commit.

        Ranges that are stored already are passed over. ``forgotten`` are rows of the ranges that are counted only.

        Raises ``StateError`` when a range leaves a gap or overlaps, ``StoreError`` when the store cannot take it;
        nothing of the batch is visible then.
        """
        events = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        table = self.lake.load()
        if self._covers(table, group, ranges):
            return
        if len(table.metadata.snapshots) > SNAPSHOTS_MAX:
            expire_snapshots(self.lake, kept=SNAPSHOTS_KEPT)
        with uncommitted(self.lake) as paths:
            files = self._files.write_all(partition(events, self.lake.group_of), paths)
            self._checkpoint("files written")

            def stage(table: Table, transaction: Transaction) -> int | None:
                if self._covers(table, group, ranges):
                    return None
                require(self.lake.storage, paths)
                if forgotten is not None:
                    hours = Counter(dict(ledger.hours(to_batch(forgotten))))
                    transaction.set_properties(added(table, FORGOTTEN, hours))
                summary = self._summary(table.current_snapshot(), events, group, ranges)
                summary |= changed(file.partition[0] for file in files)
                with transaction.update_snapshot(snapshot_properties=summary).fast_append() as append:
                    for file in files:
                        append.append_data_file(file)
                self._checkpoint("before commit")
                return int(append.snapshot_id)

            landed = self.lake.commit(stage)
            if landed is None:
                remove(self.lake.storage, paths)
        self._checkpoint("committed")

    def _covers(self, table: Table, group: str, ranges: Mapping[int, tuple[int, int]]) -> bool:
        return offsets.covers(table.current_snapshot(), self._topic, ranges, group)

    def _summary(
        self, snapshot: Any, events: pa.Table, group: str, ranges: Mapping[int, tuple[int, int]]
    ) -> dict[str, str]:
        ours = offsets.advanced(offsets.carried(snapshot), group, self._topic, ranges)
        if events.num_rows:
            newest = pc.max(events.column("received_at")).cast(pa.int64()).as_py()
            ours[offsets.RECEIVED_THROUGH] = str(max(newest, offsets.received_through(snapshot) or newest))
        return ours
