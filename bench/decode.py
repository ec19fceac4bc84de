"""How fast do request bodies become Arrow columns, beside orjson with pyarrow and pyarrow's own JSON reader?

One thread each, the same events, in turn; the peers get what suits them: orjson the same bodies, pyarrow.json the events
as lines without the envelope. The peers make six columns in one piece, ours all of core.schema.RAW in record batches of
``--rows``, as a group commit would. Row counts and a checksum of the event names are compared before times are.

    python bench/decode.py [--events N] [--batch N] [--rows N] [--runs N] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.json

from eventmill._native.decode import Decoder

RECEIVED_AT = 1_795_400_000_000
NAMES = ["Product Viewed", "Product Added", "Cart Viewed", "Checkout Started", "Order Completed", "App Opened"]
COLUMNS = ("messageId", "event", "type", "anonymousId", "originalTimestamp", "properties")


def make_events(count: int, seed: int) -> list[bytes]:
    """Track events of about 340 bytes, no two alike."""
    rng = random.Random(seed)
    events = []
    for number in range(count):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime((RECEIVED_AT - rng.randrange(60_000_000)) / 1000))
        event = {
            "type": "track",
            "messageId": str(uuid.UUID(int=rng.getrandbits(128))),
            "anonymousId": str(uuid.UUID(int=rng.getrandbits(128))),
            "event": rng.choice(NAMES),
            "originalTimestamp": f"{at}.{rng.randrange(1000):03}Z",
            "context": {
                "app": {"version": f"4.{rng.randrange(20)}"},
                "os": {"name": rng.choice(["iOS", "Android"]), "version": f"{rng.randrange(12, 19)}.1"},
                "device": {"model": rng.choice(["iPhone15,2", "Pixel 8"])},
            },
            "properties": {"sku": f"SKU-{rng.randrange(100000)}", "price": rng.randrange(1, 50000) / 100, "n": number},
        }
        events.append(orjson.dumps(event))
    return events


def to_bodies(events: list[bytes], batch: int) -> list[bytes]:
    """Bodies of ``batch`` events each."""
    head, tail = b'{"batch":[', b'],"sentAt":"2026-11-23T02:13:20.000Z","writeKey":"wk"}'
    return [head + b",".join(events[at : at + batch]) + tail for at in range(0, len(events), batch)]


def run_ours(decoder: Decoder, bodies: list[bytes], rows: int) -> pa.Table:
    """All bodies into record batches of about ``rows`` rows."""
    batches = []
    for body in bodies:
        decoder.append(body, RECEIVED_AT)
        if decoder.rows >= rows:
            batches.append(decoder.finish()[0])
    return pa.Table.from_batches([*batches, decoder.finish()[0]])


def run_orjson(bodies: list[bytes]) -> pa.RecordBatch:
    """orjson to Python objects, six of their values to columns."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for body in bodies:
        for event in orjson.loads(body)["batch"]:
            for name in COLUMNS[:-1]:
                columns[name].append(event.get(name))
            columns["properties"].append(orjson.dumps(event["properties"]))
    return pa.record_batch(columns)


def run_pyarrow(lines: bytes) -> pa.Table:
    """pyarrow.json on one thread."""
    options = pa.json.ReadOptions(use_threads=False, block_size=16 << 20)
    return pa.json.read_json(io.BytesIO(lines), read_options=options)


def seconds(job: Callable[[], Any]) -> float:
    """Wall time of one run."""
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def checksum(result: pa.RecordBatch | pa.Table) -> tuple[int, dict[str, int]]:
    """Rows, and how many each event name has."""
    counts = {item["values"]: item["counts"] for item in result.column("event").value_counts().to_pylist()}
    return result.num_rows, dict(sorted(counts.items()))


def measure(events: int, batch: int, rows: int, runs: int, seed: int) -> dict[str, Any]:
    """Median, minimum and maximum of every contender in events per second, and our ratio to each peer."""
    made = make_events(events, seed)
    bodies, lines = to_bodies(made, batch), b"\n".join(made)
    decoder = Decoder()
    jobs: dict[str, Callable[[], Any]] = {
        "eventmill": lambda: run_ours(decoder, bodies, rows),
        "orjson_pyarrow": lambda: run_orjson(bodies),
        "pyarrow_json": lambda: run_pyarrow(lines),
    }
    answers = {name: checksum(job()) for name, job in jobs.items()}
    if any(answer != answers["eventmill"] for answer in answers.values()):
        sys.exit(f"the contenders disagree, so their times mean nothing: {answers}")
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(runs):
        for name, job in jobs.items():
            times[name].append(seconds(job))
    rates = {name: sorted(events / second for second in taken) for name, taken in times.items()}
    ours = statistics.median(times["eventmill"])
    return {
        "question": "request bodies to Arrow columns, one thread",
        "events": events,
        "batch": batch,
        "rows": rows,
        "runs": runs,
        "bytes_per_event": round(sum(map(len, made)) / events, 1),
        "events_per_second": {
            name: {"median": round(statistics.median(rate)), "min": round(rate[0]), "max": round(rate[-1])}
            for name, rate in rates.items()
        },
        "ratio": {
            name: round(statistics.median(taken) / ours, 2) for name, taken in times.items() if name != "eventmill"
        },
        "versions": {
            "python": platform.python_version(),
            "orjson": orjson.__version__,
            "pyarrow": pa.__version__,
        },
        "machine": platform.processor() or platform.machine(),
    }


def main() -> None:
    """Print the figures; write them only where --out says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=100, help="events a request")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of our record batches")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--out", type=Path, help="write the JSON there, too")
    arguments = parser.parse_args()
    figures = measure(arguments.events, arguments.batch, arguments.rows, arguments.runs, arguments.seed)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(figures))
        return
    print(
        f"{figures['events']:,} events of {figures['bytes_per_event']} bytes, {figures['batch']} a request, one thread"
    )
    for name, rate in figures["events_per_second"].items():
        ratio = figures["ratio"].get(name)
        beside = f"   ours is {ratio}x" if ratio else ""
        print(f"  {name:15} {rate['median']:>10,} events/s  ({rate['min']:,} to {rate['max']:,}){beside}")


if __name__ == "__main__":
    main()
