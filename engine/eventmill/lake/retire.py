"""Retiring events: rolled up into the aggregates, checked, and gone, in one commit a date.

Only what compaction has been over is retired, so duplicates are out and sessions exact; a date with newer files waits. An event
that comes later still, for a date that was retired, is retired by the next run, into the same aggregates.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table, Transaction

from eventmill.core.errors import StateError, StoreError
from eventmill.core.retention import Retired, Rules, before
from eventmill.kernels.partition import OVERFLOW
from eventmill.lake import offsets
from eventmill.lake.aggregates import AGGREGATES, HOURS, SESSIONS, AggregateFile, Aggregates, retired
from eventmill.lake.duplicates import HOUR_MS
from eventmill.lake.files import FileWriter, Indices, encoded, read, require, uncommitted
from eventmill.lake.iceberg import DATE, LakeTable, LiveFile
from eventmill.lake.lock import exclusive
from eventmill.lake.replace import replace_files

_MINUTES_A_DAY: Final = 1_440
_COLUMNS: Final = [
    DATE, "timestamp", "received_at", "event", "platform", "project", "device_id", "user_id", "session_id",
]  # fmt: skip
Checkpoint = Callable[[str], None]


class Roll(Protocol):
    """Rolls up by minute. Raises ``StoreError``."""

    def minutes(self, rows: pa.Table) -> pa.Table:
        """Rows of ``aggregates.MINUTES`` for events (with at least the columns that it is made of)."""
        ...

    def merged(self, minutes: pa.Table) -> pa.Table:
        """One row for all of the same minute, event, platform and project."""
        ...


class Rule(StrEnum):
    """Why something goes, or is moved."""

    RAW = "raw"
    DOWNSAMPLE = "downsample"
    AGGREGATES = "aggregates"
    COLD = "cold"


@dataclass(frozen=True, slots=True)
class Gone:
    """What one rule takes, or would take: how many dates and files it touches, and the rows and bytes that go."""

    rule: str
    partitions: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """Files of one date, each with the rows that go (null: all). ``names`` are the events that are downsampled."""

    rule: Rule
    date: int
    files: list[tuple[LiveFile, Indices | None]]
    names: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """How many go."""
        return sum(file.rows if at is None else len(at) for file, at in self.files)

    @property
    def bytes(self) -> int:
        """About how many they take."""
        shares = ((file, file.rows if at is None else len(at)) for file, at in self.files)
        return sum(file.data_file.file_size_in_bytes * rows // max(file.rows, 1) for file, rows in shares)


def due(files: Iterable[LiveFile], rules: Rules, now_ms: int) -> tuple[list[Due], int]:
    """What is to be retired, by date, oldest first; and how many files wait for a compaction."""
    raw_before, downsample_before = before(now_ms, rules.raw_ms), before(now_ms, rules.downsample_ms)
    by_date: dict[int, list[LiveFile]] = defaultdict(list)
    for file in files:
        if file.date < (max(raw_before, downsample_before) if rules.downsamples else raw_before):
            by_date[file.date].append(file)
    found, waiting = [], 0
    for date, members in sorted(by_date.items()):
        if fresh := sum(file.appended for file in members):
            waiting += fresh
        elif date < raw_before:
            found.append(Due(Rule.RAW, date, [(file, None) for file in members]))
        elif chosen := _downsampled(members, rules):
            found.append(chosen)
    return found, waiting


def _downsampled(members: list[LiveFile], rules: Rules) -> Due | None:
    """The frequent events of a date. Rows of any name may lie in the shared partition, whatever else has one of its own."""
    shared = {file.path: read(file, ["event"]).column(0) for file in members if file.group == OVERFLOW}
    names = set(rules.names)
    if rules.per_minute:
        counts = Counter({file.group: 0 for file in members})
        for file in members:
            counts[file.group] += file.rows
        del counts[OVERFLOW]
        for events in shared.values():
            counts.update({each["values"]: each["counts"] for each in pc.value_counts(events).to_pylist()})
        names |= {name for name, rows in counts.items() if rows >= rules.per_minute * _MINUTES_A_DAY}
    files: list[tuple[LiveFile, Indices | None]] = []
    wanted = pa.array(sorted(names), pa.string())
    for file in members:
        if file.group != OVERFLOW:
            if file.group in names:
                files.append((file, None))
            continue
        at = np.flatnonzero(np.asarray(pc.is_in(shared[file.path], value_set=wanted)))
        if len(at):
            files.append((file, None if len(at) == file.rows else at))
    return Due(Rule.DOWNSAMPLE, members[0].date, files, frozenset(names)) if files else None


def survey(lake: LakeTable, aggregates: Aggregates, rules: Rules, now_ms: int) -> tuple[list[Gone], int]:
    """What ``retire`` would take by each rule, and how many files wait for a compaction. Raises ``StoreError``."""
    table = lake.load()
    found, waiting = due(lake.live_files(table), rules, now_ms)
    old = _outlived(aggregates, retired(table), rules, now_ms)
    return _gone(found, [file for files in old for file in files]), waiting


def retire(
    lake: LakeTable,
    aggregates: Aggregates,
    rules: Rules,
    roll: Roll,
    *,
    now_ms: int,
    checkpoint: Checkpoint = lambda _: None,
) -> list[Gone]:
    """Retire what is due, and drop the aggregates that are too old; gives what went by each rule.

    Safe beside appends, and to repeat after a crash. Raises ``DataFolderBusy`` while a compaction runs, ``StateError`` when one
    elsewhere came between, ``StoreError``; a date that was begun is as before then.
    """
    with exclusive(lake.folder):
        table = lake.load()
        aggregates.check(retired(table))
        found, _ = due(lake.live_files(table), rules, now_ms)
        for each in found:
            _retire(lake, aggregates, each, roll, checkpoint)
        minutes, sessions = _outlived(aggregates, retired(lake.load()), rules, now_ms)
        if minutes or sessions:
            _drop(lake, aggregates, minutes, sessions, before(now_ms, rules.aggregates_ms))
            checkpoint("aggregates dropped")
    return _gone(found, [*minutes, *sessions])


def _gone(found: list[Due], old: list[AggregateFile]) -> list[Gone]:
    by_rule = [
        Gone(
            rule,
            len({each.date for each in found if each.rule is rule}),
            sum(len(each.files) for each in found if each.rule is rule),
            sum(each.rows for each in found if each.rule is rule),
            sum(each.bytes for each in found if each.rule is rule),
        )
        for rule in (Rule.RAW, Rule.DOWNSAMPLE)
    ]
    dates = {file.date for file in old}
    dropped = Gone(
        Rule.AGGREGATES, len(dates), len(old), sum(file.rows for file in old), sum(file.bytes for file in old)
    )
    return [*by_rule, dropped]


def _retire(lake: LakeTable, aggregates: Aggregates, wanted: Due, roll: Roll, checkpoint: Checkpoint) -> None:
    with uncommitted(lake) as paths:
        table = lake.load()
        base = retired(table)
        minutes, sessions, hours = _rolled_up(wanted, roll)
        state = _named(base, wanted)
        state = _aggregated(aggregates, base, state, wanted, roll, minutes, sessions, hours)
        checkpoint("aggregates written")
        files = _rest(lake, table, wanted, paths)

        def stage(newest: Table, transaction: Transaction) -> int:
            _unchanged(newest, base)
            require(lake.storage, paths)
            checkpoint("before commit")
            gone = [file for file, _ in wanted.files]
            return replace_files(lake, newest, transaction, gone, files, properties={AGGREGATES: state.text()})

        lake.commit(stage)
    checkpoint("retired")


def _named(base: Retired, wanted: Due) -> Retired:
    if wanted.rule is Rule.RAW:
        return replace(base, raw_before=max(base.raw_before, wanted.date + 1))
    later = {name: max(base.events.get(name, 0), wanted.date + 1) for name in wanted.names}
    return replace(base, events={**base.events, **later})


def _rolled_up(wanted: Due, roll: Roll) -> tuple[list[pa.Table], list[pa.Table], Counter[int]]:
    """Minutes and sessions of each file's rows, and how many rows were received in each hour. One file is in memory."""
    minutes, sessions, hours = [], [], Counter[int]()
    for file, at in wanted.files:
        rows = read(file, _COLUMNS)
        rows = rows if at is None else rows.take(pa.array(at))
        by_minute, by_session = roll.minutes(rows), _sessions(rows)
        _check(file.path, rows, by_minute, by_session)
        minutes.append(by_minute)
        sessions.append(by_session)
        received = rows.column("received_at").cast(pa.int64()).to_numpy() // 1000
        starts, counts = np.unique(received // HOUR_MS * HOUR_MS, return_counts=True)
        hours.update(dict(zip(starts.tolist(), counts.tolist(), strict=True)))
    return minutes, sessions, hours


def _check(path: str, rows: pa.Table, minutes: pa.Table, sessions: pa.Table) -> None:
    """The aggregates hold what the rows hold, name by name."""
    there = Counter({each["values"]: each["counts"] for each in pc.value_counts(rows.column("event")).to_pylist()})
    made: Counter[str] = Counter()
    for name, count in zip(minutes.column("event").to_pylist(), minutes.column("events").to_pylist(), strict=True):
        made[name] += count
    in_sessions = pc.sum(sessions.column("events")).as_py() or 0
    if there != made or in_sessions != rows.num_rows:
        raise StoreError(
            f"rolling up {path} gave {sum(made.values())} events by minute and {in_sessions} by session for "
            f"{rows.num_rows} rows; nothing was retired"
        )


def _sessions(rows: pa.Table) -> pa.Table:
    keys = ["event_date", "session_id", "project"]
    given = rows.select([*keys, "timestamp"]).append_column("events", pa.array(np.ones(rows.num_rows, np.int64)))
    found = given.group_by(keys).aggregate([("timestamp", "min"), ("timestamp", "max"), ("events", "sum")])
    return _as_sessions(found, "timestamp_min", "timestamp_max", "events_sum")


def _merged_sessions(sessions: pa.Table) -> pa.Table:
    found = sessions.group_by(["event_date", "session_id", "project"]).aggregate(
        [("started", "min"), ("ended", "max"), ("events", "sum")]
    )
    return _as_sessions(found, "started_min", "ended_max", "events_sum").sort_by("session_id")


def _as_sessions(found: pa.Table, *of: str) -> pa.Table:
    columns = [found.column(name) for name in ("event_date", "session_id", "project", *of)]
    return pa.Table.from_arrays(columns, SESSIONS.names).cast(SESSIONS)


def _aggregated(
    aggregates: Aggregates,
    base: Retired,
    state: Retired,
    wanted: Due,
    roll: Roll,
    minutes: list[pa.Table],
    sessions: list[pa.Table],
    hours: Counter[int],
) -> Retired:
    """``state`` with the date's aggregates merged into those at ``base``; counts are checked before they are committed."""
    old = [file for file in aggregates.minutes.files(base.minutes) if file.date == wanted.date]
    was = aggregates.minutes.read(old)
    by_minute = roll.merged(pa.concat_tables([was, *minutes]))
    _same(wanted, by_minute, was)
    counts = aggregates.minutes.hours(base.minutes) + hours
    at_minutes = aggregates.minutes.changed(
        base.minutes, old, by_minute, {HOURS: json.dumps(dict(sorted(counts.items())))}
    )
    old = [file for file in aggregates.sessions.files(base.sessions) if file.date == wanted.date]
    was = aggregates.sessions.read(old)
    by_session = _merged_sessions(pa.concat_tables([was, *sessions]))
    _same(wanted, by_session, was)
    return replace(state, minutes=at_minutes, sessions=aggregates.sessions.changed(base.sessions, old, by_session))


def _same(wanted: Due, now: pa.Table, was: pa.Table) -> None:
    more = (pc.sum(now.column("events")).as_py() or 0) - (pc.sum(was.column("events")).as_py() or 0)
    if more != wanted.rows:
        raise StoreError(
            f"the aggregates of {np.datetime64(wanted.date, 'D')} would grow by {more} events for {wanted.rows} retired ones; "
            "nothing was retired"
        )


def _rest(lake: LakeTable, table: Table, wanted: Due, paths: set[str]) -> list:  # type: ignore[type-arg]
    """New files with the rows that stay."""
    writer, run, files = FileWriter(lake, table), uuid.uuid4().hex, []
    for number, (file, at) in enumerate(wanted.files):
        if at is not None:
            keep = np.ones(file.rows, np.bool_)
            keep[at] = False
            rows = encoded(read(file).filter(pa.array(keep)).combine_chunks())
            files.append(writer.write(rows, file.date, file.group, f"{file.kind}-{run}-{number:05d}", paths))
    return files


def _unchanged(newest: Table, base: Retired) -> None:
    if retired(newest) != base:
        raise StateError("somebody else has retired events of this lake meanwhile; nothing was changed, run it again")


def _outlived(
    aggregates: Aggregates, named: Retired, rules: Rules, now_ms: int
) -> tuple[list[AggregateFile], list[AggregateFile]]:
    first = before(now_ms, rules.aggregates_ms)
    minutes, sessions = (
        [file for file in table.files(location) if file.date < first]
        for table, location in ((aggregates.minutes, named.minutes), (aggregates.sessions, named.sessions))
    )
    return minutes, sessions


def _drop(
    lake: LakeTable, aggregates: Aggregates, minutes: list[AggregateFile], sessions: list[AggregateFile], first: int
) -> None:
    base = retired(lake.load())
    state = replace(
        base,
        aggregates_before=max(base.aggregates_before, first),
        minutes=aggregates.minutes.changed(base.minutes, minutes, None),
        sessions=aggregates.sessions.changed(base.sessions, sessions, None),
    )
    name_aggregates(lake, base, state)


def name_aggregates(lake: LakeTable, base: Retired, state: Retired) -> None:
    """Let the events' table name another state of the aggregates. Raises ``StateError`` when it is not at ``base`` any more."""

    def stage(newest: Table, transaction: Transaction) -> int:
        _unchanged(newest, base)
        transaction.set_properties({AGGREGATES: state.text()})
        # A snapshot of its own, so that it can be told whether the commit has landed.
        summary = offsets.carried(newest.current_snapshot())
        with transaction.update_snapshot(snapshot_properties=summary).fast_append() as append:
            return int(append.snapshot_id)

    lake.commit(stage)
