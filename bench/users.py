"""A hundred users at once: ``python -m bench users --data DIR``, DIR made by ``bench.month``.

Their questions come at a constant rate, whatever the answers take (an open loop), from as many connections as are needed. They
ask what the dashboard's pages ask, up to the last whole minute, of a server with its defaults. Before that a browser opens the
dashboard, and an event that is sent must show on the page without a reload.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from bench import machine, month
from bench.browsing import browsed
from bench.peer_queries import STEPS
from bench.sampling import Sampler
from bench.serving import serving
from eventmill.core.clock import now_ms
from eventmill.generate.catalogue import KINDS
from eventmill.lake.files import DAY_MS

USERS: Final = 100
#: A user asks a question every so many seconds.
EVERY_S: Final = 5.0
SECONDS: Final = 300
#: Kind of question: its share.
MIX: Final = {"last 24 hours": 0.5, "last 30 days": 0.25, "by version, 24 hours": 0.1, "totals, SQL": 0.1, "funnel, day": 0.03,
              "retention, week": 0.02}  # fmt: skip
#: What the documentation says of a server that has too much to do.
REFUSED: Final = (429, 503)
_NO_LIMIT: Final = {"EVENTMILL_ACCESS__REQUESTS_PER_MINUTE": "1000000"}


def run(*, smoke: bool = False, data: Path | None = None) -> dict[str, Any]:
    """The figures."""
    folder = Path(tempfile.mkdtemp(prefix="eventmill-users-"))
    try:
        if data is None:
            data = folder / "month"
            size = (
                month.Month(20_000, month.this_hour(), days=3) if smoke else month.Month(50_000_000, month.this_hour())
            )
            month.build(data, size, quiet=True)
        taken = measure(data.absolute(), users=3 if smoke else USERS, seconds=2 if smoke else SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"question": "what a hundred users see", "machine": machine.describe("chdb"), **taken}


def measure(data: Path, *, users: int, seconds: float) -> dict[str, Any]:
    """One run."""
    with serving(data, environment=_NO_LIMIT) as served:
        served.ask("POST", "/v1/compact")
        seen = browsed(served.url, times=1 if seconds < 10 else 5)
        with Sampler(served.roles, interval_s=0.2) as sampler:
            answers = asyncio.run(_load(served.url, users / EVERY_S, seconds))
    taken: defaultdict[str, list[float]] = defaultdict(list)
    statuses: Counter[int] = Counter()
    for what, status, ms in answers:
        statuses[status] += 1
        if status == 200:
            taken[what].append(ms)
    wrong = {status: n for status, n in statuses.items() if status not in (200, *REFUSED)}
    if wrong:
        raise SystemExit(f"answers of other kinds than are documented: {wrong}")
    every = [ms for each in taken.values() for ms in each]
    return {
        "users": users,
        "seconds": seconds,
        "requests": len(answers),
        "statuses": {str(status): n for status, n in sorted(statuses.items())},
        "ms": {what: _ranks(each) for what, each in sorted(taken.items())} | {"all": _ranks(every)},
        "browser": seen,
        "resident_mib_max": round(max(resident.get("engine", 0) for _, resident in sampler.memory) / 2**20),
    }


async def _load(url: str, rate: float, seconds: float) -> list[tuple[str, int, float]]:
    """(kind, status, ms from when it was due) of every question."""
    rng = np.random.default_rng(3)
    due = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
    kinds = rng.choice(list(MIX), len(due), p=list(MIX.values()))
    pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    began = time.perf_counter()

    async def one(number: int) -> tuple[str, int, float]:
        await asyncio.sleep(max(began + due[number] - time.perf_counter(), 0))
        status = await _exchange(url, pool, *question(str(kinds[number]), number))
        return str(kinds[number]), status, (time.perf_counter() - began - due[number]) * 1_000

    answers = await asyncio.gather(*(one(number) for number in range(len(due))))
    for _, writer in pool:
        writer.close()
    return list(answers)


async def _exchange(
    url: str, pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]], kind: str, body: dict[str, Any]
) -> int:
    address = urlsplit(url)
    while pool and pool[-1][0].at_eof():  # idle for so long that the server has closed it
        pool.pop()[1].close()
    reader, writer = pool.pop() if pool else await asyncio.open_connection(address.hostname, address.port)
    content = json.dumps(body).encode()
    writer.write(
        f"POST /v1/query/{kind} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
    if "connection: close" in head:
        writer.close()
    else:
        pool.append((reader, writer))
    return int(head.split()[1])


def question(what: str, number: int) -> tuple[str, dict[str, Any]]:
    """Kind and body: what pages of the dashboard ask now."""
    now = now_ms() // 60_000 * 60_000
    hour = -(-now // 3_600_000) * 3_600_000

    def span(length: int, end: int = hour) -> dict[str, str]:
        return {"from": f"{np.datetime64(end - length, 'ms')}Z", "to": f"{np.datetime64(end, 'ms')}Z"}

    name = KINDS[number % len(KINDS)].event
    measure = ("events", "devices", "users", "sessions")[number % 4]
    if what == "last 24 hours":
        return "trends", {"event": name if number % 2 else None, "measure": measure, "interval": "hour"} | span(DAY_MS)
    if what == "last 30 days":
        return "trends", {"event": name, "measure": measure, "interval": "day"} | span(30 * DAY_MS)
    if what == "by version, 24 hours":
        return "trends", {"event": name, "interval": "hour", "breakdown": "app_version"} | span(DAY_MS, now)
    if what == "totals, SQL":
        counted = (
            "SELECT count(), uniq(device_id) FROM events WHERE timestamp >= fromUnixTimestamp64Milli({from:Int64})"
        )
        return "sql", {"query": counted, "parameters": {"from": now - DAY_MS}}
    if what == "funnel, day":
        return "funnel", {"steps": [{"event": each} for each in STEPS], "window": "1h"} | span(DAY_MS)
    return "retention", {"interval": "day", "first": {"event": name}} | span(7 * DAY_MS)


def _ranks(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    return {
        "requests": len(values),
        "p50": round(ordered[len(ordered) // 2], 1),
        "p99": round(ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)], 1),
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    refused = sum(n for status, n in figures["statuses"].items() if status != "200")
    seen = figures["browser"]
    lines = [
        f"{figures['users']} users for {figures['seconds']} s, {figures['requests']:,} questions, of which {refused:,} were "
        f"refused as documented (429 or 503); nothing else went wrong. Milliseconds from when a question was due:",
        "",
        "| | questions | p50 | p99 |",
        "|---|---|---|---|",
    ]
    for what, ms in figures["ms"].items():
        lines.append(f"| {what} | {ms['requests']:,} | {ms['p50']:,.0f} | {ms['p99']:,.0f} |")
    lines += [
        "",
        f"The dashboard's first view shows its numbers {seen['first_view_s']['median']:.2f} s after the navigation began "
        f"({seen['first_view_s']['min']:.2f} to {seen['first_view_s']['max']:.2f}), and a new event {seen['live_s']:.1f} s "
        f"after it was sent, without a reload. The engine's resident memory is {figures['resident_mib_max']:,} MiB at most.",
    ]
    return "\n".join(lines)
