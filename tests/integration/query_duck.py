"""The answers to questions of every kind, computed by DuckDB over all events in one table.

Filters and labels come from the slow twin as columns; sequences, periods, ranks and quantiles are DuckDB's.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
from kind_twins import matches, passes
from query_twin import INTERVALS, ms, number, raw, text

Row = dict[str, Any]
WHO = {"devices": "device", "users": "person", "sessions": "session"}


class Duck:
    """All events."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._plain = {
            "row": range(len(rows)),
            "t": [row["timestamp"] for row in rows],
            "name": [row["event"] for row in rows],
            "device": [row["device_id"] for row in rows],
            "person": [row["user_id"] for row in rows],
            "anonymous": [row["anonymous_id"] for row in rows],
            "session": [row["session_id"] for row in rows],
            "id": [row["event_id"].hex() for row in rows],
        }
        self._connection = duckdb.connect()

    def ask(self, body: Row, columns: dict[str, Any], query: str, *, filtered: bool = True) -> list[tuple[Any, ...]]:
        """Run over ``e``: the events of the span (that meet the filters) with these columns more."""
        keeps = [passes(row, body.get("filters")) if filtered else True for row in self._rows]
        events = pa.table(self._plain | columns | {"keeps": keeps})
        self._connection.register("events", events)
        span = f"t >= {ms(body['from'])} AND t < {ms(body['to'])}"
        found = self._connection.execute(f"WITH e AS (SELECT * FROM events WHERE keeps AND {span}) {query}").fetchall()
        self._connection.unregister("events")
        return found

    def beside_the_past(self, length_ms: int) -> Duck:
        """All events twice: as they are, and later by so much, as those of the period before."""
        later = [row | {"timestamp": row["timestamp"] + length_ms, "period": "previous"} for row in self._rows]
        return Duck(self._rows + later)

    def column(self, of: Any) -> list[Any]:
        """A value for each event."""
        return [of(row) for row in self._rows]

    def labels(self, body: Row) -> dict[str, Any]:
        field = body.get("breakdown")
        if isinstance(field, list):  # one label for them all, so that combinations are ranked
            return {"label": [[text(raw(row, each)) for each in field] for row in self._rows]}
        values = [text(raw(row, field)) if field else None for row in self._rows]
        return {"label": pa.array(values, pa.string())}


def ranked(body: Row) -> str:
    """The label that a label of ``weights`` (label, weight) is shown as."""
    fields = body.get("breakdown")
    order, other = "encode(label) NULLS FIRST", "'other'"
    if isinstance(fields, list):
        order = ", ".join(f"encode(label[{i}]) NULLS FIRST" for i in range(1, len(fields) + 1))
        other = str(["other"] * len(fields))
    return (
        f"places AS (SELECT label, row_number() OVER (ORDER BY weight DESC, {order}) AS place FROM weights), "
        f"shown AS (SELECT label, place, CASE WHEN place <= {body.get('limit', 20)} THEN label ELSE {other} END AS as_label "
        "FROM places)"
    )


def trends(duck: Duck, body: Row) -> dict[tuple[Any, ...], Any]:
    """(column, bucket in ms, label) to the value; running values stand in the buckets that have events only."""
    interval = INTERVALS[body["interval"]]
    function, _, field = body["measure"].partition(":")
    wanted, length = {"event": body.get("event")}, ms(body["to"]) - ms(body["from"])
    duck = duck.beside_the_past(length) if body.get("compare") else duck
    columns = duck.labels(body) | {
        "wanted": duck.column(lambda row: matches(row, wanted)),
        "number": duck.column(lambda row: number(raw(row, field)) if field else 0.0),
        "period": duck.column(lambda row: row.get("period", "value")),
    }
    value = f"{function}(number)" if field else "count(*)"
    value = f"count(DISTINCT {WHO[function]})" if function in WHO else value
    value = "coalesce(sum(number), 0)" if function == "sum" else value
    # What is no amount, like a mean, ranks by how many events there are.
    weight = value if not field or function == "sum" else "count(*)"
    until = "<=" if body.get("cumulative") else "="
    query = (
        f", w AS (SELECT *, t // {interval} * {interval} AS bucket FROM e WHERE wanted), "
        f"weights AS (SELECT label, {weight} AS weight FROM w GROUP BY label), {ranked(body)}, "
        "s AS (SELECT * EXCLUDE (label), as_label FROM w JOIN shown ON w.label IS NOT DISTINCT FROM shown.label), "
        "b AS (SELECT DISTINCT period, bucket, as_label FROM s) "
        f"SELECT b.period, b.bucket, b.as_label, {value} FROM b JOIN s ON s.period = b.period "
        f"AND s.as_label IS NOT DISTINCT FROM b.as_label AND s.bucket {until} b.bucket GROUP BY ALL"
    )
    return {
        (period, bucket, tuple(label) if isinstance(label, list) else label): found
        for period, bucket, label, found in duck.ask(body, columns, query)
    }


def funnel(duck: Duck, body: Row, window: int) -> list[tuple[Any, ...]]:
    """(place, label, step, count, p50, p95) of the steps that somebody took.

    Each step joins the events to the completions of the step before it.
    """
    steps, who = body["steps"], WHO[body.get("measure", "devices")]
    masks = duck.column(lambda row: sum(1 << k for k, step in enumerate(steps) if matches(row, step)))
    parts = [
        f"m AS (SELECT {who} AS who, t, mask, label, "
        f"row_number() OVER (PARTITION BY {who} ORDER BY t, mask & -mask, mask) AS place FROM e "
        f"WHERE mask != 0 AND {who} IS NOT NULL)",
        "r1 AS (SELECT who, place, t, t AS began, CAST(0 AS BIGINT) AS gap FROM m WHERE mask & 1 = 1)",
    ]
    parts += [
        f"r{k} AS (SELECT m.who, m.place, m.t, max(r.began) AS began, m.t - max(r.t) AS gap FROM m "
        f"JOIN r{k - 1} AS r ON r.who = m.who AND r.place < m.place WHERE m.mask & {1 << (k - 1)} != 0 "
        f"GROUP BY m.who, m.place, m.t HAVING m.t - max(r.began) <= {window})"
        for k in range(2, len(steps) + 1)
    ]
    reached = " UNION ALL ".join(
        f"SELECT who, {k} AS step, arg_min(gap, place) AS gap FROM r{k} GROUP BY who" for k in range(1, len(steps) + 1)
    )
    parts += [
        f"reached AS ({reached})",
        "firsts AS (SELECT who, label FROM m WHERE mask & 1 = 1 "
        "QUALIFY row_number() OVER (PARTITION BY who ORDER BY t, encode(label) NULLS FIRST) = 1)",
        "weights AS (SELECT label, count(*) AS weight FROM firsts GROUP BY label)",
        ranked(body),
    ]
    query = (
        f", {', '.join(parts)} SELECT min(place), as_label, step, count(*), {quantile(0.5, 'gap')}, {quantile(0.95, 'gap')} "
        "FROM reached JOIN firsts USING (who) JOIN shown ON firsts.label IS NOT DISTINCT FROM shown.label "
        "GROUP BY as_label, step ORDER BY 1, 3"
    )
    return [row[1:] for row in duck.ask(body, duck.labels(body) | {"mask": masks}, query)]


def quantile(level: float, of: str) -> str:
    """The value at that rank of all."""
    return f"list_sort(list({of}))[CAST(floor({level}::DOUBLE * count(*)) AS INT) + 1]"


def retention(duck: Duck, body: Row) -> dict[tuple[str, int], int]:
    """(start of the cohort's period, age) to the count; no empty cells."""
    unit, who = body["interval"], WHO[body.get("measure", "devices")]
    columns = {
        "first": duck.column(lambda row: matches(row, body.get("first"))),
        "again": duck.column(lambda row: matches(row, body.get("returning"))),
    }
    start = "min(period)" if body.get("cohort", "first") == "first" else "period"
    group = "GROUP BY who" if start != "period" else "GROUP BY who, period"
    query = (
        f", v AS (SELECT DISTINCT {who} AS who, date_trunc('{unit}', make_timestamp(t * 1000)) AS period, first, again "
        f"FROM e WHERE {who} IS NOT NULL), s AS (SELECT who, {start} AS cohort FROM v WHERE first {group}) "
        f"SELECT cohort, 0, count(*) FROM s GROUP BY cohort UNION ALL "
        f"SELECT cohort, date_diff('{unit}', cohort, period) AS age, count(DISTINCT who) FROM s JOIN v USING (who) "
        "WHERE again AND period > cohort GROUP BY cohort, age"
    )
    return {(f"{cohort:%Y-%m-%dT%H:%M:%SZ}", age): n for cohort, age, n in duck.ask(body, columns, query)}


def sessions(duck: Duck, body: Row) -> dict[tuple[int, Any], tuple[Any, ...]]:
    """(bucket in ms, label) to sessions, bounced, events, mean and quantiles of the length; no empty buckets."""
    wanted = {"event": body.get("event"), "filters": body.get("filters")}
    bucket = str(ms(body["from"]))
    if body["interval"] != "total":
        bucket = f"began // {INTERVALS[body['interval']]} * {INTERVALS[body['interval']]}"
    columns = duck.labels(body) | {"wanted": duck.column(lambda row: matches(row, wanted))}
    quantiles = ", ".join(quantile(level, "length") for level in (0.5, 0.75, 0.9, 0.95, 0.99))
    query = (
        ", s AS (SELECT session, min(t) AS began, max(t) - min(t) AS length, count(*) AS size FROM e GROUP BY session "
        "HAVING bool_or(wanted)), l AS (SELECT session, label FROM e "
        "QUALIFY row_number() OVER (PARTITION BY session ORDER BY t, encode(label) NULLS FIRST) = 1), "
        f"w AS (SELECT *, {bucket} AS bucket FROM s JOIN l USING (session)), "
        f"weights AS (SELECT label, count(*) AS weight FROM w GROUP BY label), {ranked(body)} "
        "SELECT bucket, as_label, count(*), count(*) FILTER (size = 1), sum(size), avg(length), "
        f"{quantiles} FROM w JOIN shown ON w.label IS NOT DISTINCT FROM shown.label GROUP BY bucket, as_label"
    )
    return {(row[0], row[1]): row[2:] for row in duck.ask(body, columns, query, filtered=False)}


def timeline(duck: Duck, body: Row) -> list[str]:
    """The ids of all events in hex, the newest first."""
    (key,) = {"user", "device", "id"} & set(body)
    names = {"user": ["person"], "device": ["device"], "id": ["person", "device", "anonymous"]}[key]
    wanted = {"event": body.get("event")}
    is_theirs = " OR ".join(f"{name} = who" for name in names)
    columns = {
        "wanted": duck.column(lambda row: matches(row, wanted)),
        "who": duck.column(lambda _: body[key]),
    }
    query = f"SELECT id FROM e WHERE wanted AND ({is_theirs}) ORDER BY t DESC, id DESC"
    return [row[0] for row in duck.ask(body, columns, query)]


def paths(duck: Duck, body: Row) -> dict[tuple[int, Any, Any], int]:
    """(step, source, target) to the sessions."""
    onward = "start" in body
    anchor, depth, top = body["start" if onward else "end"], body.get("depth", 3), body.get("top", 10)
    order = "" if onward else "DESC"
    query = (
        f", p AS (SELECT session, name, row_number() OVER (PARTITION BY session ORDER BY t {order}, encode(name) {order}) "
        "AS place FROM e), a AS (SELECT session, min(place) AS place FROM p WHERE name = anchor_of() GROUP BY session), "
        "t AS (SELECT p.session, p.name, p.place - a.place AS step FROM p JOIN a USING (session) "
        f"WHERE p.place - a.place BETWEEN 0 AND {depth}), "
        "c AS (SELECT step, name, count(*) AS n FROM t GROUP BY step, name), "
        "k AS (SELECT step, name, row_number() OVER (PARTITION BY step ORDER BY n DESC, encode(name)) AS place FROM c), "
        f"s AS (SELECT session, step, CASE WHEN place <= {top} THEN name ELSE 'other' END AS name "
        "FROM t JOIN k USING (step, name)) "
        "SELECT near.step + 1, near.name, far.name, count(*) FROM s AS near LEFT JOIN s AS far "
        f"ON far.session = near.session AND far.step = near.step + 1 WHERE near.step < {depth} GROUP BY 1, 2, 3"
    ).replace("anchor_of()", "(SELECT max(anchor) FROM e)")
    found = duck.ask(body, {"anchor": duck.column(lambda _: anchor)}, query)
    return {(step, near, far) if onward else (step, far, near): n for step, near, far, n in found}
