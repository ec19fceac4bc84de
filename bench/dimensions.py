"""Dimensions from Redis: what the stage does at each hit rate, and with Redis down or slow, beside the plain ways to ask."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import redis as redis_py

from bench import machine
from eventmill.core.config import DimensionsConfig
from eventmill.process.dimensions.redis_table import RedisTable
from eventmill.process.dimensions.source import open_dimensions
from testbed.faults import FaultProxy
from testbed.process import free_port
from testbed.redis import Redis

_FIELDS: Final = ("country", "segment", "tier")
_SLOW_S: Final = 0.1
Batches = list[pa.RecordBatch]


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Every way over the same users."""
    sizes = (200, 2_000, 6) if smoke else (16_384, 1_000_000, 60)
    events, users, batches = sizes
    address = f"127.0.0.1:{free_port()}"
    with Redis() as server, FaultProxy({address: f"127.0.0.1:{server.port}"}) as proxy:
        fill(server.url, users)
        direct, slow = server.url, f"redis://{address}/0"
        ways = {}
        for name, fresh in (("99 % hits", 0.01), ("90 % hits", 0.10), ("cold", 1.0)):
            made = traffic(events, users, batches, fresh)
            ways[f"Eventmill, {name}"] = rate(stage(direct), made, warm=fresh < 1)
        few = traffic(events, users, max(batches // 10, 4), 0.10)
        ways["redis-py, a pipeline a batch"] = rate(pipelined(direct), few)
        ways["redis-py, a look-up an event"] = rate(plain(direct), [few[0].slice(0, min(events, 4_096)), few[1]])
        made = traffic(events, users, batches, 0.10)

        def slow_down() -> None:
            proxy.conditions.latency_s = _SLOW_S / 2  # there and back again

        ways["Eventmill, 90 % hits, Redis slow by 100 ms"] = rate(stage(slow), made, then=slow_down)
        ways["Eventmill, 90 % hits, Redis down"] = rate(stage(direct), made, then=server.kill)
    return {
        "question": "events a second through the stage, all of them with a user",
        "machine": machine.describe("pyarrow", "redis", "hiredis"),
        "events_a_batch": events,
        "batches": batches,
        "users": users,
        "ways": ways,
    }


def fill(url: str, users: int) -> None:
    """So many users."""
    table = RedisTable(DimensionsConfig(redis=url), timeout_s=30)
    countries, tiers = (b"DE", b"FR", b"US", b"IN", b"BR"), (b"free", b"gold")
    for start in range(0, users, 1_000):
        rows = range(start, min(start + 1_000, users))
        table.load([(b"user-%d" % n, countries[n % 5], b"loyal", tiers[n % 2]) for n in rows], None)
    table.close()


def traffic(events: int, users: int, batches: int, fresh: float) -> Batches:
    """Of each batch the share ``fresh`` is of users who come once only; the others are of a few who were in the first batch."""
    rng = np.random.default_rng(1)
    few = np.arange(events)
    following = events
    made = [few]
    for _ in range(batches):
        count = max(int(events * fresh), 1)
        new = np.arange(following, following + count) % users
        following += count
        made.append(rng.permutation(np.concatenate([new, rng.choice(few, events - count)])))
    flags = np.zeros(events, np.int32)
    return [pa.record_batch({"user_id": [f"user-{n}" for n in numbers.tolist()], "flags": flags}) for numbers in made]


def stage(url: str) -> Callable[[pa.RecordBatch], Any]:
    """Ours, with a new cache and the default settings."""
    return open_dimensions(DimensionsConfig(redis=url)).apply


def pipelined(url: str) -> Callable[[pa.RecordBatch], Any]:
    """Each distinct user of a batch in one pipeline."""
    client = redis_py.Redis.from_url(url)

    def ask(batch: pa.RecordBatch) -> Any:
        users = batch.column("user_id").to_pylist()
        pipeline = client.pipeline(transaction=False)
        distinct = list(dict.fromkeys(users))
        for user in distinct:
            pipeline.hmget(f"eventmill:user:{user}", _FIELDS)
        known = dict(zip(distinct, pipeline.execute(), strict=True))
        return [known[user] for user in users]

    return ask


def plain(url: str) -> Callable[[pa.RecordBatch], Any]:
    """Each event's user, one after the other."""
    client = redis_py.Redis.from_url(url)
    return lambda batch: [
        client.hmget(f"eventmill:user:{user}", _FIELDS) for user in batch.column("user_id").to_pylist()
    ]


def rate(
    work: Callable[[pa.RecordBatch], Any],
    batches: Batches,
    *,
    warm: bool = True,
    then: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Events a second over all batches but the first (with which ``warm`` fills the cache), and the batches' ms.

    ``then`` happens before the second one.
    """
    if warm:
        work(batches[0])
    then()
    taken, unknown = [], 0
    for batch in batches[1:]:
        begun = time.perf_counter()
        answer = work(batch)
        taken.append(time.perf_counter() - begun)
        if isinstance(answer, pa.RecordBatch):
            unknown += int(np.count_nonzero(answer.column("flags").to_numpy()))
    events = sum(batch.num_rows for batch in batches[1:])
    return {
        "events_per_second": round(events / sum(taken)),
        "batch_ms": round(statistics.median(taken) * 1e3, 3),
        "batch_ms_max": round(max(taken) * 1e3, 1),
        "unknown": round(unknown / events, 4),
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| | events/s | a batch, ms (median) | longest | unknown |", "|---|---|---|---|---|"]
    for way, one in figures["ways"].items():
        speed = f"{one['events_per_second']:,} | {one['batch_ms']:.2f} | {one['batch_ms_max']:,.0f}"
        lines.append(f"| {way} | {speed} | {one['unknown']:.1%} |")
    return "\n".join(lines)
