"""Does a second thread double the throughput? Each kernel on one thread, then on two with an object each.

The GIL is released within a kernel, so what is left to share are the memory's bandwidth and what Python does around a call. A
measurement needs two cores with nothing else on them: ``idle`` is the share of the time that this process had both.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from bench import machine
from bench.kernels import START_MS, events_of, ids_of
from eventmill import Enricher, RotatingBloom, Sessionizer
from eventmill._native.decode import Decoder
from eventmill.kernels import cpu
from eventmill.kernels.partition import partition
from eventmill.serve.tuning import tune

THREADS = 2
Work = Callable[[], object]


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Every kernel, one thread and two taking turns."""
    if not smoke:
        tune()
    items, calls, runs = (200, 2, 1) if smoke else (65_536, 40, 7)
    makers = {"decode": decode, "dedup": dedup, "sessionize": sessionize, "enrich": enrich, "partition": split}
    return {
        "question": "million items a second, by threads",
        "machine": machine.describe("pyarrow"),
        "cpu": cpu.CHOSEN,
        "runs": runs,
        "kernels": {name: scale(items, calls, runs, make) for name, make in makers.items()},
    }


def scale(items: int, calls: int, runs: int, make: Callable[[int, int], Work]) -> dict[str, float]:
    """Medians over `runs` of items a second (millions) with one thread and two, and their ratio."""
    works = [make(items, seed) for seed in range(THREADS)]
    rates: dict[int, list[float]] = {1: [], THREADS: []}
    idle: list[float] = []
    for number in range(runs + 1):
        for threads, taken in rates.items():
            wall, used = seconds(works[:threads], calls)
            if number:
                taken.append(items * calls * threads / wall / 1e6)
                idle += [used / wall / THREADS] if threads == THREADS else []
    one, two = statistics.median(rates[1]), statistics.median(rates[THREADS])
    return {
        "one": round(one, 3),
        "two": round(two, 3),
        "ratio": round(two / one, 2),
        "best": round(max(b / a for a, b in zip(rates[1], rates[THREADS], strict=True)), 2),
        "idle": round(statistics.median(idle), 2),
    }


def seconds(works: list[Work], calls: int) -> tuple[float, float]:
    """Wall and CPU seconds that the works take side by side, a thread each."""
    barrier = threading.Barrier(len(works) + 1)

    def repeat(work: Work) -> None:
        barrier.wait()
        for _ in range(calls):
            work()

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun, time.process_time() - used


def decode(items: int, seed: int) -> Work:
    """Bodies of 100 events into one decoder, taken back each time, so that no memory is new."""
    made = [
        {
            "type": "track",
            "event": f"Event {number % 40}",
            "anonymousId": f"device-{number:012d}",
            "messageId": f"00000000-0000-4000-8000-{number:012d}",
            "originalTimestamp": "2026-11-23T02:13:20.123Z",
            "context": {"app": {"version": "4.1"}, "os": {"name": "iOS", "version": "17.1"}, "locale": "de"},
            "properties": {"price": 1.5, "n": number, "list": [1, 2, 3]},
        }
        for number in range(seed * items, (seed + 1) * items)
    ]
    body = json.dumps({"batch": made}).encode()
    decoder = Decoder()

    def work() -> None:
        decoder.append(body, START_MS)
        decoder.rollback()

    return work


def dedup(items: int, seed: int) -> Work:
    """Ids into a filter of a million, beyond the cache."""
    bloom = RotatingBloom(1_000_000, populate=True)
    ids = ids_of(np.random.default_rng(seed), items)
    return lambda: bloom.observe(ids, START_MS)


def sessionize(items: int, seed: int) -> Work:
    """Events of as many devices."""
    sessionizer, batch = Sessionizer("30m"), events_of(np.random.default_rng(seed), items, items)
    return lambda: sessionizer.assign(batch)


def enrich(items: int, seed: int) -> Work:
    """Users of a table of as many."""
    users = pa.array([f"user-{number:010d}" for number in range(items)])
    enricher = Enricher(pa.table({"user_id": users, "country": users.dictionary_encode().indices.cast(pa.string())}))
    chosen = np.random.default_rng(seed).integers(0, items, items)
    batch = pa.record_batch({"user_id": users.take(pa.array(chosen))})
    return lambda: enricher.apply(batch)


def split(items: int, seed: int) -> Work:
    """A batch of four columns by 40 names."""
    rng = np.random.default_rng(seed)
    batch = events_of(rng, items, items)
    names = pa.array([f"Event number {number}" for number in rng.integers(0, 40, items)])
    batch = batch.append_column("event", names).append_column("event_id", ids_of(rng, items))
    return lambda: partition(batch)


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| kernel | M items/s, one thread | two threads | ratio (best) | cores had |", "|---|---|---|---|---|"]
    for name, taken in figures["kernels"].items():
        cores = taken["idle"] * THREADS
        lines.append(
            f"| {name} | {taken['one']:.2f} | {taken['two']:.2f} | {taken['ratio']:.2f}× ({taken['best']:.2f}×) | {cores:.1f} |"
        )
    return "\n".join(lines)
