"""Tables of the real-time store.

``events`` is ordered by event and minute, not by the exact time: rows of one minute then stay in the order of arrival,
which halves the cost of merges (they move runs of rows, not single ones). Both roll-ups carry ``offset_max``, the newest
log offset in a row, by which a retry finds out what a crash has left undone (see ``store``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from eventmill.core.rollup import distinct_state, distinct_type
from eventmill.core.schema import EVENT, EVENT_ID, TIME, WORD

DATABASE: Final = "eventmill"
#: Blocks that a table remembers for its duplicate check. Every partition that an insert touches takes one.
WINDOW: Final = 10_000

_JSON: Final = frozenset(["properties", "context"])
_TIME_TYPE: Final = "DateTime64(3, 'UTC')"


@dataclass(frozen=True, slots=True)
class RollUp:
    """A table that a materialized view fills from ``events``. ``partition`` is its partition of a row of ``events``."""

    name: str
    view: str
    columns: str
    order: str
    partition: str
    select: str
    group: str

    def query(self, source: str) -> str:
        """The rows of ``source`` (which has the columns of ``events``) rolled up."""
        return f"SELECT {self.select} FROM {source} GROUP BY {self.group}"


EVENTS: Final = f"{DATABASE}.events"
EVENTS_PARTITION: Final = "toDate(timestamp)"

MINUTES: Final = RollUp(
    name=f"{DATABASE}.events_1m",
    view=f"{DATABASE}.events_1m_view",
    columns=f"""
        minute DateTime('UTC'),
        event LowCardinality(String),
        platform LowCardinality(Nullable(String)),
        project LowCardinality(Nullable(String)),
        events SimpleAggregateFunction(sum, UInt64),
        devices {distinct_type("String")},
        users {distinct_type("Nullable(String)")},
        sessions {distinct_type("Int64")},
        offset_max SimpleAggregateFunction(max, UInt64)""",
    order="event, minute, platform, project",
    partition="toYYYYMM(toStartOfMinute(timestamp))",
    select=f"""toStartOfMinute(timestamp) AS minute, event, platform, project, count() AS events,
        {distinct_state("device_id")} AS devices, {distinct_state("user_id")} AS users,
        {distinct_state("session_id")} AS sessions, max(log_offset) AS offset_max""",
    group="minute, event, platform, project",
)
# A session that goes on past midnight has a row for each day, so that days can be dropped; readers group by session_id.
SESSIONS: Final = RollUp(
    name=f"{DATABASE}.sessions",
    view=f"{DATABASE}.sessions_view",
    columns=f"""
        session_id Int64,
        day Date,
        project LowCardinality(Nullable(String)),
        device_id SimpleAggregateFunction(any, String),
        user_id SimpleAggregateFunction(max, Nullable(String)),
        started SimpleAggregateFunction(min, {_TIME_TYPE}),
        ended SimpleAggregateFunction(max, {_TIME_TYPE}),
        events SimpleAggregateFunction(sum, UInt64),
        offset_max SimpleAggregateFunction(max, UInt64)""",
    order="session_id, day, project",
    partition="toYYYYMM(toDate(timestamp))",
    select="""session_id, toDate(timestamp) AS day, project, any(device_id) AS device_id, max(user_id) AS user_id,
        min(timestamp) AS started, max(timestamp) AS ended, count() AS events, max(log_offset) AS offset_max""",
    group="session_id, day, project",
)
ROLL_UPS: Final = (MINUTES, SESSIONS)
_PARTITION_OF_ROLL_UP: Final = {MINUTES.name: "toYYYYMM(minute)", SESSIONS.name: "toYYYYMM(day)"}


def partition_of_rows(roll_up: RollUp) -> str:
    """The partition expression over the roll-up's own columns."""
    return _PARTITION_OF_ROLL_UP[roll_up.name]


def _column(field: pa.Field) -> str:
    if field.type == EVENT_ID:
        return f"{field.name} FixedString(16) CODEC(NONE)"
    if field.type == TIME:
        kind, codec = _TIME_TYPE, " CODEC(Delta, LZ4)"
    elif field.type in (pa.string(), WORD):
        kind, codec = "String", " CODEC(ZSTD(1))" if field.name in _JSON else ""
    else:
        kind, codec = {pa.int64(): "Int64", pa.int32(): "Int32"}[field.type], ""
    if field.nullable:
        kind = f"Nullable({kind})"
    if field.type == WORD:
        kind = f"LowCardinality({kind})"
    return f"{field.name} {kind}{codec}"


def create(window: int = WINDOW) -> list[str]:
    """Statements that make the database and its tables where they are missing.

    An insert is on disk when it returns. ``window`` is that of the duplicate check; 0 turns it off.
    """
    settings = (
        f"non_replicated_deduplication_window = {window}, min_bytes_for_wide_part = 67108864, "
        # Statistics of every column would be a tenth of each merge; nothing here asks by them.
        "fsync_after_insert = 1, fsync_part_directory = 1, auto_statistics_types = ''"
    )
    columns = ",\n".join(
        [
            *map(_column, EVENT),
            "log_offset UInt64 CODEC(Delta, LZ4)",
            f"inserted_at {_TIME_TYPE} DEFAULT now64(3) CODEC(Delta, LZ4)",
            "INDEX by_offset log_offset TYPE minmax",
        ]
    )
    return [
        f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
        f"CREATE TABLE IF NOT EXISTS {EVENTS} ({columns}) ENGINE = MergeTree PARTITION BY {EVENTS_PARTITION} "
        f"ORDER BY (event, toStartOfMinute(timestamp)) SETTINGS {settings}",
        *(
            f"CREATE TABLE IF NOT EXISTS {table.name} ({table.columns}) ENGINE = AggregatingMergeTree "
            f"PARTITION BY {partition_of_rows(table)} ORDER BY ({table.order}) "
            f"SETTINGS {settings}, allow_nullable_key = 1"
            for table in ROLL_UPS
        ),
    ]


def attach_views() -> list[str]:
    """Statements after which every insert into ``events`` fills the roll-ups."""
    return [
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {table.view} TO {table.name} AS {table.query(EVENTS)}"
        for table in ROLL_UPS
    ]


def detach_views() -> list[str]:
    """Statements after which an insert into ``events`` fills nothing else. The roll-ups keep their rows."""
    return [f"DROP VIEW IF EXISTS {table.view} SYNC" for table in ROLL_UPS]
