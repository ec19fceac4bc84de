"""Raw to enriched on Kafka, exactly once, beside what else does that from Python: one broker on this machine, one process each.

The job: take events from a topic, drop those whose id was there before, give each its 30-minute session, and write them into
another topic in transactions with the offsets. Eventmill does it with frames of many events, and validates and joins
dimensions besides; the others with a message an event. CPU time is the client process's, without the broker's.
"""

from __future__ import annotations

import json
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

from bench import machine
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
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.sources import open_source
from eventmill.serve.processing import build_processing
from eventmill.serve.tuning import tune
from testbed.kafka import Kafka

_PARTITIONS: Final = 4
_GAP_MS: Final = 30 * 60_000
_START_MS: Final = 1_795_000_000_000
#: Events in a transaction of the loop; more made it no faster.
_LOOP_BATCH: Final = 20_000


def run(*, smoke: bool = False) -> dict[str, Any]:
    """All three parts, each with its peers, in turn."""
    if not smoke:
        tune()
    events, few, runs = (2_000, 500, 1) if smoke else (1_000_000, 100_000, 3)
    with Kafka(1, fast_start=smoke, heap_mib=1024) as kafka, tempfile.TemporaryDirectory() as name:
        rows: dict[str, list[dict[str, float]]] = {"ingest": [], "process": [], "loop": []}
        for number in range(runs):
            bodies = to_bodies(make_events(events, number), 100)
            config = _config(kafka, Path(name) / str(number))
            rows["ingest"].append(ingest(config, bodies, events))
            rows["process"].append(process(config, events))
            rows["loop"].append(loop(kafka, bodies[: few // 100], few))
    return {
        "question": "events a second and core from Kafka to Kafka, exactly once",
        "machine": machine.describe("confluent_kafka", "orjson", "pyarrow"),
        "events": {"ingest": events, "process": events, "loop": few},
        "runs": runs,
        "rows": rows,
    }


def _config(kafka: Kafka, data: Path) -> Config:
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


def _measured(events: int, work: Callable[[], int]) -> dict[str, float]:
    """``work`` gives the bytes that it has written."""
    cpu, begun = time.process_time(), time.perf_counter()
    size = work()
    wall = time.perf_counter() - begun
    return {
        "cpu_ns": round((time.process_time() - cpu) / events * 1e9),
        "events_s": round(events / wall),
        "bytes": round(size / events, 1),
    }


def ingest(config: Config, bodies: list[bytes], events: int) -> dict[str, float]:
    """Bodies to durable frames, as an ingest worker does it, 50,000 events a commit."""
    log = KafkaLog(config)

    def work() -> int:
        size, decoder = 0, Decoder()
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
            size += sum(len(each.payload) for each in frames)
        return size

    try:
        return _measured(events, work)
    finally:
        log.close()


def process(config: Config, events: int) -> dict[str, float]:
    """Raw to enriched, by a processor that is alone in its group."""
    log = KafkaLog(config)
    book = SchemaBook(log, open_source(config), refresh_s=3600)
    book.refresh()
    dimensions = open_dimensions(config.dimensions)
    processing = build_processing(config, log, book, Tail(()), dimensions)
    processing.recover()
    left = events

    def work() -> int:
        nonlocal left
        while left > 0:
            left -= processing.step(0.1)
        return 0

    try:
        left -= processing.step(0.1)
        while left == events:  # joining the group is no work
            left -= processing.step(0.1)
        figures = _measured(max(left, 1), work)  # a tiny run may be over by now
        stored, size = 0, 0
        for partition in range(_PARTITIONS):
            position, end = 0, log.next_offset(Topic.ENRICHED, partition)
            while log.end_offset(Topic.ENRICHED, partition) < end:
                time.sleep(0.01)  # until the broker has written the last transaction's mark
            while frames := log.read(Topic.ENRICHED, partition, position, events_max=1 << 30, to_offset=end):
                stored += sum(each.events for each in frames)
                size += sum(len(each.payload) for each in frames)
                position = frames[-1].offset + 1
        if stored < 0.99 * events:
            raise SystemExit(f"only {stored} of {events} events are enriched")
        return {**figures, "bytes": round(size / stored, 1)}
    finally:
        processing.close()
        dimensions.close()
        book.close()
        log.close()


def loop(kafka: Kafka, bodies: list[bytes], events: int) -> dict[str, float]:
    """The same job with confluent-kafka and orjson: a message an event, a set of ids, a dictionary of devices."""
    source, target = (f"loop-{uuid.uuid4().hex[:8]}" for _ in range(2))
    for topic in (source, target):
        kafka.create(topic, _PARTITIONS)
    feeding = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 50})
    for body in bodies:
        for event in json.loads(body)["batch"]:
            while True:
                try:
                    feeding.produce(source, orjson.dumps(event), key=event.get("anonymousId") or event["userId"])
                    break
                except BufferError:
                    feeding.poll(0.1)
    if feeding.flush(60):
        raise SystemExit("the events did not reach the topic")
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap, "group.id": source, "enable.auto.commit": False,
            "enable.partition.eof": True, "isolation.level": "read_committed",
        }
    )  # fmt: skip
    consumer.assign([TopicPartition(source, each, 0) for each in range(_PARTITIONS)])
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": source, "linger.ms": 5})
    producer.init_transactions()
    try:
        return _measured(events, lambda: _looped(consumer, producer, target))
    finally:
        consumer.close()


def _looped(consumer: Consumer, producer: Producer, target: str) -> int:
    seen: set[str] = set()
    sessions: dict[str, tuple[int, str]] = {}
    ended, size = 0, 0
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
            size += len(value)
            while True:
                try:
                    producer.produce(target, value, key=event["event"])
                    break
                except BufferError:
                    producer.poll(0.05)
        read = [each for each in consumer.position(consumer.assignment()) if each.offset >= 0]
        producer.send_offsets_to_transaction(read, consumer.consumer_group_metadata())
        producer.commit_transaction()
    return size


_NAMES: Final = {
    "ingest": "eventmill: bodies → raw, acks=all",
    "process": "eventmill: raw → enriched, transactional",
    "loop": "confluent-kafka and orjson: the same, transactional",
}


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| one process, one broker | CPU ns an event (min to max) | events/s and core | by the clock | bytes out |"
    ]
    lines.append("|---|---|---|---|---|")
    for row, runs in figures["rows"].items():
        cpu = [run["cpu_ns"] for run in runs]
        middle = statistics.median(cpu)
        clock, size = (statistics.median(run[name] for run in runs) for name in ("events_s", "bytes"))
        spread = f"{middle:,.0f} ({min(cpu):,.0f} to {max(cpu):,.0f})"
        lines.append(f"| {_NAMES[row]} | {spread} | {1e9 / middle:,.0f} | {clock:,.0f} | {size:.0f} |")
    ours, theirs = (statistics.median(run["cpu_ns"] for run in figures["rows"][row]) for row in ("process", "loop"))
    return "\n".join([*lines, "", f"The processor takes 1/{theirs / ours:.0f} of the loop's CPU time an event."])
