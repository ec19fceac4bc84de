"""The fault proxy does what it says, and what it does would show in a client that is not careful."""

from __future__ import annotations

import socket
import time
from collections import Counter

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from testbed.faults import Api, Conditions, Fault, FaultProxy
from testbed.process import free_port


@pytest.fixture
def proxy(kafka):
    with FaultProxy.before(kafka.nodes) as proxy:
        yield proxy


def values(bootstrap, topic, settings=()):
    """All committed values of a one-partition topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": f"all-of-{topic}", "auto.offset.reset": "earliest",
            "enable.partition.eof": True, "enable.auto.commit": False, **dict(settings),
        }
    )  # fmt: skip
    consumer.subscribe([topic])
    found = []
    while (message := consumer.poll(30)) is not None and message.error() is None:
        found.append(message.value())
    consumer.close()
    assert message is not None, "the end did not come"
    return found


def produce(producer, topic, count):
    errors = []
    for n in range(count):
        producer.produce(topic, b"%d" % n, on_delivery=lambda error, _: errors.append(error))
        producer.poll(0)
    assert producer.flush(60) == 0
    assert errors == [None] * count


def test_clients_stay_behind_the_proxy(kafka, proxy):
    kafka.create("behind", 1)
    metadata = AdminClient({"bootstrap.servers": kafka.faulty_bootstrap}).list_topics(timeout=30)
    assert {f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()} == {n.faulty for n in kafka.nodes}
    produce(Producer({"bootstrap.servers": kafka.faulty_bootstrap}), "behind", 100)
    assert len(values(kafka.faulty_bootstrap, "behind")) == 100
    assert proxy.connections >= 3


def test_latency_and_slices_change_no_byte(kafka, proxy):
    kafka.create("sliced", 1)
    proxy.conditions = Conditions(latency_s=0.005, slice_bytes=64)
    produce(Producer({"bootstrap.servers": kafka.faulty_bootstrap}), "sliced", 300)
    assert values(kafka.faulty_bootstrap, "sliced") == [b"%d" % n for n in range(300)]


@pytest.mark.parametrize("fault", [Fault.RESET_REQUEST, Fault.RESET_REPLY])
def test_an_idempotent_producer_survives_resets(kafka, proxy, fault):
    topic = f"idempotent-{fault.name}"
    kafka.create(topic, 1)
    rule = proxy.rule(Api.PRODUCE, fault, times=3)
    produce(Producer({"bootstrap.servers": kafka.faulty_bootstrap, "enable.idempotence": True}), topic, 200)
    assert rule.struck == 3
    assert values(kafka.bootstrap, topic) == [b"%d" % n for n in range(200)]


def test_a_lost_reply_doubles_what_a_careless_producer_sends(kafka, proxy):
    """Negative control: the broker has written it, and the client cannot know."""
    kafka.create("careless", 1)
    rule = proxy.rule(Api.PRODUCE, Fault.RESET_REPLY)
    settings = {"bootstrap.servers": kafka.faulty_bootstrap, "enable.idempotence": False, "retries": 5}
    produce(Producer(settings), "careless", 50)
    assert rule.struck == 1
    counts = Counter(values(kafka.bootstrap, "careless"))
    assert len(counts) == 50
    assert max(counts.values()) == 2


def test_a_dropped_reply_to_end_txn_leaves_the_commit_in_doubt_not_torn(kafka, proxy):
    kafka.create("in-doubt", 1)
    settings = {
        "bootstrap.servers": kafka.faulty_bootstrap,
        "transactional.id": "in-doubt",
        "socket.timeout.ms": 10_000,
    }
    producer = Producer(settings)
    producer.init_transactions(30)
    rule = proxy.rule(Api.END_TXN, Fault.DROP_REPLY)
    producer.begin_transaction()
    produce(producer, "in-doubt", 20)
    with pytest.raises(KafkaException) as caught:
        producer.commit_transaction(2)
    rule.wait()
    assert caught.value.args[0].retriable()
    committed = values(kafka.bootstrap, "in-doubt", {"isolation.level": "read_committed"})
    assert committed == [b"%d" % n for n in range(20)]  # it was carried out, though the client was not told


def test_a_delayed_reply_comes_late(kafka, proxy):
    rule = proxy.rule(Api.METADATA, Fault.DELAY_REPLY, delay_s=1.0)
    begun = time.monotonic()
    AdminClient({"bootstrap.servers": kafka.faulty_bootstrap}).list_topics(timeout=30)
    assert time.monotonic() - begun >= 1.0
    rule.wait()


def test_rules_need_kafka():
    with pytest.raises(ValueError, match="kafka=True"):
        FaultProxy({}).rule(Api.PRODUCE, Fault.DROP_REPLY)


@pytest.fixture
def linked(redis):
    """A proxy before Redis, and its port."""
    port = free_port()
    with FaultProxy({f"127.0.0.1:{port}": f"127.0.0.1:{redis.port}"}) as proxy:
        yield proxy, port


def ping(pipe):
    pipe.sendall(b"PING\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        got = pipe.recv(16)
        if not got:
            raise ConnectionError
        answer += got
    return answer


def test_a_link_is_sliced_stalled_reset_and_healed(linked):
    proxy, port = linked
    with socket.create_connection(("127.0.0.1", port), timeout=30) as pipe:
        proxy.conditions = Conditions(slice_bytes=1)
        assert ping(pipe) == b"+PONG\r\n"
        proxy.stall()
        pipe.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ping(pipe)
        proxy.heal()
        pipe.settimeout(30)
        assert pipe.recv(16) == b"+PONG\r\n"
        proxy.reset()
        with pytest.raises(ConnectionError):
            ping(pipe)


def test_a_server_that_is_down_is_a_reset(linked, redis):
    _, port = linked
    redis.kill()
    with (
        pytest.raises(ConnectionError),  # while connecting, or at the first byte
        socket.create_connection(("127.0.0.1", port), timeout=30) as pipe,
    ):
        ping(pipe)
    redis.mend()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as pipe:
        assert ping(pipe) == b"+PONG\r\n"
