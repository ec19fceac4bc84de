"""``eventmill dimensions``: load and get."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eventmill.cli.options import config_option, configure, console, friendly, json_option
from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import DimensionsConfig
from eventmill.core.errors import ConfigError

_ROWS: Final = 1_000
_TIMEOUT_S: Final = 10.0


@click.group()
def dimensions() -> None:
    """Users' country, segment and tier: fill Redis or the file from a file, look a user up."""


@dimensions.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--ttl", help="Redis only: users are forgotten after this time (24h, 30d). Without it they stay.")
@click.option("--dry-run", is_flag=True, help="Read and check the file, write nothing.")
@config_option
@json_option
@friendly
def load(file: Path, ttl: str | None, dry_run: bool, config_file: Path | None, as_json: bool) -> None:
    """Load FILE (CSV, Parquet, NDJSON or Arrow; user_id, segment, country, tier) into Redis, user by user, or in place of the
    file that dimensions.file names."""
    from eventmill.process.dimensions.files import read_dimensions, write_dimensions

    config = configure(config_file).dimensions
    try:
        ttl_ms = None if ttl is None else parse_duration_ms(ttl)
    except ValueError as error:
        raise ConfigError(f"--ttl: {error}") from error
    if not config.redis and not config.file:
        raise ConfigError("there is nowhere to load to: set dimensions.redis or dimensions.file")
    if ttl_ms is not None and not config.redis:
        raise ConfigError("--ttl is for Redis; a file keeps its users until the next load")
    table = read_dimensions(file)
    target = "redis" if config.redis else config.file
    if not dry_run and config.redis:
        _fill(config, table, ttl_ms)
    elif not dry_run:
        write_dimensions(table, Path(config.file))
    if as_json:
        click.echo(orjson.dumps({"users": table.num_rows, "target": target, "written": not dry_run}).decode())
    else:
        click.echo(f"{table.num_rows:,} users {'would go' if dry_run else 'went'} to {target}")


def _fill(config: DimensionsConfig, table: Any, ttl_ms: int | None) -> None:
    redis = _redis(config)
    columns = (TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=table.num_rows)
            for batch in table.to_batches(max_chunksize=_ROWS):
                values = [
                    [b"" if value is None else value.encode() for value in column.to_pylist()]
                    for column in batch.columns
                ]
                redis.load(list(zip(*values, strict=True)), ttl_ms)
                progress.advance(task, batch.num_rows)
    finally:
        redis.close()


def _redis(config: DimensionsConfig) -> Any:
    try:
        from eventmill.process.dimensions.redis_table import RedisTable
    except ImportError as error:
        raise ConfigError("dimensions.redis needs redis-py: pip install 'eventmill[redis]'") from error
    return RedisTable(config, timeout_s=_TIMEOUT_S)


@dimensions.command()
@click.argument("user_id")
@config_option
@json_option
@friendly
def get(user_id: str, config_file: Path | None, as_json: bool) -> None:
    """Show what is known of USER_ID; exit 1 when nothing is."""
    config = configure(config_file).dimensions
    found = _from_redis(config, user_id) if config.redis else _from_file(config, user_id)
    if as_json:
        click.echo(orjson.dumps(found).decode())
    elif found is None:
        console.print("nothing is known of that user")
    else:
        click.echo(", ".join(f"{name}: {'-' if value is None else value}" for name, value in found.items()))
    sys.exit(1 if found is None else 0)


def _from_redis(config: DimensionsConfig, user_id: str) -> dict[str, str | None] | None:
    from eventmill.core.schema import DIMENSION_NAMES

    redis = _redis(config)
    try:
        ((reply,),) = redis.ask([user_id.encode("utf-8", "surrogateescape")])
    finally:
        redis.close()
    if reply is False:
        raise ConfigError(
            "the user's key holds another type than a hash of short texts; delete it, or change dimensions.prefix"
        )
    return None if reply is None else dict(zip(DIMENSION_NAMES, reply, strict=True))


def _from_file(config: DimensionsConfig, user_id: str) -> dict[str, str | None] | None:
    import pyarrow.compute as pc

    from eventmill.process.dimensions.files import read_dimensions

    if not config.file:
        raise ConfigError("there is nothing to ask: set dimensions.redis or dimensions.file")
    table = read_dimensions(Path(config.file))
    rows = table.filter(pc.equal(table.column("user_id"), user_id)).drop_columns(["user_id"]).to_pylist()
    return rows[0] if rows else None
