"""The log on Kafka: what the embedded log promises, on three real brokers."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.request
import uuid
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from eventmill.core import frame, groups
from eventmill.core.config import load
from eventmill.core.errors import ConfigError, FrameError, LogUnavailable, StateError
from eventmill.core.log import Count, Frame, Intent
from eventmill.core.schema import EVENT, REJECT, SCHEMAS, Hop, Topic
from eventmill.kernels.partition import by_key
from eventmill.log.kafka import clients, feed, topics
from eventmill.log.kafka.clients import common
from eventmill.log.kafka.log import KafkaLog
from eventmill.observe.trace import trace
from eventmill.serve.place import in_lake
from faults.role import Role
from serving import eventmill, eventually

PARTITIONS = 3
WAIT_S = 60


@pytest.fixture
def config(kafka):
    """Topics of its own for each test."""
    settings = {
        "log.prefix": f"t{uuid.uuid4().hex[:8]}",
        "kafka.bootstrap": kafka.bootstrap,
        "kafka.partitions": PARTITIONS,
    }
    made = load(environ={}, overrides=settings)
    topics.create(made)
    return made


@pytest.fixture
def open_log(config):
    opened: list[KafkaLog] = []

    def make(name=None):
        opened.append(KafkaLog(config, name=name))
        return opened[-1]

    yield make
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log):
    return open_log("test")


def put(log, *payloads, topic=Topic.RAW, partition=0, events=1, counts=()):
    with log.transaction() as transaction:
        offsets = transaction.append(
            [Frame(topic, payload, events, None, {"schema": "1"}, partition, counts) for payload in payloads]
        )
    return offsets


def payloads(frames):
    return [stored.payload for stored in frames]


def test_frames_come_back_in_order_with_headers_and_offsets(open_log):
    ingest, reader = open_log(), open_log()
    assert put(ingest, b"a", b"b", events=7) == [0, 1]
    assert put(ingest, b"c", partition=2) == [0]
    found = reader.read(Topic.RAW, 0, 1, events_max=100, to_offset=2)
    assert [(each.offset, each.payload, each.events, each.headers["schema"]) for each in found] == [(1, b"b", 7, "1")]
    assert [reader.end_offset(Topic.RAW, each) for each in reader.partitions(Topic.RAW)] == [2, 0, 1]
    assert len(reader.partitions(Topic.DEAD)) == 1


def test_reading_stops_at_the_event_limit_and_goes_back_when_asked(log):
    put(log, b"a", b"b", b"c", events=10)
    assert payloads(log.read(Topic.RAW, 0, 0, events_max=1, to_offset=3)) == [b"a"]
    assert payloads(log.read(Topic.RAW, 0, 1, events_max=11, to_offset=3)) == [b"b", b"c"]
    assert payloads(log.read(Topic.RAW, 0, 0, events_max=100, to_offset=3)) == [b"a", b"b", b"c"]
    assert log.read(Topic.RAW, 0, 3, events_max=100) == []


def test_waiting_sees_all_partitions_and_lingers_for_more(log):
    positions = dict.fromkeys(log.partitions(Topic.RAW), 0)
    assert not log.wait(Topic.RAW, positions, 0.0)
    late = threading.Timer(0.3, lambda: put(log, b"later", partition=2, events=5))
    put(log, b"first", partition=1, events=5)
    late.start()
    assert log.wait(Topic.RAW, positions, WAIT_S, events_max=10, linger_s=WAIT_S)
    late.join()
    assert payloads(log.read(Topic.RAW, 2, 0, events_max=1)) == [b"later"]
    assert payloads(log.read(Topic.RAW, 1, 0, events_max=1)) == [b"first"]


def test_small_frames_that_lie_there_are_taken_together_without_lingering(log):
    """As the rescue lane takes suspects: one frame a step would be too slow for it."""
    written = [b"%d" % number for number in range(40)]
    put(log, *written, topic=Topic.SUSPECTS)
    assert log.wait(Topic.SUSPECTS, {0: 0}, WAIT_S, events_max=len(written))
    assert payloads(log.read(Topic.SUSPECTS, 0, 0, events_max=len(written))) == written


def test_a_transaction_is_visible_whole_or_not_at_all(log):
    def fail():
        with log.transaction() as transaction:
            transaction.append([Frame(Topic.ENRICHED, b"never", 1)])
            transaction.commit_offset("rescue", Topic.SUSPECTS, 0, 5)
            raise RuntimeError("in the midst")

    with pytest.raises(RuntimeError, match="in the midst"):
        fail()
    assert log.end_offset(Topic.ENRICHED, 0) == 0
    with log.transaction() as transaction:
        offsets = transaction.append([Frame(Topic.ENRICHED, b"x", 3), Frame(Topic.ENRICHED, b"y", 4, partition=1)])
        transaction.commit_offset("rescue", Topic.SUSPECTS, 0, 5)
        transaction.count([Count(Hop.ENRICHED, 0, 7)])
    assert offsets == [0, 0]
    assert log.committed("rescue", Topic.SUSPECTS, 0) == 5
    eventually(lambda: log.ledger() == [Count(Hop.ENRICHED, 0, 7)])


def test_a_second_process_of_the_same_name_fences_the_first(open_log):
    first = open_log("one")
    put(first, b"a", topic=Topic.ENRICHED)
    second = open_log("one")
    put(second, b"b", topic=Topic.ENRICHED)
    with pytest.raises(LogUnavailable, match="transaction failed"):
        put(first, b"zombie", topic=Topic.ENRICHED)
    assert payloads(
        second.read(Topic.ENRICHED, 0, 0, events_max=9, to_offset=second.next_offset(Topic.ENRICHED, 0))
    ) == [b"a", b"b"]


def test_the_marks_of_transactions_are_no_lag(log):
    for payload in (b"a", b"b"):
        put(log, payload, topic=Topic.ENRICHED, events=5)
    # The brokers may write a transaction's mark a moment after it is committed.
    eventually(lambda: log.lag("realtime", Topic.ENRICHED, 0) == 10)
    assert log.lag_seconds("realtime", Topic.ENRICHED, 0) >= 0
    last = log.read(Topic.ENRICHED, 0, 0, events_max=99, to_offset=log.end_offset(Topic.ENRICHED, 0))[-1].offset
    assert not log.wait_consumed([("realtime", Topic.ENRICHED)], 0.0)
    with log.transaction() as transaction:
        transaction.commit_offset("realtime", Topic.ENRICHED, 0, last + 1)
    end = log.end_offset(Topic.ENRICHED, 0)
    assert end > last + 1
    assert log.lag("realtime", Topic.ENRICHED, 0) == 0
    assert log.wait_consumed([("realtime", Topic.ENRICHED)], WAIT_S)
    assert log.wait_committed("realtime", Topic.ENRICHED, {0: end}, WAIT_S)
    assert not log.wait_committed("lake", Topic.ENRICHED, {0: end}, 0.0)


def test_intents_are_kept_with_the_committed_offset(open_log):
    log = open_log("sink")
    with log.transaction() as transaction:
        transaction.put_intent(Intent("realtime", Topic.ENRICHED, 1, 3, 7))
        transaction.put_intent(Intent("realtime", Topic.ENRICHED, 2, 0, 4))
    after_a_crash = open_log("sink")
    assert after_a_crash.intent("realtime", Topic.ENRICHED, 0) is None
    assert after_a_crash.intent("realtime", Topic.ENRICHED, 1) == Intent("realtime", Topic.ENRICHED, 1, 3, 7)
    assert after_a_crash.committed("realtime", Topic.ENRICHED, 1) == 3
    with after_a_crash.transaction() as transaction:
        for partition, end in ((1, 7), (2, 4)):
            transaction.commit_offset("realtime", Topic.ENRICHED, partition, end)
            transaction.clear_intent("realtime", Topic.ENRICHED, partition)
    assert [log.intent("realtime", Topic.ENRICHED, each) for each in range(3)] == [None, None, None]
    assert log.committed("realtime", Topic.ENRICHED, 2) == 4


def test_the_ledger_adds_up_over_runs_and_frames(open_log):
    hour = 3_600_000
    put(open_log(), b"in flight", events=2, counts=(Count(Hop.RECEIVED, hour, 2), Count(Hop.ACCEPTED, hour, 2)))
    put(open_log(), b"bad", topic=Topic.DEAD, counts=(Count(Hop.RECEIVED, 0, 1), Count(Hop.REJECTED, 0, 1, "too_deep")))
    for run in range(2):
        log = open_log("counting")  # each is a run of its own, as after a crash
        for _ in range(3):
            with log.transaction() as transaction:
                transaction.count([Count(Hop.ENRICHED, hour, 10 + run), Count(Hop.SUSPECT, 0, 1)])
    reader = open_log()

    def sums():
        found: dict[tuple[str, int, str], int] = {}
        for count in reader.ledger():
            key = count.hop, count.hour, count.reason
            found[key] = found.get(key, 0) + count.events
        return found

    wanted = {
        (Hop.RECEIVED, hour, ""): 2, (Hop.ACCEPTED, hour, ""): 2,
        (Hop.RECEIVED, 0, ""): 1, (Hop.REJECTED, 0, "too_deep"): 1,
        (Hop.ENRICHED, hour, ""): 63, (Hop.SUSPECT, 0, ""): 6,
    }  # fmt: skip
    eventually(lambda: sums() == wanted)


@contextlib.contextmanager
def log_closed_after(log):
    try:
        yield log
    finally:
        log.close()


def test_pressure_names_the_setting(config, open_log, kafka):
    tight = load(
        environ={},
        overrides={
            "log.prefix": config.log.prefix, "kafka.bootstrap": kafka.bootstrap, "log.backlog_events_max": 10,
            "kafka.partitions": PARTITIONS,
        },
    )  # fmt: skip
    log = KafkaLog(tight)
    try:
        put(log, b"a", events=11)
        assert "log.backlog_events_max" in eventually(log.pressure)
    finally:
        log.close()
    with log_closed_after(KafkaLog(tight)) as reader, reader.transaction() as transaction:
        transaction.commit_offset("process", Topic.RAW, 0, 1)
    with log_closed_after(KafkaLog(tight)) as again:
        put(again, b"b", events=5)
        assert again.pressure() is None


def test_what_is_not_in_the_log_is_an_alarm(log, kafka, config, monkeypatch):
    monkeypatch.setattr(clients, "REQUEST_S", 1.0)
    with pytest.raises(StateError, match="no longer holds offset 99"):
        log.read(Topic.RAW, 0, 99, events_max=1, to_offset=100)
    foreign(kafka, f"{config.log.prefix}.enriched", b"{}")
    with pytest.raises(FrameError, match="only raw takes the messages of others"):
        log.read(Topic.ENRICHED, 1, 0, events_max=1, to_offset=1)


def test_a_broker_that_lags_behind_is_no_alarm(log, monkeypatch):
    """It says that an offset is out of range; who leads by now has it. Here the offset is written in between."""
    put(log, b"a")  # and the mark of its transaction
    said = threading.Event()
    checked = clients.outside

    def outside(*arguments):
        said.set()
        checked(*arguments)

    monkeypatch.setattr(feed, "outside", outside)
    later = threading.Thread(target=lambda: said.wait(WAIT_S) and put(log, b"b", b"c"))
    later.start()
    with pytest.raises(LogUnavailable, match="lags behind"):
        log.read(Topic.RAW, 0, 3, events_max=1, to_offset=4)
    later.join()
    assert payloads(log.read(Topic.RAW, 0, 3, events_max=1, to_offset=4)) == [b"c"]


def foreign(kafka, topic, *values, partition=1):
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(WAIT_S) == 0


def test_json_messages_of_others_are_taken_or_refused_with_a_reason(log, kafka, config):
    event = b'{"type": "track", "event": "Opened", "userId": "u1", "messageId": "m1"}'
    batch = b'{"batch": [%s, {"type": "nope"}]}' % event
    foreign(kafka, f"{config.log.prefix}.raw", event, batch, b"no JSON at all", b"[1]")
    frames = log.read(Topic.RAW, 1, 0, events_max=99, to_offset=4)
    assert [stored.events for stored in frames] == [1, 1, 0, 0]
    rows = frame.decode(frames[0]).to_pylist()
    assert [(row["event"], row["user_id"], row["message_id"]) for row in rows] == [("Opened", "u1", "m1")]
    assert rows[0]["received_at"].timestamp() * 1000 == frames[0].appended_at
    assert [stored.rejects and stored.rejects.size for stored in frames] == [None, 1, 1, 1]
    refused = frame.gather([stored.rejects for stored in frames[1:]], REJECT).to_pylist()
    assert [(row["reason"], row["payload"]) for row in refused] == [
        ("unknown_type", b'{"type": "nope"}'), ("not_an_object", b"no JSON at all"), ("not_an_object", b"[1]"),
    ]  # fmt: skip
    totals: dict[str, int] = {}
    for count in log.ledger():
        totals[count.hop] = totals.get(count.hop, 0) + count.events
    assert totals == {Hop.RECEIVED: 5, Hop.ACCEPTED: 2, Hop.REJECTED: 3}
    traced = trace("m1", log, lambda _: [], lambda _: [])
    assert [(hop["hop"], hop["partition"], hop["offset"]) for hop in traced["hops"]] == [("raw", 1, 0), ("raw", 1, 1)]
    assert traced["fate"] == "in flight"


def test_topics_are_checked(config, kafka):
    prefix = config.log.prefix
    # Each broker hears of new topics by itself, so for a moment one may not know the last of them.
    eventually(lambda: [finding.problem for finding in topics.check(config)] == [""] * len(topics.wanted(config)))
    assert topics.create(config) == []
    resource = ConfigResource(ResourceType.TOPIC, f"{prefix}.dead")
    resource.add_incremental_config(ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET))
    kafka.admin.incremental_alter_configs([resource])[resource].result(WAIT_S)
    eventually(lambda: any(finding.problem for finding in topics.check(config)))
    environ = {
        "EVENTMILL_LOG__PREFIX": prefix, "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "EVENTMILL_KAFKA__PARTITIONS": str(PARTITIONS + 1),
    }  # fmt: skip
    checked = eventmill("topics", "check", **environ)
    said = " ".join(re.sub(r"[│┃]", " ", checked.stderr.decode()).split())
    assert checked.returncode == 1
    assert "retention.ms is 1000" in said
    assert "it has 3 partitions, 4" in said
    assert "`eventmill topics grow` adds them" in said
    made = eventmill("topics", "create", "--json", **environ)
    assert (made.returncode, orjson.loads(made.stdout)) == (0, {"done": []})


def test_a_role_without_brokers_or_topics_says_what_to_do(kafka, tmp_path):
    alone = eventmill("process", "--data", str(tmp_path), "--port", "0")
    assert alone.returncode == 2
    assert b"kafka.bootstrap" in alone.stderr
    nowhere = {"EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap, "EVENTMILL_LOG__PREFIX": "absent"}
    lost = eventmill("process", "--data", str(tmp_path), "--port", "0", **nowhere)
    assert lost.returncode == 2
    assert b"eventmill topics create" in lost.stderr
    assert b"Traceback" not in alone.stderr + lost.stderr


@pytest.mark.parametrize("text", ["no equals", "enable.idempotence=false", "isolation.level=read_uncommitted"])
def test_properties_that_would_break_a_promise_are_refused(text):
    with pytest.raises(ConfigError, match=r"kafka\.properties"):
        common(load(environ={}, overrides={"kafka.bootstrap": "b:1", "kafka.properties": (text,)}).kafka)


def test_a_foreign_consumer_reads_frames_as_the_docs_say(log, kafka, config):
    text = (Path(__file__).parents[2] / "docs" / "kafka.md").read_text()
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    batch = pa.RecordBatch.from_pylist([{"from_offset": 1, "digest": "d", "content": b"c"}], SCHEMAS)
    with log.transaction() as transaction:
        transaction.append([frame.encode(Topic.ENRICHED, batch)])
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap, "group.id": "foreign", "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )  # fmt: skip
    try:
        consumer.subscribe([f"{config.log.prefix}.enriched"])
        message = consumer.poll(WAIT_S)
        assert names["events"](message).to_pylist() == batch.to_pylist()
        assert dict(message.headers())["content-type"] == b"application/vnd.apache.arrow.stream"
    finally:
        consumer.close()


def test_processors_take_what_others_write_and_mirror_what_they_make(kafka, tmp_path):
    """One role of each, one event from a foreign producer, one bad message: into the stores, the mirror, the dead letters."""
    prefix = f"t{uuid.uuid4().hex[:8]}"
    environ = {
        "EVENTMILL_LOG__PREFIX": prefix, "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "EVENTMILL_KAFKA__PARTITIONS": "2", "EVENTMILL_KAFKA__MIRROR": f"{prefix}.json",
    }  # fmt: skip
    topics.create(load(environ=environ))
    event = {"type": "track", "event": "Opened", "userId": "u1", "messageId": "m1", "properties": {"n": 1.5}}
    # All in one partition, as if they were keyed by the event's name, and again in the other one, as no key would.
    others = [{**event, "userId": f"u{n}", "messageId": f"m{n}"} for n in range(2, 30)]
    foreign(kafka, f"{prefix}.raw", orjson.dumps(event), orjson.dumps(event), b"bad")
    foreign(kafka, f"{prefix}.raw", *map(orjson.dumps, others[:10]), orjson.dumps({"batch": others[10:]}))
    foreign(kafka, f"{prefix}.raw", *map(orjson.dumps, others), partition=0)
    roles = [
        Role([name, "--port", "0", "--data", str(tmp_path / name)], tmp_path / f"{name}.txt", environ)
        for name in ("process", "sink")
    ]
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap, "group.id": prefix, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )  # fmt: skip
    try:
        for role in roles:
            role.start()
        consumer.subscribe([f"{prefix}.json"])
        mirrored = [message for message in consumer.consume(29, WAIT_S) if message.error() is None]
        assert sorted(orjson.loads(message.value())["message_id"] for message in mirrored) == sorted(
            f"m{n}" for n in range(1, 30)
        )
        (message,) = [each for each in mirrored if orjson.loads(each.value())["message_id"] == "m1"]
        made = orjson.loads(message.value())
        assert message.key() == made["device_id"].encode()
        assert (made["event"], made["properties"], made["message_id"]) == ("Opened", {"n": 1.5}, "m1")
        assert made["received_at"].endswith("Z")
        java = kafka.run(
            "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", kafka.bootstrap, "--topic",
            f"{prefix}.json", "--isolation-level", "read_committed", "--from-beginning", "--max-messages", "29",
        )  # fmt: skip
        assert made in [orjson.loads(line) for line in java.stdout.splitlines()], java.stderr
        with contextlib.closing(KafkaLog(load(environ=environ))) as log:
            for partition in range(2):
                end = log.end_offset(Topic.ENRICHED, partition)
                rows = frame.decode_all(log.read(Topic.ENRICHED, partition, 0, events_max=999, to_offset=end), EVENT)
                assert {where for where, _ in by_key(rows, "device_id", 2)} == {partition}

        def ask(method, path):
            headers = {"Content-Type": "application/json"}
            asked = urllib.request.Request(roles[1].url + path, method=method, headers=headers)
            with urllib.request.urlopen(asked, timeout=WAIT_S) as said:
                return orjson.loads(said.read())

        eventually(lambda: ask("GET", "/v1/status")["ledger"]["duplicate"] == 29)
        assert ask("POST", "/v1/flush") == {"stored": True}
        audit = ask("GET", "/v1/audit")
        assert audit["balanced"], audit
        assert (audit["received"], audit["accepted"], audit["dead"], audit["duplicates"]) == (59, 58, 1, 29)
        assert ask("GET", "/v1/trace/m1")["fate"] == "stored"
        assert [role.server.stop() for role in roles] == [0, 0]
    finally:
        consumer.close()
        for role in roles:
            role.server.kill()


def test_under_load_the_lake_is_waited_for_and_no_longer_than_it_takes(open_log):
    """The lake is always a little behind, and new frames never stop: what is flagged could never be put right."""
    log = open_log("sinks")

    def more(group, ends):
        with log.transaction() as transaction:
            for partition, end in ends.items():
                transaction.commit_offset(group, Topic.ENRICHED, partition, end)

    for partition in range(PARTITIONS):
        put(log, b"1", b"2", b"3", topic=Topic.ENRICHED, partition=partition)
    ends = {partition: log.end_offset(Topic.ENRICHED, partition) for partition in range(PARTITIONS)}
    more(groups.REALTIME, ends)
    more(groups.LAKE, {0: ends[0], 1: 1})
    put(log, b"new", topic=Topic.ENRICHED)
    assert in_lake(log, 0.0) == 0
    caught_up = threading.Timer(0.2, more, (groups.LAKE, {1: ends[1], 2: ends[2]}))
    caught_up.start()
    assert in_lake(log, WAIT_S) == sum(ends.values())
    caught_up.join()
    assert log.lag(groups.LAKE, Topic.ENRICHED, 0) > 0
