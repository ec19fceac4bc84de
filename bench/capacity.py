"""What a load needs, from the costs that the other benchmarks have measured: cores, bytes a second, memory, disks.

A model, not a measurement: every cost is taken to grow in proportion to the events, which partitions make true for processors
and brokers, and processes for ingest.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_DAY_S: Final = 86_400
_PARTITIONS_STEP: Final = 12


@dataclass(frozen=True)
class Load:
    """What is assumed: the peak's events a second, the day's mean of it, and how things are kept.

    ``busy`` is how much of a core may be used at the peak, ``copies`` the replication factor; ``devices`` are those with
    events within ``process.lateness``.
    """

    events_s: float = 1_000_000
    mean: float = 0.5
    busy: float = 0.6
    copies: int = 3
    devices: float = 100_000_000
    log_days: int = 3
    raw_days: int = 90
    window_days: int = 1


@dataclass(frozen=True)
class Costs:
    """Per event, from ``bench/results``: CPU in ns, bytes; ``id_bytes`` and ``device_bytes`` of state."""

    http_ns: float
    ingest_ns: float
    process_ns: float
    broker_ns: float
    realtime_ns: float
    lake_ns: float
    compact_ns: float
    body_bytes: float
    raw_bytes: float
    enriched_bytes: float
    lake_bytes: float
    id_bytes: float
    device_bytes: float


@dataclass(frozen=True)
class Needs:
    """``cores`` by role, at the peak; bytes a second at the peak; bytes of memory and disk."""

    cores: dict[str, float]
    body_bytes_s: float
    raw_bytes_s: float
    enriched_bytes_s: float
    brokers_in_bytes_s: float
    brokers_out_bytes_s: float
    filters_bytes: float
    sessions_bytes: float
    brokers_disk_bytes: float
    lake_bytes: float
    partitions: int


def costs(results: Path) -> Costs:
    """Read from the results of e2e, kafka, growth and lake."""
    kept = {name: json.loads((results / f"{name}.json").read_text()) for name in ("e2e", "kafka", "growth", "lake")}
    kafka: dict[str, list[dict[str, Any]]] = kept["kafka"]["rows"]

    def middle(row: str, figure: str) -> float:
        return float(statistics.median(run[figure] for run in kafka[row]))

    def each(name: str) -> float:
        largest = kept["growth"][name][-1]
        return float(largest["bytes_derived"] / largest["size"])

    parts = {part: cpu["all"] * 1_000 for part, cpu in kept["e2e"]["cpu_us_per_event"].items()}
    jobs = kept["lake"]["by_job"]
    return Costs(
        http_ns=parts["ingest: HTTP and decode"],
        ingest_ns=middle("ingest", "cpu_ns"),
        process_ns=middle("process", "cpu_ns"),
        broker_ns=middle("ingest", "broker_ns") + middle("process", "broker_ns"),
        realtime_ns=parts["real-time store: insert, views"] + parts["real-time store: merges"],
        lake_ns=jobs["append"]["cpu_us_per_event"] * 1_000,
        compact_ns=jobs["compact"]["cpu_us_per_event"] * 1_000,
        body_bytes=middle("ingest", "bytes_in"),
        raw_bytes=middle("ingest", "bytes"),
        enriched_bytes=middle("process", "bytes"),
        lake_bytes=jobs["compact"]["bytes_per_event"],
        id_bytes=each("dedup"),
        device_bytes=each("sessionize"),
    )


def needs(cost: Costs, load: Load) -> Needs:
    """What the load needs."""

    def cores(ns: float) -> float:
        return ns / 1e9 * load.events_s / load.busy

    mean_s = load.mean * load.events_s
    logged = cost.raw_bytes + cost.enriched_bytes
    processors = cores(cost.process_ns)
    return Needs(
        cores={
            "ingest": cores(cost.http_ns + cost.ingest_ns),
            "processors": processors,
            "brokers": cores(cost.broker_ns * load.copies),
            "real-time store": cores(cost.realtime_ns),
            "lake, appending": cores(cost.lake_ns),
            "lake, compacting": cores(cost.compact_ns * load.mean),
        },
        body_bytes_s=cost.body_bytes * load.events_s,
        raw_bytes_s=cost.raw_bytes * load.events_s,
        enriched_bytes_s=cost.enriched_bytes * load.events_s,
        brokers_in_bytes_s=logged * load.events_s * load.copies,
        # The followers, the processors, and both sinks.
        brokers_out_bytes_s=(logged * (load.copies - 1) + cost.raw_bytes + 2 * cost.enriched_bytes) * load.events_s,
        filters_bytes=cost.id_bytes * mean_s * _DAY_S * load.window_days,
        sessions_bytes=cost.device_bytes * load.devices,
        brokers_disk_bytes=logged * mean_s * _DAY_S * load.log_days * load.copies,
        lake_bytes=cost.lake_bytes * mean_s * _DAY_S * load.raw_days,
        partitions=math.ceil(2 * processors / _PARTITIONS_STEP) * _PARTITIONS_STEP,
    )


_ROLES: Final = {
    "ingest": ("HTTP, decode, frames, acks=all", "http_ns", "ingest_ns"),
    "processors": ("raw to enriched, transactional", "process_ns"),
    "brokers": ("raw and enriched, each copy", "broker_ns"),
    "real-time store": ("insert, views, merges", "realtime_ns"),
    "lake, appending": ("cut, Parquet, commit", "lake_ns"),
    "lake, compacting": ("at the mean rate", "compact_ns"),
}


def derive(results: Path) -> str:
    """The tables of docs/capacity.md."""
    load, cost = Load(), costs(results)
    found = needs(cost, load)
    lines = [
        f"For **{load.events_s:,.0f} events/s** at the peak, {load.mean:.0%} of that as the day's mean, "
        f"{load.devices / 1e6:,.0f} M devices, replication factor {load.copies}, cores {load.busy:.0%} busy at the peak:",
        "",
        "| role | what | CPU ns an event | cores |",
        "|---|---|---|---|",
    ]
    for role, (what, *names) in _ROLES.items():
        ns = sum(getattr(cost, name) for name in names)
        lines.append(f"| {role} | {what} | {ns:,.0f} | {found.cores[role]:.1f} |")
    lines.append(f"| **sum** | | | **{sum(found.cores.values()):.0f}** |")
    rows = [
        ("request bodies, before HTTP's own and gzip", f"{_size(found.body_bytes_s)}/s"),
        ("raw", f"{_size(found.raw_bytes_s)}/s, {cost.raw_bytes:.0f} bytes an event"),
        ("enriched", f"{_size(found.enriched_bytes_s)}/s, {cost.enriched_bytes:.0f} bytes an event"),
        ("into all brokers, copies included", f"{_size(found.brokers_in_bytes_s)}/s"),
        ("out of all brokers: copies, processors, two sinks", f"{_size(found.brokers_out_bytes_s)}/s"),
        ("filters of all partitions", f"{_size(found.filters_bytes)} of memory, {cost.id_bytes:.2f} bytes an id"),
        ("open sessions", f"{_size(found.sessions_bytes)} of memory, {cost.device_bytes:.0f} bytes a device"),
        (f"brokers' disks, {load.log_days} days", _size(found.brokers_disk_bytes)),
        (f"lake, {load.raw_days} days", f"{_size(found.lake_bytes)}, {cost.lake_bytes:.0f} bytes an event"),
        ("partitions, two a processor's core", f"{found.partitions}"),
    ]
    lines += ["", "| bytes | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def _size(count: float) -> str:
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    thousands = min(int(math.log10(max(count, 1)) / 3), len(units) - 1)
    scaled = count / 1_000**thousands
    return f"{scaled:,.0f} {units[thousands]}" if scaled >= 10 else f"{scaled:.1f} {units[thousands]}"
