"""The fifth control, on a real cluster: a transactional copy whose commit's answer is lost.

After an unclear commit the broker may have carried it out. Whole: the producer is replaced (``init_transactions`` waits for
what is open), and the copy goes on from the committed offset. Broken: the copy takes it for failed and sends the batch again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from eventmill.core import frame
from eventmill.core.log import StoredFrame
from eventmill.core.schema import EVENT, Topic
from eventmill.generate.oracle import Verdict, judge, stored_rows
from faults.controls import enriched
from testbed.faults import Api, Fault, FaultProxy
from testbed.kafka import Kafka

_PATIENCE_S: Final = 60.0
_COMMIT_S: Final = 2.0
_TOGETHER: Final = 2


def reuse_timed_out_producer(kafka: Kafka, proxy: FaultProxy, folder: Path, broken: bool) -> Verdict:
    """Copy the processor's output from one topic to another; the reply to the first EndTxn never arrives."""
    batches, truth = enriched(folder)
    name = f"unclear-{'broken' if broken else 'whole'}"
    source, target = f"{name}-in", f"{name}-out"
    for topic in (source, target):
        kafka.create(topic, 1)
    filler = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for one in batches:
        filler.produce(source, bytes(frame.encode(Topic.ENRICHED, one.events).payload), partition=0)
    filler.flush(_PATIENCE_S)
    rule = proxy.rule(Api.END_TXN, Fault.DROP_REPLY)
    _copy(kafka, source, target, name, careless=broken)
    rule.wait(1)
    frames = [
        StoredFrame(Topic.ENRICHED, 0, message.offset(), 0, 0, None, {}, message.value())
        for message in read(kafka.bootstrap, target)
    ]
    return judge(truth, stored_rows(pa.Table.from_batches([frame.decode_all(frames, EVENT)])))


def _copy(kafka: Kafka, source: str, target: str, name: str, *, careless: bool) -> None:
    messages = read(kafka.bootstrap, source)
    settings = {"bootstrap.servers": kafka.faulty_bootstrap, "group.id": name, "enable.auto.commit": False}
    consumer = Consumer(settings)
    producer = _producer(kafka, name)
    position = 0
    while position < len(messages):
        batch = messages[position : position + _TOGETHER]
        producer.begin_transaction()
        for message in batch:
            producer.produce(target, message.value(), partition=0)
        following = TopicPartition(source, 0, position + len(batch))
        producer.send_offsets_to_transaction([following], consumer.consumer_group_metadata(), _PATIENCE_S)
        try:
            producer.commit_transaction(_COMMIT_S)
            position += len(batch)
        except KafkaException:
            if careless:
                producer = _finish(producer)
            else:
                producer = _producer(kafka, name)
                (committed,) = consumer.committed([TopicPartition(source, 0)], _PATIENCE_S)
                position = max(committed.offset, 0)
    consumer.close()


def _finish(producer: Producer) -> Producer:
    """The same producer, ready for the batch that its owner takes for not committed."""
    producer.commit_transaction(_PATIENCE_S)
    return producer


def _producer(kafka: Kafka, name: str) -> Producer:
    brisk = {"socket.timeout.ms": 3_000, "transaction.timeout.ms": 10_000, "log_level": 2}
    producer = Producer({"bootstrap.servers": kafka.faulty_bootstrap, "transactional.id": name, **brisk})
    producer.init_transactions(_PATIENCE_S)
    return producer


def read(bootstrap: str, topic: str) -> list[Message]:
    """All committed messages of a topic's partition 0."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-reader",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    try:
        while (message := consumer.poll(_PATIENCE_S)) is not None and message.error() is None:
            found.append(message)
        if message is None:
            raise TimeoutError(f"{topic} does not end")
        return found
    finally:
        consumer.close()
