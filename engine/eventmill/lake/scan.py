"""Questions that are answered from the lake's data files themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.errors import StoreError
from eventmill.lake.duplicates import HOUR_MS, contains, mixed, repeated, words
from eventmill.lake.files import DAY_MS, read, stream
from eventmill.lake.table import Lake, LiveFile, removed_by_hour

#: Rows whose ids are compared at once, at 8 bytes each; a lake of more is read several times.
ROWS_MAX: Final = 50_000_000
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class HourCount:
    """One hour of ``received_at`` (``hour``: its start, ms since the epoch): rows, distinct event ids, and exact
    duplicates that compaction removed."""

    hour: int
    rows: int
    distinct: int
    removed: int


def counts_by_hour(lake: Lake, *, rows_max: int = ROWS_MAX) -> list[HourCount]:
    """Every hour of the newest snapshot, counted in the data files."""
    table = lake.load()
    files = lake.live_files(table)
    passes = max(-(-sum(file.rows for file in files) // rows_max), 1)
    rows: Counter[int] = Counter()
    extra: Counter[int] = Counter()
    for number in range(passes):
        hashes: dict[int, list[Words]] = defaultdict(list)
        for file in files:
            for hours, ids in _hours_and_ids(file):
                mine = mixed(ids)
                kept = mine % np.uint64(passes) == number
                for hour in np.unique(hours[kept]).tolist():
                    part = mine[kept & (hours == hour)]
                    hashes[hour].append(part)
                    rows[hour] += len(part)
        suspects = {hour: repeated(np.concatenate(parts)) for hour, parts in hashes.items()}
        extra.update(_repeats(files, {hour: found for hour, found in suspects.items() if len(found)}))
    removed = removed_by_hour(table)
    return [
        HourCount(hour, rows[hour], rows[hour] - extra[hour], removed.get(hour, 0))
        for hour in sorted(set(rows) | set(removed))
    ]


def _hours_and_ids(file: LiveFile) -> Any:
    for batch in stream(file.path, ["received_at", "event_id"]):
        times = batch.column("received_at").cast(pa.int64()).to_numpy(zero_copy_only=False) // 1000
        yield times // HOUR_MS * HOUR_MS, words(batch.column("event_id"))


def _repeats(files: list[LiveFile], suspects: dict[int, Words]) -> Counter[int]:
    """Rows per hour beyond the first of their id, among the ids with those hashes."""
    seen: dict[int, list[Words]] = defaultdict(list)
    if suspects:
        for file in files:
            for hours, ids in _hours_and_ids(file):
                for hour in set(np.unique(hours).tolist()) & set(suspects):
                    mine = ids[hours == hour]
                    seen[hour].append(mine[contains(suspects[hour], mixed(mine))])
    return Counter(
        {hour: sum(map(len, parts)) - len(np.unique(np.concatenate(parts), axis=0)) for hour, parts in seen.items()}
    )


def find(lake: Lake, event_id: bytes, around: int | None = None) -> list[dict[str, Any]]:
    """Every row with that id: EVENT's columns, and ``file``, ``snapshot_id``, ``committed_at`` (ms since the epoch).

    The snapshot is the one that wrote the file (an append, or a later compaction); when it was committed is null once it
    has expired. ``around`` (ms since the epoch) limits the search to files with event times within a day of it.
    """
    if len(event_id) != 16:
        raise StoreError(f"an event id has 16 bytes, not {len(event_id)}")
    table = lake.load()
    wanted = pa.scalar(event_id, pa.binary(16))
    found = []
    for file in lake.live_files(table):
        if around is not None and not file.start_ms - DAY_MS <= around <= file.end_ms + DAY_MS:
            continue
        matches = np.flatnonzero(np.asarray(pc.equal(read(file.path, ["event_id"]).column(0), wanted)))
        if len(matches):
            snapshot = table.snapshot_by_id(file.snapshot_id)
            place = {
                "file": file.path,
                "snapshot_id": file.snapshot_id,
                "committed_at": None if snapshot is None else snapshot.timestamp_ms,
            }
            found += [row | place for row in read(file.path).take(pa.array(matches)).to_pylist()]
    return found
