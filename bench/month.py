"""A data folder as it looks after a month: ``python -m bench.month DIR --events 50000000``.

The lake is compacted; the real-time store has the last days' events, and its roll-ups the whole month. Events arrive seconds
after they happen, but in the second and third week a fifth of them up to three days late, in any order, as from phones that
were offline; of the other days' a fiftieth. Phones, versions, names and properties are those of ``eventmill generate``, decoded
as ingest does; session ids are exact. The same arguments give the same events. What was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import feather
from pyiceberg.table import Table, Transaction

import eventmill
from eventmill.core import frame, groups
from eventmill.core.clock import now_ms
from eventmill.core.config import Config, load
from eventmill.core.ledger import counts
from eventmill.core.schema import DIMENSION_NAMES, EVENT, TIME, WORD, Hop, Topic
from eventmill.generate.catalogue import KINDS, VARIANTS, texts
from eventmill.generate.population import population
from eventmill.kernels.sessionize import session_ids
from eventmill.lake import offsets
from eventmill.lake.compact import FILE_ROWS_MAX, MERGE_ROWS
from eventmill.lake.files import DAY_MS, FileWriter, uncommitted
from eventmill.lake.iceberg import Kind
from eventmill.lake.table import Lake
from eventmill.log.local import LocalLog
from eventmill.serve.folder import DataFolder
from eventmill.sinks.realtime import ddl
from eventmill.sinks.realtime.store import RealtimeStore

HOUR_MS: Final = 3_600_000
#: Log frames of a date; what is inserted at once.
FRAMES: Final = 8
_GAP_MS: Final = 1_800_000
_SESSION_EVENTS: Final = 12
_EVENT_GAP_MS: Final = 25_000.0
_DEVICES_A_BODY: Final = 500
#: The busiest phone has so many times the traffic of the middle one.
_BUSIEST: Final = 100
_LATE_MS: Final = (HOUR_MS, 71 * HOUR_MS)
_LATE_SHARE: Final = 0.02
_SHUFFLED_SHARE: Final = 0.2
_SEGMENTS: Final = ("new", "loyal", "lapsed")
_TIERS: Final = ("free", "plus")
_OF_PHONE: Final = ("device_id", "anonymous_id", "user_id", "app_version", "platform", "os_version", "device_model",
                    "locale", "context", *DIMENSION_NAMES)  # fmt: skip

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Month:
    """What to make: ``days`` that end at ``end_ms``; the real-time store has the events of the last ``realtime_days``."""

    events: int
    end_ms: int
    days: int = 30
    realtime_days: int = 3
    seed: int = 1

    def dates(self) -> list[tuple[int, int, int, int]]:
        """(date, start, end in ms, events) of each date that has a part in the month."""
        start = self.end_ms - self.days * DAY_MS
        dates = range(start // DAY_MS, (self.end_ms - 1) // DAY_MS + 1)
        spans = [(max(start, date * DAY_MS), min(self.end_ms, (date + 1) * DAY_MS)) for date in dates]
        # Weekends have a quarter more.
        weights = np.array([(end - begin) * (1.25 if (date + 3) % 7 > 4 else 1.0)
                            for date, (begin, end) in zip(dates, spans, strict=True)])  # fmt: skip
        through = np.round(np.cumsum(weights) / weights.sum() * self.events).astype(int)
        return [(date, *span, int(n)) for date, span, n in zip(dates, spans, np.diff(through, prepend=0), strict=True)]

    def shuffled(self, date: int) -> bool:
        """Whether its events arrive late and in any order."""
        first = (self.end_ms - self.days * DAY_MS) // DAY_MS
        return self.days // 4 <= date - first < self.days // 4 + 14


class Traffic:
    """Makes the events, date by date in order: sessions go on past midnight."""

    def __init__(self, month: Month, kept: Path) -> None:
        self._month = month
        if not kept.exists():
            people = population(month.seed, month.events)
            phones = _phones(people.fragments, len(people.weights)).append_column("weight", pa.array(people.weights))
            aside = kept.with_suffix(".tmp")
            feather.write_feather(phones, aside)
            aside.replace(kept)
        self._phones = feather.read_table(kept).combine_chunks()
        weights = self._phones.column("weight").to_numpy()
        weights = np.minimum(weights, _BUSIEST * np.median(weights))
        self._chosen = np.cumsum(weights) / weights.sum()
        words = texts(month.seed)
        self._kinds = np.cumsum(words.weights) / words.weights.sum()
        self._properties = pa.array(words.properties, pa.binary()).cast(pa.string())
        #: Of each phone, its last event so far and the start of that event's session.
        self.last, self.started = (np.full(len(weights), -(1 << 60), np.int64) for _ in range(2))

    def date(self, date: int, start: int, end: int, count: int) -> Rows:
        """The events of one date, by time."""
        rng = np.random.default_rng([self._month.seed, 5, date])
        phones, times = self._sessions(rng, start, end, count)
        kinds = np.searchsorted(self._kinds, rng.random(len(times))).clip(max=len(KINDS) - 1)
        late = rng.random(len(times)) < (_SHUFFLED_SHARE if self._month.shuffled(date) else _LATE_SHARE)
        delay = np.where(
            late, rng.integers(*_LATE_MS, len(times)), rng.exponential(2_000, len(times)).astype(int) + 300
        )
        received = np.minimum(times + delay, self._month.end_ms - 1)
        variants = kinds * VARIANTS + rng.integers(0, VARIANTS, len(times))
        sessions = self._session_ids(phones, times)
        ids = rng.bytes(16 * len(times))
        skews = rng.normal(0, 1_500, len(times)).astype(np.int64)
        return Rows(
            self._phones, self._properties, ids, phones, times, received, skews, kinds, variants, sessions, late
        )

    def _sessions(self, rng: np.random.Generator, start: int, end: int, count: int) -> tuple[Ints, Ints]:
        """A phone and a time for each of ``count`` events, by time; more by day than by night."""
        phones, times, have = [], [], 0
        minutes = np.arange(start, end, 60_000)
        by_hour = 1.2 + np.sin((minutes / HOUR_MS % 24 - 9) / 24 * 2 * np.pi)
        chosen = np.cumsum(by_hour) / by_hour.sum()
        while have < count:
            amount = (count - have) // _SESSION_EVENTS + 50
            lengths = rng.geometric(1 / _SESSION_EVENTS, amount)
            of = np.searchsorted(self._chosen, rng.random(amount)).clip(max=len(self._chosen) - 1)
            begins = minutes[np.searchsorted(chosen, rng.random(amount)).clip(max=len(minutes) - 1)]
            session = np.repeat(np.arange(amount), lengths)
            running = np.cumsum(rng.exponential(_EVENT_GAP_MS, len(session)).astype(np.int64) + 1)
            firsts = np.cumsum(lengths) - lengths
            at = (begins + rng.integers(0, 60_000, amount))[session] + running - running[firsts][session]
            inside = at < end
            phones.append(of[session][inside][: count - have])
            times.append(at[inside][: count - have])
            have += len(times[-1])
        every, moments = np.concatenate(phones), np.concatenate(times)
        order = np.argsort(moments, kind="stable")
        return every[order], moments[order]

    def _session_ids(self, phones: Ints, times: Ints) -> Ints:
        """Exact session ids; what the next date has to know of each phone is kept."""
        if not len(times):
            return np.empty(0, np.int64)
        order = np.lexsort((times, phones))
        phone, at = phones[order], times[order]
        first = np.flatnonzero(np.diff(phone, prepend=-1))
        before = np.roll(at, 1)
        before[first] = self.last[phone[first]]
        begins = at - before > _GAP_MS
        heads = begins.copy()
        heads[first] = True
        # Where a session goes on from the date before, its start does, too.
        start = np.where(begins, at, self.started[phone])[heads]
        names = self._phones.column("device_id").take(pa.array(phone[heads])).combine_chunks()
        ids, run = np.asarray(session_ids(names, pa.array(start))), np.cumsum(heads) - 1
        ends = np.append(first[1:], len(at)) - 1
        self.last[phone[ends]], self.started[phone[ends]] = at[ends], start[run][ends]
        found = np.empty(len(at), np.int64)
        found[order] = ids[run]
        return found


@dataclass(frozen=True, slots=True)
class Rows:
    """Events of one date as numbers; ``table`` makes columns of some of them."""

    phones: pa.Table
    properties: pa.Array
    ids: bytes
    phone: Ints
    times: Ints
    received: Ints
    skews: Ints
    kinds: Ints
    variants: Ints
    sessions: Ints
    late: npt.NDArray[np.bool_]

    def table(self, rows: Ints) -> pa.Table:
        """EVENT's columns of these rows."""
        ids = np.frombuffer(self.ids, np.uint8).reshape(-1, 16)[rows]
        kinds, received = pa.array(self.kinds[rows].astype(np.int32)), self.received[rows]
        columns: dict[str, Any] = {
            "event_id": pa.Array.from_buffers(pa.binary(16), len(rows), [None, pa.py_buffer(ids.tobytes())]),
            "event": pa.DictionaryArray.from_arrays(kinds, pa.array([kind.event for kind in KINDS])),
            "type": pa.array([kind.type for kind in KINDS]).take(kinds).dictionary_encode(),
            "timestamp": pa.array(self.times[rows]),
            "original_timestamp": pa.array(self.times[rows] + self.skews[rows]),
            "sent_at": pa.array(received + self.skews[rows] - 80),
            "received_at": pa.array(received),
            "session_id": pa.array(self.sessions[rows]),
            "properties": self.properties.take(pa.array(self.variants[rows])),
            "flags": pa.array(np.zeros(len(rows), np.int32)),
        }
        chosen = self.phones.take(pa.array(self.phone[rows]))
        columns |= {name: chosen.column(name).combine_chunks() for name in _OF_PHONE}
        made = [columns[field.name].cast(TIME) if field.type == TIME
                else columns.get(field.name, pa.nulls(len(rows), field.type)) for field in EVENT]  # fmt: skip
        return pa.table(made, schema=EVENT)


def _phones(fragments: pa.Array, count: int) -> pa.Table:
    """What each phone's events have in common, as ingest makes it of a request; users have dimensions."""
    parts = []
    for begin in range(0, count, _DEVICES_A_BODY):
        events = fragments.slice(begin, _DEVICES_A_BODY).to_pylist()
        listed = ",".join(f'{{"type":"track","event":"e","messageId":"{n}",{each}}}' for n, each in enumerate(events))
        parts.append(eventmill.decode(f'{{"batch":[{listed}]}}'.encode(), received_at=0).events)
    table = pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()
    users, numbers = table.column("user_id").is_valid().to_numpy(), np.arange(table.num_rows)
    # A locale like de-DE ends with a country.
    places = [locale[-2:] for locale in table.column("locale").chunk(0).dictionary.to_pylist()]
    of_locale = table.column("locale").chunk(0).indices.to_numpy()
    for name, codes, values in (("country", of_locale, places), ("segment", numbers % 3, _SEGMENTS),
                                ("tier", numbers // 3 % 2, _TIERS)):  # fmt: skip
        coded = pa.array(codes.astype(np.int32), mask=~users)
        table = table.append_column(pa.field(name, WORD), pa.DictionaryArray.from_arrays(coded, pa.array(values)))
    return table.select(_OF_PHONE)


class Builder:
    """Writes the month into a data folder, a date at a time."""

    def __init__(self, config: Config, month: Month) -> None:
        self.month = month
        self._carry, self._phones = config.data / "month.npz", config.data / "month.phones.arrow"
        self.log = LocalLog(config.log_dir)
        self.realtime = RealtimeStore(config.realtime_dir)
        self.lake = Lake(config.lake_dir)
        self._dates = month.dates()

    def build(self, seconds_max: float) -> Iterator[tuple[int, int]]:
        """Dates done, and in all, until all are or the time is over."""
        ends = time.monotonic() + seconds_max
        done = self.log.committed(groups.LAKE, Topic.ENRICHED, 0) // FRAMES
        yield done, len(self._dates)
        if done == len(self._dates):
            return
        traffic = Traffic(self.month, self._phones)
        if done:
            kept = np.load(self._carry)
            traffic.last, traffic.started = kept["last"], kept["started"]
        for number in range(done, len(self._dates)):
            if time.monotonic() > ends:
                return
            date, start, end, count = self._dates[number]
            self._store(number, date, traffic.date(date, start, end, count))
            aside = self._carry.with_name("month.tmp.npz")
            np.savez(aside, last=traffic.last, started=traffic.started)
            aside.replace(self._carry)
            with self.log.transaction() as transaction:
                for group in (groups.REALTIME, groups.LAKE):
                    transaction.commit_offset(group, Topic.ENRICHED, 0, (number + 1) * FRAMES)
            yield number + 1, len(self._dates)

    def _store(self, number: int, date: int, rows: Rows) -> None:
        """Log, real-time store and lake of one date; what a run that was cut short has stored of it stays as it is."""
        first = number * FRAMES
        self._append_frames(first + FRAMES, rows)
        is_recent = self._dates[-1][0] - date < self.month.realtime_days
        if is_recent:
            self._insert(first, rows)
        if self.lake.committed_offset() <= first:
            self._commit(first, date, rows)
        if not is_recent:
            self._roll_up(date, len(rows.times))

    def _append_frames(self, end: int, rows: Rows) -> None:
        """The log's own frames, empty: what consumers have taken is never read again. The ledger has counts in full."""
        missing = end - self.log.end_offset(Topic.ENRICHED, 0)
        if missing <= 0:
            return
        empty = frame.encode(Topic.ENRICHED, pa.RecordBatch.from_pylist([], EVENT))
        received = pa.record_batch({"received_at": pa.array(rows.received).cast(TIME)})
        with self.log.transaction() as transaction:
            transaction.append([empty] * missing)
            for hop in (Hop.RECEIVED, Hop.ACCEPTED, Hop.ENRICHED):
                transaction.count(counts(hop, received))

    def _insert(self, first: int, rows: Rows) -> None:
        order = np.argsort(rows.received, kind="stable")
        for number, part in enumerate(np.array_split(order, FRAMES)):
            places = pa.array(np.full(len(part), first + number, np.uint64))
            self.realtime.insert(rows.table(part).append_column("log_offset", places), f"month:{first + number}")

    def _commit(self, first: int, date: int, rows: Rows) -> None:
        """The date's files as compaction leaves them: late rows joined a name's file where that was small."""
        parts: list[tuple[str, Ints]] = []
        for number, kind in enumerate(KINDS):
            mine = np.flatnonzero(rows.kinds == number)
            pieces = [mine]
            if len(mine) >= MERGE_ROWS:
                on_time, late = mine[~rows.late[mine]], mine[rows.late[mine]]
                pieces = [*np.array_split(on_time, -(-len(on_time) // FILE_ROWS_MAX)), late]
            parts += [(kind.event, piece) for piece in pieces if len(piece)]
        newest = int(rows.received.max(initial=0))
        with uncommitted(self.lake) as paths:
            writer = FileWriter(self.lake, self.lake.load())

            def write(numbered: tuple[int, tuple[str, Ints]]) -> Any:
                number, (event, piece) = numbered
                name = f"{Kind.COMPACTED}-month{date}-{number:05d}"
                return writer.write(rows.table(piece), date, self.lake.group_of(event), name, paths)

            with ThreadPoolExecutor(2) as pool:
                files = list(pool.map(write, sorted(enumerate(parts), key=lambda part: -len(part[1][1]))))

            def stage(table: Table, transaction: Transaction) -> int:
                snapshot = table.current_snapshot()
                ours = offsets.advanced(
                    offsets.carried(snapshot), groups.LAKE, Topic.ENRICHED, {0: (first, first + FRAMES)}
                )
                ours[offsets.RECEIVED_THROUGH] = str(max(newest, offsets.received_through(snapshot) or newest))
                with transaction.update_snapshot(snapshot_properties=ours).fast_append() as append:
                    for file in files:
                        append.append_data_file(file)
                return int(append.snapshot_id)

            self.lake.commit(stage)

    def _roll_up(self, date: int, count: int) -> None:
        """The roll-ups of a date whose events the real-time store no longer has, from the lake."""
        source = (
            f"(SELECT *, toUInt64(0) AS log_offset FROM {self.lake.source_sql()} WHERE event_date = toDate32({date}))"
        )
        # Those of longer times are fed by these.
        for table, column in ((ddl.MINUTES, "minute"), (ddl.SESSIONS, "day")):
            of_date = f"toDate({column}) = toDate({date})"
            found = self.realtime.query_arrow(f"SELECT sum(events) FROM {table.name} WHERE {of_date}")
            if (found.column(0)[0].as_py() or 0) == count:
                continue
            self.realtime.command(
                f"INSERT INTO {table.name} {table.query(source)} SETTINGS min_insert_block_size_rows = 100000000, "
                "min_insert_block_size_bytes = 0, max_insert_threads = 1"
            )

    def close(self) -> None:
        """Close the stores."""
        self.lake.close()
        self.realtime.close()
        self.log.close()


def build(data: Path, month: Month, *, seconds_max: float = float("inf"), quiet: bool = False) -> bool:
    """Make or finish the folder; false when the time was over before."""
    config = load(overrides={"data": data}, environ={})
    # chdb reads a lake only below the working directory.
    os.chdir("/")
    with DataFolder(data):
        builder = Builder(config, month)
        done = total = 0
        try:
            for done, total in builder.build(seconds_max):
                if not quiet:
                    print(f"{done} of {total} dates", flush=True)
        finally:
            builder.close()
    return done == total


def this_hour() -> int:
    """Its beginning, in ms."""
    return now_ms() // HOUR_MS * HOUR_MS


def parse_end(text: str) -> int:
    """ISO 8601 in UTC as ms."""
    return int(np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64))


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.month", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--end", type=parse_end, default=this_hour(), help="ISO 8601; by default now")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--realtime-days", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that; run again to go on")
    given = parser.parse_args()
    month = Month(given.events, given.end, days=given.days, realtime_days=given.realtime_days)
    if not build(given.data.absolute(), month, seconds_max=given.seconds):
        raise SystemExit("not finished; run again with the same --end")


if __name__ == "__main__":
    main()
