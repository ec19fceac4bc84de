"""What a snapshot of state costs, how long recovery takes, and what of a state changes between two snapshots.

Half of the state is a filter at full load, half of it open sessions. A snapshot is taken (a copy, which the processor waits
for), then written and synced beside it. Recovery reads, checks and restores it; then it folds what came since, whose rate is
measured over a log of its own.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import machine
from bench.decode import RECEIVED_AT, make_events, to_bodies
from bench.growth import events, filled_filter, filled_sessions
from bench.kernels import START_MS
from eventmill._native.decode import Decoder
from eventmill.core import frame
from eventmill.core.config import Config, load
from eventmill.core.schema import Topic
from eventmill.kernels.event_bloom import EventTimeBloom
from eventmill.kernels.sessionize import Sessionizer
from eventmill.log.local import LocalLog
from eventmill.process.checkpoint import Checkpoints, Snapshot
from eventmill.process.partition import PartitionState
from eventmill.process.pipeline import build_stages
from eventmill.serve.engine_log import open_log

#: Events between two snapshots, by default.
_BETWEEN: Final = 2_000_000
_BATCH: Final = 16_384
_BLOCK: Final = 1 << 20


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Both parts; ``smoke``: a small state."""
    ids, devices, between, folded, runs = (
        (100_000, 20_000, 20_000, 2_000, 1) if smoke else (340_000_000, 9_000_000, _BETWEEN, 1_000_000, 3)
    )
    bloom, arrivals, step = filled_filter(ids)
    sessions = filled_sessions(devices)
    stages: dict[str, EventTimeBloom | Sessionizer] = {"dedup": bloom, "sessionize": sessions}
    with tempfile.TemporaryDirectory() as name:
        costs = [_cost(stages, Checkpoints(Path(name) / "snapshots"), number) for number in range(runs)]
        before = {stage: state.snapshot() for stage, state in stages.items()}
        for _ in range(-(-between // step)):
            next(arrivals)()
        _visit(sessions, devices, between)
        changed = {stage: _changed(before[stage], state.snapshot()) for stage, state in stages.items()}
        sizes = {stage: len(content) for stage, content in before.items()}
        before.clear()
        rate = _fold(Path(name) / "fold", folded, runs)
    return {
        "question": "what snapshots and recovery cost",
        "machine": machine.describe("pyarrow"),
        "runs": runs,
        "between": between,
        "bytes": sizes,
        "changed": changed,
        "costs": costs,
        "fold_events_s": rate,
    }


def _timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock, CPU seconds, and what it gave."""
    cpu, begun = time.process_time(), time.perf_counter()
    made = work()
    return time.perf_counter() - begun, time.process_time() - cpu, made


def _cost(stages: dict[str, Any], checkpoints: Checkpoints, number: int) -> dict[str, float]:
    take_s, take_cpu, states = _timed(lambda: {stage: state.snapshot() for stage, state in stages.items()})
    write_s, write_cpu, _ = _timed(lambda: checkpoints.save(Snapshot(number + 1, states)))
    gib = sum(map(len, states.values())) / 2**30
    states.clear()

    def restore() -> None:
        snapshot = checkpoints.newest(number + 1)
        if snapshot is None:
            raise SystemExit("the snapshot is not there")
        for stage, state in stages.items():
            state.restore(snapshot.states[stage])

    read_s, read_cpu, _ = _timed(restore)
    taken = {"take": (take_s, take_cpu), "write": (write_s, write_cpu), "recover": (read_s, read_cpu)}
    return {
        f"{what}_{unit}": round(value / gib, 4)
        for what, pair in taken.items()
        for unit, value in zip(("s", "cpu_s"), pair, strict=True)
    }


def _visit(sessions: Sessionizer, devices: int, between: int) -> None:
    """Events of any devices."""
    rng = np.random.default_rng(5)
    for number in range(-(-between // _BATCH)):
        times = START_MS + number * 1_000 + np.sort(rng.integers(0, 1_000, _BATCH))
        sessions.assign(events(rng.integers(0, devices, _BATCH), times))


def _changed(old: bytes, new: bytes) -> float:
    """The share of blocks of a MiB that differ."""
    blocks = range(0, len(new), _BLOCK)
    before, after = memoryview(old), memoryview(new)
    return round(sum(before[at : at + _BLOCK] != after[at : at + _BLOCK] for at in blocks) / len(blocks), 4)


def _fold(folder: Path, count: int, runs: int) -> int:
    """Events a second through the stages, without output."""
    config: Config = load(environ={}, overrides={"data": folder})
    log = open_log(config)
    if not isinstance(log, LocalLog):
        raise SystemExit("the fold is measured on the embedded log")
    decoder = Decoder()
    for body in to_bodies(make_events(count, 1), 100):
        decoder.append(body, RECEIVED_AT)
        if decoder.rows >= 50_000:
            _append(log, decoder)
    _append(log, decoder)
    rates = []
    for _ in range(runs):
        state = PartitionState(
            log, 0, lambda: build_stages(config), folder / "empty", batch_events_max=config.process.batch_events_max
        )
        recovery = state.recover(log.end_offset(Topic.RAW, 0))
        rates.append(recovery.events_folded / recovery.seconds)
    log.close()
    return round(statistics.median(rates))


def _append(log: LocalLog, decoder: Decoder) -> None:
    if decoder.rows:
        batch, _ = decoder.finish()
        with log.transaction() as transaction:
            transaction.append([frame.encode(Topic.RAW, batch)])


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| per GiB of state | by the clock (min to max) | CPU |", "|---|---|---|"]
    titles = {
        "take": "take: a copy, the processor waits", "write": "write, sync, rename: beside it",
        "recover": "recover: read, check, restore",
    }  # fmt: skip
    for what, title in titles.items():
        clock, cpu = ([cost[f"{what}_{unit}"] for cost in figures["costs"]] for unit in ("s", "cpu_s"))
        spread = f"{statistics.median(clock):.2f} s ({min(clock):.2f} to {max(clock):.2f})"
        lines.append(f"| {title} | {spread} | {statistics.median(cpu):.2f} s |")
    mib = sum(figures["bytes"].values()) / 2**20
    lines.append(
        f"\nA state of {mib:,.0f} MiB. The fold takes {figures['fold_events_s'] / 1e6:.2f} M events/s, so the "
        f"{_BETWEEN / 1e6:.0f} M events that may have come since a snapshot add {_BETWEEN / figures['fold_events_s']:.1f} s."
    )
    changed = figures["changed"]
    lines.append(
        f"\nOf the blocks of a MiB, {figures['between']:,} events change {changed['dedup']:.1%} of the filter's and "
        f"{changed['sessionize']:.0%} of the sessions'."
    )
    return "\n".join(lines)
