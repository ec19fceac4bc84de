"""The roll-ups: what each keeps, of which rows it is made, and which table's inserts feed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eventmill.core.rollup import (
    distinct_merge,
    distinct_state,
    distinct_type,
    quantiles_merge,
    quantiles_state,
    quantiles_type,
)
from eventmill.core.typed import Typed
from eventmill.sinks.realtime.shape import DATABASE, Column, Table

_EVENTS: Final = f"{DATABASE}.events"
_TIME_TYPE: Final = "DateTime64(3, 'UTC')"
_SUM: Final = "SimpleAggregateFunction(sum, UInt64)"
_OFFSET: Final = Column("offset_max", "SimpleAggregateFunction(max, UInt64)")
_DIMENSIONS: Final = (
    Column("event", "LowCardinality(String)"),
    Column("platform", "LowCardinality(Nullable(String))"),
    Column("project", "LowCardinality(Nullable(String))"),
)


@dataclass(frozen=True, slots=True)
class RollUp:
    """A table that a materialized view fills.

    ``partition`` and ``keys_of_events`` are expressions over a row of ``rows(events)``, ``own_partition`` and ``keys`` the same
    over the roll-up's own columns; rows of the roll-up with equal ``keys`` are made of the events with equal ones. ``merge``
    is the SELECT list over ``feeder``, another roll-up; null: it is fed by the events themselves.
    """

    table: Table
    partition: str
    keys: tuple[str, ...]
    keys_of_events: tuple[str, ...]
    select: str
    group: str
    feeder: str = _EVENTS
    merge: str | None = None
    unfold: str = ""

    @property
    def name(self) -> str:
        """With its database."""
        return self.table.full_name

    @property
    def view(self) -> str:
        """What fills it."""
        return f"{self.name}_view"

    @property
    def own_partition(self) -> str:
        """Over the roll-up's own columns."""
        return self.table.partition

    @property
    def keyed(self) -> str:
        """The keys over the events, under the roll-up's names."""
        return ", ".join(
            key if key == of else f"{of} AS {key}" for of, key in zip(self.keys_of_events, self.keys, strict=True)
        )

    def rows(self, source: str) -> str:
        """The rows that it counts: those of ``source`` (with the columns of ``events``), or several for each."""
        return f"(SELECT *{self.unfold} FROM {source})" if self.unfold else source

    def query(self, source: str, condition: str = "") -> str:
        """The rows of ``source`` (with the columns of ``events``) rolled up; ``condition`` is one over ``rows(source)``."""
        where = f" WHERE {condition}" if condition else ""
        return f"SELECT {self.select} FROM {self.rows(source)}{where} GROUP BY {self.group}"

    def feed(self, feeder: str) -> str:
        """What the view makes of the rows that go into ``feeder``."""
        return self.query(feeder) if self.merge is None else self.merged(feeder)

    def merged(self, source: str) -> str:
        """The rows of ``source``, a table like that which feeds it, rolled up."""
        return f"SELECT {self.merge} FROM {source} GROUP BY {self.group}"


@dataclass(frozen=True, slots=True)
class _Step:
    """A length of time: the column of its beginning, and the function that finds it."""

    suffix: str
    column: str
    start: str
    kind: str

    def of(self, at: str) -> str:
        return f"{self.start}({at})"


_MINUTE: Final = _Step("1m", "minute", "toStartOfMinute", "DateTime('UTC')")
_HOUR: Final = _Step("1h", "hour", "toStartOfHour", "DateTime('UTC')")
_DAY: Final = _Step("1d", "day", "toDate", "Date")
_STEPS: Final = (_MINUTE, _HOUR, _DAY)

_COUNTED: Final = (
    Column("events", _SUM),
    Column("devices", distinct_type("String")),
    Column("users", distinct_type("Nullable(String)")),
    Column("sessions", distinct_type("Int64")),
    _OFFSET,
)
_COUNT: Final = (
    f"count() AS events, {distinct_state('device_id')} AS devices, {distinct_state('user_id')} AS users, "
    f"{distinct_state('session_id')} AS sessions, max(log_offset) AS offset_max"
)
_COUNT_MERGED: Final = (
    f"sum(events) AS events, {distinct_merge('devices')} AS devices, {distinct_merge('users')} AS users, "
    f"{distinct_merge('sessions')} AS sessions, max(offset_max) AS offset_max"
)
_NUMBERED: Final = (
    Column("events", _SUM),
    Column("value_count", _SUM),
    Column("value_sum", "SimpleAggregateFunction(sum, Nullable(Float64))"),
    Column("value_min", "SimpleAggregateFunction(min, Nullable(Float64))"),
    Column("value_max", "SimpleAggregateFunction(max, Nullable(Float64))"),
    Column("value_avg", "AggregateFunction(avg, Nullable(Float64))"),
    Column("value_quantiles", quantiles_type()),
    _OFFSET,
)
_NUMBER: Final = (
    "count() AS events, count(value) AS value_count, sum(value) AS value_sum, min(value) AS value_min, "
    f"max(value) AS value_max, avgState(value) AS value_avg, {quantiles_state('value')} AS value_quantiles, "
    "max(log_offset) AS offset_max"
)
_NUMBER_MERGED: Final = (
    "sum(events) AS events, sum(value_count) AS value_count, sum(value_sum) AS value_sum, min(value_min) AS value_min, "
    "max(value_max) AS value_max, avgMergeState(value_avg) AS value_avg, "
    f"{quantiles_merge('value_quantiles')} AS value_quantiles, max(offset_max) AS offset_max"
)


def _chain(
    base: str, key: tuple[Column, ...], kept: tuple[Column, ...], made: str, merged: str, unfold: str
) -> tuple[RollUp, ...]:
    """One roll-up for each length of time, each fed by the one before."""
    found: list[RollUp] = []
    first = "".join(f"{column.name}, " for column in key)
    for step in _STEPS:
        at = Column(step.column, step.kind)
        group = f"{first}{step.column}, event, platform, project"
        before = _STEPS[len(found) - 1].column if found else ""
        found.append(
            RollUp(
                Table(
                    f"{base}_{step.suffix}",
                    (at, *key, *_DIMENSIONS, *kept),
                    "AggregatingMergeTree",
                    f"toYYYYMM({step.column})",
                    f"{first}event, {step.column}, platform, project",
                    settings=("min_bytes_for_wide_part = 67108864", "allow_nullable_key = 1"),
                ),
                partition=f"toYYYYMM({step.of('timestamp')})",
                keys=(step.column, "event", *(column.name for column in key)),
                keys_of_events=(step.of("timestamp"), "event", *(column.name for column in key)),
                select=f"{step.of('timestamp')} AS {step.column}, {first}event, platform, project, {made}",
                group=group,
                feeder=found[-1].name if found else _EVENTS,
                merge=f"{step.of(before)} AS {step.column}, {first}event, platform, project, {merged}"
                if found
                else None,
                unfold=unfold,
            )
        )
    return tuple(found)


def counts() -> tuple[RollUp, RollUp, RollUp]:
    """Events, devices, users and sessions per minute, hour and day."""
    minutes, hours, days = _chain("events", (), _COUNTED, _COUNT, _COUNT_MERGED, "")
    return minutes, hours, days


def numbers(typed: Typed) -> tuple[RollUp, ...]:
    """The values of typed numbers per minute, hour and day: of each event whose schema declares the property, also where it
    has no value, so that ``events`` says how many there were."""
    pairs = ", ".join(
        f"if(event IN ({', '.join(map(_quoted, each.events))}), [('{each.name}', `{each.column}`)], [])"
        for each in typed.numbers
    )
    # The type of an empty list has to be told.
    kind = "Array(Tuple(LowCardinality(String), Nullable(Float64)))"
    listed = f"CAST(arrayConcat({pairs}), '{kind}')" if pairs else f"CAST([], '{kind}')"
    unfold = f", arrayJoin({listed}) AS pair, pair.1 AS property, pair.2 AS value"
    return _chain(
        "numbers", (Column("property", "LowCardinality(String)"),), _NUMBERED, _NUMBER, _NUMBER_MERGED, unfold
    )


def _quoted(text: str) -> str:
    """Text in SQL that can mean nothing else."""
    return f"unhex('{text.encode().hex()}')"


def sessions() -> RollUp:
    """Sessions as they grow. One that goes on past midnight has a row for each day, so that days can be dropped; readers
    group by session_id."""
    return RollUp(
        Table(
            "sessions",
            (
                Column("session_id", "Int64"),
                Column("day", "Date"),
                Column("project", "LowCardinality(Nullable(String))"),
                Column("device_id", "SimpleAggregateFunction(any, String)"),
                Column("user_id", "SimpleAggregateFunction(max, Nullable(String))"),
                Column("started", f"SimpleAggregateFunction(min, {_TIME_TYPE})"),
                Column("ended", f"SimpleAggregateFunction(max, {_TIME_TYPE})"),
                Column("events", _SUM),
                _OFFSET,
            ),
            "AggregatingMergeTree",
            "toYYYYMM(day)",
            "session_id, day, project",
            settings=("min_bytes_for_wide_part = 67108864", "allow_nullable_key = 1"),
        ),
        partition="toYYYYMM(toDate(timestamp))",
        keys=("session_id", "day"),
        keys_of_events=("session_id", "toDate(timestamp)"),
        select="""session_id, toDate(timestamp) AS day, project, any(device_id) AS device_id, max(user_id) AS user_id,
        min(timestamp) AS started, max(timestamp) AS ended, count() AS events, max(log_offset) AS offset_max""",
        group="session_id, day, project",
    )
