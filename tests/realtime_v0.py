"""A real-time store as it was made before its schema had versions: kept as text, so that it can always be made again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from eventmill.sinks.realtime.clients import Clients

_SETTINGS = (
    "non_replicated_deduplication_window = 10000, min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, "
    "fsync_part_directory = 1, auto_statistics_types = ''"
)
_WORD, _WORD_OR_NULL = "LowCardinality(String)", "LowCardinality(Nullable(String))"
_MINUTES = """SELECT toStartOfMinute(timestamp) AS minute, event, platform, project, count() AS events,
    uniqCombined64State(16)(device_id) AS devices, uniqCombined64State(16)(user_id) AS users,
    uniqCombined64State(16)(session_id) AS sessions, max(log_offset) AS offset_max
    FROM eventmill.events GROUP BY minute, event, platform, project"""
_SESSIONS = """SELECT session_id, toDate(timestamp) AS day, project, any(device_id) AS device_id, max(user_id) AS user_id,
    min(timestamp) AS started, max(timestamp) AS ended, count() AS events, max(log_offset) AS offset_max
    FROM eventmill.events GROUP BY session_id, day, project"""
STATEMENTS = [
    "CREATE DATABASE IF NOT EXISTS eventmill",
    f"""CREATE TABLE eventmill.events (
        event_id FixedString(16) CODEC(NONE), message_id Nullable(String), event {_WORD}, type {_WORD}, device_id String,
        anonymous_id Nullable(String), user_id Nullable(String), timestamp DateTime64(3, 'UTC') CODEC(Delta, LZ4),
        original_timestamp Nullable(DateTime64(3, 'UTC')) CODEC(Delta, LZ4),
        sent_at Nullable(DateTime64(3, 'UTC')) CODEC(Delta, LZ4), received_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
        session_id Int64, app_version {_WORD_OR_NULL}, platform {_WORD_OR_NULL}, os_version {_WORD_OR_NULL},
        device_model {_WORD_OR_NULL}, locale {_WORD_OR_NULL}, country {_WORD_OR_NULL}, segment {_WORD_OR_NULL},
        tier {_WORD_OR_NULL}, properties String CODEC(ZSTD(1)), context String CODEC(ZSTD(1)), flags Int32,
        project {_WORD_OR_NULL}, log_offset UInt64 CODEC(Delta, LZ4),
        inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, LZ4), INDEX by_offset log_offset TYPE minmax)
    ENGINE = MergeTree PARTITION BY toDate(timestamp) ORDER BY (event, toStartOfMinute(timestamp)) SETTINGS {_SETTINGS}""",
    f"""CREATE TABLE eventmill.events_1m (
        minute DateTime('UTC'), event {_WORD}, platform {_WORD_OR_NULL}, project {_WORD_OR_NULL},
        events SimpleAggregateFunction(sum, UInt64), devices AggregateFunction(uniqCombined64(16), String),
        users AggregateFunction(uniqCombined64(16), Nullable(String)), sessions AggregateFunction(uniqCombined64(16), Int64),
        offset_max SimpleAggregateFunction(max, UInt64))
    ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(minute) ORDER BY (event, minute, platform, project)
    SETTINGS {_SETTINGS}, allow_nullable_key = 1""",
    f"""CREATE TABLE eventmill.sessions (
        session_id Int64, day Date, project {_WORD_OR_NULL}, device_id SimpleAggregateFunction(any, String),
        user_id SimpleAggregateFunction(max, Nullable(String)), started SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
        ended SimpleAggregateFunction(max, DateTime64(3, 'UTC')), events SimpleAggregateFunction(sum, UInt64),
        offset_max SimpleAggregateFunction(max, UInt64))
    ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(day) ORDER BY (session_id, day, project)
    SETTINGS {_SETTINGS}, allow_nullable_key = 1""",
    f"CREATE MATERIALIZED VIEW eventmill.events_1m_view TO eventmill.events_1m AS {_MINUTES}",
    f"CREATE MATERIALIZED VIEW eventmill.sessions_view TO eventmill.sessions AS {_SESSIONS}",
]


def make_old_store(path: Path, *batches: pa.RecordBatch) -> None:
    """A store of that time with these rows."""
    path.mkdir(parents=True)
    clients = Clients(path)
    for statement in STATEMENTS:
        clients.command(statement)
    for batch in batches:
        names = ", ".join(batch.schema.names)
        clients.command(
            f"INSERT INTO eventmill.events ({names}) SELECT {names} FROM {clients.source}",
            pa.Table.from_batches([batch]),
        )
    clients.close()
