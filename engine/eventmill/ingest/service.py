"""One ingest worker: a server, a committer, and a drain at the end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from eventmill.core.config import Config
from eventmill.core.errors import ConfigError
from eventmill.core.log import Log
from eventmill.core.redact import Redaction
from eventmill.ingest.committer import Committer
from eventmill.ingest.endpoints import Endpoints
from eventmill.net.access import Access
from eventmill.net.keys import WriteKeys
from eventmill.net.proxy import Proxy
from eventmill.net.server import HttpServer, allow_open_files, reuse_port_socket
from eventmill.observe import metrics

logger = logging.getLogger(__name__)


async def run(config: Config, log: Log, *, engine_socket: Path, ready: Callable[[str], None]) -> None:
    """Take traffic until SIGTERM or SIGINT, then finish what is in flight."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    http = config.http
    keys = WriteKeys(config.ingest.write_keys)
    allow_open_files(http.connections_max)
    committer = Committer(log, config.ingest, http, Redaction(config.dead.redact))
    proxy = Proxy(engine_socket)
    endpoints = Endpoints(committer, Access(config.access, keys), http, proxy)
    server = HttpServer(endpoints.handle, http, admit=endpoints.admit, on_refused=_count_refusal)
    try:
        bound = reuse_port_socket(http.host, http.port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {http.host}:{http.port}: {error.strerror}; choose another port") from error
    await server.start(bound)
    host = f"[{http.host}]" if ":" in http.host else http.host
    ready(f"http://{host}:{bound.getsockname()[1]}")
    await stopping.wait()
    logger.info("draining: %d connections", len(server.connections))
    endpoints.ready = False
    await server.drain()
    await committer.close()
    proxy.close()
    logger.info("drained")


def _count_refusal(status: int) -> None:
    metrics.answered("refused", status).inc()
