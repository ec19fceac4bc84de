"""``eventmill compact`` and ``eventmill replay``."""

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


@click.command()
@click.option("--dead", is_flag=True, required=True, help="Decode the dead letters again under today's settings.")
@click.option("--reason", "reasons", multiple=True, help="Only dead letters of this reason; may be repeated.")
@data_option
@config_option
@json_option
@friendly
def replay(dead: bool, reasons: tuple[str, ...], data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Put dead letters back into the stream where they are good by now; each at most once."""
    from eventmill.process.replay import replay_dead
    from eventmill.serve.engine_log import open_log
    from eventmill.serve.folder import existing

    config = configure(config_file, data=data)
    existing(config.data)
    log = open_log(config)
    try:
        with console.status("replaying dead letters"):
            report = replay_dead(log, config.ingest, config.http, reasons=frozenset(reasons))
    finally:
        log.close()
    if as_json:
        click.echo(orjson.dumps(report.as_dict()).decode())
        return
    Console().print(
        f"{report.read:,} dead letters read, [green]{report.replayed:,}[/] put back, "
        f"[yellow]{report.still_dead:,}[/] still bad, {report.skipped:,} of other reasons"
    )
