"""Raw to enriched on Kafka, exactly once, beside what else does that from Python: one broker on this machine, one process each.

The job: take events from a topic, drop those whose id was there before, give each its 30-minute session, and write them into
another topic in transactions with the offsets. Eventmill does it with frames of many events, and validates and joins
dimensions besides; the others with a message an event. CPU time is the client process's, without the broker's.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from bench import machine, peers
from bench.decode import make_events, to_bodies
from eventmill._native.decode import Decoder
from eventmill.core import frame, ledger
from eventmill.core.config import Config, load
from eventmill.core.schema import Hop, Topic
from eventmill.core.tail import Tail
from eventmill.kernels.partition import by_key
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from eventmill.process.dimensions.source import open_dimensions
from eventmill.process.group import GroupProcessor
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.sources import open_source
from eventmill.serve.processing import build_processing
from eventmill.serve.tuning import tune
from testbed import flink, quix
from testbed.kafka import Kafka

_PARTITIONS: Final = peers.PARTITIONS
_GAP_MS: Final = 30 * 60_000
_START_MS: Final = 1_795_000_000_000
#: Events in a transaction of the loop; more made it no faster.
_LOOP_BATCH: Final = 20_000


def run(*, smoke: bool = False) -> dict[str, Any]:
    """All three parts, each with its peers, in turn."""
    if not smoke:
        tune()
    events, few, many, runs = (2_000, 500, 0, 1) if smoke else (1_000_000, 100_000, 300_000, 3)
    with Kafka(1, fast_start=smoke, heap_mib=1024) as kafka, tempfile.TemporaryDirectory() as name:
        rows: dict[str, list[dict[str, float]]] = {"ingest": [], "process": [], "loop": [], "quix": [], "flink": []}
        others: dict[str, peers.Peer] = {}
        for number in range(runs):
            bodies = to_bodies(make_events(events, number), 100)
            config = configured(kafka, Path(name) / str(number))
            rows["ingest"].append(ingest(kafka, config, bodies, events))
            rows["process"].append(process(kafka, config, events))
            rows["loop"].append(loop(kafka, bodies[: few // 100], few))
            # What they take to start is more than a smoke run may.
            for name, taken in (("quix", bodies[: few * bool(many) // 100]), ("flink", bodies[: many // 100])):
                if taken and number < 2:
                    peer = others[name] = others.get(name) or peers.Peer(kafka, name, taken, 100)
                    rows[name].append(peer.measure(taken))
    return {
        "question": "events a second and core from Kafka to Kafka, exactly once",
        "machine": machine.describe("confluent_kafka", "orjson", "pyarrow"),
        "flink": flink.VERSION,
        "quix": quix.VERSION,
        "events": {"ingest": events, "process": events, "loop": few, "quix": few, "flink": many},
        "runs": runs,
        "rows": rows,
    }


def configured(kafka: Kafka, data: Path) -> Config:
    """A configuration with topics of its own, which are made."""
    config = load(
        environ={},
        overrides={
            "data": data, "log.prefix": f"bench-{uuid.uuid4().hex[:8]}", "kafka.bootstrap": kafka.bootstrap,
            "kafka.partitions": _PARTITIONS, "kafka.replication": 1, "kafka.min_insync": 1,
            "log.backlog_events_max": 1 << 40, "process.snapshot_interval_events": 1 << 40,
        },
    )  # fmt: skip
    topics.create(config)
    return config


def _measured(kafka: Kafka, events: int, work: Callable[[], object]) -> dict[str, float]:
    brokers, cpu, begun = _broker_s(kafka), time.process_time(), time.perf_counter()
    work()
    wall = time.perf_counter() - begun
    return {
        "cpu_ns": round((time.process_time() - cpu) / events * 1e9),
        "broker_ns": round((_broker_s(kafka) - brokers) / events * 1e9),
        "events_s": round(events / wall),
    }


def _broker_s(kafka: Kafka) -> float:
    """CPU seconds of the broker so far."""
    fields = Path(f"/proc/{kafka.nodes[0].server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ingest(kafka: Kafka, config: Config, bodies: list[bytes], events: int) -> dict[str, float]:
    """Bodies to durable frames, as an ingest worker does it, 50,000 events a commit."""
    log = KafkaLog(config)

    def work() -> None:
        decoder = Decoder()
        for number, body in enumerate(bodies, 1):
            decoder.append(body, _START_MS + 600_000)
            if decoder.rows < 50_000 and number < len(bodies):
                continue
            batch, _ = decoder.finish()
            frames = [
                frame.encode(Topic.RAW, part, partition=partition)
                for partition, part in by_key(batch, "device_id", _PARTITIONS)
            ]
            ledger.counts(Hop.ACCEPTED, batch)
            with log.transaction() as transaction:
                transaction.append(frames)

    try:
        figures = _measured(kafka, events, work)
    finally:
        log.close()
    sent = sum(map(len, bodies))
    return {**figures, "bytes_in": round(sent / events, 1), "bytes": _size(kafka, config, Topic.RAW, events)}


def _size(kafka: Kafka, config: Config, topic: Topic, events: int) -> float:
    return round(peers.size(kafka, f"{config.log.prefix}.{topic}") / events, 1)


def process(kafka: Kafka, config: Config, events: int, fill: Callable[[], int] | None = None) -> dict[str, float]:
    """Raw to enriched, by a processor that is alone in its group; joining that is no work.

    ``fill`` writes into raw once it has joined, and gives how many events it then takes: more than there are where some are put
    into another partition first. Without it raw is full, and what comes with the joining is not counted.
    """
    log = KafkaLog(config)
    book = SchemaBook(log, open_source(config), refresh_s=3600)
    book.refresh()
    dimensions = open_dimensions(config.dimensions)
    processing = build_processing(config, log, book, Tail(()), dimensions)
    processing.recover()
    left = events

    def work() -> None:
        nonlocal left
        while left > 0:
            left -= processing.step(0.1)

    try:
        assert isinstance(processing, GroupProcessor)
        while not processing.settled or (fill is None and left == events):
            left -= processing.step(0.1)
        whole = max(left, 1) if fill is None else events  # a tiny run may be over by now
        left = left if fill is None else fill()
        figures = _measured(kafka, whole, work)
        stored = 0
        for partition in range(_PARTITIONS):
            position, end = 0, log.next_offset(Topic.ENRICHED, partition)
            while log.end_offset(Topic.ENRICHED, partition) < end:
                time.sleep(0.01)  # until the broker has written the last transaction's mark
            while frames := log.read(Topic.ENRICHED, partition, position, events_max=1 << 30, to_offset=end):
                stored += sum(each.events for each in frames)
                position = frames[-1].offset + 1
        if stored < 0.99 * events:
            raise SystemExit(f"only {stored} of {events} events are enriched")
        wire = {
            f"bytes{way}": _size(kafka, config, of, events) for way, of in (("_in", Topic.RAW), ("", Topic.ENRICHED))
        }
        return {**figures, **wire}
    finally:
        processing.close()
        dimensions.close()
        book.close()
        log.close()


def loop(kafka: Kafka, bodies: list[bytes], events: int) -> dict[str, float]:
    """The same job with confluent-kafka and orjson: a message an event, a set of ids, a dictionary of devices."""
    source, target = peers.fill(kafka, bodies), f"loop-{uuid.uuid4().hex[:8]}"
    kafka.create(target, _PARTITIONS)
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap, "group.id": source, "enable.auto.commit": False,
            "enable.partition.eof": True, "isolation.level": "read_committed",
        }
    )  # fmt: skip
    consumer.assign([TopicPartition(source, each, 0) for each in range(_PARTITIONS)])
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": source, "linger.ms": 5, "compression.type": "lz4"}
    )
    producer.init_transactions()
    try:
        figures = _measured(kafka, events, lambda: _looped(consumer, producer, target))
    finally:
        consumer.close()
    return {**figures, **_wire(kafka, source, target, events)}


def _wire(kafka: Kafka, source: str, target: str, events: int) -> dict[str, float]:
    """Bytes an event of the record batches, as consumed and as produced."""
    return {
        f"bytes{way}": round(peers.size(kafka, topic) / events, 1) for way, topic in (("_in", source), ("", target))
    }


def _looped(consumer: Consumer, producer: Producer, target: str) -> None:
    seen: set[str] = set()
    sessions: dict[str, tuple[int, str]] = {}
    ended = 0
    while ended < _PARTITIONS:
        producer.begin_transaction()
        for message in consumer.consume(_LOOP_BATCH, 0.5):
            error = message.error()
            if error is not None:
                ended += error.code() == KafkaError._PARTITION_EOF
                continue
            event = orjson.loads(message.value() or b"")
            if event["messageId"] in seen:
                continue
            seen.add(event["messageId"])
            device = event.get("anonymousId") or event["userId"]
            at = int(datetime.fromisoformat(event["originalTimestamp"]).timestamp() * 1000)
            last, session = sessions.get(device, (-_GAP_MS, ""))
            if at - last >= _GAP_MS:
                session = f"{device}:{at}"
            sessions[device] = max(at, last), session
            event["session_id"] = session
            value = orjson.dumps(event)
            while True:
                try:
                    producer.produce(target, value, key=event["event"])
                    break
                except BufferError:
                    producer.poll(0.05)
        read = [each for each in consumer.position(consumer.assignment()) if each.offset >= 0]
        producer.send_offsets_to_transaction(read, consumer.consumer_group_metadata())
        producer.commit_transaction()


_NAMES: Final = {
    "ingest": "eventmill: bodies → raw, acks=all",
    "process": "eventmill: raw → enriched, transactional",
    "loop": "confluent-kafka and orjson: the same job, transactional",
    "quix": "Quix Streams {quix}: the same job, exactly-once",
    "flink": "Flink SQL {flink}: the same job, exactly-once",
}


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    versions = {"quix": figures["quix"], "flink": figures["flink"]}
    lines = [
        "| one broker | CPU ns an event (min to max) | events/s and core | by the clock | bytes in | bytes out |",
        "|---|---|---|---|---|---|",
    ]
    middles = {}
    for row, runs in figures["rows"].items():
        if not runs:
            continue
        cpu = [run["cpu_ns"] for run in runs]
        middle = middles[row] = statistics.median(cpu)
        clock, inwards, outwards = (
            statistics.median(run[name] for run in runs) for name in ("events_s", "bytes_in", "bytes")
        )
        spread = f"{middle:,.0f} ({min(cpu):,.0f} to {max(cpu):,.0f})"
        name = _NAMES[row].format(**versions)
        lines.append(f"| {name} | {spread} | {1e9 / middle:,.0f} | {clock:,.0f} | {inwards:.0f} | {outwards:.0f} |")
    others = [
        f"1/{middles[name] / middles['process']:.0f} of {title}" for name, title in _OTHERS.items() if name in middles
    ]
    return "\n".join([*lines, "", f"The processor takes {', '.join(others)} CPU time an event."])


_OTHERS: Final = {"loop": "the loop's", "quix": "Quix's", "flink": "Flink's"}
