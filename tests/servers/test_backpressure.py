"""Backpressure on Kafka: a slow sink makes lag, a log that takes nothing makes 503, and who is behind catches up."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
import uuid

import orjson
import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from eventmill._native.decode import Decoder
from eventmill.core import groups
from eventmill.core.clock import now_ms
from eventmill.core.config import load
from eventmill.core.schema import Topic
from eventmill.core.tail import Tail
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from eventmill.process.dimensions.source import NoDimensions
from eventmill.process.placing import raw_frames
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.sources import open_source
from eventmill.serve.processing import build_processing
from faults.role import Role
from serving import eventually

PARTITIONS = 2
WAIT_S = 60


@pytest.fixture
def environ(kafka, tmp_path):
    made = {
        "EVENTMILL_LOG__PREFIX": f"b{uuid.uuid4().hex[:8]}", "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "EVENTMILL_KAFKA__PARTITIONS": str(PARTITIONS), "EVENTMILL_DEDUP__CAPACITY": "10000000",
        "EVENTMILL_KAFKA__DELIVERY_TIMEOUT": "3s", "EVENTMILL_PROCESS__SNAPSHOTS": str(tmp_path / "snapshots"),
        "EVENTMILL_DATA": str(tmp_path / "data"),
    }  # fmt: skip
    topics.create(load(environ=made))
    return made


@pytest.fixture
def start(tmp_path, environ):
    running = []

    def started(name, **more):
        data = ["--data", str(tmp_path / name)]
        running.append(Role([name, "--port", "0", *data], tmp_path / f"{name}.txt", {**environ, **more}))
        running[-1].start()
        return running[-1]

    yield started
    for role in running:
        role.server.kill()


@pytest.fixture
def log(environ):
    opened = KafkaLog(load(environ=environ))
    yield opened
    opened.close()


def ask(role, method, path, body=None):
    """(status, headers, body)."""
    request = urllib.request.Request(role.url + path, body, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def batch(count, begin=0):
    return orjson.dumps(
        {
            "batch": [
                {"type": "track", "event": "Opened", "userId": f"u{n % 50}", "messageId": f"m{n}"}
                for n in range(begin, begin + count)
            ]
        }
    )


def lags(sink):
    """Events and seconds by group, as Prometheus sees them."""
    ask(sink, "GET", "/v1/status")  # what upkeep does now and then
    text = ask(sink, "GET", "/metrics")[2].decode()
    return (
        {
            group: float(value)
            for group, value in re.findall(rf'^eventmill_lag_{unit}{{group="(\w+)"}} (\S+)$', text, re.M)
        }
        for unit in ("events", "seconds")
    )


def test_a_slow_sink_makes_lag_and_no_loss(start, log):
    ingest, _ = start("ingest"), start("process")
    sink = start(
        "sink", EVENTMILL_REALTIME__BATCH_INTERVAL="1h", EVENTMILL_LAKE__BATCH_INTERVAL="1h",
        EVENTMILL_REALTIME__BATCH_EVENTS_MAX="1000000", EVENTMILL_LAKE__BATCH_EVENTS_MAX="1000000",
    )  # fmt: skip
    for begin in (0, 300):
        assert ask(ingest, "POST", "/v1/batch", batch(300, begin))[0] == 200
        mark = {each: log.next_offset(Topic.RAW, each) for each in range(PARTITIONS)}
        assert log.wait_committed(groups.PROCESS, Topic.RAW, mark, WAIT_S)

    def behind():
        events, seconds = lags(sink)
        late = all(seconds[group] > 0 for group in (groups.REALTIME, groups.LAKE))
        return late and [events[group] for group in (groups.PROCESS, groups.REALTIME, groups.LAKE)] == [0, 600, 600]

    eventually(behind)
    assert orjson.loads(ask(sink, "POST", "/v1/flush")[2]) == {"stored": True}
    events, seconds = lags(sink)
    assert set(events.values()) == set(seconds.values()) == {0.0}
    audit = orjson.loads(ask(sink, "GET", "/v1/audit")[2])
    assert audit["balanced"], audit
    assert audit["stores"]["lake"]["stored"] == audit["stores"]["realtime"]["stored"] == 600


def alter(kafka, topic, name, value):
    resource = ConfigResource(ResourceType.TOPIC, topic)
    how = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    resource.add_incremental_config(ConfigEntry(name, value or "", incremental_operation=how))
    kafka.admin.incremental_alter_configs([resource])[resource].result(WAIT_S)


def test_brokers_that_refuse_make_503_and_the_retry_is_taken_once(kafka, environ, start, log):
    ingest, raw = start("ingest"), f"{environ['EVENTMILL_LOG__PREFIX']}.raw"
    before = log.next_offset(Topic.RAW, 0), log.next_offset(Topic.RAW, 1)
    alter(kafka, raw, "max.message.bytes", "200")

    def refused():
        status, headers, _ = ask(ingest, "POST", "/v1/batch", batch(20))
        return headers["Retry-After"] if status == 503 else None

    assert int(eventually(refused)) >= 1
    assert before == (log.next_offset(Topic.RAW, 0), log.next_offset(Topic.RAW, 1))
    alter(kafka, raw, "max.message.bytes", str(16 << 20))
    eventually(lambda: ask(ingest, "POST", "/v1/batch", batch(20))[0] == 200)
    assert sum(log.lag(groups.PROCESS, Topic.RAW, each) for each in range(PARTITIONS)) == 20


def test_a_processor_that_was_away_takes_what_waits_in_full_batches(environ, log):
    config = load(environ={**environ, "EVENTMILL_PROCESS__BATCH_EVENTS_MAX": "5000"})
    frames = 40
    for number in range(frames):
        decoder = Decoder()
        decoder.append(batch(1_000, number * 1_000), now_ms())
        with log.transaction() as transaction:
            transaction.append(raw_frames(decoder.finish()[0], PARTITIONS))
    # Of many frames it is estimated.
    assert sum(log.lag(groups.PROCESS, Topic.RAW, each) for each in range(PARTITIONS)) > frames * 500
    assert max(log.lag_seconds(groups.PROCESS, Topic.RAW, each) for each in range(PARTITIONS)) > 0
    book = SchemaBook(log, open_source(config), refresh_s=3600)
    book.refresh()
    processing = build_processing(config, log, book, Tail(()), NoDimensions())
    steps = []
    try:
        processing.recover()

        def done():
            if taken := processing.step(0.05):
                steps.append(taken)
            return sum(steps) == frames * 1_000

        eventually(done)
    finally:
        processing.close(snapshot=True)
        book.close()
    # A partition may come live before the other; from then on every batch but the last is full.
    assert len(steps) <= frames * 1_000 // 5_000 + 3, steps
