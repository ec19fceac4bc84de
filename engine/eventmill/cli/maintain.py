"""``eventmill compact``."""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

from eventmill.cli.options import config_option, configure, console, data_option, friendly, json_option
from eventmill.cli.replay import progress_bar


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@data_option
@config_option
@json_option
@friendly
def compact(dry_run: bool, data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Merge the lake's small files and late data, remove exact duplicates, recompute sessions."""
    from eventmill.serve.remote import ask, stores_or_none
    from eventmill.serve.tuning import tune
    from eventmill.serve.upkeep import keep_up, planned

    config = configure(config_file, data=data)
    tune()
    with stores_or_none(config) as stores:
        if stores is None:
            with console.status("the engine compacts the lake"):
                report = ask(config, "POST", "/v1/compact?dry_run=1" if dry_run else "/v1/compact")
        elif dry_run:
            report = planned(stores.lake, config)
        else:
            with progress_bar("rows") as bar:
                task = bar.add_task("", total=None)
                report = keep_up(
                    stores.lake, config, progress=lambda done, total: bar.update(task, completed=done, total=total)
                )
    if as_json:
        click.echo(orjson.dumps(report).decode())
        return
    table = Table(title="What a compaction would do" if dry_run else "Compaction", show_header=False)
    for name, value in report.items():
        shown = (
            ", ".join(value)
            if isinstance(value, list | tuple)
            else f"{value:,}"
            if isinstance(value, int)
            else str(value)
        )
        table.add_row(name.replace("_", " "), shown)
    Console().print(table)
