"""Forgetting: exactly what was named, in every place, for good; and the ledger knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from eventmill.core import frame
from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import load
from eventmill.core.rollup import distinct_merge
from eventmill.core.schema import Topic
from eventmill.lake.compact import compact
from eventmill.serve import forget
from eventmill.serve.folder import DataFolder
from eventmill.serve.stores import Stores
from eventmill.sinks.realtime import ddl
from serving import eventmill

MINE = 'user "one" \u00e4'
SECRET = "needle-in-the-haystack"
#: Questions that name the user, and one that names another.
SAVED = [
    ("1", "timeline", {"id": MINE}),
    (
        "2",
        "trends",
        {"from": "-7d", "to": "now", "filters": [{"any": [{"field": "user_id", "op": "in", "value": [MINE]}]}]},
    ),
    ("3", "sql", {"query": f"SELECT count() FROM events WHERE user_id = '{MINE}'"}),
    ("4", "timeline", {"id": "another"}),
]
_COUNTS = ", ".join(
    f"finalizeAggregation({distinct_merge(name)}) AS of_{name}" for name in ("devices", "users", "sessions")
)
_COUNTS_OF = (
    "SELECT {at} AS start, event::String AS name, platform::Nullable(String) AS system, sum(events) AS rows, "
    f"{_COUNTS} FROM {{rows}} AS t GROUP BY {{at}}, event, platform ORDER BY 1, 2, 3"
)
_SESSIONS = (
    "SELECT session_id, day, sum(events) AS rows, max(user_id) AS who, min(started) AS first, max(ended) AS last "
    "FROM {rows} AS t GROUP BY session_id, {at} ORDER BY 1, 2"
)


def event(number: int, user: str | None, **more: object) -> dict:
    properties = {"n": number, "note": SECRET if user == MINE else "x"}
    base = {"type": "track", "event": f"Event {number % 2}", "messageId": f"id-{number}", "properties": properties}
    who = {"anonymousId": "shared device"} if user is None else {"userId": user, "anonymousId": "shared device"}
    at = f"2026-11-22T10:{number % 60:02d}:00.250Z"
    return {**base, **who, "timestamp": at, **more}


def filled(serve, **environ: str):
    """20 events of mine among 60, each sent twice, and dead letters of mine and of another."""
    server = serve(**environ)
    sent = [event(number, MINE if number % 3 == 0 else "another") for number in range(60)]
    sent += [event(91, MINE, event=7), event(92, "another", event=7)]
    for _ in range(2):
        assert server.post("/v1/batch", {"batch": sent})[0] == 200
    return server, sent


def command(*arguments: str, data: Path, **environ: str) -> tuple[int, dict]:
    done = eventmill(*arguments, "--data", str(data), "--json", **environ)
    assert MINE.encode() not in done.stdout + done.stderr
    return done.returncode, orjson.loads(done.stdout) if done.stdout else {"error": done.stderr.decode()}


def users(stores: Stores) -> tuple[list, list]:
    realtime = stores.realtime.query_arrow(f"SELECT user_id FROM {ddl.EVENTS}").column(0).to_pylist()
    return sorted(realtime, key=str), sorted(
        stores.lake.load().scan().to_arrow().column("user_id").to_pylist(), key=str
    )


def in_the_log(data: Path) -> bool:
    """Whether the log's files hold a saved question that names the user: short records are not compressed."""
    return any(orjson.dumps({"id": MINE}) in path.read_bytes() for path in data.rglob("log.sqlite*"))


def rolled_up_equal(stores: Stores) -> None:
    """The roll-ups are what the raw events give."""
    for table in stores.realtime.roll_ups:
        sums, at = (_SESSIONS, "day") if table is ddl.SESSIONS else (_COUNTS_OF, table.keys[0])
        sources = table.name, f"({table.query(ddl.EVENTS)})"
        there, made = (stores.realtime.query_arrow(sums.format(rows=rows, at=at)).to_pylist() for rows in sources)
        assert there == made


def test_a_user_is_gone_from_every_place_and_stays_gone(serve, tmp_path: Path) -> None:
    server, sent = filled(serve)
    for name, kind, query in SAVED:
        assert server.request("PUT", f"/v1/saved/{name}", orjson.dumps({"kind": kind, "query": query}))[0] == 201
    assert in_the_log(server.data)
    status, dry = command("forget", "--user", MINE, "--dry-run", data=server.data)
    assert (status, dry["realtime"]["rows"], dry["lake"]["rows"], dry["saved_questions"]) == (0, 20, 20, 3)
    assert {topic: found["events"] for topic, found in dry["topics"].items()} == {
        "raw": 40, "suspects": 20, "enriched": 20, "dead": 2
    }  # fmt: skip
    status, receipt = command("forget", "--user", MINE, data=server.data)
    assert status == 0, receipt
    assert (receipt["realtime"]["rows"], receipt["lake"]["rows"], receipt["topics"]) == (20, 20, dry["topics"])
    assert (receipt["dead_letters"], receipt["left_to_retention"], receipt["saved_questions"]) == (2, [], 3)
    assert [one["name"] for one in server.request("GET", "/v1/saved")[1]["saved"]] == ["4"]
    assert not in_the_log(server.data)
    written = Path(receipt["receipt"])
    assert orjson.loads(written.read_bytes())["topics"] == receipt["topics"]
    assert written.stat().st_mode & 0o777 == 0o600
    assert command("export", "--user", MINE, "--out", str(tmp_path / "x.ndjson"), data=server.data)[1] == {
        "events": 0, "dead_letters": 0
    }  # fmt: skip
    status, audit = command("audit", data=server.data)
    assert (status, audit["balanced"]) == (0, True)
    assert [audit["stores"][store]["forgotten"] for store in ("realtime", "lake")] == [20, 20]

    # What had happened before does not come back, whoever sends it; what the user does from now on is kept.
    again = [one for one in sent if one.get("userId") == MINE]
    assert server.post("/v1/batch", {"batch": again})[0] == 200
    late = event(500, MINE)
    del late["timestamp"]  # it happens when it is received
    assert server.post("/v1/batch", {"batch": [late]})[0] == 200
    server.engine("POST", "/v1/flush")
    status, audit = command("audit", data=server.data)
    assert (status, audit["balanced"]) == (0, True), audit
    assert [audit["stores"][store]["forgotten"] for store in ("realtime", "lake")] == [40, 40]
    assert command("replay", "--dead", data=server.data)[0] == 0
    server.engine("POST", "/v1/flush")
    assert server.stop() == 0
    config = load(None, overrides={"data": server.data})
    with DataFolder(server.data):
        stores = Stores(config)
        try:
            assert users(stores) == ((["another"] * 40 + [MINE]),) * 2
            rolled_up_equal(stores)
            assert stores.audit().balanced
        finally:
            stores.close()

    into = tmp_path / "again"
    assert command("replay", "--raw", "--since", "1h", "--into", str(into), data=server.data)[0] == 0
    with DataFolder(into):
        stores = Stores(load(None, overrides={"data": into}))
        try:
            assert users(stores) == ((["another"] * 40 + [MINE]),) * 2
            assert stores.audit().balanced
        finally:
            stores.close()


def test_an_event_and_a_time_are_forgotten_as_named_and_no_more(serve) -> None:
    server, _ = filled(serve)
    server.engine("POST", "/v1/flush")
    assert server.stop() == 0
    assert command("forget", data=server.data)[0] == 2
    assert command("forget", "--from", "2026-11-22T11:00:00Z", "--to", "2026-11-22T10:00:00Z", data=server.data)[0] == 2
    some = ("forget", "--event", "Event 1", "--from", "2026-11-22T10:00:00Z", "--to", "2026-11-22T10:30:00Z")
    status, receipt = command(*some, data=server.data)
    assert (status, receipt["realtime"]["rows"], receipt["lake"]["rows"]) == (0, 15, 15), receipt
    assert receipt["what"]["event"] == "Event 1"
    assert command("forget", "--event", "Event 0", data=server.data)[1]["lake"]["rows"] == 30
    # What an event was called before goes with it; what it is called now does not go with that.
    renames = {"EVENTMILL_QUERY__RENAMES": '{"Event 1": "Opened", "Opened": "Started", "Event 0": "x"}'}
    some = ("--from", "2026-11-22T10:50:00Z")
    status, receipt = command("forget", "--event", "Started", *some, data=server.data, **renames)
    assert (status, receipt["lake"]["rows"], receipt["realtime"]["rows"]) == (0, 5, 5), receipt
    assert receipt["what"]["older_names"] == ["Event 1", "Opened"]
    status, receipt = command("forget", "--event", "Event 1", "--to", "1970-01-02", data=server.data, **renames)
    assert (status, "older_names" in receipt["what"]) == (0, False)
    with DataFolder(server.data):
        stores = Stores(load(None, overrides={"data": server.data}))
        try:
            assert [len(each) for each in users(stores)] == [10, 10]
            rolled_up_equal(stores)
            assert stores.audit().balanced
        finally:
            stores.close()
    # All of a month: nothing is left of it in the roll-ups.
    assert command("forget", "--to", "2026-12-01", data=server.data)[1]["realtime"]["rows"] == 10


CRASH = """
import os, sys
from pathlib import Path
from eventmill.core.config import load
from eventmill.core.rollup import distinct_merge
from eventmill.serve import forget
from eventmill.serve.stores import Stores
from eventmill.serve.folder import DataFolder
data, point, user = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = load(None, overrides={"data": data})
def checkpoint(name):
    if name == point:
        os.kill(os.getpid(), 9)
with DataFolder(data):
    forget.forget(Stores(config), config, forget.tombstone(user, None, None, None), checkpoint=checkpoint)
"""


@pytest.mark.soak
def test_a_crash_at_any_point_is_ended_by_the_next_run(serve) -> None:
    server, _ = filled(serve)
    server.engine("POST", "/v1/compact")
    assert server.stop() == 0
    config = load(None, overrides={"data": server.data})
    points = ["receipt", "tombstone", "counted", "realtime", "lake", "files", "log"]
    for number, point in enumerate(points):
        user = f"crash {number}"
        running = serve(data=server.data)
        sent = [event(1000 + number * 100 + each, user if each % 2 else "another") for each in range(10)]
        assert running.post("/v1/batch", {"batch": sent})[0] == 200
        running.engine("POST", "/v1/flush")
        assert running.stop() == 0
        child = subprocess.run([sys.executable, "-c", CRASH, str(server.data), point, user], check=False)
        assert child.returncode == -9, point
        with DataFolder(server.data):
            stores = Stores(config)
            try:
                (receipt,) = forget.resume(stores, config)
                assert not forget.pending(config)
                counts = (receipt["realtime"]["rows"], receipt["lake"]["rows"], receipt["topics"]["raw"]["events"])
                assert counts == (5, 5, 5), point
                assert all(user not in held for held in users(stores)), point
                audit = stores.audit()
                assert audit.balanced, point
                sums = [audit.store_total(store, "forgotten") for store in ("realtime", "lake")]
                assert sums == [5 * (number + 1)] * 2, point
                rolled_up_equal(stores)
                frames = stores.log.read(Topic.RAW, 0, 0, events_max=1 << 30)
                assert (
                    user not in frame.decode_all(frames, frame.decode(frames[0]).schema).column("user_id").to_pylist()
                )
            finally:
                stores.close()


@pytest.mark.soak
def test_sessions_of_the_rest_are_exact_after_it(serve) -> None:
    """The forgotten events held two visits of a shared device together."""
    server = serve()
    at = ["10:00", "10:20", "10:40", "11:00"]
    sent = [
        event(
            number,
            MINE if number in (1, 2) else "another",
            timestamp=f"2026-11-22T{time}:00Z",
            sentAt="2026-11-22T11:30:00Z",
        )
        for number, time in enumerate(at)
    ]
    assert server.post("/v1/batch", {"batch": sent})[0] == 200
    server.engine("POST", "/v1/flush")
    assert command("forget", "--user", MINE, data=server.data)[0] == 0
    assert server.stop() == 0
    stores = Stores(load(None, overrides={"data": server.data}))
    try:
        sessions = stores.lake.load().scan().to_arrow().column("session_id").to_pylist()
        assert (len(sessions), len(set(sessions))) == (2, 2)
        again = compact(stores.lake, gap_ms=parse_duration_ms("30m"), now_ms=now_ms())
        assert again.sessions_changed == 0
    finally:
        stores.close()
