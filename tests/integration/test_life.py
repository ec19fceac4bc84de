"""Months and years in minutes: what is kept stays countable, what goes is counted, and nothing is counted twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from eventmill.core.errors import QueryError
from eventmill.core.tombstones import Tombstone, digest
from eventmill.lake.aggregates import Aggregates, retired
from eventmill.serve import forget
from lake_events import row, session
from life import DAY_MS, Life

HOUR_MS = 3_600_000
#: A Monday's midnight, long enough ago for two years to be over.
START = 19_723 * DAY_MS
NAMES = ("scroll", "tap", "purchase", 'it\'s \\ "odd"')
FAST = {
    "process.lateness": "24h",
    "retention.raw": "5d",
    "retention.downsample_after": "3d",
    "retention.downsample_events": ("scroll",),
    "retention.realtime": "2d",
    "retention.cold_after": "4d",
    "retention.aggregates": "20d",
}


class Year:
    """A few hundred events a day of a few devices, some of them late, some of them far too late."""

    def __init__(self, life: Life, seed: int, per_day: int) -> None:
        self.life, self.rng, self.per_day, self.number = life, np.random.default_rng(seed), per_day, 0

    def event(self, at: int, received: int, device: str, user: str | None) -> dict:
        self.number += 1
        name = NAMES[int(self.rng.choice(4, p=[0.6, 0.25, 0.1, 0.05]))]
        return row(
            self.number, event=name, device_id=device, user_id=user, timestamp=at, received_at=received,
            platform=[None, "ios", "android"][int(self.rng.integers(3))], session_id=session(device, at),
            properties=f'{{"n":{self.number}}}',
        )  # fmt: skip

    def days(self, count: int, lateness_ms: int, too_late: tuple[int, ...] = ()) -> None:
        """So many days pass: events of the first one and late ones come; ``too_late`` (days) come, too."""
        start = self.life.now
        at = start + np.sort(self.rng.integers(0, DAY_MS, self.per_day))
        late = np.where(self.rng.random(self.per_day) < 0.05, self.rng.integers(0, lateness_ms, self.per_day), 0)
        rows = []
        for when, behind in zip(at.tolist(), late.tolist(), strict=True):
            device = int(self.rng.integers(12))
            user = None if device % 3 == 0 else f"user {device % 5}"
            rows.append(self.event(max(when - behind, START), when, f"device {device}", user))
        for days in too_late:
            when = start + 11 * HOUR_MS
            # Each a visit of its own, so that the session which it has is the exact one.
            rows.append(self.event(when - days * DAY_MS, when, f"old phone {self.number}", None))
        self.life.enter(sorted(rows, key=lambda each: each["received_at"]))
        self.life.store()
        self.life.now = start + count * DAY_MS


def same_counts(life: Life, start: int, end: int) -> None:
    """Trends by day and event, of every measure that aggregates have, are what DuckDB counts in the truth."""
    truth = life.truth()
    for measure, column in (("events", "*"), ("devices", "DISTINCT device_id"), ("users", "DISTINCT user_id")):
        answer = life.ask("trends", start, end, interval="day", measure=measure, breakdown="event")
        found = {(at, name): value for at, name, value in answer["rows"] if value}
        wanted = truth.execute(
            f"SELECT strftime(make_timestamp((timestamp // {DAY_MS}) * {DAY_MS} * 1000), '%Y-%m-%dT%H:%M:%SZ'), event, "
            f"count({column}) FROM truth WHERE timestamp >= {start} AND timestamp < {end} GROUP BY ALL"
        ).fetchall()
        assert found == {(at, name): value for at, name, value in wanted if value}, measure


def exact_sessions(life: Life, start: int, end: int) -> None:
    """Sessions, of retired events and others together, are what a batch computation over all gives."""
    answer = life.ask("sessions", start, end, interval="total")
    found = dict(zip(answer["columns"], answer["rows"][0], strict=True))
    count, events, bounced, longest = life.truth().execute(
        f"""
        WITH marked AS (
            SELECT *, "timestamp" - lag("timestamp") OVER (PARTITION BY device_id ORDER BY "timestamp") AS gap FROM truth
            WHERE "timestamp" >= {start} AND "timestamp" < {end}
        ), numbered AS (
            SELECT *, sum(CASE WHEN gap IS NULL OR gap > {life.gap_ms} THEN 1 ELSE 0 END) OVER (
                PARTITION BY device_id ORDER BY "timestamp" RANGE UNBOUNDED PRECEDING) AS visit FROM marked
        ), visits AS (
            SELECT count(*) AS size, max("timestamp") - min("timestamp") AS length FROM numbered GROUP BY device_id, visit
        )
        SELECT count(*), sum(size), count(*) FILTER (size = 1), sum(length) FROM visits
        """
    ).fetchone()  # fmt: skip
    assert (found["sessions"], found["events"], found["bounced"]) == (count, events, bounced)
    assert found["avg_ms"] == pytest.approx(longest / count)


def forget_user(life: Life, user: str) -> int:
    """Forget all of a user's events that are there; the truth loses them, too."""
    wanted = Tombstone(f"{life.now}", life.now, digest(user), None, None, None)
    receipt = forget.forget(life.stores, life.config, wanted)
    before = len(life.rows)
    life.rows = [each for each in life.rows if each["user_id"] != user]
    assert receipt["lake"]["rows"] == before - len(life.rows)
    return before - len(life.rows)


def live(
    life: Life, days: range, per_day: int, *, lateness_ms: int, keeps: dict[str, int], every: int
) -> dict[str, int]:
    """Live through it, looking after ``every`` so many steps; gives how many rows each rule has taken."""
    year = Year(life, 7, per_day)
    life.now = START
    taken: dict[str, int] = {}
    forgotten = 0
    for number, day in enumerate(days):
        settled = number % every == every - 1 and day > keeps["raw"] + 2
        year.days(days.step, lateness_ms, (keeps["raw"] + 2, keeps["downsample"] + 1) if settled else ())
        if number == len(days) // 2:
            # Somebody who came today, late by hours, wants to be forgotten, and a phone sends it all once more.
            hours = (1, 5, 20)
            stranger = [year.event(life.now - each * HOUR_MS, life.now, "phone", "stranger") for each in hours]
            life.enter(stranger)
            life.store()
            life.compact()
            forgotten += forget_user(life, "stranger")
            life.enter([dict(stranger[0], event_id=bytes(16))], known=False)
            forgotten += 1
            life.store()
        life.compact()
        for rule, (_, rows) in life.retain().items():
            taken[rule] = taken.get(rule, 0) + rows
        if number % every == every - 1 or day == days[-1]:
            looked_at(life, keeps)
    audit = life.stores.audit()
    for store in ("realtime", "lake"):
        stored, gone = (audit.store_total(store, name) for name in ("stored", "retired"))
        assert audit.store_total(store, "forgotten") == forgotten
        assert stored + gone + forgotten == audit.total("received")
    return taken


def looked_at(life: Life, keeps: dict[str, int]) -> None:
    """The ledger balances, and what is answered is what an exact computation over all gives."""
    audit = life.stores.audit()
    assert audit.balanced, [hour for hour in audit.hours if not hour.balanced][:2]
    start = max(START, (life.now // DAY_MS - keeps["aggregates"]) * DAY_MS)
    same_counts(life, start, life.now)
    if start == START:
        exact_sessions(life, START, life.now - DAY_MS)  # those of the last day are provisional


RULES = {"lake.raw", "lake.downsample", "lake.cold", "realtime.raw"}


def test_days_are_lived_through(tmp_path: Path) -> None:
    life = Life(tmp_path / "data", **FAST)
    keeps = {"raw": 5, "downsample": 3, "aggregates": 20}
    taken = live(life, range(9), 100, lateness_ms=23 * HOUR_MS, keeps=keeps, every=9)
    assert {rule for rule, rows in taken.items() if rows} == RULES
    life.close()


def test_sessions_are_exact_after_a_pause(tmp_path: Path) -> None:
    """Nothing has come for so long that the newest date is retired, too: its sessions count once."""
    life = Life(tmp_path / "data", **FAST)
    year = Year(life, 13, 60)
    life.now = START
    for _ in range(3):
        year.days(1, HOUR_MS)
    life.now += 3 * DAY_MS
    life.compact()
    assert life.retain()["lake.downsample"][1]
    for end in (life.now, START + 2 * DAY_MS, START + DAY_MS):
        exact_sessions(life, START, end)
    assert life.ask("sessions", START, life.now)["meta"]["stores"] == ["realtime", "lake"]
    life.close()


@pytest.mark.soak
def test_two_years_are_lived_through(tmp_path: Path) -> None:
    """With the defaults and a frequent event; something happens every twentieth day."""
    life = Life(tmp_path / "data", **{"retention.downsample_events": ("scroll",)})
    keeps = {"raw": 90, "downsample": 7, "aggregates": 730}
    taken = live(life, range(0, 780, 20), 120, lateness_ms=71 * HOUR_MS, keeps=keeps, every=13)
    assert {rule for rule, rows in taken.items() if rows} == RULES | {"lake.aggregates", "realtime.aggregates"}
    life.close()


class Killed(BaseException):
    """Nothing may catch it, so that what it ends is as a kill leaves it."""


def killed_at(life: Life, point: str) -> bool:
    """Retain, and die there; whether it came there."""

    def checkpoint(name: str) -> None:
        if name == point:
            raise Killed

    try:
        life.retain(checkpoint=checkpoint)
    except Killed:
        life.close()
        life.open()
        return True
    return False


POINTS = ("aggregates written", "before commit", "retired", "cold files written", "cold", "aggregates dropped",
          "realtime counted", "realtime deleted")  # fmt: skip


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(("aggregates written", "realtime counted"), id="some"),
        pytest.param(POINTS, id="all", marks=pytest.mark.soak),
    ],
)
def test_a_kill_at_any_step_is_ended_by_the_next_run(tmp_path: Path, points: tuple[str, ...]) -> None:
    life = Life(tmp_path / "data", **{**FAST, "retention.aggregates": "6d"})
    year = Year(life, 11, 40)
    life.now = START
    for _ in range(16):
        year.days(1, HOUR_MS)
    life.compact()
    life.now = START + 7 * DAY_MS
    for point in points:
        assert killed_at(life, point), point
        if point != "realtime counted":  # then the counts are ahead of the deletion, until the next run
            assert life.stores.audit().balanced, point
        start = (life.now // DAY_MS - 6) * DAY_MS
        same_counts(life, start, START + 16 * DAY_MS)
        first = life.retain()
        assert {rows for _, rows in life.retain().values()} == {0}, (point, first)
        assert life.stores.audit().balanced, point
        same_counts(life, start, START + 16 * DAY_MS)
        life.now += DAY_MS
    life.close()


LATE_HOURS = (0, 1, 24, 71, 73)


def test_late_events_stand_in_every_aggregate(tmp_path: Path) -> None:
    """In the bucket of their own time: when they have come, after compaction, and when the events are retired."""
    life = Life(tmp_path / "data")
    life.now = START + 100 * DAY_MS + 12 * HOUR_MS
    times = [life.now - hours * HOUR_MS - nth * 1_000 for hours in LATE_HOURS for nth in range(3)]
    rows = [
        row(number, timestamp=at, received_at=life.now, session_id=session("device", at - at % HOUR_MS))
        for number, at in enumerate(times)
    ]
    for each in rows:
        life.enter([each])  # each by itself, the oldest last
    life.store()
    life.compact()
    ask = life.stores.realtime.query_arrow
    for table, column, length in (
        ("events_1m", "minute", 60),
        ("events_1h", "hour", 3_600),
        ("events_1d", "day", 86_400),
    ):
        found = ask(
            f"SELECT toUnixTimestamp(toDateTime({column}, 'UTC')), sum(events) FROM eventmill.{table} GROUP BY 1"
        )
        assert pairs(found) == Counter(at // 1_000 // length * length for at in times)
    days = ask("SELECT toUnixTimestamp(toDateTime(day, 'UTC')), sum(events) FROM eventmill.sessions GROUP BY 1")
    assert pairs(days) == Counter(at // DAY_MS * 86_400 for at in times)
    visits = {id_: (size, min(at), max(at)) for id_, size, at in in_lake(life)}
    assert sorted(size for size, _, _ in visits.values()) == [3] * len(LATE_HOURS)

    life.now += 100 * DAY_MS
    assert life.retain()["lake.raw"][1] == len(rows)
    assert life.stores.lake.live_files() == []
    tables, named = Aggregates.of(life.stores.lake), retired(life.stores.lake.load())
    minutes = tables.minutes.read(tables.minutes.files(named.minutes)).select(["minute", "events"])
    found = (
        minutes.set_column(0, "minute", minutes.column(0).cast("int64"))
        .group_by("minute")
        .aggregate([("events", "sum")])
    )
    assert pairs(found) == Counter(at // 60_000 * 60_000_000 for at in times)
    sessions = tables.sessions.read(tables.sessions.files(named.sessions)).to_pylist()
    assert sum(each["events"] for each in sessions) == len(times)
    assert {each["session_id"] for each in sessions} == set(visits)
    assert life.stores.audit().balanced
    life.close()


def pairs(found: pa.Table) -> dict[int, int]:
    """A table of two columns."""
    return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True))


def in_lake(life: Life) -> list[tuple[int, int, list[int]]]:
    """Session, events and times of each session in the lake."""
    by_session: dict[int, list[int]] = {}
    for each in life.stores.lake.load().scan(selected_fields=("session_id", "timestamp")).to_arrow().to_pylist():
        by_session.setdefault(each["session_id"], []).append(round(each["timestamp"].timestamp() * 1_000))
    return [(id_, len(times), times) for id_, times in by_session.items()]


def test_a_property_that_comes_and_widens_is_read_in_both_stores(tmp_path: Path) -> None:
    """Whole numbers, then fractions and text, and a property that is new: one question over files and parts of all times."""
    life = Life(tmp_path / "data")
    life.now = START + 5 * DAY_MS
    spelt = ['{"price":2}', '{"price":2.5}', '{"price":"3.25","color":"red"}', '{"price":null,"color":"red"}', "{}"]
    life.enter(
        row(day * 10 + number, timestamp=START + day * DAY_MS + number, received_at=life.now, properties=properties)
        for day in range(5)
        for number, properties in enumerate(spelt[: day + 1])
    )
    life.store()
    life.compact()
    asked = life.ask("trends", START, life.now, interval="day", measure="sum:properties.price")
    assert asked["meta"]["stores"] == ["realtime", "lake"]
    assert [value for _, value in asked["rows"]] == [2, 4.5, 7.75, 7.75, 7.75]
    red = [{"field": "properties.color", "op": "eq", "value": "red"}]
    asked = life.ask("trends", START, life.now, interval="day", filters=red)
    assert [value for _, value in asked["rows"]] == [0, 0, 1, 2, 2]
    life.close()


def test_what_is_retired_is_refused_with_the_time_from_which_on_it_is_there(tmp_path: Path) -> None:
    life = Life(
        tmp_path / "data", **FAST, **{"query.renames": '{"scroll": "scrolled", "tap": "touch", "touch": "press"}'}
    )
    year = Year(life, 3, 30)
    life.now = START
    for _ in range(7):
        year.days(1, HOUR_MS)
    life.compact()
    life.retain()
    kept = life.ask("trends", START, life.now)["meta"]["kept"]
    assert (kept["raw_from"], kept["downsampled"]) == (
        "2024-01-03T00:00:00Z", {"scrolled": "2024-01-05T00:00:00Z"}
    )  # fmt: skip
    for kind, body, first in (
        ("trends", {"measure": "sum:properties.n", "event": "tap"}, "2024-01-03"),
        ("trends", {"breakdown": "country", "event": "scroll"}, "2024-01-05"),
        ("funnel", {"steps": [{"event": "tap"}, {"event": "purchase"}], "window": "1d"}, "2024-01-03"),
        ("sessions", {"event": "scroll"}, "2024-01-05"),
    ):
        with pytest.raises(QueryError, match=f"before {first}.*retired"):
            life.ask(kind, START, life.now, **body)
    life.ask("trends", START + 2 * DAY_MS, life.now, measure="sum:properties.n", event="tap")
    same_counts(life, START, life.now)  # under their new names, from aggregates and events
    one, other = (life.ask("trends", START, life.now, interval="day", event=name)["rows"] for name in ("tap", "press"))
    assert one == other
    assert sum(count for _, count in one) == sum(each["event"] == "tap" for each in life.rows)

    # An event's aggregates go with it, a user's share of them cannot be told.
    forget.forget(life.stores, life.config, Tombstone("x", life.now, None, "scrolled", older=["scroll"]))
    life.rows = [each for each in life.rows if each["event"] != "scroll"]
    same_counts(life, START, life.now)
    assert life.stores.audit().balanced
    life.close()
