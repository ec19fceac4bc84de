"""``eventmill top``: the pipeline, live in the terminal."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eventmill.cli.answers import fetch, sparkline
from eventmill.cli.options import friendly, json_option
from eventmill.core.errors import EventmillError

_HOURS: Final = 48
#: Rates that are remembered for the sparkline.
_REMEMBERED: Final = 60
#: Of what was stored in the last minute, in ms; ``timestamp`` keeps the store from reading all it has.
_LATENCY: Final = """
    SELECT count() AS events, quantiles(0.5, 0.99)(dateDiff('millisecond', received_at, inserted_at)) AS ms
    FROM events WHERE timestamp > now() - INTERVAL 1 DAY AND inserted_at > now() - INTERVAL 1 MINUTE"""
_CONSUMERS: Final = {
    "process": "processor", "rescue": "look-up of suspects", "realtime": "real-time store", "lake": "lake",
}  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """One look. ``latency`` is (p50, p99) in ms from request to queryable, null while nothing is stored."""

    at: float
    pipeline: dict[str, Any]
    latency: tuple[float, float] | None

    @property
    def totals(self) -> dict[str, int]:
        """Events by hop over all hours shown."""
        hops = [hop for hop in (self.pipeline["hours"] or [{}])[0] if hop != "hour"]
        return {hop: sum(hour[hop] for hour in self.pipeline["hours"]) for hop in hops}

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        latency = None if self.latency is None else dict(zip(("p50", "p99"), self.latency, strict=True))
        return {**self.pipeline, "totals": self.totals, "request_to_queryable_ms": latency}


def look(url: str, key: str) -> Snapshot:
    """Ask the server. Raises ``StoreError``."""
    pipeline = orjson.loads(fetch(url, key, f"/v1/pipeline?hours={_HOURS}"))
    ((events, quantiles),) = orjson.loads(fetch(url, key, "/v1/query/sql", {"query": _LATENCY}))["rows"]
    return Snapshot(time.monotonic(), pipeline, (quantiles[0], quantiles[1]) if events else None)


@dataclass
class Rates:
    """Events a second between two looks, by hop."""

    last: Snapshot | None = None
    now: dict[str, float] = field(default_factory=dict)
    received: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def take(self, snapshot: Snapshot) -> None:
        """Compare with the look before; an hour that has fallen out of the ledger's view makes no negative rate."""
        if self.last is not None:
            seconds = max(snapshot.at - self.last.at, 1e-9)
            before = self.last.totals
            self.now = {
                hop: max(0.0, (events - before.get(hop, 0)) / seconds) for hop, events in snapshot.totals.items()
            }
            self.received.append(self.now.get("received", 0.0))
        self.last = snapshot


def screen(url: str, snapshot: Snapshot, rates: Rates) -> RenderableType:
    """All of it as tables."""
    totals, found = snapshot.totals, snapshot.pipeline
    head = Text(f"{url}   ")
    head.append(f"{rates.now.get('received', 0.0):,.0f} events/s  ", style="bold")
    head.append(sparkline(list(rates.received)), style="cyan")
    if found["pressure"]:
        head.append(f"\nrefusing events: {found['pressure']}", style="bold red")
    hops = Table(
        "hop", "events", "per second", "share", box=SIMPLE_HEAD, title=f"Ledger, last {_HOURS} h", title_justify="left"
    )
    received = max(totals.get("received", 0), 1)
    for hop, events in totals.items():
        style = "yellow" if hop in ("rejected", "invalid") and events else ""
        hops.add_row(hop, f"{events:,}", f"{rates.now.get(hop, 0.0):,.0f}", f"{events / received:.2%}", style=style)
    for column in hops.columns[1:]:
        column.justify = "right"
    lags = Table("still to take", "events", box=SIMPLE_HEAD, title=" ")
    for group, events in found["lag"].items():
        lags.add_row(_CONSUMERS.get(group, group), f"{events:,}", style="yellow" if events > received // 10 else "")
    lags.columns[1].justify = "right"
    latency = "nothing of the last day was stored in the last minute"
    if snapshot.latency is not None:
        latency = (
            f"request to queryable, last minute: p50 {snapshot.latency[0]:,.0f} ms, p99 {snapshot.latency[1]:,.0f} ms"
        )
    lake, log_mb = found["lake"], found["log"]["bytes"] / 1e6
    lake_text = f"{lake['rows']:,} rows in {lake['files']:,} files, {lake['bytes'] / 1e6:,.1f} MB"
    stores = f"log {log_mb:,.1f} MB   lake {lake_text}"
    dead = "   ".join(f"{reason} {events:,}" for reason, events in found["dead_reasons"].items()) or "none"
    # Side by side: all of it then fits 24 lines of 80 columns.
    beside = Table.grid(padding=(0, 2))
    beside.add_row(hops, lags)
    return Group(head, beside, Text(latency), Text(stores), Text(f"dead letters: {dead}"))


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server to watch.")
@click.option("--key", default="", envvar="EVENTMILL_KEY", help="A key, where the server wants one.")
@click.option("--every", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="One look, then end.")
@json_option
@friendly
def top(url: str, key: str, every: float, once: bool, as_json: bool) -> None:
    """Watch the pipeline: throughput, ledger, lags, latency, stores. Ctrl-C ends it; --json prints one look."""
    snapshot, rates, out = look(url, key), Rates(), Console()
    rates.take(snapshot)
    if as_json:
        click.echo(orjson.dumps(snapshot.as_dict()))
        return
    if once or not out.is_terminal:
        out.print(screen(url, snapshot, rates))
        return
    waiting = threading.Event()
    with Live(screen(url, snapshot, rates), console=out, screen=True, auto_refresh=False) as live:
        try:
            while not waiting.wait(every):
                try:
                    snapshot = look(url, key)
                    rates.take(snapshot)
                    live.update(screen(url, snapshot, rates), refresh=True)
                except EventmillError as error:
                    # It may come back; what was seen last stays above.
                    live.update(Group(screen(url, snapshot, rates), Text(str(error), style="bold red")), refresh=True)
        except KeyboardInterrupt:
            return
