"""Questions by which one project's key might see another's rows. Every one works, or is refused with a reason."""

from __future__ import annotations

from typing import Any

from query_twin import iso

from realtime_events import DAY_MS, START_MS

ALL = {"from": iso(START_MS), "to": iso(START_MS + 3 * DAY_MS)}
PAST = {"from": iso(START_MS), "to": iso(START_MS + DAY_MS)}

#: Beside those that must work for anybody: each way by which ClickHouse may answer without reading rows.
SQL = [
    "SELECT count() FROM eventmill.events",
    "SELECT count() FROM lake.events",
    "SELECT count() FROM lake.events WHERE event_date > '1970-01-01'",
    "SELECT min(timestamp), max(timestamp), max(event), min(log_offset), max(log_offset) FROM events",
    "SELECT min(received_at), max(received_at), count() FROM lake.events",
    "SELECT uniqExact(toDate(timestamp)), any(project), count() FROM events",
    "SELECT DISTINCT project FROM events ORDER BY ALL",
    "SELECT DISTINCT project FROM events_1m ORDER BY ALL",
    "SELECT project, sum(events) FROM events_1h GROUP BY project ORDER BY ALL",
    "SELECT DISTINCT project FROM events_1d ORDER BY ALL",
    "SELECT project, sum(events) FROM numbers_1m GROUP BY project ORDER BY ALL",
    "SELECT DISTINCT project FROM sessions ORDER BY ALL",
    "SELECT DISTINCT project FROM lake.events ORDER BY ALL",
    "SELECT count() FROM events PREWHERE 1 WHERE 1",
    "SELECT count() FROM events AS e WHERE e.project = 'bank' OR 1",
    "SELECT count() FROM events WHERE project = 'bank'",
    "SELECT count() FROM lake.events WHERE project IS NULL OR project != 'shop'",
    "SELECT count() FROM (SELECT * FROM events UNION ALL SELECT * FROM events)",
    "WITH x AS (SELECT * FROM lake.events) SELECT count(), uniqExact(country) FROM x AS a",
    "SELECT count() FROM events a JOIN lake.events b ON a.device_id = b.device_id AND a.timestamp = b.timestamp",
    "SELECT count() FROM events LEFT JOIN sessions USING (session_id) WHERE sessions.events > 0",
    "SELECT count() FROM sessions WHERE session_id IN (SELECT session_id FROM events)",
    "SELECT count() FROM events WHERE event_id NOT IN (SELECT event_id FROM lake.events)",
    "SELECT (SELECT count() FROM events), (SELECT uniqExact(country) FROM lake.events)",
    "SELECT exists(SELECT 1 FROM events WHERE country = 'bank-secret')",
    "SELECT events.project, count() FROM events GROUP BY ALL ORDER BY ALL",
    "SELECT topK(5)(country), groupUniqArray(10)(project) FROM events ORDER BY ALL",
    "SELECT sum(events), max(offset_max), uniqCombined64Merge(16)(users) FROM events_1m",
    "SELECT sum(events), max(ended), count() FROM sessions",
    "SELECT count() FROM events EXCEPT SELECT count() FROM events WHERE project = 'shop'",
    "SELECT project, event, count() OVER (PARTITION BY project) FROM events ORDER BY ALL LIMIT 5",
]

_STEPS = [{"event": "tap"}, {"event": "purchase"}]
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("trends", {**ALL, "interval": "hour", "event": None, "measure": "events"}),
    ("trends", {**ALL, "interval": "day", "event": "tap", "measure": "devices", "breakdown": "platform"}),
    ("trends", {**ALL, "interval": "day", "event": None, "measure": "users", "breakdown": "country"}),
    ("trends", {**ALL, "interval": "day", "breakdown": ["platform", "country", "properties.category"], "limit": 1000}),
    ("trends", {**ALL, "interval": "day", "measure": "devices", "breakdown": ["event", "platform"], "compare": "previous"}),
    ("trends", {**PAST, "interval": "hour", "event": "purchase", "measure": "sum:properties.price"}),
    ("trends", {**ALL, "interval": "day", "event": None, "measure": "p95:properties.price",
                "breakdown": "properties.category"}),
    ("trends", {**ALL, "interval": "minute", "event": "tap", "measure": "sessions",
                "filters": [{"field": "country", "op": "eq", "value": "bank-secret"}]}),
    ("funnel", {**ALL, "steps": _STEPS, "window": "1d"}),
    ("funnel", {**ALL, "steps": _STEPS, "window": "1d", "measure": "users", "breakdown": "country"}),
    ("retention", {**ALL, "first": {"event": "tap"}, "returning": {}, "interval": "day"}),
    ("sessions", {**ALL, "interval": "day"}),
    ("sessions", {**ALL, "interval": "total", "breakdown": "country"}),
    ("timeline", {**ALL, "device": "device-7", "limit": 50}),
    ("timeline", {**ALL, "user": "user-5"}),
    ("timeline", {**ALL, "id": "anon", "limit": 1000}),
    ("paths", {**ALL, "start": "tap"}),
    ("paths", {**ALL, "end": "purchase", "depth": 3}),
]  # fmt: skip

#: What must be refused, or told nothing of anybody else.
ATTACKS = [
    "SELECT * FROM events WHERE project = 'bank'",
    "SELECT count() FROM events SETTINGS additional_table_filters = {}",
    "SELECT count() FROM (SELECT * FROM events SETTINGS additional_table_filters = {'x': '1'})",
    "SET additional_table_filters = {}",
    "SELECT count() FROM events FINAL SETTINGS readonly = 0",
    "SELECT * FROM merge('eventmill', '.*')",
    "SELECT * FROM merge(eventmill, 'events')",
    "SELECT * FROM mergeTreeIndex('eventmill', 'events')",
    "SELECT * FROM mergeTreeProjection('eventmill', 'events', '_minmax_count_projection')",
    "SELECT * FROM mergeTreeAnalyzeIndexes('eventmill', 'events')",
    "SELECT * FROM loop('eventmill', 'events')",
    "SELECT * FROM view(SELECT * FROM eventmill.events)",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM events))",
    "SELECT * FROM remote('localhost', 'eventmill', 'events')",
    "SELECT * FROM cluster('default', 'eventmill', 'events')",
    "SELECT * FROM icebergLocal('/')",
    "SELECT * FROM file('*', 'Parquet')",
    "SELECT * FROM numbers(1) AS events",
    "SELECT * FROM events_1m_view",
    "SELECT * FROM eventmill.events_1m_view",
    "SELECT * FROM eventmill.`.inner.events`",
    "SELECT * FROM system.parts",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.settings WHERE name = 'additional_table_filters'",
    "SELECT getSetting('additional_table_filters')",
    "SELECT * FROM information_schema.tables",
    "SELECT joinGet('eventmill.events', 'country', 1)",
    "SELECT dictGet('eventmill.events', 'country', 1)",
    "SELECT country FROM events WHERE 1 IN eventmill.events",
    "SELECT event_id IN events FROM events LIMIT 1",
    "SELECT event_id IN lake.events FROM events LIMIT 1",
    "SELECT * FROM {t:Identifier}",
    "EXPLAIN ESTIMATE SELECT * FROM events",
    "DESCRIBE events",
    "SHOW CREATE TABLE lake.events",
    "SELECT * FROM events INTO OUTFILE '/tmp/x'",
    "SELECT hasColumnInTable('eventmill', 'events', 'project')",
    "SELECT count() FROM eventmill . events WHERE project = 'bank' --' \n OR project = 'bank'",
    "SELECT '\\'' || (SELECT any(country) FROM events WHERE project = 'bank')",
    "SELECT \"project\" FROM `eventmill`.`events` WHERE `project` = 'bank'",
    "SELECT e.* FROM events AS e SAMPLE 1",
    "SELECT project AS events FROM lake.events AS events WHERE events.project = 'bank'",
    "WITH events AS (SELECT 1 AS project) SELECT project FROM events "
    "UNION ALL SELECT 1 FROM eventmill.events WHERE project = 'bank'",
    "SELECT throwIf(project = 'bank', 'bank') FROM events",
    "SELECT toUInt8(country) FROM events",
    "SELECT toInt64(country) FROM lake.events WHERE event = 'tap'",
    "SELECT accurateCast(JSONExtractString(properties, 'category'), 'UInt8') FROM events",
    "SELECT bar(1, country) FROM lake.events",
    "SELECT 1 FROM events ARRAY JOIN [project] AS p WHERE p = 'bank'",
]
