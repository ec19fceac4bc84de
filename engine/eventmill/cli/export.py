"""``eventmill export``."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import orjson

from eventmill.cli.options import config_option, configure, console, data_option, friendly, json_option


@click.command()
@click.option("--user", required=True, help="The user's id, as the app sent it (userId).")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False),
    help="The file: Parquet if it ends in .parquet, else a JSON object a line.  [default: standard output]",
)  # fmt: skip
@data_option
@config_option
@json_option
@friendly
def export(user: str, out: Path | None, data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Write everything that is stored of one user: each event once, and the dead letters."""
    from eventmill.core.errors import ConfigError
    from eventmill.serve.export import export_user

    if as_json and out is None:
        raise ConfigError("--json prints what was written, so the events need a file of their own: name it by --out")
    report = export_user(configure(config_file, data=data), user, sys.stdout.buffer if out is None else out)
    if as_json:
        click.echo(orjson.dumps(report.as_dict()).decode())
    else:
        console.print(f"{report.events:,} events and {report.dead_letters:,} dead letters")
