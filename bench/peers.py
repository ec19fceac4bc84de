"""The job of ``bench.kafka`` in stream processors that others use: Flink SQL and Quix Streams, each in a process of its own.

The job: take JSON events from a topic, drop those whose id was there before, give each its 30-minute session, and write them
into another topic exactly once. CPU time is that of all the peer's processes, less that of the same with hardly any events:
what it takes to start is not what an event costs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import orjson
from confluent_kafka import Producer

from testbed import flink
from testbed import quix as quix_streams
from testbed.kafka import Kafka

PARTITIONS: Final = 4
#: The few events of a run that shows what starting costs.
_STARTING: Final = 1_000
_FLINK_SETTINGS: Final = {
    "parallelism.default": "2",
    "execution.checkpointing.interval": "1s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "execution.checkpointing.storage": "filesystem",
    "restart-strategy.type": "disable",
    "state.backend.type": "hashmap",
    "pipeline.object-reuse": "true",
}
_EVENT: Final = """
    `type` STRING, messageId STRING, anonymousId STRING, `event` STRING, originalTimestamp TIMESTAMP_LTZ(3),
    context ROW<`app` ROW<`version` STRING>, `os` ROW<`name` STRING, `version` STRING>, `device` ROW<`model` STRING>>,
    properties ROW<sku STRING, price DOUBLE, n BIGINT>"""
_FLINK: Final = """
CREATE TABLE incoming ({event},
    WATERMARK FOR originalTimestamp AS originalTimestamp - INTERVAL '10' MINUTE
) WITH (
    'connector' = 'kafka', 'topic' = '{source}', 'properties.bootstrap.servers' = '{bootstrap}',
    'properties.group.id' = '{target}', 'properties.isolation.level' = 'read_committed',
    'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
    'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601'
);
CREATE TABLE outgoing ({event}, session_id STRING) WITH (
    'connector' = 'kafka', 'topic' = '{target}', 'properties.bootstrap.servers' = '{bootstrap}',
    'properties.compression.type' = 'lz4', 'properties.transaction.timeout.ms' = '600000', 'properties.linger.ms' = '5',
    'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{target}',
    'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601'
);
INSERT INTO outgoing
    SELECT `type`, messageId, anonymousId, `event`, originalTimestamp, context, properties,
           anonymousId || ':' || CAST(window_start AS STRING)
    FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, messageId ORDER BY originalTimestamp) AS nth
        FROM TABLE(
            SESSION(TABLE incoming PARTITION BY anonymousId, DESCRIPTOR(originalTimestamp), INTERVAL '30' MINUTE)
        )
    ) WHERE nth = 1;
"""


def produce(feeding: Producer, topic: str, messages: Iterable[tuple[bytes, str]]) -> None:
    """Send all messages (value and key); returns once the brokers have them. Ends the process when they do not take them."""
    for value, key in messages:
        while True:
            try:
                feeding.produce(topic, value, key=key)
                break
            except BufferError:
                feeding.poll(0.1)
    if feeding.flush(60):
        raise SystemExit("the events did not reach the topic")


def fill(kafka: Kafka, bodies: list[bytes]) -> str:
    """A topic with a message for each event, keyed by device, LZ4 batches."""
    topic = f"loop-{uuid.uuid4().hex[:8]}"
    kafka.create(topic, PARTITIONS)
    feeding = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 50, "compression.type": "lz4"})
    events = (event for body in bodies for event in orjson.loads(body)["batch"])
    produce(feeding, topic, ((orjson.dumps(event), event.get("anonymousId") or event["userId"]) for event in events))
    return topic


def size(kafka: Kafka, topic: str) -> int:
    """Bytes of a topic's record batches: as they went over the wire, without the requests round them."""
    return sum(path.stat().st_size for path in (kafka.nodes[0].folder / "data").glob(f"{topic}-[0-9]*/*.log"))


def flink_sql(kafka: Kafka, source: str, target: str, _events: int, folder: Path) -> list[str]:
    """The command of Flink's job."""
    script = folder / f"{target}.sql"
    script.write_text(_FLINK.format(event=_EVENT, source=source, target=target, bootstrap=kafka.bootstrap))
    kept = {"execution.checkpointing.dir": (folder / "checkpoints").as_uri()}
    return flink.command(script, {**_FLINK_SETTINGS, **kept}, heap_mib=3072)


def quix(kafka: Kafka, source: str, target: str, events: int, folder: Path) -> list[str]:
    """The command of Quix's job."""
    return [
        quix_streams.python(), "-m", "bench.quix", kafka.bootstrap, source, target, str(events), str(folder / target),
    ]  # fmt: skip


PEERS: Final[dict[str, Callable[[Kafka, str, str, int, Path], list[str]]]] = {"flink": flink_sql, "quix": quix}


class Peer:
    """One of ``PEERS``; what it takes to start is measured once."""

    def __init__(self, kafka: Kafka, name: str, bodies: list[bytes], each: int) -> None:
        """``bodies`` of ``each`` events."""
        self._kafka, self._name, self._each = kafka, name, each
        self._few = max(1, min(_STARTING // each, len(bodies) // 2))
        self._starting, _ = _run(kafka, name, bodies[: self._few], self._few * each)

    def measure(self, bodies: list[bytes]) -> dict[str, float]:
        """A run over the events of ``bodies``."""
        seconds, wire = _run(self._kafka, self._name, bodies, len(bodies) * self._each)
        events = (len(bodies) - self._few) * self._each
        cpu, wall = (max(whole - start, 1e-9) for whole, start in zip(seconds, self._starting, strict=True))
        return {"cpu_ns": round(cpu / events * 1e9), "events_s": round(events / wall), **wire}


def _run(kafka: Kafka, name: str, bodies: list[bytes], events: int) -> tuple[tuple[float, float], dict[str, float]]:
    """CPU and clock seconds of the whole run, and its bytes an event."""
    source, target = fill(kafka, bodies), f"{name}-{uuid.uuid4().hex[:8]}"
    kafka.create(target, PARTITIONS)
    with tempfile.TemporaryDirectory() as folder:
        command = PEERS[name](kafka, source, target, events, Path(folder))
        messages = Path(folder) / "messages.txt"
        begun = time.perf_counter()
        with messages.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        if process.returncode:
            raise SystemExit(f"{name} failed: {messages.read_text(errors='replace')[:2000]}")
    found = kafka.committed(target, PARTITIONS)
    if found != events:
        raise SystemExit(f"{name} made {found} of {events} events")
    wire = {"bytes_in": round(size(kafka, source) / events, 1), "bytes": round(size(kafka, target) / events, 1)}
    return (used.ru_utime + used.ru_stime, wall), wire
