"""The servers of the testbed: broken and mended, they keep what they acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from serving import eventually
from testbed import packages
from testbed.kafka import Kafka, _java_hash
from testbed.packages import Unavailable


def produce(bootstrap, topic, values):
    """The number of values that all in-sync replicas have."""
    reports = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, message: reports.append(error))
    assert producer.flush(60) == 0
    return reports.count(None)


def consume(bootstrap, topic, count, group="reader"):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    values = []
    try:
        while len(values) < count:
            for message in consumer.consume(100, 1.0):
                assert message.error() is None, message.error()
                values.append(message.value())
    finally:
        consumer.close()
    return values


# `wait_ready` asks one broker. The next question may be answered by another, which hears of the change a little later.


def in_sync(kafka, topic):
    """The brokers in sync on a topic's first partition."""
    return kafka.admin.list_topics(topic, timeout=10).topics[topic].partitions[0].isrs


def test_what_was_acknowledged_survives_the_leader(kafka):
    kafka.create("survives", 1)
    assert produce(kafka.bootstrap, "survives", [b"%d" % n for n in range(500)]) == 500
    leader = kafka.leader("survives", 0)
    leader.server.kill()
    assert not leader.server.running
    kafka.wait_ready()
    eventually(lambda: kafka.leader("survives", 0) is not leader)
    assert produce(kafka.bootstrap, "survives", [b"%d" % n for n in range(500, 600)]) == 100
    assert sorted(map(int, consume(kafka.bootstrap, "survives", 600))) == list(range(600))
    kafka.mend()
    eventually(lambda: sorted(in_sync(kafka, "survives")) == [1, 2, 3])


def test_a_frozen_broker_loses_its_partitions_and_comes_back(kafka):
    kafka.create("frozen", 1)
    frozen = kafka.leader("frozen", 0)
    frozen.server.pause()
    kafka.wait_ready()
    eventually(lambda: kafka.leader("frozen", 0) is not frozen)
    kafka.mend()
    assert not frozen.server.frozen


def test_two_brokers_down_take_no_writes(kafka):
    kafka.create("minority", 1)
    for node in kafka.nodes[:2]:
        node.server.pause()
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", "message.timeout.ms": 3000})
    errors = []
    producer.produce("minority", b"", on_delivery=lambda error, message: errors.append(error))
    assert producer.flush(30) == 0
    assert errors[0].code() in (KafkaError._MSG_TIMED_OUT, KafkaError.NOT_ENOUGH_REPLICAS)


def test_the_coordinator_is_the_broker_that_kafka_names(kafka):
    kafka.create("coordinated", 1)
    produce(kafka.bootstrap, "coordinated", [b"x"])
    for group in ("reader", "another-group", "grüße 🎈", "polygenelubricants"):  # the last hashes to -2**31
        consume(kafka.bootstrap, "coordinated", 1, group)
        (described,) = kafka.admin.describe_consumer_groups([group]).values()
        assert described.result(10).coordinator.id == kafka.group_coordinator(group).number, group
    assert _java_hash("polygenelubricants") == 0


def test_kafkas_own_tools_run(kafka):
    kafka.create("tools", 1)
    produce(kafka.bootstrap, "tools", [b"one", b"two"])
    done = kafka.run(
        "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", kafka.bootstrap, "--topic", "tools",
        "--from-beginning", "--max-messages", "2",
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["one", "two"]), done.stderr


def test_a_lone_broker_needs_no_others():
    with Kafka(1) as kafka:
        kafka.create("alone", 2)
        assert produce(kafka.bootstrap, "alone", [b"x"]) == 1
        folder = kafka.folder
    assert not folder.exists()


def test_a_broker_that_ended_by_itself_is_named(kafka):
    ended = kafka.node(1).server
    os.kill(ended.pid, signal.SIGKILL)  # not by the testbed
    eventually(lambda: ended.crashed)
    with pytest.raises(RuntimeError, match="broker 1 ended"):
        kafka.wait_ready()


def test_redis_is_killed_frozen_and_mended(redis):
    redis.pause()
    assert not redis.answers()
    redis.resume()
    assert redis.answers()
    redis.kill()
    assert not redis.answers()
    redis.mend()
    assert redis.answers()


def test_servers_end_with_whoever_started_them(tmp_path):
    code = "from testbed.redis import Redis; r = Redis(); r.start(); print(r.server.pid, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(packages.__file__).parents[1],
    )  # fmt: skip
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    eventually(lambda: not _alive(pid), deadline_s=10)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - gone meanwhile is an answer
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(packages.os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="sudo apt-get install -y nothing-server"):
        packages.program("nothing-server", "nothing-server")
