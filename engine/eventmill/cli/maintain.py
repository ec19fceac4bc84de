"""``eventmill compact``."""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

from eventmill.cli.options import config_option, configure, console, data_option, friendly, json_option


@click.command()
@data_option
@config_option
@json_option
@friendly
def compact(data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Merge the lake's small files and late data, remove exact duplicates, recompute sessions."""
    from eventmill.serve.remote import ask, stores_or_none
    from eventmill.serve.upkeep import keep_up

    config = configure(config_file, data=data)
    with stores_or_none(config) as stores, console.status("compacting the lake"):
        report = ask(config, "POST", "/v1/compact") if stores is None else keep_up(stores.lake, config)
    if as_json:
        click.echo(orjson.dumps(report).decode())
        return
    table = Table(title="Compaction", show_header=False)
    for name, value in report.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)
