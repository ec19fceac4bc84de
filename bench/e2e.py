"""From HTTP to queryable in both stores: how many events a second, and where the time goes.

One ``eventmill serve`` with its defaults and an empty folder takes the traffic of ``eventmill generate``, made beforehand.
Time runs from the first request until both stores have everything. Then the ledger and the oracle must find no fault.
"""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from bench import machine
from bench.sampling import Sampler
from bench.serving import generate, serving
from eventmill.generate.client import Sender, Target
from eventmill.generate.files import Bodies

#: What a thread's name means; the first that fits.
_PARTS: Final = (
    (r"ingest\d* (eventmill|python|uvloop)", "ingest: HTTP and decode"),
    (r"ingest\d* commit", "ingest: frames and log"),
    (r"engine process", "processor: dedup to frames"),
    (r"engine (realtime|Query|ThreadPool|python)", "real-time store: insert, views"),
    (r"engine (Merge|RuntimeData|Bg|Common)", "real-time store: merges"),
    (r"engine lake", "lake: cut, Parquet, commit"),
    (r"engine rescue", "rescue lane"),
)


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Figures of several runs."""
    count, runs = (5_000, 1) if smoke else (1_000_000, 5)
    folder = Path(tempfile.mkdtemp(prefix="eventmill-bench-"))
    try:
        requests, truth = folder / "requests.ndjson", folder / "truth.parquet"
        made = generate("--events", str(count), "--out", str(requests), "--truth", str(truth))
        if not smoke:
            one(folder / "warm", requests, count)
        taken = [one(folder / f"run{number}", requests, count) for number in range(runs)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    middle = sorted(taken, key=lambda one: one["events_per_second"])[runs // 2]
    return {
        "question": "HTTP to queryable in both stores",
        "machine": machine.describe("chdb", "pyarrow", "pyiceberg", "uvloop"),
        "events": count,
        "events_per_request": 100,
        "bytes_per_event": round(made["bytes"] / count),
        "runs": runs,
        "events_per_second": spread([one["events_per_second"] for one in taken]),
        "e2e_seconds_p50": statistics.median(one["e2e_seconds_p50"] for one in taken),
        "e2e_seconds_p99": statistics.median(one["e2e_seconds_p99"] for one in taken),
        "resident_mib_max": spread([one["resident_mib_max"] for one in taken]),
        "cpu_us_per_event": middle["cpu_us_per_event"],
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def one(folder: Path, requests: Path, count: int) -> dict[str, Any]:
    """One run over an empty folder."""
    with serving(folder) as served:
        bodies = Bodies(requests)
        with Sampler(served.roles, interval_s=0.1) as sampler:
            started = time.perf_counter()
            sent = uvloop.run(Sender(Target(served.url)).send(bodies, np.zeros(len(bodies), np.uint8)))
            stored = served.ask("POST", "/v1/flush")["stored"]
            seconds = time.perf_counter() - started
        audit = served.ask("GET", "/v1/audit")
        if not (stored and audit["balanced"] and sent.acked == len(bodies) and audit["received"] == count):
            raise SystemExit(f"the ledger does not balance: {audit}")
        insight = served.ask("GET", "/v1/summary")
    shutil.rmtree(folder)
    return {
        "events_per_second": round(count / seconds),
        "e2e_seconds_p50": insight["e2e_seconds_p50"],
        "e2e_seconds_p99": insight["e2e_seconds_p99"],
        "resident_mib_max": round(max(sum(resident.values()) for _, resident in sampler.memory) / 2**20),
        "cpu_us_per_event": parts(sampler, count),
    }


def parts(sampler: Sampler, count: int) -> dict[str, dict[str, float]]:
    """CPU time per event by part of the way, in µs: in the kernel and in all."""
    total: defaultdict[str, float] = defaultdict(float)
    kernel: defaultdict[str, float] = defaultdict(float)
    for (role, thread), user in sampler.user.items():
        label = next((label for fits, label in _PARTS if re.match(fits, f"{role} {thread}")), "other threads")
        kernel[label] += sampler.system[role, thread]
        total[label] += user + sampler.system[role, thread]
    return {
        label: {"all": round(seconds / count * 1e6, 2), "kernel": round(kernel[label] / count * 1e6, 2)}
        for label, seconds in sorted(total.items(), key=lambda part: -part[1])
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rate, memory = figures["events_per_second"], figures["resident_mib_max"]
    lines = [
        f"**{rate['median']:,.0f} events/s** ({rate['min']:,.0f} to {rate['max']:,.0f} in {figures['runs']} runs of "
        f"{figures['events']:,} events) on {figures['machine']['cores']} cores, with the load generator on the same cores; "
        f"{figures['bytes_per_event']} bytes an event, {figures['events_per_request']} events a request. An event is "
        f"queryable in the real-time store {figures['e2e_seconds_p50']:.2f} s after its arrival (median), "
        f"{figures['e2e_seconds_p99']:.2f} s at p99. All processes together take {memory['median']:,.0f} MiB at most.",
        "",
        "| part of the way | CPU µs an event | of it in the kernel |",
        "|---|---|---|",
    ]
    lines += [
        f"| {label} | {cpu['all']:.2f} | {cpu['kernel']:.2f} |" for label, cpu in figures["cpu_us_per_event"].items()
    ]
    whole = sum(cpu["all"] for cpu in figures["cpu_us_per_event"].values())
    return "\n".join([*lines, f"| **sum** | **{whole:.2f}** | |"])
