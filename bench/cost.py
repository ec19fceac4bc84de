"""What does an event cost to keep? Bytes in each store and tier, as it grows old: stored, compacted, cold, downsampled,
retired.

The same events are taken through their life by moving the clock. Volumes of ten times the one before, over as many days,
show what of it hangs on the volume: of few events a minute the sketches in the aggregates are small, and nearly all that
they cost.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bench import machine
from bench.lake import events
from bench.report import picture
from eventmill.core.config import load
from eventmill.core.retention import DAY_MS, Rules, rules
from eventmill.lake import cold
from eventmill.lake.aggregates import Aggregates, retired
from eventmill.lake.compact import compact
from eventmill.lake.iceberg import Kind
from eventmill.lake.retire import retire
from eventmill.lake.table import Lake
from eventmill.sinks.realtime import retire as realtime
from eventmill.sinks.realtime.sketches import Sketches
from eventmill.sinks.realtime.store import RealtimeStore

#: A midnight.
START: Final = 20_600
DAYS: Final = 4
SIZES: Final = (500_000, 5_000_000, 50_000_000)
BATCH: Final = 250_000
#: Named frequent: together most of the events, as scrolls and impressions are.
FREQUENT: Final = ("Event 0", "Event 1", "Event 2")
PLACES: Final = ("real time: events", "real time: roll-ups", "lake: events", "lake: cold", "lake: aggregates")
STEPS: Final = ("stored", "compacted", "left real time", "frequent downsampled", "cold", "retired")


def day(count: int, seed: int, date: int) -> pa.RecordBatch:
    """Events of one day, in order of arrival, each device's within a few hours."""
    rows = events(count, seed)
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(0, DAY_MS - 60_000, count)) + date * DAY_MS
    for name, later in (("timestamp", 0), ("original_timestamp", 321), ("sent_at", 900), ("received_at", 1_000)):
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(
            place, rows.schema.field(place), pa.array(at + later).cast(rows.schema.field(place).type)
        )
    return rows


def run(*, smoke: bool = False) -> dict[str, Any]:
    """The figures."""
    sizes = (1_000,) if smoke else SIZES
    return {
        "question": "what an event costs to keep",
        "machine": machine.describe("pyarrow", "pyiceberg", "chdb"),
        "days": DAYS,
        "frequent": list(FREQUENT),
        "volumes": [{"events": size, "bytes_per_event": measure(size)} for size in sizes],
    }


def measure(count: int) -> dict[str, dict[str, float]]:
    """Bytes an event, by step and place."""
    folder = Path(tempfile.mkdtemp(prefix="cost-bench-"))
    store, lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
    try:
        return live(store, lake, count)
    finally:
        store.close()
        lake.close()
        shutil.rmtree(folder)


def live(store: RealtimeStore, lake: Lake, count: int) -> dict[str, dict[str, float]]:
    """Take the events through their life; what there is after each step."""
    config = load(None, environ={}, overrides={"data": lake.folder, "retention.downsample_events": FREQUENT})
    wanted, found = rules(config), {}
    offset = 0
    for number in range(DAYS):
        for first in range(0, count // DAYS, BATCH):
            rows = day(min(BATCH, count // DAYS - first), number * 1_000 + first // BATCH, START + number)
            offsets = pa.array(np.full(rows.num_rows, offset, np.uint64))
            store.insert(rows.append_column("log_offset", offsets), f"{offset}")
            lake.append(rows, group="bench", ranges={0: (offset, offset + 1)})
            offset += 1
    found["stored"] = sizes(store, lake, count)
    last = (START + DAYS) * DAY_MS
    compact(lake, gap_ms=1_800_000, now_ms=last)
    found["compacted"] = sizes(store, lake, count)
    realtime.delete(store, realtime.Wanted(last, last, offset))
    found["left real time"] = sizes(store, lake, count)
    for step, kept_ms in (
        ("frequent downsampled", wanted.downsample_ms),
        ("cold", wanted.cold_ms),
        ("retired", wanted.raw_ms),
    ):
        aged(store, lake, wanted, last + kept_ms)
        found[step] = sizes(store, lake, count)
    return found


def aged(store: RealtimeStore, lake: Lake, wanted: Rules, now_ms: int) -> None:
    """What retention does at that time."""
    retire(lake, Aggregates.of(lake), wanted, Sketches(store), now_ms=now_ms)
    cold.move(lake, wanted, now_ms=now_ms)


def sizes(store: RealtimeStore, lake: Lake, count: int) -> dict[str, float]:
    """Bytes an event in each place, as the stores themselves tell."""
    parts = store.query_arrow(
        "SELECT if(table = 'events', 'events', 'roll-ups') AS what, sum(bytes_on_disk) AS bytes FROM system.parts "
        "WHERE active AND database = 'eventmill' AND table != 'migrations' GROUP BY what"
    )
    by_table = {row["what"]: row["bytes"] for row in parts.to_pylist()} if parts.num_rows else {}
    files, aggregates, named = lake.live_files(), Aggregates.of(lake), retired(lake.load())
    kept = [*aggregates.minutes.files(named.minutes), *aggregates.sessions.files(named.sessions)]
    of = {
        "real time: events": by_table.get("events", 0),
        "real time: roll-ups": by_table.get("roll-ups", 0),
        "lake: events": sum(each.data_file.file_size_in_bytes for each in files if each.kind is not Kind.COLD),
        "lake: cold": sum(each.data_file.file_size_in_bytes for each in files if each.kind is Kind.COLD),
        "lake: aggregates": sum(each.bytes for each in kept),
    }
    return {place: round(of[place] / count, 2) for place in PLACES}


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    largest = figures["volumes"][-1]
    lines = [
        f"Bytes an event, of {largest['events']:,} events over {figures['days']} days "
        f"(`python -m bench cost`; {figures['machine']['processor']}):",
        "",
        f"| after it is | {' | '.join(PLACES)} | in all |",
        f"|---|{'---|' * (len(PLACES) + 1)}",
    ]
    for step in STEPS:
        of = largest["bytes_per_event"][step]
        lines.append(f"| {step} | {' | '.join(f'{of[place]:.1f}' for place in PLACES)} | {sum(of.values()):.1f} |")
    lines += ["", "The same of other volumes, over as many days:", "", "| events | stored | retired |", "|---|---|---|"]
    for one in figures["volumes"]:
        first, last = (sum(one["bytes_per_event"][step].values()) for step in (STEPS[0], STEPS[-1]))
        lines.append(f"| {one['events']:,} | {first:.1f} | {last:.1f} |")
    lines.append("\n![Bytes an event as it grows old](images/cost.svg)")
    return "\n".join(lines)


def plot(figures: dict[str, Any]) -> None:
    """A bar a step, of the largest volume."""
    of = figures["volumes"][-1]["bytes_per_event"]
    with picture("cost") as axes:
        under = np.zeros(len(STEPS))
        for place in PLACES:
            heights = np.array([of[step][place] for step in STEPS])
            axes.bar(STEPS, heights, bottom=under, label=place)
            under += heights
        axes.set(ylabel="bytes an event")
        axes.tick_params(axis="x", labelsize=8)
        axes.legend(frameon=False, fontsize=8)
