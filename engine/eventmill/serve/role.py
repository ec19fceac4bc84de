"""``process`` and ``sink``: one role of the engine, with its health, its metrics and, where it has one, its API on a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.errors import ConfigError
from eventmill.core.tail import Tail
from eventmill.dashboard.assets import Dashboard
from eventmill.net.access import Access
from eventmill.net.keys import WriteKeys
from eventmill.net.messages import Handler, Request, Response
from eventmill.net.server import HttpServer, reuse_port_socket
from eventmill.observe import metrics
from eventmill.openapi.document import PATH as DESCRIPTION
from eventmill.openapi.document import Description
from eventmill.process.dimensions.source import open_dimensions
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.sources import open_source
from eventmill.serve.api import EngineApi
from eventmill.serve.dimensions import Counted
from eventmill.serve.engine import Engine
from eventmill.serve.engine_log import on_kafka, open_log
from eventmill.serve.folder import ENGINE_SOCKET
from eventmill.serve.processing import build_processing
from eventmill.serve.worker import Worker

logger = logging.getLogger(__name__)

_OWN: Final = ("/healthz", "/readyz", "/metrics")


class Role(Protocol):
    """What a process does beside answering."""

    #: Set when it cannot go on.
    stopped: threading.Event
    fatal: tuple[str, Exception] | None

    def start(self) -> None:
        """Recover and go live."""
        ...

    def drain(self) -> bool:
        """Finish what is in hand and let go; false when something is left for the next start."""
        ...


class ProcessRole:
    """A member of the processors' group."""

    def __init__(self, config: Config, checkpoint: Callable[[str], None] = lambda _: None) -> None:
        self.stopped = threading.Event()
        self.fatal: tuple[str, Exception] | None = None
        self._log = open_log(config)
        self._book = SchemaBook(
            self._log,
            open_source(config),
            refresh_s=parse_duration_ms(config.schemas.refresh_interval) / 1000,
            reached=metrics.SCHEMAS_REACHED.set,
        )
        self._dimensions = open_dimensions(config.dimensions, Counted())
        self._processing = build_processing(config, self._log, self._book, Tail(()), self._dimensions, checkpoint)
        self._worker = Worker("process", self._processing.recover, self._step, self._failed)

    def _step(self, timeout_s: float) -> int:
        taken = self._processing.step(timeout_s)
        metrics.PROCESSED.inc(taken)
        metrics.SCHEMA_UNKNOWN.set(self._book.unjudged)
        return taken

    def _failed(self, name: str, error: Exception) -> None:
        self.fatal = (name, error)
        self.stopped.set()

    def start(self) -> None:
        """Join the group."""
        self._book.start()
        self._worker.start()

    def drain(self) -> bool:
        """Finish the batch in hand, hand the partitions over, leave the group."""
        self._worker.stop()
        self._worker.join()
        self._book.close()
        self._processing.close(snapshot=self.fatal is None)
        self._dimensions.close()
        self._log.close()
        return True


class _Pages:
    """Health, metrics, and behind them ``api`` and the dashboard, if the role has them."""

    def __init__(self, api: Handler | None, access: Access) -> None:
        self._api = api
        self._access = access
        self._dashboard = Dashboard() if api is not None else None
        self._description = Description()
        self.ready = False

    async def handle(self, request: Request) -> Response:
        if request.path in _OWN:
            if request.method not in ("GET", "HEAD"):
                return Response.error(405, f"ask for {request.path} by GET", {"Allow": "GET, HEAD"})
            if request.path == "/metrics":
                return Response(200, await asyncio.to_thread(metrics.render), metrics.CONTENT_TYPE)
            if request.path == "/readyz" and not self.ready:
                return Response.json(503, {"ready": False, "reason": "this process is stopping"}, {"Retry-After": "1"})
            return Response.json(200, {"status": "ok"} if request.path == "/healthz" else {"ready": True})
        if self._api is not None and self._dashboard is not None:
            if request.path == DESCRIPTION:
                return self._description.answer(request)
            if self._dashboard.answers(request.path):
                return self._dashboard.answer(request)
            return self._access.refuse(request) or await self._api(self._access.identified(request))
        return Response.error(404, f"there is no {request.path} here; there are {', '.join(_OWN)}")


async def run_role(config: Config, make: Callable[[], Role], *, ready: Callable[[str], None]) -> None:
    """Until SIGTERM or SIGINT, or until the role cannot go on, which is raised; then drain."""
    if not on_kafka(config):
        raise ConfigError(
            "this role shares its log with other processes: name Kafka's brokers by kafka.bootstrap, "
            "or run everything in one by `eventmill serve`"
        )
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    http = config.http
    access = Access(config.access, WriteKeys(config.ingest.write_keys))
    try:
        bound = reuse_port_socket(http.host, http.port, first=True)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {http.host}:{http.port}: {error.strerror}; choose another --port"
        ) from error
    role = await loop.run_in_executor(None, make)
    await loop.run_in_executor(None, role.start)
    api = EngineApi(role).handle if isinstance(role, Engine) else None
    pages = _Pages(api, access)
    server = HttpServer(pages.handle, http)
    await server.start(bound)
    async with _for_commands(config, api):
        await _live(role, pages, stopping, lambda: ready(_url(http.host, bound)))
        await server.drain()
    if role.fatal is not None:
        raise role.fatal[1]


def _url(host: str, bound: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


@contextlib.asynccontextmanager
async def _for_commands(config: Config, api: Handler | None) -> AsyncIterator[None]:
    """Commands on this machine (``eventmill audit --data``) ask a sink by its data folder, whose permissions guard it."""
    if api is None:
        yield
        return
    path = config.data / ENGINE_SOCKET
    path.unlink(missing_ok=True)
    server = HttpServer(api, config.http)
    await server.start_unix(path)
    try:
        yield
    finally:
        await server.drain()
        path.unlink(missing_ok=True)


async def _live(role: Role, pages: _Pages, stopping: asyncio.Event, ready: Callable[[], None]) -> None:
    """From ready to drained."""
    loop = asyncio.get_running_loop()
    try:
        if role.fatal is None:
            pages.ready = True
            ready()
            failed = loop.run_in_executor(None, role.stopped.wait)
            await asyncio.wait((failed, asyncio.ensure_future(stopping.wait())), return_when=asyncio.FIRST_COMPLETED)
            role.stopped.set()
            await failed
    finally:
        pages.ready = False
        done = await loop.run_in_executor(None, role.drain)
    if role.fatal is None and not done:
        logger.warning("stopped with events still on the log; the next start stores them")
