"""The whole way through a real ``serve``: what goes in by HTTP is found again by query, once."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
from pathlib import Path

import orjson
import pytest

from eventmill.core.ids import parse_event_id
from serving import eventmill, eventually

CAPTURED = Path(__file__).parents[1] / "data" / "sdk_requests" / "captured.jsonl"


def event(number, **more):
    base = {"type": "track", "event": "Opened", "userId": "u1", "messageId": f"id-{number}"}
    return {**base, "timestamp": "2026-11-22T10:00:00Z", "sentAt": "2026-11-22T10:00:01Z", **more}


def test_recorded_sdk_requests_are_taken_byte_for_byte_and_found_again(serve):
    server = serve()
    sent = []
    for line in CAPTURED.read_text().splitlines():
        recorded = orjson.loads(line)
        headers = {key.replace("-", "_"): value for key, value in recorded["headers"].items()}
        body = recorded["body"].encode()
        body = gzip.compress(body) if recorded["headers"].get("Content-Encoding") == "gzip" else body
        batch = orjson.loads(recorded["body"])["batch"]
        status, answer = server.request(recorded["method"], recorded["path"], body, **headers)
        assert (status, answer) == (200, {"success": True, "accepted": len(batch), "rejected": 0})
        sent += batch
    server.flush()
    rows = server.sql("SELECT event_id, event, type, user_id, properties, context FROM events")
    found = {row[0]: row[1:] for row in rows}
    assert set(found) == {one["messageId"] for one in sent}
    assert server.sql("SELECT count() FROM lake.events") == [[len(sent)]]
    for one in sent:
        name, kind, user, properties, context = found[one["messageId"]]
        assert (kind, user) == (one["type"], one["userId"])
        assert name == (one["event"] if kind == "track" else kind)
        expected = one.get("traits" if kind == "identify" else "properties") or {}
        named = {key: one[key] for key in ("name", "category") if key in one and kind in ("screen", "page")}
        assert orjson.loads(properties) == {**named, **expected}
        assert {key: value for key, value in orjson.loads(context).items() if key[0] != "_"} == one["context"]


def test_retries_are_stored_once_and_the_ledger_balances(serve):
    server = serve()
    body = {"batch": [event(number) for number in range(50)] + [{"type": "track"}]}
    for _ in range(3):
        assert server.post("/v1/batch", body)[1] == {"success": True, "accepted": 50, "rejected": 1}
    server.flush()
    assert server.sql("SELECT count(), uniqExact(event_id) FROM events") == [[50, 50]]
    assert server.sql("SELECT count() FROM lake.events") == [[50]]
    audit = server.engine("GET", "/v1/audit")
    assert audit["balanced"]
    assert (audit["received"], audit["duplicates"], audit["dead"]) == (153, 100, 3)
    assert audit["dead_reasons"] == {"missing_event": 3}
    running = eventmill("audit", "--data", str(server.data), "--json")
    assert (running.returncode, orjson.loads(running.stdout)["balanced"]) == (0, True)
    assert server.stop() == 0


def test_the_audit_sees_what_is_lost_or_doubled_in_a_store(serve):
    """Negative control: rows taken out of, or counted into, the books behind the engine's back."""
    server = serve()
    server.post("/v1/batch", {"batch": [event(number) for number in range(20)]})
    server.flush()
    assert server.stop() == 0
    log = server.data / "log" / "log.sqlite"
    assert eventmill("audit", "--data", str(server.data)).returncode == 0

    def change(statement):
        with sqlite3.connect(log) as connection:
            connection.execute(statement)

    change("UPDATE ledger SET events = events + 1 WHERE hop = 'received'")
    lost = eventmill("audit", "--data", str(server.data), "--json")
    assert lost.returncode == 1
    assert orjson.loads(lost.stdout)["stores"]["realtime"]["missing"] == 1
    change("UPDATE ledger SET events = events - 2 WHERE hop = 'received'")
    doubled = eventmill("audit", "--data", str(server.data), "--json")
    assert doubled.returncode == 1
    assert orjson.loads(doubled.stdout)["stores"]["lake"]["missing"] == -1


def test_trace_tells_every_hop(serve):
    server = serve()
    server.post("/v1/batch", {"batch": [event(1), event(2)]})
    server.post("/v1/batch", {"batch": [event(1), {"type": "track", "userId": "u", "messageId": "b ad"}]})
    server.flush()
    status, found = server.request("GET", "/v1/trace/id-1")
    assert (status, found["fate"]) == (200, "stored")
    verdicts = [(hop["hop"], hop["verdict"]) for hop in found["hops"]]
    assert verdicts == [
        ("raw", "accepted"),
        ("raw", "accepted"),
        ("suspects", "duplicate"),
        ("enriched", "enriched"),
        ("realtime", "stored"),
        ("lake", "stored"),
    ]
    assert all(hop["at_ms"] > 0 for hop in found["hops"])
    assert found["hops"][-2]["part"].startswith("20")
    assert Path(found["hops"][-1]["file"]).suffix == ".parquet"
    assert server.request("GET", "/v1/trace/never-sent")[0] == 404
    dead = server.request("GET", "/v1/trace/b%20ad")[1]
    assert (dead["fate"], [(hop["verdict"], hop["reason"]) for hop in dead["hops"]]) == (
        "dead",
        [("dead", "missing_event")],
    )
    running = eventmill("trace", "id-2", "--data", str(server.data), "--json")
    assert orjson.loads(running.stdout)["fate"] == "stored"
    assert server.stop() == 0
    stopped = eventmill("trace", parse_event_id("id-2").hex(), "--data", str(server.data), "--json")
    assert (stopped.returncode, orjson.loads(stopped.stdout)["fate"]) == (0, "stored")
    assert eventmill("trace", "never-sent", "--data", str(server.data)).returncode == 1


def test_dead_letters_come_back_when_their_cause_is_gone(serve):
    server = serve(EVENTMILL_PROCESS__BLOCKED_EVENTS="Spam", EVENTMILL_INGEST__EVENT_NAME_BYTES_MAX="10")
    server.post("/v1/batch", {"batch": [event(1), event(2, event="Spam"), event(3, event="A rather long name"), 7]})
    server.flush()
    assert server.sql("SELECT count() FROM events") == [[1]]
    assert server.stop() == 0
    report = eventmill("replay", "--dead", "--data", str(server.data), "--json")
    found = orjson.loads(report.stdout)
    assert [found[name] for name in ("read", "replayed", "still_dead", "skipped")] == [3, 2, 1, 0]
    again = eventmill("replay", "--dead", "--data", str(server.data), "--json")
    assert orjson.loads(again.stdout)["replayed"] == 0
    server = serve(data=server.data)
    server.flush()
    assert sorted(row[0] for row in server.sql("SELECT event FROM events")) == ["A rather long name", "Opened", "Spam"]
    audit = server.engine("GET", "/v1/audit")
    assert audit["balanced"], audit


def test_bad_requests_get_their_answers_and_the_service_goes_on(serve):
    server = serve("--write-key", "right")
    ok = orjson.dumps({"batch": [event(1)]})
    right = {"Authorization": "Bearer right"}
    assert server.request("POST", "/v1/batch", ok)[0] == 401
    assert server.request("POST", "/v1/batch", ok[:-1], **right)[0] == 400
    assert server.request("POST", "/v1/batch", b"x" * 600_000, **right)[0] == 413
    bomb = gzip.compress(b" " * 50_000_000)
    assert server.request("POST", "/v1/batch", bomb, **right, Content_Encoding="gzip")[0] == 413
    assert server.request("POST", "/v1/batch", ok, **right, Content_Encoding="br")[0] == 415
    assert server.request("POST", "/v1/batch", ok, **right)[0] == 200
    for path in ("/v1/query/trends", "/v1/query/sql"):
        for body in (b"", b"[]", b"{", b"{}", b'{"query": 7}'):
            status, answer = server.request("POST", path, body)
            assert (status, answer["success"]) == (400, False)
    assert server.request("GET", "/healthz")[0] == 200
    assert b"eventmill_events_accepted_total" in server.request("GET", "/metrics")[1]


def test_two_engines_never_share_a_folder_and_mistakes_are_told_in_a_line(serve, tmp_path):
    server = serve()
    second = eventmill("serve", "--data", str(server.data), "--port", "0")
    assert second.returncode == 2
    assert b"another eventmill process holds" in second.stderr
    for arguments, says in (
        (("audit", "--data", str(tmp_path / "nowhere")), b"no data folder"),
        (("serve", "--data", str(tmp_path / "x"), "--port", server.url.rsplit(":", 1)[1]), b"choose another --port"),
        (("serve", "--config", str(tmp_path / "none.toml")), b"cannot read"),
        (("generate", "--events", "1"), b"--url"),
        (("generate", "--events", "1", "--url", "ftp://x"), b"http://"),
        (("generate", "--events", "1", "--url", "http://x", "--span", "soon"), b"--span"),
    ):
        done = eventmill(*arguments)
        assert done.returncode == 2
        assert says in done.stderr
        assert b"Traceback" not in done.stderr


def ingest_workers(server):
    """Their process ids."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def test_two_workers_share_the_port_and_a_dead_one_is_replaced(serve):
    server = serve("--workers", "2")
    for number in range(20):
        assert server.post("/v1/track", event(number))[0] == 200
    workers = ingest_workers(server)
    assert len(workers) == 2
    os.kill(min(workers), signal.SIGKILL)
    (replacement,) = eventually(lambda: len(ingest_workers(server)) == 2 and ingest_workers(server) - workers)
    assert replacement > 0
    eventually(lambda: "starting another" in (server.data / "messages.txt").read_text())
    for number in range(20, 40):
        assert server.post("/v1/track", event(number))[0] == 200
    server.flush()
    assert server.sql("SELECT count() FROM events") == [[40]]
    assert server.stop() == 0


@pytest.mark.parametrize("events", [20_000])
def test_demo_proves_itself(tmp_path, events):
    done = eventmill("demo", "--events", str(events), "--seed", "5", "--data", str(tmp_path / "demo"), "--json")
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    report = orjson.loads(done.stdout)
    assert report["sent"] == events
    assert report["lost"] == report["doubled"] == report["phantom"] == report["corrupt"] == 0
    assert report["balanced"] is True
    assert report["stored_realtime"] == report["stored_lake"] == report["unique"]
    assert report["accepted"] == report["unique"] + report["duplicates"]
    assert {"events_per_second", "e2e_seconds_p50", "e2e_seconds_p99"} <= set(report)


def test_keys_keep_askers_out_and_the_tools_on_the_spot_need_none(serve):
    server = serve(EVENTMILL_ACCESS__READ_KEYS="reader", EVENTMILL_ACCESS__ADMIN_KEYS="admin")
    assert server.request("POST", "/v1/batch", orjson.dumps({"batch": [event(1)]}))[0] == 200
    server.flush()
    question, kind = orjson.dumps({"query": "SELECT event FROM events"}), {"Content_Type": "application/json"}
    answers = {}
    for key in ("", "other", "reader", "admin"):
        given = {"Authorization": f"Bearer {key}", **kind}
        asked, changed = (
            server.request("POST", path, body, **given)[0]
            for path, body in (("/v1/query/sql", question), ("/v1/replay", b"{}"))
        )
        answers[key] = asked, changed, server.request("GET", "/v1/status", **given)[0]
    assert answers == {"": (401,) * 3, "other": (401,) * 3, "reader": (200, 403, 200), "admin": (200,) * 3}
    assert [server.request("GET", path)[0] for path in ("/", "/healthz", "/metrics")] == [200] * 3
    assert orjson.loads(eventmill("audit", "--data", str(server.data), "--json").stdout)["balanced"]
