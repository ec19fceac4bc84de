"""What does an event cost that others have written into raw as JSON, a message each?

A processor that is alone in its group takes them from raw to enriched in transactions: keyed by the device, so that all lie
where they belong, or by the event's name, so that most are put where they belong first. Beside it, in turn, the loop of
``bench.kafka`` (confluent-kafka and orjson, a message an event on both sides) and the same events in frames. CPU time is the
client process's, without the broker's.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Producer

from bench import machine, peers
from bench.decode import make_events, to_bodies
from bench.kafka import configured, ingest, loop, process
from eventmill.core.config import Config
from eventmill.core.schema import Topic
from eventmill.kernels.partition import murmur2
from eventmill.serve.tuning import tune
from testbed.kafka import Kafka


def run(*, smoke: bool = False) -> dict[str, Any]:
    """All ways, in turn; the first round, of few events, is not counted. ``smoke``: what ``bench.kafka`` does not try."""
    if not smoke:
        tune()
    events, runs = (500, 1) if smoke else (150_000, 5)
    rows: dict[str, list[dict[str, float]]] = {row: [] for row in _NAMES if not smoke or row == "name"}
    with Kafka(1, fast_start=smoke, heap_mib=1024) as kafka, tempfile.TemporaryDirectory() as name:
        for number in range(-(not smoke), runs):
            count = events if number >= 0 else events // 10
            made = make_events(count, number + 1)
            ways = _ways(kafka, made, Path(name) / str(number))
            for row, runs_of in rows.items():
                figures = ways[row]()
                if number >= 0:
                    runs_of.append(figures)
    return {
        "question": "what an event costs that others have written into raw, a message each",
        "machine": machine.describe("confluent_kafka", "orjson", "pyarrow"),
        "events": events,
        "runs": runs,
        "rows": rows,
    }


def _ways(kafka: Kafka, made: list[bytes], data: Path) -> dict[str, Callable[[], dict[str, float]]]:
    def foreign(key: str) -> dict[str, float]:
        config = configured(kafka, data / key)
        return process(kafka, config, len(made), lambda: len(made) + _fill(config, made, key))

    def frames() -> dict[str, float]:
        config = configured(kafka, data / "frames")

        def fill() -> int:
            ingest(kafka, config, to_bodies(made, 100), len(made))
            return len(made)

        return process(kafka, config, len(made), fill)

    return {
        "device": lambda: foreign("anonymousId"),
        "name": lambda: foreign("event"),
        "loop": lambda: loop(kafka, to_bodies(made, 100), len(made)),
        "frames": frames,
    }


def _fill(config: Config, made: list[bytes], key: str) -> int:
    """A message for each event; gives how many lie where their device does not belong."""
    feeding = Producer(
        {
            "bootstrap.servers": config.kafka.bootstrap[0], "linger.ms": 50, "compression.type": "lz4",
            "partitioner": "murmur2_random",
        }
    )  # fmt: skip
    fields = [orjson.loads(event) for event in made]
    keyed = [(event, each[key]) for event, each in zip(made, fields, strict=True)]
    peers.produce(feeding, f"{config.log.prefix}.{Topic.RAW}", keyed)
    return sum(_partition(each[key]) != _partition(each["anonymousId"]) for each in fields)


def _partition(key: str) -> int:
    return (murmur2(key.encode()) & 0x7FFFFFFF) % peers.PARTITIONS


_NAMES: Final = {
    "device": "eventmill: a message an event, keyed by the device",
    "name": "eventmill: a message an event, keyed by the event's name",
    "loop": "confluent-kafka and orjson: a message an event",
    "frames": "eventmill: frames, as ingest writes them",
}


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| raw → enriched, transactional | CPU µs an event (min to max) | events/s and core |", "|---|---|---|"]
    for row, runs in figures["rows"].items():
        cpu = [run["cpu_ns"] / 1e3 for run in runs]
        middle = statistics.median(cpu)
        lines.append(f"| {_NAMES[row]} | {middle:.1f} ({min(cpu):.1f} to {max(cpu):.1f}) | {1e6 / middle:,.0f} |")
    return "\n".join(lines)
