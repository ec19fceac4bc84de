"""Backfill by Spark: the data folder that the local backfill makes of the same raw events."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
import uuid
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from eventmill.core import frame
from eventmill.core.clock import now_ms
from eventmill.core.config import load
from eventmill.core.log import Log
from eventmill.core.schema import DEAD, LOGGED, Flag, Hop, Topic
from eventmill.core.tombstones import Tombstone, digest, record
from eventmill.kernels.partition import OVERFLOW
from eventmill.lake.compact import compact
from eventmill.lake.files import ROWS_FEW
from eventmill.lake.table import Lake
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from eventmill.log.local import LocalLog
from eventmill.process.schemas.sets import NO_SCHEMAS, Schema, SchemaSet
from eventmill.serve.engine_log import open_existing
from eventmill.spark import backfill as job
from eventmill.spark.__main__ import main
from eventmill.spark.raw import ROWS, Framer, Range, Reader, logged, ranges
from lake_events import DAY_MS, GAP_MS, START_MS, batch, event_id, random_rows, row, rows_of
from serving import Serving, eventmill

SCHEMA = {"properties": {"price": {"type": "number"}}}


def raw(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return frame.conform(batch(rows), LOGGED)


def log_of(folder: Path, *frames: list[dict[str, Any]]) -> LocalLog:
    log = LocalLog(folder / "log", prefix="eventmill", size_bytes_max=1 << 30, backlog_events_max=1 << 30)
    for rows in frames:
        with log.transaction() as transaction:
            transaction.append([frame.encode(Topic.RAW, raw(rows))])
    return log


def read(folder: Path, within: list[Range], **given: Any) -> pa.Table:
    """What the executors make of the ranges."""
    settings = load(None, environ={}, overrides={"data": folder})
    asked = {"schemas": NO_SCHEMAS.dump(), "tombstones": (), "since_ms": 0, "until_ms": 1 << 62} | given
    reader = pickle.loads(pickle.dumps(Reader(asked.pop("config", settings), **asked)))
    listed = pa.RecordBatch.from_pylist(
        [{"partition": each.partition, "begin": each.begin, "end": each.end} for each in within]
    )
    return pa.Table.from_batches(list(reader(iter([listed]))), ROWS)


def test_executors_read_judge_and_place_what_raw_holds(tmp_path: Path) -> None:
    rows = [row(n, event=f"event {n % 2}", user_id=f"u{n % 3}", properties=f'{{"price":{n}}}') for n in range(6)]
    rows[4] |= {"properties": '{"price":"x"}', "flags": int(Flag.RESCUED | Flag.ID_HASHED)}
    rows[5] |= {"flags": int(Flag.RESCUED | Flag.ID_HASHED)}
    log = log_of(tmp_path, rows[:2], rows[2:5], rows[5:])
    within = ranges(log, 2)
    assert [(each.begin, each.end) for each in within] == [(0, 2), (2, 3)]
    assert sum(each.end - each.begin for each in ranges(log, 100)) == len(ranges(log, 100)) == 3
    log.close()
    schemas = SchemaSet.of([Schema("event 0", "1", "1", SCHEMA)])
    forgotten = Tombstone("t", before_ms=1 << 60, user=digest("u2"))
    found = read(tmp_path, within, schemas=schemas.dump(), tombstones=[forgotten]).to_pylist()
    good = [one for one in found if one["letter"] is None]
    assert [one["event_id"] for one in good] == [event_id(n) for n in (0, 1, 2, 3, 5)]
    assert [one["row"] for one in good] == [0, 1, 1 << 20, (1 << 20) + 1, 2 << 20]
    assert [one["forgotten"] for one in good] == [False, False, True, False, True]
    assert good[-1]["flags"] == int(Flag.ID_HASHED)
    (letter,) = [one for one in found if one["letter"] is not None]
    assert letter["event_id"] is None
    assert (letter["letter"]["event_id"], letter["letter"]["raw_offset"]) == (event_id(4), 1)
    assert (letter["letter"]["reason"], letter["letter"]["path"]) == ("schema", "/price")
    at = START_MS + 12 * 3_600_000 + 100  # all were received then
    assert read(tmp_path, within, until_ms=at).num_rows == 0
    assert read(tmp_path, within, since_ms=at, until_ms=at + 1).num_rows == 6


def test_frames_hold_what_the_log_had(tmp_path: Path) -> None:
    rows = [row(n, user_id=None if n else "u", platform="ios" if n else None) for n in range(3)]
    log_of(tmp_path, rows).close()
    given = read(tmp_path, [Range(0, 0, 1)])
    (made,) = Framer(Topic.RAW, LOGGED)(iter(given.select(LOGGED.names).to_batches()))
    assert made.column("events").to_pylist() == [3]
    assert pa.ipc.open_stream(made.column("payload")[0].as_py()).read_all().to_pylist() == raw(rows).to_pylist()
    assert logged(given, LOGGED).schema == LOGGED


def test_of_rows_with_one_id_the_first_appended_stays() -> None:
    ids = [bytes([number] * 16) for number in (1, 2, 1, 1, 3)]
    rows = pa.table(
        {
            "event_id": pa.array(ids, pa.binary()),
            "received_at": pa.array([9_000, 0, 3_600_000_000, 0, 0], pa.int64()).cast(pa.timestamp("us", "UTC")),
            "appended_at": [7, 5, 7, 8, 1],
            "partition": pa.array([1, 0, 0, 0, 0], pa.int32()),
            "row": [0, 1, 2, 0, 4],
        }
    )
    again = job._again(rows)
    assert [tuple(one.values()) for one in again.to_pylist()] == [(1, 0, 0), (0, 0, 0)]
    assert job._again(rows.slice(0, 0)).num_rows == 0


def test_files_are_of_one_partition_each_and_the_small_ones_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "FILE_ROWS", 10_000)
    lake = Lake(tmp_path, partitions_max=30)
    sizes = {(day, f"event {n}"): 1_000 * n for day in (0, 1) for n in range(40)}
    sizes[1, "event 39"] = 25_000
    found = job.packs(sizes, lake)
    assert {(day, event) for day, event, *_ in found} == set(sizes)
    groups = {(day, event): group for day, event, group, *_ in found}
    assert groups[0, "event 39"] == "event 39"
    assert groups[0, "event 2"] == groups[0, "event 5"] == OVERFLOW
    rows: Counter[tuple[int, str]] = Counter()
    numbers: dict[tuple[int, str], tuple[int, int]] = {}
    for day, event, group, first, files in found:
        rows[day, group] += sizes[day, event]
        assert numbers.setdefault((day, group), (first, files)) == (first, files)
    assert {each: files for each, (_, files) in numbers.items()} == {
        each: -(-count // 10_000) for each, count in rows.items()
    }
    used = [first + n for first, files in numbers.values() for n in range(files)]
    assert sorted(used) == list(range(len(used)))
    assert len({group for _, group in numbers}) == 31
    assert all(count >= ROWS_FEW for (_, group), count in rows.items() if group != OVERFLOW)
    lake.close()


def fill(log: Log, now: int) -> None:
    """Raw of three days until now: duplicates, some of them hours later, bad events, and a user who is forgotten."""
    rng = np.random.default_rng(11)
    moved = now - now % DAY_MS - 3 * DAY_MS - START_MS
    rows = [
        one
        | {
            "timestamp": one["timestamp"] + moved,
            "original_timestamp": one["timestamp"] + moved,
            "received_at": min(one["timestamp"] + moved + int(rng.integers(1, 3 * 3_600_000)), now - 1),
            "event": f"event {n % 5}",
            "user_id": (None, "known", "unknown", "forgotten")[n % 4],
            "properties": '{"price":"much"}' if n % 25 == 0 else f'{{"price":{n}}}',
        }
        for n, one in enumerate(random_rows(rng, 0, 3_000, days=4))
    ]
    rows = sorted((one for one in rows if one["timestamp"] < now - 1), key=lambda one: one["received_at"])
    assert len(rows) > 2_000
    # Within the window of the local filter. None comes three times: of suspects that are looked up together the local lane puts
    # each id back once, so how many letters a bad one becomes there depends on which are together.
    fresh = [one for n, one in enumerate(rows) if n % 300 >= 20 and one["received_at"] > now - 20 * 3_600_000]
    again = [fresh[int(n)] | {"flags": int(Flag.RESCUED)} for n in rng.choice(len(fresh), 100, replace=False)]
    frames = [[*rows[begin : begin + 300], *rows[begin : begin + 20]] for begin in range(0, len(rows), 300)]
    partitions = log.partitions(Topic.RAW)
    for n, part in enumerate([*frames, again]):
        with log.transaction() as transaction:
            transaction.append([frame.encode(Topic.RAW, raw(part), partition=partitions[n % len(partitions)])])
    with log.transaction() as transaction:
        transaction.append([record(Tombstone("t", before_ms=now - DAY_MS, user=digest("forgotten")))])
    log.close()


def letters(folder: Path, config: Path) -> list[tuple[Any, ...]]:
    log = open_existing(load(config, overrides={"data": folder}))
    frames = log.read(Topic.DEAD, 0, 0, events_max=1 << 30, to_offset=log.end_offset(Topic.DEAD, 0))
    found = frame.decode_all(frames, DEAD).to_pylist() if frames else []
    counted = sum(count.events for count in log.ledger() if count.hop is Hop.INVALID)
    log.close()
    assert counted == len(found)
    return sorted((one["event_id"], one["reason"], one["detail"], one["payload"]) for one in found)


def trend(server: Serving) -> Any:
    now = datetime.now(UTC)
    question = {
        "from": (now - timedelta(days=7)).isoformat(), "to": (now + timedelta(hours=1)).isoformat(), "interval": "day",
        "breakdown": "event", "measure": "devices",
    }  # fmt: skip
    status, answer = server.post("/v1/query/trends", question)
    assert status == 200, answer
    return sorted(map(tuple, answer["rows"]))


@pytest.mark.soak
@pytest.mark.parametrize("where", ["embedded", "Kafka"])
def test_spark_makes_the_folder_that_the_local_backfill_makes(
    where: str,
    spark: Any,
    serve: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "source"
    schema = source / "schemas" / "event 0" / "1.json"
    schema.parent.mkdir(parents=True)
    schema.write_text(json.dumps(SCHEMA))
    users = tmp_path / "users.csv"
    users.write_text("user_id,country,segment,tier\nknown,DE,a,gold\n")
    config, of_source = tmp_path / "eventmill.toml", tmp_path / "source.toml"
    config.write_text(f"[dimensions]\nfile = '{users}'\n")
    if where == "Kafka":
        bootstrap = request.getfixturevalue("kafka").bootstrap
        prefix = f"s{uuid.uuid4().hex[:8]}"
        config.write_text(f"{config.read_text()}[log]\nprefix = '{prefix}'\n")
        brokers = f"[kafka]\nbootstrap = '{bootstrap}'\npartitions = 3\n"
        of_source.write_text(config.read_text() + brokers)
        topics.create(load(of_source))
        log: Log = KafkaLog(load(of_source), name="writer")
    else:
        shutil.copy(config, of_source)
        log = log_of(source)
    fill(log, now_ms())
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    given = ("--data", str(source), "--config", str(of_source))
    local = eventmill("replay", "--raw", "--into", str(ours), *given, "--json")
    assert local.returncode == 0, local.stderr
    capsys.readouterr()
    assert main(["backfill", "--into", str(theirs), *given]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["events"] == json.loads(local.stdout)["events"] > 2_000
    assert min(report["duplicates"], report["dead"], report["forgotten"], report["recent"]) > 10
    assert report["recent"] < report["stored"]

    lakes = [Lake(folder / "lake") for folder in (ours, theirs)]
    compact(lakes[0], gap_ms=GAP_MS, now_ms=1)
    expected, found = map(rows_of, lakes)
    assert len(found) == len(expected) == report["stored"]
    assert found == expected
    assert {one["country"] for one in found if one["user_id"] == "known"} == {"DE"}
    assert letters(theirs, config) == letters(ours, config)
    for lake in lakes:
        lake.close()
    audits = []
    for folder in (ours, theirs):
        told = eventmill("audit", "--data", str(folder), "--config", str(config), "--json")
        audits.append(orjson.loads(told.stdout))
    for audit in audits:
        assert audit["balanced"], [hour for hour in audit["hours"] if not hour["balanced"]]
    totals = ("received", "accepted", "dead", "dead_reasons")
    assert [audits[1][name] for name in totals] == [audits[0][name] for name in totals]
    assert audits[1]["stores"]["realtime"]["in_flight"] == report["recent"]
    assert audits[1]["stores"]["realtime"]["retired"] == report["stored"] - report["recent"]

    # An engine takes it over: it answers as one does that took the other one, and knows what it has.
    answers = []
    for folder in (ours, theirs):
        taken = serve("--config", str(config), data=folder)
        taken.flush()
        answers.append(trend(taken))
        last = max(expected, key=lambda one: one["received_at"])
        again = {
            "type": "track", "event": last["event"], "messageId": last["message_id"] or str(uuid.UUID(bytes=last["event_id"])),
            "anonymousId": last["device_id"], "timestamp": datetime.fromtimestamp(last["timestamp"] / 1000, UTC).isoformat(),
        }  # fmt: skip
        assert taken.post("/v1/batch", {"batch": [again]})[0] == 200
        taken.flush()
        audit = taken.engine("GET", "/v1/audit")
        assert audit["balanced"], [hour for hour in audit["hours"] if not hour["balanced"]]
        assert audit["stores"]["lake"]["stored"] == report["stored"]
        assert trend(taken) == answers[-1]
        assert taken.stop() == 0
    assert answers[1] == answers[0]
    assert sum(one[-1] for one in answers[0]) > 100

    if where == "Kafka":
        return
    # What an executor meets is told in one line.
    with closing(sqlite3.connect(source / "log" / "log.sqlite")) as damaged, damaged:
        damaged.execute("UPDATE frames SET payload = zeroblob(length(payload)) WHERE id = (SELECT min(id) FROM frames)")
    assert main(["backfill", "--into", str(tmp_path / "third"), *given]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.endswith("; remove what stands in the folder of --into, and try again")
    assert "frame" in line


def test_a_folder_that_holds_something_and_times_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "file").touch()
    for more, said in (
        ((), "is not empty; name a fresh folder by --into"),
        (("--since", "yesterday"), "'yesterday' is no time; write 2026-11-23T04:00:00Z"),
    ):
        assert main(["backfill", "--data", str(tmp_path), "--into", str(tmp_path / "into"), *more]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["compact", "--group-rows", "0"])
    assert "'0' is no number above zero" in capsys.readouterr().err
