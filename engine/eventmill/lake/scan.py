"""Questions that are answered from the lake's data files themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.errors import QueryError
from eventmill.core.schema import Flag
from eventmill.lake.aggregates import Aggregates
from eventmill.lake.duplicates import HOUR_MS, contains, mixed, repeated, words
from eventmill.lake.files import DAY_MS, read, stream
from eventmill.lake.iceberg import FORGOTTEN, REMOVED, LakeTable, LiveFile, by_hour

#: Rows whose ids are compared at once, at 8 bytes each; a lake of more is read several times.
ROWS_MAX: Final = 50_000_000
_SHOWN: Final = ["event", "timestamp", "received_at", "session_id", "flags"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Words = npt.NDArray[np.uint64]


class HourCount(NamedTuple):
    """One hour of ``received_at`` (``hour``: its start, ms since the epoch): rows, distinct event ids, exact duplicates
    that compaction removed, and rows that were forgotten and retired."""

    hour: int
    rows: int
    distinct: int
    removed: int
    forgotten: int = 0
    retired: int = 0


def counts_by_hour(lake: LakeTable, *, rows_max: int = ROWS_MAX) -> list[HourCount]:
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
    removed, forgotten = by_hour(table, REMOVED), by_hour(table, FORGOTTEN)
    retired = Aggregates.of(lake).hours(table)
    return [
        HourCount(
            hour, rows[hour], rows[hour] - extra[hour], removed.get(hour, 0), forgotten.get(hour, 0), retired[hour]
        )
        for hour in sorted({*rows, *removed, *forgotten, *retired})
    ]


def _hours_and_ids(file: LiveFile) -> Any:
    for batch in stream(file, ["received_at", "event_id"]):
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


def find(lake: LakeTable, event_id: bytes, around_ms: int | None = None) -> list[dict[str, Any]]:
    """Every row with that id, and where it lies.

    ``file``, ``snapshot_id`` (of the append, or the later compaction, that wrote the file), ``at_ms`` (when that was
    committed; once the snapshot has expired, when the file was written), and of the row ``event``, ``timestamp_ms``,
    ``received_at_ms``, ``session_id`` and the names of its ``flags``. ``around_ms`` limits the search to files with event
    times within a day of it.
    """
    if len(event_id) != 16:
        raise QueryError(f"an event id has 16 bytes, not {len(event_id)}")
    table = lake.load()
    wanted = pa.scalar(event_id, pa.binary(16))
    found = []
    for file in lake.live_files(table):
        if around_ms is not None and not file.start_ms - DAY_MS <= around_ms <= file.end_ms + DAY_MS:
            continue
        matches = np.flatnonzero(np.asarray(pc.equal(read(file, ["event_id"]).column(0), wanted)))
        if len(matches):
            snapshot = table.snapshot_by_id(file.snapshot_id)
            at_ms = _written_ms(file) if snapshot is None else snapshot.timestamp_ms
            rows = read(file, _SHOWN).take(pa.array(matches)).to_pylist()
            found += [_place(row, file, at_ms) for row in rows]
    return found


def _written_ms(file: LiveFile) -> int:
    try:
        return file.storage.modified_ms(file.path)
    except OSError as error:
        raise file.storage.failure(f"cannot look at {file.path}", error) from error


def _place(row: dict[str, Any], file: LiveFile, at_ms: int) -> dict[str, Any]:
    return {
        "at_ms": at_ms,
        "file": file.path,
        "snapshot_id": file.snapshot_id,
        "event": row["event"],
        "timestamp_ms": _ms(row["timestamp"]),
        "received_at_ms": _ms(row["received_at"]),
        "session_id": row["session_id"],
        "flags": [flag.name for flag in Flag(row["flags"])],
    }


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
