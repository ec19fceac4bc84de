"""``serve``: the engine in this process, its HTTP on a unix socket, and N ingest workers on one public port."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eventmill.core.config import Config, to_environ
from eventmill.core.errors import ConfigError
from eventmill.net.server import HttpServer, reuse_port_socket
from eventmill.serve.api import EngineApi
from eventmill.serve.engine import Engine
from eventmill.serve.folder import ENGINE_SOCKET

logger = logging.getLogger(__name__)

_RESTART_S: Final = 0.5
_WORKER_START_S: Final = 60.0
_WORKER_DRAIN_S: Final = 40.0


@dataclass
class _Ingest:
    process: asyncio.subprocess.Process
    watch: asyncio.Task[None] | None = None


class Supervisor:
    """Runs until SIGTERM or SIGINT, or a fatal error of the engine; then drains."""

    def __init__(self, config: Config, engine: Engine, *, ready: Callable[[str], None]) -> None:
        self._config = config
        self._engine = engine
        self._ready = ready
        self._workers: list[_Ingest] = []
        self._stopping = asyncio.Event()
        self._socket: socket.socket | None = None
        self._failed: Exception | None = None

    async def run(self) -> None:
        """Serve; returns after the drain. Raises what made the engine stop, if anything did."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        http = self._config.http
        try:
            # Bound, not listening: it keeps the port for the workers, which share it.
            self._socket = reuse_port_socket(http.host, http.port, first=True)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {http.host}:{http.port}: {error.strerror}; choose another --port"
            ) from error
        port = int(self._socket.getsockname()[1])
        await loop.run_in_executor(None, self._engine.start)
        path = self._config.data / ENGINE_SOCKET
        path.unlink(missing_ok=True)
        api = HttpServer(EngineApi(self._engine).handle, http)
        await api.start_unix(path)
        try:
            if self._engine.fatal is None:
                for _ in range(http.workers):
                    await self._start_worker(port, path)
                self._ready(f"http://{_for_url(http.host)}:{port}")
                await self._until_stopped()
            await self._stop_workers()
        finally:
            done = await loop.run_in_executor(None, self._engine.drain)
            await api.drain()
            path.unlink(missing_ok=True)
            self._socket.close()
        if self._engine.fatal is not None:
            raise self._engine.fatal[1]
        if self._failed is not None:
            raise self._failed
        if not done:
            logger.warning("stopped with events still on the log; the next start stores them")

    async def _until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        failed = loop.run_in_executor(None, self._engine.stopped.wait)
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((failed, stop), return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        self._engine.stopped.set()
        await failed

    async def _start_worker(self, port: int, engine_socket: Path) -> None:
        environ = {**os.environ, **to_environ(self._config), "EVENTMILL_HTTP__PORT": str(port)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "eventmill", "ingest", "--supervised", "--engine-socket", str(engine_socket),
            env=environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        worker = _Ingest(process)
        if process.stdout is None:
            raise ConfigError("the ingest worker has no output to say that it is ready")
        line = await asyncio.wait_for(process.stdout.readline(), _WORKER_START_S)
        if not line.startswith(b"ready "):
            raise ConfigError("an ingest worker did not start; its own message stands above")
        self._workers.append(worker)
        worker.watch = asyncio.create_task(self._watch(worker, port, engine_socket))

    async def _watch(self, worker: _Ingest, port: int, engine_socket: Path) -> None:
        code = await worker.process.wait()
        self._workers.remove(worker)
        if self._stopping.is_set():
            return
        logger.error("an ingest worker ended with %d; starting another", code)
        await asyncio.sleep(_RESTART_S)
        try:
            await self._start_worker(port, engine_socket)
        except (ConfigError, TimeoutError) as error:
            self._failed = ConfigError(f"no ingest worker could be started: {error}")
            self._stopping.set()

    async def _stop_workers(self) -> None:
        self._stopping.set()
        workers = list(self._workers)
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            try:
                await asyncio.wait_for(worker.process.wait(), _WORKER_DRAIN_S)
            except TimeoutError:
                logger.warning("an ingest worker did not drain in %.0f s and is killed", _WORKER_DRAIN_S)
                worker.process.kill()
                await worker.process.wait()


def _for_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
