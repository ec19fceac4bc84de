"""``eventmill lake``: what other engines need to read the lake."""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from eventmill.cli.options import config_option, configure, data_option, friendly, json_option
from eventmill.core.clock import moment_ms


@click.group()
def lake() -> None:
    """The lake, for other engines."""


@lake.command()
@click.option("--event", help="Only files that may hold events of this name.")
@click.option("--from", "since", help="Only files with event times at or after (ISO 8601, or 2h for two hours ago).")
@click.option("--to", "until", help="Only files with event times before.")
@data_option
@config_option
@json_option
@friendly
def files(
    event: str | None,
    since: str | None,
    until: str | None,
    data: Path | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """List the data files of the newest snapshot. They stay for an hour, whatever is compacted meanwhile."""
    from eventmill.lake import listing
    from eventmill.lake.iceberg import LakeTable
    from eventmill.serve.folder import existing_stores

    config = configure(config_file, data=data)
    existing_stores(config)
    table = LakeTable(config.lake_dir, config.lake.partitions_max, settings=config.lake)
    try:
        found = listing.files(
            table,
            event=event,
            from_ms=None if since is None else moment_ms(since),
            to_ms=None if until is None else moment_ms(until),
        )
    finally:
        table.close()
    if as_json:
        click.echo(orjson.dumps(found).decode())
        return
    out = Table(box=SIMPLE_HEAD)
    for name in ("date", "event group"):
        out.add_column(name)
    for name in ("rows", "size"):
        out.add_column(name, justify="right")
    out.add_column("path", overflow="fold")
    for file in found["files"]:
        size = decimal(file["bytes"])
        out.add_row(file["event_date"], escape(file["event_group"]), f"{file['rows']:,}", size, escape(file["path"]))
    Console().print(out)
    Console().print(f"{len(found['files']):,} files, {found['rows']:,} rows, {decimal(found['bytes'])}")
