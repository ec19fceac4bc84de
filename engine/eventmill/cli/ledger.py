"""``eventmill audit`` and ``eventmill trace``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eventmill.cli.options import config_option, configure, data_option, friendly, json_option


def moment(ms: int) -> str:
    """Milliseconds since the epoch as people read them."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


@click.command()
@data_option
@config_option
@json_option
@friendly
def audit(data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Prove from the stores that nothing is lost or doubled; exit 1 when the ledger does not balance."""
    from eventmill.serve.remote import ask, stores_or_none

    config = configure(config_file, data=data)
    with stores_or_none(config) as stores:
        report = ask(config, "GET", "/v1/audit") if stores is None else stores.audit().as_dict()
    if as_json:
        click.echo(orjson.dumps(report).decode())
    else:
        Console().print(audit_table(report))
        Console().print(verdict(report))
    sys.exit(0 if report["balanced"] else 1)


def audit_table(report: dict[str, Any]) -> Table:
    """The ledger by hour; what is in flight has columns where there is any, so that the rest fits 80 characters."""
    table = Table(title="Ledger by hour of receipt (UTC)", title_style="bold", box=SIMPLE_HEAD)
    in_flight = any(store["in_flight"] for hour in report["hours"] for store in hour["stores"].values())
    gone = [
        name
        for name in ("forgotten", "retired")
        if any(store[name] for hour in report["hours"] for store in hour["stores"].values())
    ]
    shown = ("stored", *gone, *(("in_flight",) if in_flight else ()))
    table.add_column("hour")
    for name in ("received", "duplicate", "dead"):
        table.add_column(name, justify="right")
    for store in report["stores"]:
        for name in shown:
            table.add_column(f"{store}\n{name.replace('_', ' ')}", justify="right")
    table.add_column("balance", justify="right")
    for hour in report["hours"]:
        off = ", ".join(
            f"{name} {-store['missing']:+,}" + (f" doubled {store['doubled']:,}" if store["doubled"] else "")
            for name, store in hour["stores"].items()
            if store["missing"] or store["doubled"]
        )
        table.add_row(
            moment(hour["hour"])[:13] + "h",
            f"{hour['received']:,}",
            f"{hour['duplicates']:,}",
            f"{hour['dead']:,}",
            *(f"{store[name]:,}" for store in hour["stores"].values() for name in shown),
            f"[red]{off}[/]" if off else "[green]0[/]",
        )
    return table


def verdict(report: dict[str, Any]) -> str:
    """One line."""
    if report["balanced"]:
        return "[bold green]balanced[/]: received = stored + duplicate + dead + forgotten + retired + in flight, in both stores"
    return "[bold red]not balanced[/]: see the last column; `eventmill trace ID` follows one event"


@click.command()
@click.argument("event_id")
@data_option
@config_option
@json_option
@friendly
def trace(event_id: str, data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Tell one event's fate: every hop with time, offset, verdict, and where it is stored. Exit 1 when it is unknown."""
    from eventmill.serve.remote import ask, stores_or_none

    config = configure(config_file, data=data)
    with stores_or_none(config) as stores:
        path = f"/v1/trace/{quote(event_id, safe='')}"
        found = ask(config, "GET", path) if stores is None else stores.trace(event_id)
    if as_json:
        click.echo(orjson.dumps(found).decode())
    else:
        _print_trace(found)
    sys.exit(1 if found["fate"] == "unknown" else 0)


def _print_trace(found: dict[str, Any]) -> None:
    out = Console()
    out.print(f"[bold]{found['event_id']}[/]  {found['fate']}")
    table = Table()
    for name in ("hop", "verdict", "at (UTC)", "offset", "details"):
        table.add_column(name)
    shown = {"hop", "verdict", "at_ms", "offset", "received_at_ms"}
    for hop in found["hops"]:
        details = "\n".join(
            f"{key}: {value}" for key, value in hop.items() if key not in shown and value not in ([], None)
        )
        at = moment(hop["at_ms"]) if hop.get("at_ms") is not None else ""
        table.add_row(hop["hop"], hop["verdict"], at, str(hop.get("offset", "")), details)
    out.print(table)
