"""Adding partitions: each device's state goes with it, whatever was open, and nothing begins without the state it had."""

from __future__ import annotations

import shutil
import uuid

import orjson
import pytest

from eventmill._native.decode import Decoder
from eventmill.core import frame, groups
from eventmill.core.config import load
from eventmill.core.errors import ConfigError, LogUnavailable, StateError
from eventmill.core.schema import EVENT, RAW, Topic
from eventmill.core.tail import Tail
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from eventmill.log.kafka.outbox import Outbox
from eventmill.process.dimensions.source import NoDimensions
from eventmill.process.origin import require_no_inheritance
from eventmill.process.placing import raw_frames
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.sources import open_source
from eventmill.serve.grow import grow
from eventmill.serve.processing import build_processing
from serving import eventually

MINUTE = 60_000
NOON = 1_795_435_200_000
DEVICES = 60


@pytest.fixture
def settings(kafka, tmp_path):
    return {
        "data": tmp_path / "data", "log.prefix": f"g{uuid.uuid4().hex[:8]}", "kafka.bootstrap": kafka.bootstrap,
        "kafka.partitions": 2, "process.snapshots": str(tmp_path / "snapshots"), "dedup.capacity": 1_000_000,
        "schemas.folder": str(tmp_path / "schemas"),
    }  # fmt: skip


def event(device, minute):
    at = NOON + minute * MINUTE
    return {
        "type": "track", "event": "Opened", "anonymousId": f"device-{device}", "messageId": f"{device}@{minute}",
        "originalTimestamp": f"2026-11-23T{(at // 3_600_000) % 24:02}:{(at // MINUTE) % 60:02}:00.000Z",
    }  # fmt: skip


def send(config, events, at_minute):
    decoder = Decoder()
    decoder.append(orjson.dumps({"batch": events}), NOON + at_minute * MINUTE)
    log = KafkaLog(config)
    try:
        with log.transaction() as transaction:
            transaction.append(raw_frames(decoder.finish()[0], len(log.partitions(Topic.RAW))))
    finally:
        log.close()


def work_off(config):
    """One processor until nothing is left, which then hands over."""
    log = KafkaLog(config)
    book = SchemaBook(log, open_source(config), refresh_s=3600)
    book.refresh()
    processing = build_processing(config, log, book, Tail(()), NoDimensions())
    whole = False
    try:
        processing.recover()

        def done():
            processing.step(0.05)
            return len(processing.partitions) == config.kafka.partitions and log.wait_consumed(
                [(groups.PROCESS, Topic.RAW)], 0.0
            )

        eventually(done)
        whole = True
    finally:
        processing.close(snapshot=whole)
        book.close()
        log.close()


def outcome(config):
    """The sessions of all events by message id, and the suspects."""
    log = KafkaLog(config)
    found = {}
    try:
        for topic, schema in ((Topic.ENRICHED, EVENT), (Topic.SUSPECTS, RAW)):
            rows = []
            for partition in log.partitions(topic):
                end = log.next_offset(topic, partition)
                eventually(lambda of=(topic, partition), last=end: log.end_offset(*of) >= last)
                if frames := log.read(topic, partition, 0, events_max=1 << 30, to_offset=end):
                    rows += frame.decode_all(frames, schema).to_pylist()
            found[topic] = rows
    finally:
        log.close()
    sessions = sorted((row["message_id"], row["session_id"]) for row in found[Topic.ENRICHED])
    return sessions, sorted(row["message_id"] for row in found[Topic.SUSPECTS])


BEFORE = [event(device, minute) for device in range(DEVICES) for minute in (0, 5, 20)]
#: Retries of what was there, events that go on with a session that is open, late ones that extend it, and new sessions.
AFTER = [event(device, minute) for device in range(DEVICES) for minute in (5, 20, 45, -10, 120)]


def traffic(config, between=lambda: None):
    topics.create(config)
    send(config, BEFORE, 25)
    work_off(config)
    after = between() or config
    send(after, AFTER, 125)
    work_off(after)
    return outcome(after)


def grown(settings, partitions, **others):
    factor = max(1, partitions // settings["kafka.partitions"])
    capacity = settings["dedup.capacity"] * factor
    overrides = {**settings, "kafka.partitions": partitions, "dedup.capacity": capacity}
    return load(environ={}, overrides={**overrides, **others})


def test_devices_that_move_keep_their_filter_and_their_sessions(settings, kafka):
    still = {
        **settings,
        "log.prefix": f"{settings['log.prefix']}-still",
        "process.snapshots": f"{settings['data']}-still",
    }
    wanted = traffic(load(environ={}, overrides=still))
    assert len(wanted[1]) == 2 * DEVICES
    config, more = load(environ={}, overrides=settings), grown(settings, 6)

    def between():
        said = list(grow(more))
        assert said[:2] == [
            f"partitions {each + 2}, {each + 4} begin with the state of {each} at offset 1" for each in (0, 1)
        ]
        assert said[-1].endswith("raw has 6 partitions now, 2 before")
        eventually(lambda: not any(finding.problem for finding in topics.check(more)))
        assert list(grow(more)) == []
        return more

    assert traffic(config, between) == wanted
    log = KafkaLog(more)
    assert all(log.end_offset(Topic.RAW, each) for each in range(6))
    log.close()


def test_without_it_retries_would_pass_and_sessions_be_torn(settings):
    """Negative control: partitions added by the brokers' own tools."""

    def between():
        more = grown(settings, 4)
        topics.widen(more, {topic.name for topic in topics.wanted(more)})
        return more

    sessions, suspects = traffic(load(environ={}, overrides=settings), between)
    assert len(suspects) < 2 * DEVICES
    assert len({name for name, _ in sessions}) < len(sessions)


def test_what_stands_in_the_way_is_told(settings, tmp_path):
    config = load(environ={}, overrides=settings)
    topics.create(config)

    def refused(partitions, **others):
        with pytest.raises(ConfigError) as error:
            list(grow(grown(settings, partitions, **others)))
        return str(error.value)

    assert "set kafka.partitions to 4" in refused(3)
    assert "process.snapshots" in refused(4, **{"process.snapshots": ""})
    assert "none can be taken away" in refused(1)
    send(config, BEFORE, 25)
    assert "180 events of raw are not processed yet" in refused(4)
    work_off(config)
    assert "multiply it by 2" in refused(4, **{"dedup.capacity": settings["dedup.capacity"]})

    more = grown(settings, 4)
    interrupted = grow(more)
    assert "begin with the state of 0" in next(interrupted)
    interrupted.close()
    assert "4 partitions now" in list(grow(more))[-1]
    for heir in (2, 3):
        shutil.rmtree(tmp_path / "snapshots" / f"raw-{heir:05}")
    with pytest.raises(StateError, match="began with the state of another"):
        work_off(more)


def test_a_process_that_ran_meanwhile_takes_nothing_more(settings):
    config, more = load(environ={}, overrides=settings), grown(settings, 4)
    topics.create(config)
    log = KafkaLog(config)
    try:
        assert log.pressure() is None
        list(grow(more))
        assert "start it again" in eventually(log.pressure)
    finally:
        log.close()


def test_a_broker_that_does_not_know_the_new_partitions_yet_is_asked_again(settings, monkeypatch):
    config, more = load(environ={}, overrides=settings), grown(settings, 4)
    topics.create(config)
    publish, failed = Outbox.publish, []

    def first_fails(outbox, draft, metadata):
        if not failed:
            failed.append(draft)
            raise LogUnavailable("Kafka did not take 2 of 2 frames: Local: Unknown partition", retry_after_s=0)
        publish(outbox, draft, metadata)

    monkeypatch.setattr(Outbox, "publish", first_fails)
    assert list(grow(more))[-1].endswith("raw has 4 partitions now, 2 before")
    log = KafkaLog(more)
    try:
        for heir in (2, 3):
            with pytest.raises(StateError, match=f"partition {heir} of raw began with the state of another"):
                require_no_inheritance(log, heir)
    finally:
        log.close()
    assert failed
