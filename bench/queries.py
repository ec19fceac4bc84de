"""How long questions take on a month of events: ``python -m bench queries --data DIR``, DIR made by ``bench.month``.

Asked of ``eventmill serve`` over HTTP, with nothing kept in its cache. Beside it the same questions by hand in DuckDB, Polars
and chdb over the same files, on as many threads; the answers are compared before any time is taken.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from bench import machine, month, peer_queries
from bench.guard import refused
from bench.peer_queries import STEPS, VIEWED, Ask
from bench.report import RESULTS
from bench.sampling import Sampler
from bench.serving import serving
from eventmill.generate.catalogue import KINDS
from eventmill.lake.files import DAY_MS
from eventmill.lake.table import Lake
from eventmill.sinks.realtime.store import RealtimeStore

HOUR_MS: Final = 3_600_000
#: Nothing fits.
NO_CACHE: Final = {"EVENTMILL_QUERY__CACHE_BYTES_MAX": "1", "EVENTMILL_ACCESS__REQUESTS_PER_MINUTE": "1000000"}
TITLES: Final = {
    "hours": "trends: events an hour, 24 hours",
    "days": "trends: events a day, month, from roll-ups",
    "devices": "trends: devices a day of one event by platform, month, from roll-ups",
    "versions": "trends: events a day by app version, month, from events",
    "funnel": "funnel of 4 steps, week",
    "retention": "retention by day, month",
}


class Client:
    """One connection to a server."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer."""
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def ask(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """An answer. Ends the run when there is none."""
        status, answer = self.post(f"/v1/query/{kind}", body)
        if status != 200:
            raise SystemExit(f"{kind} was answered {status}: {answer}")
        found: dict[str, Any] = answer
        return found


def run(*, smoke: bool = False, data: Path | None = None) -> dict[str, Any]:
    """The figures of this folder, beside those kept of folders of other sizes."""
    folder = Path(tempfile.mkdtemp(prefix="eventmill-queries-"))
    try:
        if data is None:
            data = folder / "month"
            size = (
                month.Month(20_000, 20_600 * DAY_MS, days=3, realtime_days=2)
                if smoke
                else month.Month(50_000_000, month.this_hour())
            )
            month.build(data, size, quiet=smoke)
        taken = measure(data.absolute(), folder, rounds=1 if smoke else 3, requests=5 if smoke else 60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept = RESULTS / "queries.json"
    by_size = json.loads(kept.read_text())["by_size"] if kept.exists() and not smoke else {}
    return {
        "question": "how long questions take on a month of events",
        "machine": machine.describe("chdb", "duckdb", "polars", "pyarrow"),
        "rounds": 1 if smoke else 3,
        "by_size": by_size | {str(taken["events"]): taken},
    }


def measure(data: Path, folder: Path, *, rounds: int, requests: int) -> dict[str, Any]:
    """All questions of one folder."""
    threads = len(os.sched_getaffinity(0))
    os.chdir("/")  # chdb reads files only below the working directory
    with serving(data, environment=NO_CACHE) as served:
        client = Client(served.url)
        rolled = served.ask("POST", "/v1/compact").get("rolled_up", 0)
        questions = _questions(client)
        store = RealtimeStore(folder / "chdb")
        peers = {"DuckDB": peer_queries.duck(threads), "Polars": peer_queries.polars,
                 "chdb": peer_queries.chdb(store, threads)}  # fmt: skip
        answers = {what: ask(client) for what, (_, ask) in questions.items()}
        lake = Lake(data / "lake")
        files = {what: question.files(lake.live_files()) for what, (question, _) in questions.items()}
        lake.close()
        for name, peer in peers.items():
            for what, (question, _) in questions.items():
                _compare(what, name, answers[what], peer(question, files[what]))
        seconds: dict[str, dict[str, list[float]]] = {what: {} for what in questions}
        with Sampler(served.roles, interval_s=0.1) as sampler:
            for _ in range(rounds):
                for what, (question, ask) in questions.items():
                    _time(seconds[what], "eventmill", lambda ask=ask: ask(client))  # type: ignore[misc]
                    for name, peer in peers.items():
                        asked = (question, files[what])
                        _time(seconds[what], name, lambda peer=peer, asked=asked: peer(*asked))  # type: ignore[misc]
            day = _many(client, questions["hours"][0], requests)
        plans = {what: _tables(client, what, question) for what, (question, _) in questions.items()}
        events = sum(n for _, n in answers["days"])
        store.close()
    return {
        "events": events,
        "rolled_up_files": rolled,
        "seconds": {what: {name: _spread(taken) for name, taken in by.items()} for what, by in seconds.items()},
        "day_ms": {"requests": len(day), "p50": _rank(day, 0.5), "p95": _rank(day, 0.95), "max": max(day)},
        "reads": plans,
        "resident_mib_max": round(max(resident.get("engine", 0) for _, resident in sampler.memory) / 2**20),
        "guard_ms": refused(folder / "guard") if rounds > 1 else refused(folder / "guard", rows=50_000, doublings=2),
    }


def _questions(client: Client) -> dict[str, tuple[Ask, Callable[[Client], list[tuple[Any, ...]]]]]:
    newest = client.ask("sql", {"query": "SELECT toUnixTimestamp64Milli(max(timestamp)) AS at FROM events"})
    end = int(newest["rows"][0][0]) // HOUR_MS * HOUR_MS + HOUR_MS
    lengths = {"hours": 1, "funnel": 7}
    asks = {what: Ask(what, end - lengths.get(what, 30) * DAY_MS, end) for what in TITLES}
    return {what: (ask, lambda client, ask=ask: _answer(client, ask)) for what, ask in asks.items()}  # type: ignore[misc]


def body(question: Ask) -> tuple[str, dict[str, Any]]:
    """Kind and body of a request."""
    span = {"from": _iso(question.start), "to": _iso(question.end)}
    if question.what == "funnel":
        return "funnel", span | {"steps": [{"event": name} for name in STEPS], "window": "1d"}
    if question.what == "retention":
        return "retention", span | {"interval": "day"}
    more: dict[str, dict[str, Any]] = {
        "hours": {"interval": "hour"},
        "days": {"interval": "day"},
        "devices": {"interval": "day", "event": VIEWED, "measure": "devices", "breakdown": "platform"},
        "versions": {"interval": "day", "breakdown": "app_version"},
    }
    return "trends", span | more[question.what]


def _answer(client: Client, question: Ask) -> list[tuple[Any, ...]]:
    rows = client.ask(*body(question))["rows"]
    if question.what == "funnel":
        return [(step, count) for step, _, count, *_ in rows]
    timed = [(int(np.datetime64(row[0][:-1], "ms").astype(np.int64)), *row[1:]) for row in rows]
    if question.what == "retention":
        return sorted([(at, age, count) for at, age, count, _ in timed if count], key=repr)
    return sorted([row for row in timed if row[-1]], key=repr)


def _compare(what: str, peer: str, ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> None:
    """Distinct counts of ours are within 1 % as a rule; all else is equal."""
    near = 0.02 if what == "devices" else 0.0
    keys = [row[:-1] for row in ours] == [tuple(row[:-1]) for row in theirs]
    if not keys or any(abs(a[-1] - b[-1]) > near * b[-1] for a, b in zip(ours, theirs, strict=True)):
        raise SystemExit(f"{what}: {peer} answers {theirs[:3]}…, Eventmill {ours[:3]}…")


def _many(client: Client, question: Ask, requests: int) -> list[float]:
    """Milliseconds of ever other questions about the last 24 hours."""
    taken = []
    for number in range(requests):
        kind, asked = body(question)
        asked |= {"event": KINDS[number % len(KINDS)].event if number % 3 else None}
        asked |= {"measure": ("events", "devices", "users")[number % 3 - 1]}
        asked |= {"breakdown": "platform"} if number % 2 else {}
        asked |= {"filters": [{"field": "platform", "op": "ne", "value": f"none {number}"}]}
        started = time.perf_counter()
        client.ask(kind, asked)
        taken.append(round((time.perf_counter() - started) * 1_000, 2))
    return taken


def _tables(client: Client, what: str, question: Ask) -> list[dict[str, Any]]:
    kind, asked = body(question)
    status, plan = client.post(f"/v1/query/{kind}?explain=1", asked)
    if status != 200:
        raise SystemExit(f"{what} was explained {status}: {plan}")
    tables: list[dict[str, Any]] = plan["tables"]
    return tables


def _time(taken: dict[str, list[float]], name: str, work: Callable[[], object]) -> None:
    started = time.perf_counter()
    work()
    taken.setdefault(name, []).append(time.perf_counter() - started)


def _spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def _rank(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def _iso(at_ms: int) -> str:
    return f"{np.datetime64(at_ms, 'ms')}Z"


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    by_size = {int(size): taken for size, taken in figures["by_size"].items()}
    taken = by_size[max(by_size)]
    names = list(next(iter(taken["seconds"].values())))
    lines = [
        f"{taken['events']:,} events, {figures['machine']['cores']} cores, {figures['rounds']} rounds in turn:",
        "",
        f"| question, s (min to max) | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for what, by in taken["seconds"].items():
        cells = [f"{by[name]['median']:.3f} ({by[name]['min']:.3f} to {by[name]['max']:.3f})" for name in names]
        lines.append(f"| {TITLES[what]} | {' | '.join(cells)} |")
    day, guard = taken["day_ms"], taken["guard_ms"]
    lines += [
        "",
        f"{day['requests']} different trends over 24 hours: p50 {day['p50']:.0f} ms, p95 {day['p95']:.0f} ms, at most "
        f"{day['max']:.0f} ms. The engine's resident memory is {taken['resident_mib_max']:,} MiB at most. A question that "
        f"would read {guard['rows']:,} events is refused in {guard['refused']:.0f} ms; one that roll-ups answer is let through "
        f"and answered in {guard['answered']:.0f} ms.",
    ]
    if len(by_size) > 1:
        sizes = sorted(by_size)
        lines += [
            "",
            f"| Eventmill, s | {' | '.join(f'{size:,} events' for size in sizes)} |",
            f"|---|{'---|' * len(sizes)}",
        ]
        for what in taken["seconds"]:
            cells = [f"{by_size[size]['seconds'][what]['eventmill']['median']:.3f}" for size in sizes]
            lines.append(f"| {TITLES[what]} | {' | '.join(cells)} |")
    return "\n".join(lines)
