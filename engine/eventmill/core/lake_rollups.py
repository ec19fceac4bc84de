"""The lake's roll-ups: what a data file's events amount to per hour and per day, kept in ClickHouse beside the real-time store.

A data file never changes, so what was counted of it once is right for as long as a snapshot has it: neither late events nor
compaction, deletion or forgetting make it stale, for they bring other files. An answer adds up the files of one snapshot, of
each either what is kept here or, where that is not there yet, its events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import xxhash

from eventmill.core.rollup import DIMENSIONS, distinct_state, distinct_type

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class LakeRollUp:
    """One table: a row for each file, length of time, event, platform and project. ``file_key`` names the file."""

    name: str
    column: str
    kind: str
    start: str
    length_ms: int

    def create(self) -> str:
        """Makes it where it is missing."""
        states = ", ".join(
            f"{name} {distinct_type(kind)}"
            for name, kind in (("devices", "String"), ("users", "Nullable(String)"), ("sessions", "Int64"))
        )
        return (
            f"CREATE TABLE IF NOT EXISTS {self.name} (file UInt64, {self.column} {self.kind}, event LowCardinality(String), "
            f"platform LowCardinality(Nullable(String)), project LowCardinality(Nullable(String)), events UInt64, {states}) "
            f"ENGINE = MergeTree PARTITION BY toYYYYMM({self.column}) ORDER BY (event, {self.column}, file) "
            "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, auto_statistics_types = ''"
        )

    def fill(self, source: str, names: list[str]) -> str:
        """Counts the files of ``source`` (the lake as a FROM expression) with these names."""
        listed = ", ".join(f"'{name}'" for name in names)
        return (
            f"INSERT INTO {self.name} SELECT xxh3(_file) AS file, {self.start}(timestamp) AS {self.column}, event, "
            f"platform, project, count() AS events, {distinct_state('device_id')} AS devices, "
            f"{distinct_state('user_id')} AS users, {distinct_state('session_id')} AS sessions "
            f"FROM {source} WHERE _file IN ({listed}) GROUP BY file, {self.column}, {', '.join(DIMENSIONS)}, project"
        )


HOURS: Final = LakeRollUp("eventmill.lake_1h", "hour", "DateTime('UTC')", "toStartOfHour", HOUR_MS)
DAYS: Final = LakeRollUp("eventmill.lake_1d", "day", "Date", "toDate", DAY_MS)
LAKE_ROLL_UPS: Final = (HOURS, DAYS)


def file_key(name: str) -> int:
    """XXH3-64 of a file's name, as ClickHouse's ``xxh3`` gives it."""
    return xxhash.xxh3_64_intdigest(name.encode())
