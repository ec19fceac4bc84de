"""How costs grow with what is remembered: ids in the filter, devices with sessions, users in the table; and its errors.

Each point is a state of that size, filled, and then asked by batches that are new to it. Memory is what the resident set of a
process of its own grew by while a state was filled (``python -m bench.growth KIND SIZE``), beside what its size says.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bench import machine
from bench.kernels import DAY_MS, START_MS, cpu, ids_of
from bench.report import picture
from eventmill import Enricher, EventTimeBloom, Sessionizer
from eventmill.kernels.event_bloom import slice_rates
from eventmill.serve.tuning import tune

_BATCH: Final = 65_536
#: States that are smaller are lost in what the process itself allocates.
_MEASURED_BYTES: Final = 10_000_000
_LOADS: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def run(*, smoke: bool = False) -> dict[str, Any]:
    """All curves."""
    if not smoke:
        tune()
    runs, most = (1, 4) if smoke else (5, 8)
    sizes = [10**power for power in range(4, most + 1)]
    return {
        "question": "CPU ns an item and bytes, as the state grows",
        "machine": machine.describe("pyarrow"),
        "runs": runs,
        "dedup": [dedup(size, runs) for size in sizes],
        "sessionize": [sessionize(size, runs) for size in sizes if size <= 10**7],
        "enrich": [enrich(size, runs) for size in sizes if size <= 10**7],
        "errors": errors(2_000 if smoke else 2_000_000),
    }


def resident_bytes() -> int:
    """Of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grown_bytes(kind: str, size: int, derived: int) -> int | None:
    """What a process grows by that fills such a state; ``None`` when it would be lost in what else it allocates."""
    if derived < _MEASURED_BYTES:
        return None
    told = subprocess.run(
        [sys.executable, "-m", "bench.growth", kind, str(size)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(told.stdout)


def point(size: int, work: Callable[[int], tuple[Callable[[], object], int]], runs: int) -> dict[str, Any]:
    """``work(run)`` gives what is to be timed, and for how many items. The first run warms up."""
    ns = []
    for number in range(runs + 1):
        job, items = work(number)
        ns.append(cpu(job) / items * 1e9)
    ns = ns[1:]
    return {"size": size, "ns": round(statistics.median(ns), 1), "min": round(min(ns), 1), "max": round(max(ns), 1)}


def ids_in_order(bloom: EventTimeBloom, capacity: int, step: int) -> Iterator[Callable[[], object]]:
    """Observes of ``step`` new ids each, at the rate of ``capacity`` in 24 h; a whole window is over after ``capacity`` ids."""
    rng = np.random.default_rng(1)
    for seen in range(0, 1 << 60, step):
        ids, times = ids_of(rng, step), pa.array(START_MS + (seen + np.arange(step)) * DAY_MS // capacity)
        yield lambda ids=ids, times=times: bloom.observe(ids, times, times)  # type: ignore[misc]


def filled_filter(capacity: int) -> tuple[EventTimeBloom, Iterator[Callable[[], object]], int]:
    """A filter for ``capacity`` ids within 24 h that is filled by ids in the order of their times, and more of them."""
    bloom, step = EventTimeBloom(capacity), min(_BATCH, capacity)
    arrivals = ids_in_order(bloom, capacity, step)
    for _ in range(0, capacity, step):
        next(arrivals)()
    return bloom, arrivals, step


def filled_sessions(devices: int) -> Sessionizer:
    """Sessions of so many devices."""
    sessionizer = Sessionizer("30m", max_devices=devices * 2)
    for begin in range(0, devices, _BATCH):
        count = min(_BATCH, devices - begin)
        sessionizer.assign(events(np.arange(begin, begin + count), np.full(count, START_MS)))
    return sessionizer


_FILLED: Final[dict[str, Callable[[int], object]]] = {"dedup": filled_filter, "sessionize": filled_sessions}


def main(kind: str, size: int) -> None:
    """Print the bytes that the process grows by. A small state first takes what any would."""
    filled = _FILLED[kind]
    filled(2 * _BATCH)
    before = resident_bytes()
    state = filled(size)
    print(resident_bytes() - before)
    del state


def dedup(capacity: int, runs: int) -> dict[str, Any]:
    """A filter at full load, then more ids."""
    bloom, arrivals, step = filled_filter(capacity)
    # Small filters are asked often enough for the clock.
    repeats = max(1, 1_000_000 // step)

    def work(_: int) -> tuple[Callable[[], object], int]:
        jobs = [next(arrivals) for _ in range(repeats)]
        return lambda: [job() for job in jobs], step * repeats

    derived = bloom.nbytes
    return point(capacity, work, runs) | {"bytes": grown_bytes("dedup", capacity, derived), "bytes_derived": derived}


def sessionize(devices: int, runs: int) -> dict[str, Any]:
    """State of so many devices, then events of any of them, 2 % late."""
    rng = np.random.default_rng(2)
    sessionizer = filled_sessions(devices)

    def work(number: int) -> tuple[Callable[[], object], int]:
        batches = []
        for part in range(16):
            times = START_MS + (number * 16 + part) * 1_000 + np.sort(rng.integers(0, 1_000, _BATCH))
            late = rng.random(_BATCH) < 0.02
            times[late] -= rng.integers(0, DAY_MS, int(late.sum()))
            batches.append(events(rng.integers(0, devices, _BATCH), times))
        return lambda: [sessionizer.assign(batch) for batch in batches], 16 * _BATCH

    taken = point(devices, work, runs)
    derived = sessionizer.nbytes
    return taken | {"bytes": grown_bytes("sessionize", devices, derived), "bytes_derived": derived}


def events(devices: np.ndarray[Any, Any], times: np.ndarray[Any, Any]) -> pa.RecordBatch:
    """Events of devices by number."""
    names = pa.array(np.char.mod("device-%029d", devices))
    return pa.record_batch({"device_id": names, "timestamp": pa.array(times, pa.int64())})


def enrich(users: int, runs: int) -> dict[str, Any]:
    """A table of so many users, then events of any of them, an eighth of nobody in it."""
    rng = np.random.default_rng(3)
    table = pa.table(
        {
            "user_id": np.char.mod("user-%010d", np.arange(users)),
            "country": rng.choice(["DE", "FR", "US", "IN", "BR"], users),
            "segment": rng.choice(["new", "loyal", "gone"], users),
            "tier": rng.choice(["free", "gold"], users),
        }
    )
    enricher = Enricher(table)

    def work(_: int) -> tuple[Callable[[], object], int]:
        batches = [
            pa.record_batch({"user_id": np.char.mod("user-%010d", rng.integers(0, users + users // 7, _BATCH))})
            for _ in range(16)
        ]
        return lambda: [enricher.apply(batch) for batch in batches], 16 * _BATCH

    return point(users, work, runs) | {"bytes_derived": enricher.nbytes}


def errors(capacity: int) -> list[dict[str, float]]:
    """New ids taken for seen ones, on time, over a whole window at several loads; beside what the derivation says."""
    found = []
    for load in _LOADS:
        rng = np.random.default_rng(4)
        bloom = EventTimeBloom(capacity, secret=bytes(16))
        count, wrong, step = int(capacity * load), 0, 10_000
        for begin in range(0, count, step):
            times = pa.array(START_MS + (begin + np.arange(min(step, count - begin))) * DAY_MS // count)
            fresh = bloom.observe(ids_of(rng, len(times)), times, times)
            wrong += len(fresh) - fresh.true_count
        derived = slice_rates(round(bloom.slice_capacity * load), bloom.shape.blocks)[1]
        found.append({"load": load, "rate": wrong / count, "derived": derived})
    return found


def bytes_each(taken: dict[str, Any]) -> str:
    """Bytes an item, measured and derived."""
    derived = f"{taken['bytes_derived'] / taken['size']:.1f}"
    return derived if taken["bytes"] is None else f"{taken['bytes'] / taken['size']:.1f} of {derived}"


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| items | dedup, ns an id | bytes an id | sessionize, ns an event | bytes a device | enrich, ns an event |"
    ]
    lines.append("|---|---|---|---|---|---|")
    by_size = {name: {taken["size"]: taken for taken in figures[name]} for name in ("dedup", "sessionize", "enrich")}
    for size in by_size["dedup"]:
        dedup, sessions, users = (by_size[name].get(size) for name in ("dedup", "sessionize", "enrich"))
        cells = [f"10^{len(str(size)) - 1}"]
        for taken, memory in ((dedup, True), (sessions, True), (users, False)):
            cells.append(f"{taken['ns']:.0f} ({taken['min']:.0f} to {taken['max']:.0f})" if taken else "")
            if memory:
                cells.append(bytes_each(taken) if taken else "")
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("\nBytes: measured, of those that follow from the sizes, which alone stand where they are few.")
    lines.append("\n![Cost an item as the state grows](images/growth.svg)")
    lines.append("\n![False positives against load](images/errors.svg)")
    return "\n".join(lines)


def plot(figures: dict[str, Any]) -> None:
    """The two pictures."""
    with picture("growth") as axes:
        for name, unit in (("dedup", "ids"), ("sessionize", "devices"), ("enrich", "users")):
            taken = figures[name]
            ns = np.array([one["ns"] for one in taken])
            spread = np.abs(np.array([[one["min"] for one in taken], [one["max"] for one in taken]]) - ns)
            axes.errorbar(
                [one["size"] for one in taken], ns, yerr=spread, marker="o", capsize=3, label=f"{name} ({unit})"
            )
        axes.set(xscale="log", xlabel="remembered", ylabel="CPU ns an item", ylim=(0, None))
        axes.legend(frameon=False)
    with picture("errors") as axes:
        loads = [one["load"] for one in figures["errors"]]
        axes.plot(loads, [one["rate"] for one in figures["errors"]], "o", label="measured")
        axes.plot(loads, [one["derived"] for one in figures["errors"]], label="derived")
        axes.axhline(0.001, color="grey", linewidth=0.8, linestyle="--")
        axes.set(yscale="log", xlabel="load (1: as many ids as the filter is made for)", ylabel="false positives")
        axes.legend(frameon=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
