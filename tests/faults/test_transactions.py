"""Kafka's own system test for transactions, with our processor in the place of its message copier.

100,000 messages stand in raw. Processors copy them while brokers or processors are bounced, one after the other, hard
(kill -9) or clean (SIGTERM), and a reader follows what is committed all the while. It must see each message once, in its
partition's order, and so must one that comes afterwards. (See ``transactions_test.py`` of kafkatest. The copy here is
``kafka.mirror``, a message for each event in the processors' transactions.)
"""

from __future__ import annotations

import contextlib
import threading

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from eventmill.core import groups
from eventmill.core.config import load
from eventmill.core.errors import LogUnavailable
from eventmill.core.schema import Topic
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from faults.role import Role
from faults.spread import committed_messages
from testbed.process import eventually

PARTITIONS = 6
MESSAGES = 100_000
DEADLINE_S = 300.0
START = 1_795_000_000_000


def numbers(messages):
    """Each partition's messages by number, in order."""
    found = {partition: [] for partition in range(PARTITIONS)}
    for message in messages:
        found[message.partition()].append(orjson.loads(message.value())["properties"]["n"])
    return found


class Reader:
    """A consumer of committed messages, from before the first one on."""

    def __init__(self, bootstrap, topic):
        self._settings = {
            "bootstrap.servers": bootstrap, "group.id": "concurrent", "isolation.level": "read_committed",
            "enable.auto.commit": False, "log_level": 0,
        }  # fmt: skip
        self._topic = topic
        self.messages = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        consumer = Consumer(self._settings)
        consumer.assign([TopicPartition(self._topic, partition, 0) for partition in range(PARTITIONS)])
        while not self._stop.is_set():
            self.messages += [each for each in consumer.consume(1_000, 0.2) if each.error() is None]
        consumer.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def fill(bootstrap, topic, count):
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 20}
    )
    for n in range(count):
        event = {
            "type": "track", "event": "Copied", "userId": f"u{n % 997}", "messageId": str(n), "properties": {"n": n},
            "timestamp": START + n * 100,
        }  # fmt: skip
        while True:
            try:
                producer.produce(topic, orjson.dumps(event), key=event["userId"])
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(DEADLINE_S) == 0


def bounce(role, how, start):
    """Down by the one way or the other, and up again."""
    role.kill() if how == "hard" else role.stop()
    start()


@pytest.mark.soak
@pytest.mark.parametrize("how", ["hard", "clean"])
@pytest.mark.parametrize("target", ["brokers", "processors"])
def test_each_message_is_copied_once_whatever_is_bounced(kafka, tmp_path, how, target):
    copy(kafka, tmp_path, how, target, MESSAGES)


def copy(kafka, folder, how, target, count):
    prefix = f"copy-{how}-{target}"
    environ = {
        "EVENTMILL_LOG__PREFIX": prefix, "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "EVENTMILL_KAFKA__PARTITIONS": str(PARTITIONS), "EVENTMILL_KAFKA__MIRROR": f"{prefix}.out",
        "EVENTMILL_KAFKA__SESSION_TIMEOUT": "6s", "EVENTMILL_KAFKA__TRANSACTION_TIMEOUT": "6s",
        "EVENTMILL_PROCESS__SNAPSHOTS": str(folder / "snapshots"), "EVENTMILL_PROCESS__BATCH_EVENTS_MAX": "500",
        "EVENTMILL_PROCESS__SNAPSHOT_INTERVAL_EVENTS": "5000", "EVENTMILL_DEDUP__CAPACITY": "100000000",
        "EVENTMILL_DATA": str(folder / "data"),
    }  # fmt: skip
    config = load(environ=environ)
    topics.create(config)
    fill(kafka.bootstrap, f"{prefix}.raw", count)
    processors = [Role(["process", "--port", "0"], folder / f"{number}.txt", environ) for number in range(2)]
    with contextlib.ExitStack() as stack:
        log = KafkaLog(config)
        stack.callback(log.close)
        for role in processors:
            stack.callback(role.server.kill)
            role.start()
        reader = stack.enter_context(Reader(kafka.bootstrap, f"{prefix}.out"))
        eventually(lambda: bool(reader.messages), lambda: f"copying begins: {processors[0].server.tail()}")
        for number in range(3):
            least = min(len(reader.messages) + 1, count)
            if target == "brokers":
                bounce(kafka.nodes[number].server, how, kafka.mend)
            else:
                role = processors[number % 2]
                bounce(role.server, how, role.start)
            eventually(
                lambda least=least: len(reader.messages) >= least,
                lambda: f"copying goes on: {[role.server.tail() for role in processors]}",
                DEADLINE_S,
            )
        mark = {each: log.next_offset(Topic.RAW, each) for each in range(PARTITIONS)}

        def done():
            with contextlib.suppress(LogUnavailable):
                return log.wait_committed(groups.PROCESS, Topic.RAW, mark, 0.0)
            return False

        eventually(done, lambda: f"all is copied: {[role.server.tail() for role in processors]}", DEADLINE_S)
        afterwards = committed_messages(kafka.bootstrap, f"{prefix}.out", PARTITIONS)
        eventually(lambda: len(reader.messages) >= len(afterwards), lambda: "the reader comes to the end")
        suspects = sum(log.lag(groups.RESCUE, Topic.SUSPECTS, each) for each in log.partitions(Topic.SUSPECTS))
    concurrent = numbers(reader.messages)
    assert concurrent == numbers(afterwards)
    seen = [n for partition in concurrent.values() for n in partition]
    assert len(seen) == len(set(seen)), "doubled"
    assert count - len(seen) == suspects < count / 1_000, "lost: what the filter may have seen waits among the suspects"
    assert all(partition == sorted(partition) for partition in concurrent.values()), "out of order"
