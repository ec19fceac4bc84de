"""``eventmill schema diff`` and ``apply``: the schema of the real-time store's tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.markup import escape

from eventmill.cli.options import config_option, configure, data_option, friendly, json_option
from eventmill.core.config import Config

cluster_option = click.option(
    "--cluster", help="The cluster whose servers get the tables, replicated and sharded.  [default: realtime.cluster]"
)


@click.command()
@cluster_option
@click.option("--all", "whole", is_flag=True, help="Every statement from an empty database on; no store is asked.")
@data_option
@config_option
@json_option
@friendly
def diff(cluster: str | None, whole: bool, data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Show what the real-time store's tables lack, as the statements that `apply` would run; exit 1 when there is something."""
    from eventmill.sinks.realtime import migrations
    from eventmill.sinks.realtime.open import connected, shape_of
    from eventmill.sinks.realtime.shape import Shape

    config = configure(config_file, data=data)
    if whole:
        shape = Shape(cluster=config.realtime.cluster if cluster is None else cluster)
        waiting, differing = list(migrations.MIGRATIONS), []
    else:
        shape = shape_of(config, cluster)
        with _held(config), connected(config) as store:
            waiting, differing = migrations.pending(store), migrations.differences(store)
    steps: list[dict[str, Any]] = [
        {"version": each.version, "name": each.name, "statements": each.statements(shape)} for each in waiting
    ]
    if as_json:
        click.echo(orjson.dumps({"pending": steps, "differences": differing}).decode())
    elif whole:
        first = [shape.database(), *shape.create(migrations.APPLIED)]
        for statement in (*first, *(one for step in steps for one in step["statements"])):
            click.echo(f"{statement};")
    else:
        _print(steps, differing)
    sys.exit(1 if not whole and (steps or differing) else 0)


@click.command()
@cluster_option
@data_option
@config_option
@friendly
def apply(cluster: str | None, data: Path | None, config_file: Path | None) -> None:
    """Bring the real-time store's tables up to date; safe to run again. An embedded store does that by itself when it opens."""
    from eventmill.sinks.realtime import migrations
    from eventmill.sinks.realtime.open import connected, shape_of

    config = configure(config_file, data=data)
    shape, out = shape_of(config, cluster), Console()
    with _held(config), connected(config) as store:
        done = 0
        for each in migrations.apply(store, shape):
            done += 1
            out.print(f"version {each.version}: {escape(each.name)}", highlight=False)
        if not done:
            out.print(f"the tables are of version {migrations.NEWEST} already", highlight=False)


@contextlib.contextmanager
def _held(config: Config) -> Iterator[None]:
    """The data folder, where the store is in it: no engine runs meanwhile."""
    from eventmill.serve.folder import DataFolder, existing_stores

    if config.realtime.url:
        yield
    else:
        existing_stores(config)
        with DataFolder(config.data):
            yield


def _print(steps: list[dict[str, Any]], differing: list[str]) -> None:
    out = Console()
    for step in steps:
        out.print(f"[bold]version {step['version']}[/]: {escape(step['name'])}", highlight=False)
        for statement in step["statements"]:
            out.print(f"  {escape(statement)};", highlight=False, soft_wrap=True)
    for line in differing:
        out.print(f"[yellow]differs[/]: {escape(line)}", highlight=False)
    if steps:
        out.print("run `eventmill schema apply`", highlight=False)
    elif not differing:
        out.print("nothing is missing", highlight=False)
