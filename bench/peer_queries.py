"""The questions of ``bench.queries`` as somebody writes them by hand in DuckDB, Polars and chdb, over the lake's own files.

Each answers ``Ask`` with rows that compare equal to Eventmill's, and is given the files of the dates that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import polars as pl

from eventmill.lake.files import DAY_MS
from eventmill.lake.iceberg import LiveFile
from eventmill.sinks.realtime.store import RealtimeStore

HOUR_MS: Final = 3_600_000
STEPS: Final = ("Product Viewed", "Product Added", "Checkout Started", "Order Completed")
VIEWED: Final = "Product Viewed"

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Ask:
    """A question: ``what`` of ``start`` to ``end`` in ms."""

    what: str
    start: int
    end: int

    def files(self, live: Sequence[LiveFile]) -> list[str]:
        """The Parquet files of the dates, of those that the lake's newest snapshot has."""
        dates = range(self.start // DAY_MS, (self.end - 1) // DAY_MS + 1)
        return sorted(file.path for file in live if file.date in dates)


Peer = Callable[[Ask, Sequence[str]], Rows]


def duck(threads: int) -> Peer:
    """DuckDB."""
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'")

    def ask(question: Ask, files: Sequence[str]) -> Rows:
        listed = ", ".join(f"'{file}'" for file in files)
        start, end = (f"make_timestamptz({at * 1000})" for at in (question.start, question.end))
        within = f"timestamp >= {start} AND timestamp < {end}"
        source = f"(SELECT * FROM read_parquet([{listed}]) WHERE {within})"
        return sorted(connection.execute(_DUCK[question.what].format(source=source)).fetchall(), key=repr)

    return ask


_DUCK: Final = {
    "hours": "SELECT epoch_ms(date_trunc('hour', timestamp)), count(*) FROM {source} GROUP BY 1",
    "days": "SELECT epoch_ms(timestamp) // 86400000 * 86400000, count(*) FROM {source} GROUP BY 1",
    "devices": (
        "SELECT epoch_ms(timestamp) // 86400000 * 86400000, platform, count(DISTINCT device_id) FROM {source} "
        f"WHERE event = '{VIEWED}' GROUP BY ALL"
    ),
    "versions": ("SELECT epoch_ms(timestamp) // 86400000 * 86400000, app_version, count(*) FROM {source} GROUP BY ALL"),
    "funnel": (
        "WITH e AS (SELECT device_id AS who, epoch_ms(timestamp) AS t, event FROM {source} WHERE event IN "
        f"{STEPS}), s1 AS (SELECT who, t, t AS began FROM e WHERE event = '{STEPS[0]}'), "
        + ", ".join(
            f"s{k} AS (SELECT e.who, e.t, s.began FROM (SELECT * FROM e WHERE event = '{STEPS[k - 1]}') AS e "
            f"ASOF JOIN s{k - 1} AS s ON e.who = s.who AND e.t >= s.t WHERE e.t - s.began <= {DAY_MS})"
            for k in range(2, 5)
        )
        + " "
        + " UNION ALL ".join(f"SELECT {k}, count(DISTINCT who) FROM s{k}" for k in range(1, 5))
    ),
    "retention": (
        "WITH d AS (SELECT DISTINCT device_id AS who, epoch_ms(timestamp) // 86400000 AS day FROM {source}), "
        "f AS (SELECT who, min(day) AS cohort FROM d GROUP BY who) "
        "SELECT cohort * 86400000, day - cohort, count(*) FROM d JOIN f USING (who) GROUP BY ALL"
    ),
}


def polars(question: Ask, files: Sequence[str]) -> Rows:
    """Polars, with its streaming engine."""
    at = pl.col("timestamp").dt.epoch("ms")
    events = pl.scan_parquet(list(files)).with_columns(at=at)
    events = events.filter(pl.col("at").is_between(question.start, question.end, closed="left"))
    day = (pl.col("at") // DAY_MS * DAY_MS).alias("day")
    if question.what == "hours":
        found = events.group_by(pl.col("at") // HOUR_MS * HOUR_MS).len()
    elif question.what == "days":
        found = events.group_by(day).len()
    elif question.what == "versions":
        found = events.group_by(day, "app_version").len()
    elif question.what == "devices":
        found = events.filter(pl.col("event") == VIEWED).group_by(day, "platform").agg(pl.col("device_id").n_unique())
    elif question.what == "retention":
        days = events.select("device_id", day).unique()
        first = days.group_by("device_id").agg(cohort=pl.col("day").min())
        age = ((pl.col("day") - pl.col("cohort")) // DAY_MS).alias("age")
        found = days.join(first, on="device_id").group_by("cohort", age).len()
    else:
        return _polars_funnel(events)
    return sorted(found.collect(engine="streaming").rows(), key=repr)


def _polars_funnel(events: pl.LazyFrame) -> Rows:
    step = pl.col("event").replace_strict({name: k for k, name in enumerate(STEPS)}, return_dtype=pl.Int8)
    chosen = events.filter(pl.col("event").is_in(list(STEPS))).select("device_id", "at", step=step)
    rows = chosen.sort("device_id", "at", "step").with_columns(s0=pl.when(pl.col("step") == 0).then(pl.col("at")))
    for k in range(1, len(STEPS)):
        before = pl.col(f"s{k - 1}").forward_fill().over("device_id")
        done = (pl.col("step") == k) & (pl.col("at") - before <= DAY_MS)
        rows = rows.with_columns(pl.when(done).then(before).alias(f"s{k}"))
    each = [
        pl.col("device_id").filter(pl.col(f"s{k}").is_not_null()).n_unique().alias(str(k + 1))
        for k in range(len(STEPS))
    ]
    counts = rows.select(each).collect(engine="streaming").row(0)
    return list(enumerate(counts, 1))


def chdb(store: RealtimeStore, threads: int) -> Peer:
    """chdb: ClickHouse's own functions over the files."""

    def ask(question: Ask, files: Sequence[str]) -> Rows:
        start, end = (f"fromUnixTimestamp64Milli({at})" for at in (question.start, question.end))
        within = f"timestamp >= {start} AND timestamp < {end}"
        source = f"(SELECT * FROM file('{{{','.join(files)}}}', Parquet) WHERE {within})"
        found = store.query_arrow(_CHDB[question.what].format(source=source), None, {"max_threads": threads})
        return sorted(zip(*(column.to_pylist() for column in found.columns), strict=True), key=repr)

    return ask


_AT: Final = "toUnixTimestamp64Milli(timestamp)"
_DAY: Final = f"intDiv({_AT}, {DAY_MS}) * {DAY_MS}"
_CHDB: Final = {
    "hours": f"SELECT intDiv({_AT}, {HOUR_MS}) * {HOUR_MS} AS at, count() FROM {{source}} GROUP BY at",
    "days": f"SELECT {_DAY} AS at, count() FROM {{source}} GROUP BY at",
    "devices": (
        f"SELECT {_DAY} AS at, platform, uniqExact(device_id) FROM {{source}} WHERE event = '{VIEWED}' GROUP BY at, platform"
    ),
    "versions": f"SELECT {_DAY} AS at, app_version, count() FROM {{source}} GROUP BY at, app_version",
    "funnel": (
        "SELECT level, countIf(reached >= level) FROM (SELECT windowFunnel("
        f"{DAY_MS})(toUInt64({_AT}), {', '.join(f'event = {name!r}' for name in STEPS)}) AS reached FROM {{source}} "
        f"WHERE event IN {STEPS} GROUP BY device_id) ARRAY JOIN [1, 2, 3, 4] AS level GROUP BY level"
    ),
    "retention": (
        f"WITH d AS (SELECT device_id, groupUniqArray({_DAY}) AS days FROM {{source}} GROUP BY device_id) "
        f"SELECT arrayMin(days) AS cohort, intDiv(arrayJoin(days) - cohort, {DAY_MS}) AS age, count() FROM d "
        "GROUP BY cohort, age"
    ),
}  # fmt: skip
