"""Configuration of librdkafka's clients, and what its errors mean."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from confluent_kafka import KafkaError, KafkaException

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import KafkaConfig
from eventmill.core.errors import ConfigError, LogUnavailable

#: How long one request may take; less than any HTTP client waits.
REQUEST_S: Final = 15.0
#: A frame may have this size.
MESSAGE_BYTES_MAX: Final = 16 << 20
#: What a consumer fetches ahead, in all its partitions.
_AHEAD_KB: Final = 65_536
_Client = TypeVar("_Client")
_OURS: Final = frozenset(
    ["bootstrap.servers", "enable.idempotence", "acks", "isolation.level", "enable.auto.commit", "transactional.id",
     "group.id", "auto.offset.reset", "partitioner", "enable.partition.eof"]
)  # fmt: skip


def common(config: KafkaConfig) -> dict[str, Any]:
    """What all clients share: the brokers, and ``kafka.properties`` (SASL, TLS and whatever else librdkafka takes).

    Raises ``ConfigError`` for a property that is not ``name=value``, or that exactly-once hangs on.
    """
    properties: dict[str, Any] = {"bootstrap.servers": ",".join(config.bootstrap), "log_level": 3}
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
        # A message that is late for its transaction is of no use.
        settings["delivery.timeout.ms"] = settings["transaction.timeout.ms"]
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
    }


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn librdkafka's errors into ``LogUnavailable``."""
    try:
        yield
    except (KafkaException, BufferError, TimeoutError) as error:
        raise LogUnavailable(f"Kafka: {what} failed: {_text(error)}; it is tried again") from error


class Asked(Generic[_Client]):
    """A client for questions, shared by threads, and another one after each question that failed.

    A client that has no subscription goes on with a dead leader or coordinator for minutes: only what a consumer
    reads or a producer writes is looked up again. A dropped client ends with the last thread that still uses it.
    """

    def __init__(self, make: Callable[[], _Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: _Client | None = None

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[_Client]:
        """The client; librdkafka's errors, and a ``TimeoutError``, become ``LogUnavailable``."""
        with self._lock:
            client = self._client = self._client or self._make()
        try:
            with asking(what):
                yield client
        except LogUnavailable:
            with self._lock:
                if self._client is client:
                    self._client = None
            raise

    def close(self) -> None:
        """Let go of the client."""
        with self._lock:
            self._client = None


def _text(error: BaseException) -> str:
    cause = error.args[0] if error.args else error
    return f"{cause.name()} ({cause.str()})" if isinstance(cause, KafkaError) else str(cause) or "no answer in time"
