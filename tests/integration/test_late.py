"""Events that come late stand where they belong: in both stores, in every roll-up, and in the session of their time."""

from __future__ import annotations

import datetime

import orjson

from eventmill.core.clock import now_ms
from eventmill.core.config import load
from eventmill.serve.stores import Stores
from serving import eventmill

HOURS = (0, 1, 24, 71, 73)
MINUTE_MS = 60_000


def iso(at: int) -> str:
    return datetime.datetime.fromtimestamp(at / 1000, datetime.UTC).isoformat(timespec="milliseconds")


def test_late_events_end_in_the_bucket_of_their_time(serve) -> None:
    server = serve()
    now = now_ms()
    times = {f"{hours}-{nth}": now - hours * 3_600_000 - nth * 1_000 for hours in HOURS for nth in range(3)}
    for one, at in times.items():  # each by itself, the oldest last
        event = {"type": "track", "event": "Tick", "messageId": one, "userId": "u", "anonymousId": "device"}
        sent = {"batch": [{**event, "timestamp": iso(at), "context": {"device": {"id": "device"}}}]}
        assert server.post("/v1/batch", sent)[0] == 200
    assert server.engine("POST", "/v1/flush") == {"stored": True}
    said, done = (server.engine("POST", f"/v1/compact{how}") for how in ("?dry_run=1", ""))
    assert (said["snapshot_id"], said["rows_read"]) == (None, len(times))
    assert {name: done[name] for name in said if name != "snapshot_id"} == {
        name: value for name, value in said.items() if name != "snapshot_id"
    }
    assert server.stop() == 0
    planned = eventmill("compact", "--dry-run", "--data", str(server.data), "--json")
    assert (planned.returncode, orjson.loads(planned.stdout)["files_read"]) == (0, 0)
    compacted = eventmill("compact", "--data", str(server.data))
    assert (compacted.returncode, b"files read" in compacted.stdout) == (0, True), compacted.stderr
    stores = Stores(load(None, overrides={"data": server.data}))
    try:
        ask = stores.realtime.query_arrow
        sql = "SELECT message_id, toUnixTimestamp64Milli(timestamp) FROM eventmill.events"
        realtime = dict(zip(*(column.to_pylist() for column in ask(sql).columns), strict=True))
        table = stores.lake.load().scan().to_arrow()
        lake = {
            row["message_id"]: round(row["timestamp"].timestamp() * 1000)
            for row in table.select(["message_id", "timestamp"]).to_pylist()
        }
        assert realtime == lake == times
        assert all(row["event_date"] == row["timestamp"].date() for row in table.to_pylist())
        minutes: dict[int, int] = {}
        for at in times.values():
            minutes[at // MINUTE_MS * 60] = minutes.get(at // MINUTE_MS * 60, 0) + 1
        sql = "SELECT toUnixTimestamp(minute), sum(events) FROM eventmill.events_1m GROUP BY 1"
        assert dict(zip(*(column.to_pylist() for column in ask(sql).columns), strict=True)) == minutes
        assert ask("SELECT sum(events) FROM eventmill.sessions").column(0)[0].as_py() == len(times)
        # In the lake a session is a visit, whatever came when.
        visits = {}
        for row in table.select(["message_id", "session_id"]).to_pylist():
            visits.setdefault(row["message_id"].partition("-")[0], set()).add(row["session_id"])
        assert all(len(ids) == 1 for ids in visits.values())
        assert len(set.union(*visits.values())) == len(HOURS)
        assert stores.audit().balanced
    finally:
        stores.close()
