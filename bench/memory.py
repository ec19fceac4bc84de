"""Does ``eventmill serve`` stay flat under a load that lasts? A curve of resident memory at a constant rate.

Every million events comes from other devices, so nothing repeats; the next million is made while one is sent.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from bench import machine
from bench.report import picture
from bench.sampling import Sampler
from bench.serving import generate, serving
from eventmill.generate.client import Sender, Target
from eventmill.generate.files import Bodies

RATE: Final = 40_000


def run(*, smoke: bool = False) -> dict[str, Any]:
    """The curve."""
    count, chunks = (5_000, 2) if smoke else (1_000_000, 15)
    folder = Path(tempfile.mkdtemp(prefix="eventmill-bench-"))

    def make(number: int) -> Path:
        path = folder / f"requests{number}.ndjson"
        generate("--events", str(count), "--seed", str(number), "--out", str(path))
        return path

    try:
        with serving(folder / "data") as served, ThreadPoolExecutor(1) as maker:
            following = maker.submit(make, 0)
            with Sampler(served.roles, interval_s=0.1 if smoke else 1.0) as sampler:
                for number in range(chunks):
                    path = following.result()
                    if number + 1 < chunks:
                        following = maker.submit(make, number + 1)
                    bodies = Bodies(path)
                    target = Target(served.url, rate=RATE)
                    sent = uvloop.run(Sender(target).send(bodies, np.zeros(len(bodies), np.uint8)))
                    if sent.acked != len(bodies):
                        raise SystemExit(f"{len(bodies) - sent.acked} requests were not taken")
                    path.unlink()
                served.ask("POST", "/v1/flush")
            balanced = served.ask("GET", "/v1/audit")["balanced"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not balanced:
        raise SystemExit("the ledger does not balance")
    times = np.array([at for at, _ in sampler.memory])
    curve = {
        role: [round(resident.get(role, 0) / 2**20, 1) for _, resident in sampler.memory]
        for role in served.roles
    }  # fmt: skip
    whole = np.sum([curve[role] for role in curve], axis=0)
    return {
        "question": "resident memory under a load that lasts",
        "machine": machine.describe("chdb", "pyarrow"),
        "events": chunks * count,
        "events_per_second": round(chunks * count / float(times[-1])),
        "seconds": times.round(1).tolist(),
        "resident_mib": curve,
        "resident_mib_max": float(whole.max()),
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    whole = np.sum(list(figures["resident_mib"].values()), axis=0)
    quarters = [np.quantile(quarter, [0.1, 0.5]) for quarter in np.array_split(whole, 4)]
    low, middle = (", ".join(f"{quarter[at]:,.0f}" for quarter in quarters) for at in (0, 1))
    return (
        f"{figures['events'] / 1e6:,.0f} million events at {figures['events_per_second']:,} a second, over "
        f"{figures['seconds'][-1] / 60:.0f} minutes. All processes together, by quarters of that time: {low} MiB between "
        f"ClickHouse's merges (the lowest tenth), {middle} MiB at the median; {figures['resident_mib_max']:,.0f} at most.\n\n"
        "![Resident memory over time](images/memory.svg)"
    )


def plot(figures: dict[str, Any]) -> None:
    """Draw the curve."""
    minutes = np.array(figures["seconds"]) / 60
    with picture("memory") as axes:
        axes.stackplot(minutes, figures["resident_mib"].values(), labels=list(figures["resident_mib"]), alpha=0.8)
        axes.set(xlabel="minutes", ylabel="resident MiB", xlim=(0, minutes[-1]), ylim=(0, None))
        axes.legend(loc="lower right", frameon=False)
