"""Tables of the real-time store.

``events`` is ordered by event and minute, not by the exact time: rows of one minute then stay in the order of arrival,
which halves the cost of merges (they move runs of rows, not single ones). Every roll-up carries ``offset_max``, the newest
log offset in a row, by which a retry finds out what a crash has left undone (see ``store``).

Minutes feed hours, hours feed days: each view sees the few rows that the one before it has just made.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from eventmill.core.schema import EVENT, EVENT_ID, TIME, WORD
from eventmill.core.typed import NOTHING, Typed
from eventmill.sinks.realtime.rollups import RollUp, counts, numbers, sessions
from eventmill.sinks.realtime.shape import DATABASE, Column, Shape, Table

_JSON: Final = frozenset(["properties", "context"])
_TIME_TYPE: Final = "DateTime64(3, 'UTC')"

EVENTS: Final = f"{DATABASE}.events"
EVENTS_PARTITION: Final = "toDate(timestamp)"
#: Parts below this size keep all columns in one file: fewer files to sync at each insert.
_COMPACT: Final = "min_bytes_for_wide_part = 67108864"


def _column(field: pa.Field) -> Column:
    if field.type == EVENT_ID:
        return Column(field.name, "FixedString(16)", "CODEC(NONE)")
    if field.type == TIME:
        kind, codec = _TIME_TYPE, "CODEC(Delta, LZ4)"
    elif field.type in (pa.string(), WORD):
        kind, codec = "String", "CODEC(ZSTD(1))" if field.name in _JSON else ""
    else:
        kind, codec = {pa.int64(): "Int64", pa.int32(): "Int32"}[field.type], ""
    if field.nullable:
        kind = f"Nullable({kind})"
    if field.type == WORD:
        kind = f"LowCardinality({kind})"
    return Column(field.name, kind, codec)


EVENTS_TABLE: Final = Table(
    "events",
    (
        *map(_column, EVENT),
        Column("log_offset", "UInt64", "CODEC(Delta, LZ4)"),
        Column("inserted_at", _TIME_TYPE, "DEFAULT now64(3) CODEC(Delta, LZ4)"),
    ),
    "MergeTree",
    EVENTS_PARTITION,
    "event, toStartOfMinute(timestamp)",
    indexes=("INDEX by_offset log_offset TYPE minmax",),
    settings=(_COMPACT,),
)

#: Codecs that measure better than the first ones (``python -m bench columns``). Parts get them when they are written.
CODECS: Final = {
    "timestamp": "CODEC(T64, LZ4)",
    "original_timestamp": "CODEC(T64, LZ4)",
    "anonymous_id": "CODEC(ZSTD(1))",
}

#: What spares a look-up of one event, device or user most of the events (``python -m bench keys``), by name.
INDEXES: Final = {
    f"by_{column}": f"{column} TYPE bloom_filter(0.01) GRANULARITY 1"
    for column in ("event_id", "device_id", "user_id", "anonymous_id")
}
#: A setting of inserts: merges make these indexes, for large parts, which spares an insert a tenth of its cost.
INDEXES_BY_MERGES: Final = f"exclude_materialize_skip_indexes_on_insert = '{','.join(INDEXES)}'"

SESSIONS: Final = sessions()
MINUTES, HOURS, DAYS = counts()
NUMBERS: Final = numbers(NOTHING)
#: What is there whatever the schemas declare.
FIXED: Final = (MINUTES, SESSIONS, HOURS, DAYS)


def roll_ups(typed: Typed) -> tuple[RollUp, ...]:
    """All that ``events`` fills, each after the one that feeds it."""
    return (*FIXED, *(numbers(typed) if typed.numbers else ()))


def attach_views(shape: Shape, typed: Typed) -> list[str]:
    """Statements after which every insert into ``events`` fills the roll-ups. What feeds comes last: from the first row on
    each view finds the next one there."""
    return [
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {table.view}{shape.on} TO {shape.stored(table.name)} AS "
        f"{table.feed(shape.stored(table.feeder))}"
        for table in reversed(roll_ups(typed))
    ]


def detach_views(shape: Shape) -> list[str]:
    """Statements after which an insert into ``events`` fills nothing else. The roll-ups keep their rows."""
    return [f"DROP VIEW IF EXISTS {table.view}{shape.on} SYNC" for table in (*FIXED, *NUMBERS)]
