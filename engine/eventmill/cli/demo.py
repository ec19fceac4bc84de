"""``eventmill demo``: serve, generate, and what came of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from eventmill.cli.generate import duration, prepare, send, sent_report
from eventmill.cli.ledger import audit_table, verdict
from eventmill.cli.options import configure, console, friendly, json_option
from eventmill.core.clock import now_ms
from eventmill.core.config import Config, to_environ
from eventmill.core.errors import EventmillError
from eventmill.generate.client import Target
from eventmill.generate.files import Bodies
from eventmill.generate.stream import Spec
from eventmill.generate.truth import TruthFile

_READY_S: Final = 120
_STORED_S: Final = 600


@click.command()
@click.option("--events", type=click.IntRange(1), default=200_000, show_default=True, help="How many to send.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--span", default="6h", show_default=True, help="How long the traffic lasts by the phones' clocks.")
@click.option("--workers", type=click.IntRange(1), help="Ingest processes.  [default: 1]")
@click.option("--data", type=click.Path(path_type=Path), help="The data folder.  [default: a temporary one]")
@click.option("--keep", is_flag=True, help="Keep the data folder and go on serving until Ctrl-C.")
@json_option
@friendly
def demo(events: int, seed: int, span: str, workers: int | None, data: Path | None, keep: bool, as_json: bool) -> None:
    """Run everything on this machine, send a shopping app's traffic through it, and prove the ledger."""
    folder = (data or Path(tempfile.mkdtemp(prefix="eventmill-demo-"))).absolute()
    config = configure(None, data=folder, http__port=0, http__workers=workers)
    span_ms = duration(span, "--span")
    spec = Spec(events, seed, now_ms() - span_ms, span_ms)
    truth = TruthFile(folder / "truth.parquet")
    try:
        requests = folder / "requests.ndjson"
        prepare(spec, requests, truth)
        with _serving(config) as (url, process):
            report = _run(config, url, requests, truth, spec)
            _show(report, url, folder, keep, as_json)
            if keep:
                _until_interrupt(process)
    finally:
        if not keep and data is None:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if report["balanced"] and not report["lost"] and not report["doubled"] else 1)


@contextlib.contextmanager
def _serving(config: Config) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A ``serve`` process; its own messages go to a file in the data folder."""
    log = config.data / "serve.log"
    with log.open("w") as messages, console.status("starting"):
        process = subprocess.Popen(
            [sys.executable, "-m", "eventmill", "serve"],
            env={**os.environ, **to_environ(config)},
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the demo, which then asks for the drain
        )
        line = process.stdout.readline() if process.stdout else ""
    if not line.startswith("ready "):
        process.wait()
        raise EventmillError(f"serve did not start; its messages:\n{log.read_text()[-2000:]}")
    try:
        yield line.split()[1], process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STORED_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _run(config: Config, url: str, requests: Path, truth: TruthFile, spec: Spec) -> dict[str, Any]:
    from eventmill.serve.remote import ask

    bodies = Bodies(requests)
    started = time.perf_counter()
    sent = send(Target(url, batch_size=spec.batch_size), bodies, truth.outcomes(len(bodies)))
    with console.status("waiting until both stores have everything"):
        stored = ask(config, "POST", "/v1/flush")["stored"]
    seconds = time.perf_counter() - started
    truth.finish()
    with console.status("auditing"):
        audit = ask(config, "GET", "/v1/audit")
        judged = ask(config, "POST", "/v1/judge?truth=" + str(truth.path))
        insight = ask(config, "GET", "/v1/summary")
    stores = audit["stores"]
    return {
        "sent": spec.events,
        "unique": judged["realtime"]["unique"],
        "accepted": audit["received"] - audit["dead"],
        "duplicates": audit["duplicates"],
        "dead": audit["dead"],
        "stored_realtime": stores["realtime"]["stored"],
        "stored_lake": stores["lake"]["stored"],
        "lost": max(verdict["lost"] for verdict in judged.values()),
        "doubled": max(verdict["doubled"] for verdict in judged.values()),
        "phantom": max(verdict["phantom"] for verdict in judged.values()),
        "corrupt": max(verdict["corrupt"] for verdict in judged.values()),
        "balanced": audit["balanced"] and stored,
        "rescued": audit["rescued"],
        "seconds": round(seconds, 3),
        "events_per_second": round(spec.events / seconds),
        "e2e_seconds_p50": insight["e2e_seconds_p50"],
        "e2e_seconds_p99": insight["e2e_seconds_p99"],
        "sessions": insight["sessions"],
        "devices": insight["devices"],
        "top_events": insight["top_events"],
        "requests": sent_report(sent, spec.events),
        "audit": audit,
    }


def _show(report: dict[str, Any], url: str, folder: Path, keep: bool, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(report).decode())
        return
    out = Console()
    out.print(audit_table(report["audit"]))
    out.print(verdict(report["audit"]))
    facts = Table(title="This run", show_header=False, title_style="bold")
    facts.add_row("sent", f"{report['sent']:,} events in {report['seconds']:.1f} s")
    facts.add_row("from HTTP to both stores", f"[bold]{report['events_per_second']:,}[/] events/s")
    facts.add_row("event to queryable", f"p50 {report['e2e_seconds_p50']:.2f} s, p99 {report['e2e_seconds_p99']:.2f} s")
    requests = report["requests"]
    facts.add_row(
        "request",
        f"p50 {requests['request_seconds_p50'] * 1e3:.1f} ms, p99 {requests['request_seconds_p99'] * 1e3:.1f} ms",
    )
    faults = {name: report[name] for name in ("lost", "doubled", "phantom", "corrupt")}
    colour = "red" if any(faults.values()) else "green"
    facts.add_row("oracle", f"[{colour}]" + ", ".join(f"{name} {count:,}" for name, count in faults.items()))
    facts.add_row("sessions", f"{report['sessions']:,} of {report['devices']:,} devices")
    out.print(facts)
    top = Table(title="Top events", title_style="bold")
    top.add_column("event")
    top.add_column("count", justify="right")
    top.add_column("devices", justify="right")
    for row in report["top_events"]:
        top.add_row(row["event"], f"{row['events']:,}", f"{row['devices']:,}")
    out.print(top)
    out.print(Panel(_next_steps(url, folder, keep), title="Where to look next", title_align="left"))


def _next_steps(url: str, folder: Path, keep: bool) -> str:
    if not keep:
        return (
            "eventmill demo --keep --data ./demo      keeps the data and goes on serving\n"
            "eventmill serve                          serves your own app's events"
        )
    query = '{"query": "SELECT event, count() FROM events GROUP BY event"}'
    return (
        f"curl {url}/v1/query/sql -d '{query}'\n"
        f"curl {url}/metrics\n"
        f"eventmill audit --data {folder}\n"
        f"Ctrl-C stops; the data stays in {folder}"
    )


def _until_interrupt(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        process.wait()
