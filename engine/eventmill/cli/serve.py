"""``eventmill serve`` and ``eventmill ingest``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import click
import uvloop

from eventmill.cli.options import config_option, configure, data_option, friendly, log_to_stderr
from eventmill.core.config import Config
from eventmill.core.errors import LogUnavailable
from eventmill.serve.folder import ENGINE_SOCKET, DataFolder

logger = logging.getLogger(__name__)

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def announce(url: str) -> None:
    """The ready line that scripts wait for."""
    click.echo(f"ready {url}")


@click.command()
@data_option
@config_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port; 0 picks a free one.  [default: 8080]")
@click.option("--workers", type=int, help="Ingest processes that share the port.  [default: 1]")
@click.option("--write-key", "write_keys", multiple=True, help="A key that clients must send; may be repeated.")
@friendly
def serve(
    data: Path | None,
    config_file: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    write_keys: tuple[str, ...],
) -> None:
    """Run everything on this machine: ingest, log, processor, both stores and query."""
    log_to_stderr()
    config = configure(
        config_file, data=data, http__host=host, http__port=port, http__workers=workers,
        ingest__write_keys=write_keys or None,
    )  # fmt: skip
    with DataFolder(config.data):
        run_serve(config)


def run_serve(config: Config) -> None:
    """Serve until told to stop; the caller holds the data folder."""
    from eventmill.serve.shared_metrics import prepare_metrics

    prepare_metrics(config)
    # chdb and the metrics are imported only now: the one is heavy, the others read their folder at import.
    from eventmill.process.dedup import build_filter
    from eventmill.serve.engine import Engine
    from eventmill.serve.supervisor import Supervisor
    from eventmill.serve.tuning import tune

    logger.info(build_filter(config.dedup).describe())
    if not config.ingest.write_keys:
        logger.warning("any write key is accepted; set ingest.write_keys or --write-key to change that")
    if config.http.host not in _LOOPBACK and not (config.access.read_keys or config.access.admin_keys):
        logger.warning(
            "whoever reaches %s may ask about all events; set access.read_keys to change that", config.http.host
        )

    tune()

    async def main() -> None:
        await Supervisor(config, Engine(config), ready=announce).run()

    uvloop.run(main())


@click.command()
@data_option
@config_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port; 0 picks a free one.  [default: 8080]")
@click.option("--engine-socket", type=click.Path(path_type=Path), help="Where queries are forwarded to.")
@click.option("--supervised", is_flag=True, hidden=True)
@friendly
def ingest(
    data: Path | None,
    config_file: Path | None,
    host: str | None,
    port: int | None,
    engine_socket: Path | None,
    supervised: bool,
) -> None:
    """Run one ingest worker: HTTP to the log, nothing else."""
    from eventmill.ingest.service import run
    from eventmill.serve.engine_log import open_log
    from eventmill.serve.parent import die_with_parent
    from eventmill.serve.tuning import tune

    log_to_stderr()
    if supervised:
        die_with_parent()
    config = configure(config_file, data=data, http__host=host, http__port=port)
    log = open_log(config)
    tune()
    try:
        uvloop.run(run(config, log, engine_socket=engine_socket or config.data / ENGINE_SOCKET, ready=announce))
    finally:
        try:
            log.close()
        except LogUnavailable as error:
            logger.warning("closing the log: %s", error)
