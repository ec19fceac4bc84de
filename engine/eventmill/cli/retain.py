"""``eventmill retain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from eventmill.cli.options import config_option, configure, console, data_option, friendly, json_option

_RULES = {
    ("lake", "raw"): ("raw events", "retention.raw", "rolled up and dropped"),
    ("lake", "downsample"): ("frequent events", "retention.downsample_after", "rolled up and dropped"),
    ("lake", "aggregates"): ("aggregates", "retention.aggregates", "dropped"),
    ("lake", "cold"): ("raw events", "retention.cold_after", "moved to the cold tier"),
    ("realtime", "raw"): ("raw events", "retention.realtime", "dropped"),
    ("realtime", "aggregates"): ("roll-ups", "retention.aggregates", "dropped"),
}


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@data_option
@config_option
@json_option
@friendly
def retain(dry_run: bool, data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Carry out [retention]: roll up and drop what is old, move what is cold. `serve` does it by itself."""
    from eventmill.core.clock import now_ms
    from eventmill.serve import retain as retention
    from eventmill.serve.remote import ask, stores_or_none

    config = configure(config_file, data=data)
    with stores_or_none(config) as stores, console.status("looking" if dry_run else "retaining"):
        if stores is None:
            report = ask(config, "POST", "/v1/retain?dry_run=1" if dry_run else "/v1/retain")
        elif dry_run:
            report = retention.planned(stores, config, now_ms())
        else:
            report = retention.retain(stores, config, now_ms())
    if as_json:
        click.echo(orjson.dumps(report).decode())
        return
    Console().print(_table(report, dry_run))
    if report["waiting"]:
        Console().print(f"{report['waiting']:,} files wait for a compaction, which retain does first")


def _table(report: dict[str, Any], dry_run: bool) -> Table:
    title = "What would go" if dry_run else "What went"
    table = Table(title=title, title_style="bold", box=SIMPLE_HEAD)
    for name in ("store", "what", "by", "how"):
        table.add_column(name)
    for name in ("partitions", "files", "rows", "size"):
        table.add_column(name, justify="right")
    for each in report["rules"]:
        what, by, how = _RULES[each["store"], each["rule"]]
        store = "real-time" if each["store"] == "realtime" else each["store"]
        numbers = (f"{each[name]:,}" for name in ("partitions", "files", "rows"))
        table.add_row(store, what, by, how, *numbers, decimal(each["bytes"]))
    return table
