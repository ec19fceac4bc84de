"""``eventmill process``, ``sink`` and ``topics``: the roles on Kafka."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import orjson
import uvloop
from rich.table import Table

from eventmill.cli.options import config_option, configure, console, data_option, friendly, json_option, log_to_stderr
from eventmill.cli.serve import announce
from eventmill.core.config import Config
from eventmill.core.errors import ConfigError
from eventmill.serve.engine_log import on_kafka

_host_option = click.option("--host", help="Address of health and metrics.  [default: 127.0.0.1]")
_port_option = click.option("--port", type=int, help="Port of health and metrics; 0 picks a free one.  [default: 8080]")


@click.command()
@data_option
@config_option
@_host_option
@_port_option
@click.option("--instance", help="A name that survives restarts, so that its partitions wait for it.")
@friendly
def process(
    data: Path | None, config_file: Path | None, host: str | None, port: int | None, instance: str | None
) -> None:
    """Run one processor: raw to enriched, as a member of the group that shares raw's partitions."""
    from eventmill.serve.role import ProcessRole, run_role
    from eventmill.serve.tuning import tune

    log_to_stderr()
    config = configure(config_file, data=data, http__host=host, http__port=port, kafka__instance=instance)
    tune()
    uvloop.run(run_role(config, lambda: ProcessRole(config), ready=announce))


@click.command()
@data_option
@config_option
@_host_option
@_port_option
@friendly
def sink(data: Path | None, config_file: Path | None, host: str | None, port: int | None) -> None:
    """Run the stores: enriched into both, the look-up of suspects, and the query API with the dashboard."""
    from eventmill.serve.engine import Engine
    from eventmill.serve.folder import DataFolder
    from eventmill.serve.role import run_role
    from eventmill.serve.tuning import tune

    log_to_stderr()
    config = configure(config_file, data=data, http__host=host, http__port=port)
    tune()
    with DataFolder(config.data):
        uvloop.run(run_role(config, lambda: Engine(config, processes=False), ready=announce))


@click.group()
def topics() -> None:
    """Make Eventmill's topics on Kafka, or check them."""


def _on_brokers(config_file: Path | None) -> Config:
    config = configure(config_file)
    if not on_kafka(config):
        raise ConfigError("there is no Kafka: name its brokers by kafka.bootstrap")
    return config


@topics.command()
@config_option
@json_option
@friendly
def create(config_file: Path | None, as_json: bool) -> None:
    """Make what is missing."""
    config = _on_brokers(config_file)
    from eventmill.log.kafka import topics as kafka

    done = kafka.create(config)
    if as_json:
        click.echo(orjson.dumps({"done": done}))
        return
    for line in done or ["all topics are there"]:
        console.print(line, highlight=False)


@topics.command()
@config_option
@json_option
@friendly
def grow(config_file: Path | None, as_json: bool) -> None:
    """Add partitions up to kafka.partitions, each with the state of its devices; all roles must be stopped."""
    config = _on_brokers(config_file)
    from eventmill.serve.grow import grow as growing

    done = []
    for line in growing(config):
        done.append(line)
        if not as_json:
            console.print(line, highlight=False)
    if as_json:
        click.echo(orjson.dumps({"done": done}))
    elif not done:
        console.print("all partitions are there")


@topics.command()
@config_option
@json_option
@friendly
def check(config_file: Path | None, as_json: bool) -> None:
    """Compare the topics with what the configuration wants; exits with 1 when something is wrong."""
    config = _on_brokers(config_file)
    from eventmill.log.kafka import topics as kafka

    findings = kafka.check(config)
    if as_json:
        click.echo(
            orjson.dumps([{"topic": f.name, "partitions": f.partitions, "problem": f.problem} for f in findings])
        )
    else:
        table = Table("topic", "partitions", "verdict")
        for finding in findings:
            verdict = f"[red]✗[/] {finding.problem}" if finding.problem else "[green]✓[/]"
            table.add_row(finding.name, str(finding.partitions), verdict)
        console.print(table)
    if any(finding.problem for finding in findings):
        sys.exit(1)
