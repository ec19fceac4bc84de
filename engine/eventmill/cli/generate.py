"""``eventmill generate``."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
import uvloop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from eventmill.cli.options import console, friendly, json_option
from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.errors import ConfigError, EventmillError
from eventmill.generate.client import Sender, Sent, Target
from eventmill.generate.files import Bodies, write
from eventmill.generate.stream import Spec
from eventmill.generate.truth import TruthFile


def bar() -> Progress:
    """A progress bar on standard error; it shows nothing when that is no terminal."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def prepare(spec: Spec, out: Path, truth: TruthFile | None) -> int:
    """Make a run's requests into a file, with a bar; gives the number of requests."""
    with bar() as progress:
        task = progress.add_task("generating", total=spec.events)
        requests, _ = write(spec, out, truth, progress=lambda count: progress.advance(task, count))
    return requests


def send(target: Target, bodies: Bodies, outcomes: Any) -> Sent:
    """Send all bodies, with a bar."""
    with bar() as progress:
        task = progress.add_task("sending", total=len(bodies))
        sender = Sender(target, progress=lambda count: progress.advance(task, count))
        sent: Sent = uvloop.run(sender.send(bodies, outcomes))
        return sent


def sent_report(sent: Sent, events: int | None) -> dict[str, Any]:
    """For machines and for the table; ``events`` is None where only the requests were counted."""
    latencies = np.array(sent.latencies or [0.0])
    quantiles = {f"request_seconds_p{p:g}": round(float(np.percentile(latencies, p)), 6) for p in (50, 99, 99.9)}
    counted = {} if events is None else {"events": events, "events_per_second": round(events / max(sent.seconds, 1e-9))}
    return {
        **counted,
        "requests": sent.requests,
        "acked": sent.acked,
        "refused": sent.refused,
        "unknown": sent.unknown,
        "retries": sent.retries,
        "bytes": sent.bytes,
        "seconds": round(sent.seconds, 3),
        **quantiles,
    }


@click.command()
@click.option("--events", type=click.IntRange(1), default=100_000, show_default=True, help="How many to send.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, events and start: the same bytes.")
@click.option("--url", help="Send to this server.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the requests here, one a line.")
@click.option("--in", "source", type=click.Path(path_type=Path, dir_okay=False), help="Send a file written by --out.")
@click.option("--truth", type=click.Path(path_type=Path, dir_okay=False), help="Write what was sent (Parquet).")
@click.option("--write-key", default="", help="The server's write key.")
@click.option("--batch-size", type=click.IntRange(1, 5_000), default=100, show_default=True, help="Events a request.")
@click.option("--encoding", type=click.Choice(["identity", "gzip", "zstd"]), default="identity", show_default=True)
@click.option("--rate", type=float, default=0.0, help="Events a second; 0 = as fast as it goes.")
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=100, show_default=True, help="Connections.")
@click.option("--give-up", "give_up", default="60s", show_default=True, help="How long one request is tried.")
@click.option("--start", help="When the traffic begins, ISO 8601.  [default: now less the span]")
@click.option("--span", default="6h", show_default=True, help="How long the traffic lasts by the phones' clocks.")
@click.option("--duplicates", type=click.FloatRange(0, 0.5), default=0.05, show_default=True, help="Share of retries.")
@click.option("--late", type=click.FloatRange(0, 1), default=0.02, show_default=True, help="Share from offline phones.")
@click.option("--bad", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share of bad events.")
@json_option
@friendly
def generate(
    events: int,
    seed: int,
    url: str | None,
    out: Path | None,
    source: Path | None,
    truth: Path | None,
    write_key: str,
    batch_size: int,
    encoding: str,
    rate: float,
    concurrency: int,
    give_up: str,
    start: str | None,
    span: str,
    duplicates: float,
    late: float,
    bad: float,
    as_json: bool,
) -> None:
    """Make the traffic of a shopping app, and send it or write it to a file."""
    if not url and not out:
        raise ConfigError("say where to: --url http://… sends the traffic, --out FILE writes it")
    if source and (truth or out):
        raise ConfigError("--in sends a file as it is; --out and --truth go with making one")
    span_ms = duration(span, "--span")
    spec = Spec(events, seed, _start_ms(start, span_ms), span_ms, duplicates, late, bad, batch_size)
    target = Target(
        url or "", write_key, encoding, concurrency, rate, batch_size, duration(give_up, "--give-up") / 1000
    )
    with tempfile.TemporaryDirectory(prefix="eventmill-") as folder:
        requests = source or out or Path(folder) / "requests.ndjson"
        file = TruthFile(truth) if truth else None
        if source is None:
            prepare(spec, requests, file)
        if not url:
            report: dict[str, Any] = {"events": events, "file": str(requests), "bytes": requests.stat().st_size}
        else:
            bodies = Bodies(requests)
            outcomes = file.outcomes(len(bodies)) if file else np.zeros(len(bodies), np.uint8)
            report = sent_report(send(target, bodies, outcomes), events if source is None else None)
            if file is not None:
                file.finish()
    if as_json:
        click.echo(orjson.dumps(report).decode())
    else:
        table = Table(show_header=False, title="Traffic")
        for name, value in report.items():
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        console.print(table)
    if report.get("unknown"):
        raise EventmillError(
            f"{report['unknown']:,} of {report['requests']:,} requests got no answer within {give_up}: does a server run at "
            f"{url}? --give-up makes each request try for longer"
        )


def duration(text: str, option: str) -> int:
    """Milliseconds of a duration. Raises ``ConfigError`` naming the option."""
    try:
        return parse_duration_ms(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


def _start_ms(text: str | None, span_ms: int) -> int:
    if text is None:
        return now_ms() - span_ms
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--start: {text!r} is no ISO 8601 time; write for example 2026-11-23T08:00:00Z") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
