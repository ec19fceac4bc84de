"""Dimensions of a running service: from Redis that goes and comes, from a file that changes, and the commands."""

from __future__ import annotations

import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from eventmill.cli.main import main
from serving import eventually

UNKNOWN = 64
HOSTILE = "it's\\') OR 1=1 --"


def event(number, user, device=None):
    return {
        "type": "track", "event": "purchase", "userId": user, "anonymousId": device or f"d{number}",
        "messageId": f"m{number:04}", "context": {"os": {"name": "iOS"}},
    }  # fmt: skip


def send(server, *events):
    assert server.post("/v1/batch", {"batch": events})[0] == 200
    server.flush()


def stored(server, table, condition="1"):
    rows = server.sql(
        f"SELECT message_id, country, segment, tier, flags FROM {table} WHERE {condition} ORDER BY message_id"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text(
        'user_id,country,segment,tier\nu1,DE,new,gold\nu2,FR,loyal,\n007,US,,\n"' + HOSTILE + '",BR,"a\'b\\",x\n'
    )
    return path


def dimensions(*arguments, **environ):
    """A command, run to its end in this process."""
    return CliRunner().invoke(main, ["dimensions", *map(str, arguments)], env=environ)


def load(users, redis, *arguments):
    return dimensions("load", users, *arguments, EVENTMILL_DIMENSIONS__REDIS=redis.url)


def test_events_of_an_outage_are_put_right_in_both_stores_once(serve, redis, users):
    assert load(users, redis).exit_code == 0
    redis.kill()
    server = serve(
        EVENTMILL_DIMENSIONS__REDIS=redis.url, EVENTMILL_DIMENSIONS__BREAKER_PAUSE="10ms",
        EVENTMILL_DIMENSIONS__BREAKER_ERRORS="1", EVENTMILL_DIMENSIONS__NEGATIVE_TTL="1ms",
    )  # fmt: skip
    ids = ["u1", "u2", "007", HOSTILE, "nobody"]
    send(server, *[event(number, ids[number % 5]) for number in range(50)], event(900, None, "anonymous"))
    send(server, *[event(number, ids[number % 5]) for number in range(50)])  # again: duplicates
    flagged = stored(server, "events", f"bitAnd(flags, {UNKNOWN}) != 0")
    assert sorted(flagged) == [f"m{number:04}" for number in range(50)]
    assert {row[:3] for row in flagged.values()} == {(None, None, None)}
    text = server.request("GET", "/metrics")[1].decode()
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("eventmill_dimension_"))
    assert float(counted["eventmill_dimension_unknown_total"]) == 50
    assert float(counted['eventmill_dimension_errors_total{kind="unanswered"}']) >= 1
    # Nobody knows anything yet: nothing changes.
    assert "dimensions_known" not in server.engine("POST", "/v1/compact")
    rolled = server.sql("SELECT sum(events), max(offset_max) FROM events_1m")

    redis.mend()
    assert load(users, redis).exit_code == 0
    number = iter(range(1_000, 9_000))
    eventually(lambda: known_at_once(server, next(number)))
    late = set(stored(server, "events", f"bitAnd(flags, {UNKNOWN}) != 0"))
    report = server.engine("POST", "/v1/compact")
    assert report["dimensions_known"] == len(late)
    assert report["enriched"] == len(late)
    wanted = {
        "u1": ("DE", "new", "gold"), "u2": ("FR", "loyal", None), "007": ("US", None, None),
        HOSTILE: ("BR", "a'b\\", "x"), "nobody": (None, None, None),
    }  # fmt: skip
    for table in ("events", "lake.events"):
        rows = stored(server, table)
        for at in range(50):
            assert rows[f"m{at:04}"][:3] == wanted[ids[at % 5]], (table, at)
        assert not [row for row in rows.values() if row[3] & UNKNOWN]
        assert rows["m0900"][:3] == (None, None, None)
    after = server.sql("SELECT sum(events), max(offset_max) FROM events_1m")
    events = server.sql("SELECT count() FROM events")[0][0]
    assert after[0][0] == events
    assert rolled[0][0] == 51
    again = server.engine("POST", "/v1/compact")
    assert "dimensions_known" not in again
    audit = server.engine("GET", "/v1/audit")
    assert audit["balanced"]
    assert audit["stores"]["realtime"]["stored"] == audit["stores"]["lake"]["stored"] == events


def known_at_once(server, number):
    send(server, event(number, "u1"))
    return stored(server, "events", f"message_id = 'm{number:04}'")[f"m{number:04}"][0] == "DE"


def test_a_restart_folds_without_redis(serve, redis, users, tmp_path):
    assert load(users, redis).exit_code == 0
    environ = {"EVENTMILL_DIMENSIONS__REDIS": redis.url}
    server = serve(**environ)
    send(server, *[event(number, "u1", "device") for number in range(20)])
    server.kill()
    redis.kill()
    server = serve(data=tmp_path / "data", **environ)
    send(server, *[event(number, "u1", "device") for number in range(25)])
    rows = stored(server, "events")
    assert len(rows) == 25
    assert [name for name, row in rows.items() if row[3] & UNKNOWN] == [f"m{number:04}" for number in range(20, 25)]
    assert server.sql("SELECT uniqExact(session_id) FROM events") == [[1]]
    assert server.engine("GET", "/v1/audit")["balanced"]


def test_the_file_is_filled_by_load_and_its_strangers_are_put_right(serve, tmp_path, users):
    file = tmp_path / "dimensions.parquet"
    environ = {"EVENTMILL_DIMENSIONS__FILE": str(file), "EVENTMILL_DIMENSIONS__TTL": "10ms"}
    first = tmp_path / "first.parquet"
    pyarrow.parquet.write_table(
        pa.table({"tier": ["gold"], "user_id": ["u9"], "segment": ["new"], "country": ["SE"], "more": [1]}), first
    )
    assert dimensions("load", str(first), **environ).exit_code == 0
    server = serve(**environ)
    send(server, event(1, "u9"), event(2, "u1"))
    assert {name: (*row[:3], row[3] & UNKNOWN) for name, row in stored(server, "events").items()} == {
        "m0001": ("SE", "new", "gold", 0),
        "m0002": (None, None, None, UNKNOWN),
    }
    assert "dimensions_known" not in server.engine("POST", "/v1/compact")
    assert dimensions("load", str(users), **environ).exit_code == 0
    number = iter(range(1_000, 9_000))
    eventually(lambda: known_at_once(server, next(number)))
    assert server.engine("POST", "/v1/compact")["dimensions_known"] >= 1
    for table in ("events", "lake.events"):
        rows = stored(server, table)
        assert rows["m0002"][:3] == ("DE", "new", "gold")
        assert rows["m0001"][:3] == ("SE", "new", "gold")


def test_load_and_get(redis, users, tmp_path):
    dry = load(users, redis, "--dry-run", "--json")
    assert orjson.loads(dry.stdout) == {"users": 4, "target": "redis", "written": False}
    environ = {"EVENTMILL_DIMENSIONS__REDIS": redis.url}

    def get(user, **other):
        done = dimensions("get", user, "--json", **(other or environ))
        return done.exit_code, orjson.loads(done.stdout) if done.stdout else done.stderr

    assert get("u1") == (1, None)
    assert load(users, redis, "--ttl", "1h").stdout == "4 users went to redis\n"
    assert get("u1") == (0, {"country": "DE", "segment": "new", "tier": "gold"})
    assert get("007") == (0, {"country": "US", "segment": None, "tier": None})
    assert get(HOSTILE)[1]["country"] == "BR"
    for suffix in ("ndjson", "arrow", "parquet"):
        file = {"EVENTMILL_DIMENSIONS__FILE": str(tmp_path / f"kept.{suffix}")}
        assert dimensions("load", str(users), **file).exit_code == 0
        assert get("u2", **file) == (0, {"country": "FR", "segment": "loyal", "tier": None})
        assert get("u3", **file) == (1, None)
    for done, says in (
        (dimensions("load", str(users)), "nowhere to load to"),
        (dimensions("get", "u1"), "nothing to ask"),
        (load(users, redis, "--ttl", "soon"), "--ttl"),
        (dimensions("load", str(users), "--ttl", "1h", **file), "for Redis"),
    ):
        assert done.exit_code == 2
        assert says in done.stderr
        assert done.exc_info[0] is SystemExit
    redis.kill()
    code, message = get("u1")
    assert code == 2
    assert "Redis does not answer" in message
