"""A key goes to the same partition whoever sends it: Eventmill, the Java client, librdkafka."""

from __future__ import annotations

import base64
import random
from pathlib import Path

from confluent_kafka import Producer

from eventmill.kernels.partition import murmur2

PARTITIONS = 12
JAVA = Path(__file__).with_name("java") / "SendKeys.java"


def keys():
    """Of every length to 40 with every remainder by 4, bytes over 0x7f, event names, the empty one."""
    rng = random.Random(1)
    names = [b"", b"\x00", b"\xff" * 7, b"Order Completed", "Käse gekauft 🧀".encode(), b"x" * 10_000]
    return names + [rng.randbytes(length) for length in range(1, 41) for _ in range(50)]


def test_java_and_librdkafka_choose_our_partition(kafka, tmp_path):
    kafka.create("keys", PARTITIONS)
    sent = keys()
    ours = [(murmur2(key) & 0x7FFFFFFF) % PARTITIONS for key in sent]
    assert set(ours) == set(range(PARTITIONS))

    file = tmp_path / "keys.txt"
    file.write_bytes(b"".join(base64.b64encode(key) + b"\n" for key in sent))
    done = kafka.run(str(JAVA), kafka.bootstrap, "keys", str(file))
    assert done.returncode == 0, done.stderr
    assert list(map(int, done.stdout.split())) == ours

    chosen = {}
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
    for number, key in enumerate(sent):
        producer.produce(
            "keys", b"", key, on_delivery=lambda _, message, n=number: chosen.update({n: message.partition()})
        )
    assert producer.flush(60) == 0
    assert [chosen[number] for number in range(len(sent))] == ours
