"""Dead letters, backfill and schema checks on three real brokers, roles apart: what the embedded log does, Kafka does too."""

from __future__ import annotations

import contextlib
import urllib.request
import uuid

import orjson
import pyarrow as pa
import pytest

from eventmill.core import frame, groups
from eventmill.core.config import load
from eventmill.core.errors import EventmillError
from eventmill.core.schema import DEAD, Topic
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from eventmill.process.replay import Patch, Rules, Wanted, replay_dead
from faults.role import Role
from serving import eventmill, eventually

PARTITIONS = 3
WAIT_S = 60
STRICT = {"type": "object", "required": ["price"], "properties": {"price": {"type": "number", "minimum": 0}}}


class House:
    """An ingest, two processors and a sink, with a folder of schemas that all see."""

    def __init__(self, kafka, folder):
        self.folder, self.kafka = folder, kafka
        self.environ = {
            "EVENTMILL_LOG__PREFIX": f"d{uuid.uuid4().hex[:8]}", "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
            "EVENTMILL_KAFKA__PARTITIONS": str(PARTITIONS), "EVENTMILL_DEDUP__CAPACITY": "10000000",
            "EVENTMILL_PROCESS__SNAPSHOTS": str(folder / "snapshots"), "EVENTMILL_SCHEMAS__FOLDER": str(folder / "schemas"),
            "EVENTMILL_SCHEMAS__REFRESH_INTERVAL": "100ms", "EVENTMILL_DATA": str(folder / "sink"),
        }  # fmt: skip
        self.config = load(environ=self.environ)
        topics.create(self.config)
        self.roles = {
            name: Role(
                [name.rstrip("2"), "--port", "0", "--data", str(folder / name)], folder / f"{name}.txt", self.environ
            )
            for name in ("ingest", "process", "process2", "sink")
        }

    def start(self):
        for role in self.roles.values():
            role.start()

    def ask(self, name, method, path, body=None):
        request = urllib.request.Request(
            self.roles[name].url + path, None if body is None else orjson.dumps(body), method=method,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return orjson.loads(answer.read())

    def command(self, *arguments, code=0):
        done = eventmill(*map(str, arguments), **self.environ)
        assert done.returncode == code, done.stderr.decode()
        return done.stdout

    def send(self, first, *prices):
        batch = [
            {
                "type": "track",
                "event": "purchase",
                "userId": f"u{n}",
                "messageId": f"m{n}",
                "properties": {"price": price},
            }
            for n, price in enumerate(prices, first)
        ]
        assert self.ask("ingest", "POST", "/v1/batch", {"batch": batch})["accepted"] == len(prices)

    def settle(self):
        assert self.ask("sink", "POST", "/v1/flush") == {"stored": True}
        audit = orjson.loads(self.command("audit", "--json"))  # over the socket in the sink's data folder
        assert audit["balanced"], audit
        return audit

    def stored(self):
        sql = {"query": "SELECT message_id, JSONExtractFloat(properties, 'price') FROM events ORDER BY message_id"}
        return dict(self.ask("sink", "POST", "/v1/query/sql", sql)["rows"])


@pytest.fixture
def house(kafka, tmp_path):
    made = House(kafka, tmp_path)
    yield made
    for role in made.roles.values():
        role.server.kill()


def letters(config):
    with contextlib.closing(KafkaLog(config)) as log:
        begin, end = log.committed(groups.REPLAY, Topic.DEAD, 0), log.end_offset(Topic.DEAD, 0)
        return frame.decode_all(
            log.read(Topic.DEAD, 0, begin, events_max=1 << 30, to_offset=end) if begin < end else [], DEAD
        ).to_pylist()


@pytest.mark.soak
def test_mended_letters_come_back_once_and_raw_is_processed_anew(house):
    house.start()
    house.send(0, *range(10), "10", "11", -12)
    house.settle()
    (house.folder / "strict.json").write_bytes(orjson.dumps(STRICT))
    checked = orjson.loads(
        house.command("schema", "check", house.folder / "strict.json", "--event", "purchase", "--json", code=1)
    )
    assert (checked["events"], checked["rejected"]) == (13, 3)  # of all partitions
    house.command("schema", "publish", house.folder / "strict.json", "--event", "purchase")
    number = iter(range(1_000, 100_000, 60))

    def judged():
        """Every partition's processor has the schema: of enough devices each gets one."""
        first = next(number)
        house.send(first, *["x"] * 60)
        house.settle()
        return not {f"m{n}" for n in range(first, first + 60)} & set(house.stored())

    eventually(judged)
    house.send(20, 20, "21", "22", -23)
    before = house.settle()["stores"]["lake"]["stored"]
    found = {letter["event_id"]: letter for letter in letters(house.config)}
    assert {letter["raw_partition"] for letter in found.values()} == set(range(PARTITIONS))
    assert all(letter["raw_offset"] >= 0 and letter["stage"] == "validate" for letter in found.values())
    patch = ("--patch", '.properties.price |= if . == "x" then . else tonumber end')
    dry = orjson.loads(house.command("replay", "--dead", "--dry-run", *patch, "--json"))
    assert (dry["read"], dry["replayed"]) == (len(found), 2)
    done = orjson.loads(house.command("replay", "--dead", "--since", "1h", "--reason", "schema", *patch, "--json"))
    assert done == dry
    audit = house.settle()
    assert audit["stores"]["lake"]["stored"] == audit["stores"]["realtime"]["stored"] == before + 2
    assert {name: house.stored()[name] for name in ("m20", "m21", "m22")} == {"m20": 20, "m21": 21, "m22": 22}
    again = orjson.loads(house.command("replay", "--dead", *patch, "--json"))
    assert (again["read"], again["replayed"]) == (len(found) - 2, 0)
    # The sink replays as well (the dashboard asks it to), under the same name.
    assert house.ask("sink", "POST", "/v1/replay", {"reasons": ["schema"]})["still_dead"] == len(found) - 2
    house.settle()
    fresh = house.folder / "fresh"
    report = orjson.loads(house.command("replay", "--raw", "--since", "1h", "--into", fresh, "--json"))
    # Those that were put back stand in raw twice more: the filter had seen their ids, so the look-up has put them back again.
    assert report["events"] == audit["received"] + 2 * done["replayed"]
    anew = orjson.loads(eventmill("audit", "--data", str(fresh), "--json").stdout)
    assert anew["balanced"], anew
    # Today's schema refuses the three that came before it was published.
    assert anew["stores"]["lake"]["stored"] == before + 2 - 3
    assert orjson.loads(house.command("trace", "m21", "--json"))["fate"] == "stored"


@pytest.mark.parametrize("moment", ["before it looks whether it is alone", "after that"])
def test_of_two_replays_at_once_one_is_an_error_and_each_letter_comes_back_once(house, moment):
    """The second begins when the first has read what it will put back, the worst moments."""
    config = house.config
    letter = {
        "reason": "schema", "detail": "d", "received_at": 1_795_000_000_000, "stage": "validate",
        "payload": b'{"type":"track","event":"e","userId":"u","messageId":"m"}',
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        first, second, processor = (
            stack.enter_context(contextlib.closing(KafkaLog(config, name=name))) for name in ("replay", "replay", "p")
        )
        with processor.transaction() as transaction:
            transaction.append([frame.encode(Topic.DEAD, pa.RecordBatch.from_pylist([letter], DEAD))])
        rules, put_back = Rules(config.ingest, config.http, patch=Patch(".")), []
        transaction_of, committed_of, looks = first.transaction, first.committed, []

        def other():
            put_back.append(replay_dead(second, rules, Wanted()).replayed)

        def transaction():
            if moment.startswith("before"):
                other()
            return transaction_of()

        def committed(*place):
            found = committed_of(*place)
            looks.append(found)
            if len(looks) == 2 and moment.startswith("after"):
                other()
            return found

        first.transaction, first.committed = transaction, committed
        with pytest.raises(EventmillError, match="another"):
            replay_dead(first, rules, Wanted())
        assert put_back == [1]
        ends = {each: second.next_offset(Topic.RAW, each) for each in range(PARTITIONS)}
        found = [
            stored
            for each, end in ends.items()
            for stored in (second.read(Topic.RAW, each, 0, events_max=9, to_offset=end) if end else [])
        ]
        assert sum(stored.events for stored in found) == 1
