"""Configuration of librdkafka's clients, and what its errors mean."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, NoReturn, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import KafkaConfig
from eventmill.core.errors import ConfigError, LogUnavailable, StateError

#: How long a question may take; less than any HTTP client waits.
REQUEST_S: Final = 15.0
#: How long one client is waited for, the first one and later ones at most, and how soon the next one asks: the leader may be a
#: broker that has been frozen.
_FIRST_TRY_S: Final = 1.0
_TRY_S: Final = 4.0
_AGAIN_S: Final = 0.25
#: A broker that owes an answer for so long is left, and others are asked who leads. (librdkafka's own: a minute.)
_SILENCE_MS: Final = 10_000
#: A broker, or librdkafka, says that a partition does not hold an offset; see ``outside``.
OUT_OF_RANGE: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
#: A frame may have this size.
MESSAGE_BYTES_MAX: Final = 16 << 20
#: What a consumer fetches ahead, in all its partitions.
_AHEAD_KB: Final = 65_536
_Client = TypeVar("_Client")
_Answer = TypeVar("_Answer")
_OURS: Final = frozenset(
    ["bootstrap.servers", "enable.idempotence", "acks", "isolation.level", "enable.auto.commit", "transactional.id",
     "group.id", "auto.offset.reset", "partitioner", "enable.partition.eof"]
)  # fmt: skip


def common(config: KafkaConfig) -> dict[str, Any]:
    """What all clients share: the brokers, and ``kafka.properties`` (SASL, TLS and whatever else librdkafka takes).

    Raises ``ConfigError`` for a property that is not ``name=value``, or that exactly-once hangs on.
    """
    bootstrap = ",".join(config.bootstrap)
    properties: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 3, "socket.timeout.ms": _SILENCE_MS}
    for text in config.properties:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"kafka.properties: {text!r} is not name=value")
        if name.strip() in _OURS:
            raise ConfigError(f"kafka.properties: {name.strip()!r} is Eventmill's own to set; leave it out")
        properties[name.strip()] = value.strip()
    return properties


def producer(config: KafkaConfig, transactional_id: str | None) -> dict[str, Any]:
    """For an idempotent producer with acks=all, transactional if it has an id."""
    settings = {
        **common(config),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "linger.ms": 0,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "queue.buffering.max.kbytes": 512_000,
        "delivery.timeout.ms": parse_duration_ms(config.delivery_timeout),
    }
    if transactional_id is not None:
        settings["transactional.id"] = transactional_id
        settings["transaction.timeout.ms"] = parse_duration_ms(config.transaction_timeout)
        # A message, or an answer, that is late for its transaction is of no use.
        settings["delivery.timeout.ms"] = settings["transaction.timeout.ms"]
        settings["socket.timeout.ms"] = min(settings["transaction.timeout.ms"], int(settings["socket.timeout.ms"]))
    return settings


def consumer(config: KafkaConfig, group: str) -> dict[str, Any]:
    """For a consumer that sees committed transactions only, says where a partition ends, and commits when it is told to."""
    return {
        **common(config),
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        # Offsets outside the log are an alarm, never a reason to begin anew.
        "auto.offset.reset": "error",
        "check.crcs": True,
        "fetch.message.max.bytes": MESSAGE_BYTES_MAX,
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": _AHEAD_KB,
        # Of one that joins no group: how long a commit waits for the coordinator.
        "session.timeout.ms": int(1000 * _TRY_S),
    }


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn librdkafka's errors into ``LogUnavailable``."""
    try:
        yield
    except (KafkaException, BufferError, TimeoutError) as error:
        raise LogUnavailable(f"Kafka: {what} failed: {_text(error)}; it is tried again") from error


def outside(settings: dict[str, Any], topic: str, partition: int, offset: int, why: str) -> NoReturn:
    """What it means that a broker calls an offset out of range; ``settings`` are a consumer's.

    A broker that was cut off or frozen takes itself for the leader until it hears of the next one, and lacks what that one
    has got meanwhile. So it is believed that the log ends before the offset only once that has been said for ``REQUEST_S``, to
    clients that know of no former leader. Raises ``StateError``, with ``why``, if it is so, else ``LogUnavailable``.
    """
    name = f"{topic}/{partition}"
    deadline = time.monotonic() + REQUEST_S
    while True:
        client = Consumer({**settings, "isolation.level": "read_uncommitted"})
        try:
            with asking(f"asking for the offsets of {name}"):
                found = client.get_watermark_offsets(TopicPartition(topic, partition), _TRY_S, cached=False)
                if found is None or min(found) < 0:
                    raise TimeoutError("its leader changes")
        finally:
            client.close()
        if found[0] <= offset <= found[1]:
            raise LogUnavailable(f"Kafka: a broker that lags behind was asked for {name}; it is tried again")
        if offset < found[0] or time.monotonic() > deadline:
            raise StateError(f"{name} no longer holds offset {offset}: {why}")
        time.sleep(_AGAIN_S)


class Asked(Generic[_Client]):
    """Clients for questions, as many as threads ask at once, and others after a question that failed.

    A client that has no subscription goes on with a dead leader or coordinator for minutes: only what a consumer
    reads or a producer writes is looked up again. So the first try is short; each next one has another client, and more
    time. A client answers one question at a time; whoever shared one would wait for the answer to a question of a dead leader,
    too. A dropped client ends with the last thread that still uses it.
    """

    def __init__(self, make: Callable[[], _Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[_Client] = []

    def ask(self, what: str, question: Callable[[_Client, float], _Answer]) -> _Answer:
        """What ``question`` says, given a client and how long that may take; asked again of another one if it fails.

        librdkafka's errors, and a ``TimeoutError``, become ``LogUnavailable`` within ``REQUEST_S``.
        """
        deadline = time.monotonic() + REQUEST_S
        patience_s = _FIRST_TRY_S
        while True:
            with self._lock:
                client = self._idle.pop() if self._idle else None
            try:
                with asking(what):
                    client = self._make() if client is None else client
                    answer = question(client, patience_s)
            except LogUnavailable:
                with self._lock:
                    self._idle.clear()  # they know of the same former leader
                patience_s = min(2 * patience_s, _TRY_S)
                if time.monotonic() + _AGAIN_S + patience_s > deadline:
                    raise
            else:
                with self._lock:
                    self._idle.append(client)
                return answer
            time.sleep(_AGAIN_S)

    def close(self) -> None:
        """Let go of the clients."""
        with self._lock:
            self._idle.clear()


def _text(error: BaseException) -> str:
    cause = error.args[0] if error.args else error
    return f"{cause.name()} ({cause.str()})" if isinstance(cause, KafkaError) else str(cause) or "no answer in time"
