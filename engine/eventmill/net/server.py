"""The server round the protocol: listening sockets, the cap on connections, deadlines, CORS, drain."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Final

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import HttpConfig
from eventmill.net import unix
from eventmill.net.connection import LINGER_S, Connection
from eventmill.net.messages import Handler, Request, Response

logger = logging.getLogger(__name__)

#: Judges a request by its head while the client waits for ``100 Continue``: an answer is final, ``None`` lets it go on.
Admit = Callable[[Request], Response | None]

_BACKLOG: Final = 4096
_SWEEP_S: Final = 1.0
_SHED_MAX: Final = 256
_SPARE_FILES: Final = 256
_PORT_MAX: Final = 65_535


def reuse_port_socket(host: str, port: int, *, first: bool = False) -> socket.socket:
    """A bound TCP socket whose port other sockets of this user may share (SO_REUSEPORT). Raises ``OSError``.

    ``first``: also when somebody listens there already, who would otherwise get a part of the connections.
    """
    if not 0 <= port <= _PORT_MAX:
        raise OSError(errno.EINVAL, f"a port lies between 0 and {_PORT_MAX}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if first and port:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def allow_open_files(connections: int) -> None:
    """Raise this process's limit on open files so that ``connections`` fit; a warning when the hard limit is below."""
    needed = connections + _SHED_MAX + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    granted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted < needed:
        logger.warning(
            "only %d files may be open, %d connections need %d: raise `ulimit -Hn` or lower http.connections_max",
            granted, connections, needed,
        )  # fmt: skip


class HttpServer:
    """Serves one handler on any number of sockets.

    ``admit`` judges requests that come with ``Expect: 100-continue``; ``on_refused`` hears the status of each request
    that the server itself refused, so that no handler saw it.
    """

    def __init__(
        self,
        handler: Handler,
        limits: HttpConfig,
        *,
        admit: Admit = lambda _: None,
        on_refused: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.admit = admit
        self.on_refused = on_refused
        self.deadline_s = parse_duration_ms(limits.request_deadline) / 1000
        self.idle_s = parse_duration_ms(limits.idle_timeout) / 1000
        self.connections: set[Connection] = set()
        self.draining = False
        self._shed = 0
        self._servers: list[asyncio.Server] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0.0, "")

    async def start(self, bound: socket.socket) -> None:
        """Listen on a bound socket."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Connection(self), sock=bound, backlog=_BACKLOG))
        self._sweep_too()

    async def start_unix(self, path: Path) -> None:
        """Listen on a unix socket that only this user may connect to."""
        loop = asyncio.get_running_loop()
        bound = unix.listener(path)
        self._servers.append(await loop.create_unix_server(lambda: Connection(self), sock=bound, backlog=_BACKLOG))
        self._sweep_too()

    def _sweep_too(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """One timer for all connections: a timer a request would cost more than the request's parsing."""
        loop = asyncio.get_running_loop()
        pause = min(_SWEEP_S, self.deadline_s / 4, self.idle_s / 4)
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for connection in list(self.connections):
                connection.check(now)

    async def drain(self) -> None:
        """Stop listening, finish the requests in flight, close all connections.

        What has not finished within the request deadline is cut off: no client can hold up the end.
        """
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.close_when_idle()
        try:
            async with asyncio.timeout(self.deadline_s + LINGER_S):
                await self._empty.wait()
        except TimeoutError:
            logger.warning("%d connections did not end within the deadline and are cut off", len(self.connections))
            for connection in list(self.connections):
                connection.abort()
            await self._empty.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()

    @property
    def full(self) -> bool:
        """Whether a new connection is only told to come back later."""
        return self.draining or len(self.connections) - self._shed >= self.limits.connections_max

    def joined(self, connection: Connection) -> bool:
        """Count a connection in; false when there is not even room to refuse it politely."""
        if connection.shed and self._shed >= _SHED_MAX:
            return False
        self._shed += connection.shed
        self.connections.add(connection)
        self._empty.clear()
        return True

    def left(self, connection: Connection) -> None:
        """Count a connection out."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._shed -= connection.shed
        if not self.connections:
            self._empty.set()

    def date(self) -> str:
        """The Date header, made once a second."""
        now = asyncio.get_running_loop().time()
        if now - self._date[0] >= 1 or not self._date[1]:
            self._date = (now, formatdate(usegmt=True))
        return self._date[1]

    def cors(self, request: Request) -> dict[str, str]:
        """CORS headers for an allowed origin; caches are told that the answer depends on it."""
        allowed = self.limits.cors_origins
        if not allowed:
            return {}
        origin = request.headers.get("origin")
        if origin is None or not ("*" in allowed or origin in allowed):
            return {"Vary": "Origin"}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
