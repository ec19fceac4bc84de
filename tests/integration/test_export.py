"""Everything of one user, from a running engine and from a stopped one."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow.parquet as pq

from serving import eventmill

MINE = 'user "one" \u00e4'


def event(number: int, user: str | None, **more: object) -> dict:
    base = {"type": "track", "event": f"Event {number % 2}", "messageId": f"id-{number}", "properties": {"n": number}}
    who = {"anonymousId": "device"} if user is None else {"userId": user}
    return {**base, **who, "timestamp": "2026-11-22T10:00:00.250Z", "sentAt": "2026-11-22T10:00:01Z", **more}


def lines(text: bytes) -> list[dict]:
    return [orjson.loads(line) for line in text.splitlines()]


def test_a_user_gets_each_event_once_and_the_dead_letters_and_nobody_elses(serve, tmp_path: Path) -> None:
    server = serve()
    sent = [event(number, MINE if number % 3 == 0 else "another") for number in range(30)]
    sent += [event(90, None), event(91, MINE, event=7), event(92, "another", event=7)]
    for _ in range(2):  # a retry of all
        assert server.post("/v1/batch", {"batch": sent})[0] == 200
    done = eventmill("export", "--user", MINE, "--data", str(server.data))  # nothing was waited for
    assert done.returncode == 0, done.stderr
    events = [line["event"] for line in lines(done.stdout) if "event" in line]
    assert sorted(one["message_id"] for one in events) == sorted(f"id-{number}" for number in range(0, 30, 3))
    assert {one["user_id"] for one in events} == {MINE}
    first = next(one for one in events if one["message_id"] == "id-3")
    assert (first["event"], first["properties"], first["type"]) == ("Event 1", {"n": 3}, "track")
    assert first["original_timestamp"] == "2026-11-22T10:00:00.250Z"
    letters = [line["dead_letter"] for line in lines(done.stdout) if "dead_letter" in line]
    assert [(one["reason"], one["payload"]["userId"]) for one in letters] == [("wrong_field_type", MINE)] * 2

    server.engine("POST", "/v1/compact")
    assert server.post("/v1/batch", {"batch": [event(33, MINE)]})[0] == 200
    assert server.stop() == 0
    file = tmp_path / "out.parquet"
    done = eventmill("export", "--user", MINE, "--data", str(server.data), "--out", str(file), "--json")
    assert (done.returncode, orjson.loads(done.stdout)) == (0, {"events": 11, "dead_letters": 2})
    assert sorted(pq.read_table(file).column("message_id").to_pylist()) == sorted(
        [f"id-{number}" for number in range(0, 36, 3) if number != 30]
    )
    dead = tmp_path / "out.dead.parquet"
    assert pq.read_table(dead).num_rows == 2
    assert {path.stat().st_mode & 0o777 for path in (file, dead)} == {0o600}
    nobody = eventmill("export", "--user", "nobody", "--data", str(server.data), "--out", str(tmp_path / "x.ndjson"))
    assert (nobody.returncode, (tmp_path / "x.ndjson").read_bytes()) == (0, b"")
    assert MINE.encode() not in nobody.stderr + done.stderr


def test_an_export_that_would_lack_events_is_refused(serve, tmp_path: Path) -> None:
    server = serve(EVENTMILL_LAKE__BATCH_INTERVAL="1h")
    assert server.post("/v1/batch", {"batch": [event(1, MINE)]})[0] == 200
    server.kill()
    out = tmp_path / "out.ndjson"
    done = eventmill("export", "--user", MINE, "--data", str(server.data), "--out", str(out))
    assert (done.returncode, b"not stored yet" in done.stderr, out.exists()) == (2, True, False)
    unwritable = eventmill("export", "--user", MINE, "--data", str(server.data), "--json")
    assert (unwritable.returncode, b"--out" in unwritable.stderr) == (2, True)
