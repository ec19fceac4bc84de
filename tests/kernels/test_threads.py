"""Kernels release the GIL: two threads on objects of their own get what one gets; one object for two is refused or safe."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eventmill import Enricher, RotatingBloom, Sessionizer
from eventmill._native.decode import Decoder
from eventmill.kernels.gather import take
from eventmill.kernels.partition import partition

START_MS = 1_795_000_000_000
ROUNDS, ROWS = 12, 4_000
SECRET = bytes(range(16))


def ids(seed: int) -> pa.Array:
    return pa.array(
        [b"%016d" % number for number in np.random.default_rng(seed).integers(0, 9_000, ROWS)], pa.binary(16)
    )


def events(seed: int) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    devices = pa.array([f"device {number}" for number in rng.integers(0, 900, ROWS)])
    times = pa.array(START_MS + np.sort(rng.integers(0, 36_000_000, ROWS)))
    return pa.record_batch({"device_id": devices, "timestamp": times, "user_id": devices, "event": devices})


def body(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    made = [
        {"type": "track", "event": f"E{n % 7}", "userId": f"u{n}", "messageId": f"m{n}", "properties": {"n": int(n)}}
        for n in rng.integers(0, 10**6, 300)
    ]
    return json.dumps({"batch": made}).encode()


def decode(seed: int) -> Any:
    decoder = Decoder()
    for number in range(ROUNDS):
        decoder.append(body(seed + number), START_MS)
    return decoder.finish()[0].drop_columns(["event_id"]).to_pylist()


def dedup(seed: int) -> Any:
    bloom = RotatingBloom(10_000, secret=SECRET)
    return [bloom.observe(ids(seed + number), START_MS + number * 600_000).to_pylist() for number in range(ROUNDS)]


def sessionize(seed: int) -> Any:
    sessionizer = Sessionizer("30m")
    return [sessionizer.assign(events(seed + number)).column("session_id").to_pylist() for number in range(ROUNDS)]


TABLE = pa.table({"user_id": [f"device {n}" for n in range(700)], "country": [f"C{n % 5}" for n in range(700)]})
ENRICHER = Enricher(TABLE)


def enrich(seed: int) -> Any:
    return [ENRICHER.apply(events(seed + number)).column("country").to_pylist() for number in range(ROUNDS)]


GATHERED = events(5)


def split(seed: int) -> Any:
    return [[(name, part.to_pylist()) for name, part in partition(events(seed))] for _ in range(2)]


def gather(seed: int) -> Any:
    orders = (np.random.default_rng(seed + number).permutation(ROWS) for number in range(ROUNDS))
    return [take(GATHERED, order).to_pydict() for order in orders]


def both(work: Callable[[int], Any], *given: int) -> list[Any]:
    """The work's results in as many threads, which begin together."""
    barrier = Barrier(len(given))

    def one(value: int) -> Any:
        barrier.wait()
        return work(value)

    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(one, given))


@pytest.mark.parametrize("work", [decode, dedup, sessionize, enrich, split, gather])
def test_two_threads_get_what_one_gets(work):
    assert both(work, 1, 100) == [work(1), work(100)]


def misuse(call: Callable[[int], object]) -> int:
    """Two threads on one object: how many calls were refused, by an error that says why."""

    def work(thread: int) -> int:
        refused = 0
        for number in range(40):
            try:
                call(thread * 40 + number)
            except RuntimeError as error:
                assert "one thread at a time" in str(error)
                refused += 1
        return refused

    return sum(both(work, 0, 1))


def test_one_decoder_for_two_threads():
    decoder, sent = Decoder(), body(1)
    refused = misuse(lambda _: decoder.append(sent, START_MS))
    assert decoder.rows == 300 * (80 - refused)
    decoder.finish()[0].validate(full=True)


def test_one_filter_for_two_threads():
    bloom, batch = RotatingBloom(10_000, secret=SECRET), ids(1)
    refused = misuse(lambda number: bloom.observe(batch, START_MS + number))
    assert refused < 80
    assert not any(bloom.observe(batch, START_MS).to_pylist())


def test_one_sessionizer_for_two_threads():
    sessionizer = Sessionizer("30m")
    batches = [events(seed) for seed in range(80)]
    refused = misuse(lambda number: sessionizer.assign(batches[number]))
    assert refused < 80
    assert 0 < sessionizer.devices <= 900
