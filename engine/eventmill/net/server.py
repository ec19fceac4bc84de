"""The server round the protocol: sockets, deadlines, back-pressure, CORS, drain."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Final, cast

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import HttpConfig
from eventmill.net import unix
from eventmill.net.messages import Handler, Request, Response
from eventmill.net.protocol import Continue, Received, Refused, RequestReader

logger = logging.getLogger(__name__)

_BACKLOG: Final = 4096
_SWEEP_S: Final = 1.0
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding",
    "Access-Control-Max-Age": "86400",
}


def reuse_port_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket whose port other sockets of this user may share (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
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


class HttpServer:
    """Serves one handler on any number of sockets."""

    def __init__(self, handler: Handler, limits: HttpConfig) -> None:
        self.handler = handler
        self.limits = limits
        self.deadline_s = parse_duration_ms(limits.request_deadline) / 1000
        self.idle_s = parse_duration_ms(limits.idle_timeout) / 1000
        self.connections: set[_Connection] = set()
        self.draining = False
        self._servers: list[asyncio.Server] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0.0, "")

    async def start(self, bound: socket.socket) -> None:
        """Listen on a bound socket."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: _Connection(self), sock=bound, backlog=_BACKLOG))
        self._sweep_too()

    async def start_unix(self, path: Path) -> None:
        """Listen on a unix socket that only this user may connect to."""
        loop = asyncio.get_running_loop()
        bound = unix.listener(path)
        self._servers.append(await loop.create_unix_server(lambda: _Connection(self), sock=bound, backlog=_BACKLOG))
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
                connection.check_deadline(now)

    async def drain(self) -> None:
        """Stop listening, finish the requests in flight, close all connections."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.close_when_idle()
        await self._empty.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def joined(self, connection: _Connection) -> None:
        """Count a connection in."""
        self.connections.add(connection)
        self._empty.clear()

    def left(self, connection: _Connection) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def date(self, now: float) -> str:
        """The Date header, made once a second."""
        if now - self._date[0] >= 1:
            self._date = (now, formatdate(usegmt=True))
        return self._date[1]

    def cors(self, request: Request) -> dict[str, str]:
        """CORS headers for an allowed origin."""
        origin = request.headers.get("origin")
        allowed = self.limits.cors_origins
        if origin is None or not allowed or not ("*" in allowed or origin in allowed):
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


class _Connection(asyncio.Protocol):
    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(server.limits)
        self._answers: deque[tuple[asyncio.Task[Response], Request, bool]] = deque()
        self._since = self._loop.time()
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        if server.draining or len(server.connections) >= server.limits.connections_max:
            self._write(Response.error(503, "too many connections", {"Retry-After": "1"}), {}, keep_alive=False)
            self._transport.close()
            self._closing = True
            return
        server.joined(self)

    def connection_lost(self, error: Exception | None) -> None:
        # Requests under way go on: their events may be on the way to the log already.
        self._closing = True
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._reader.in_request:
            self._since = self._loop.time()
        for found in self._reader.feed(data):
            if isinstance(found, Continue):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif isinstance(found, Received):
                self._handle(found)
            else:
                self._refuse(found)
        self._since = self._loop.time() if not self._reader.in_request else self._since

    def _handle(self, received: Received) -> None:
        request = received.request
        task = self._loop.create_task(self._answer(request))
        self._answers.append((task, request, received.keep_alive))
        task.add_done_callback(self._flush)
        if len(self._answers) >= self._server.limits.pipelined_max:
            self._transport.pause_reading()

    async def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            return Response(204, b"", "text/plain", _PREFLIGHT)
        try:
            return await self._server.handler(request)
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            return Response.error(500, "an internal error; the server's log has its cause")

    def _refuse(self, refused: Refused) -> None:
        async def answer() -> Response:
            return Response.error(refused.status, refused.message)

        request = Request("", "", {}, {}, b"")
        task = self._loop.create_task(answer())
        self._answers.append((task, request, False))
        task.add_done_callback(self._flush)

    def _flush(self, _: object) -> None:
        """Write the answers that are due, in the order of their requests."""
        while self._answers and self._answers[0][0].done():
            task, request, keep_alive = self._answers.popleft()
            if self._closing:
                continue
            keep_alive = keep_alive and not self._server.draining
            self._write(task.result(), self._server.cors(request), keep_alive=keep_alive, head=request.method == "HEAD")
            if not keep_alive:
                self._closing = True
                self._transport.close()
        if not self._closing:
            self._since = self._loop.time()
            if len(self._answers) < self._server.limits.pipelined_max:
                self._transport.resume_reading()

    def _write(self, response: Response, extra: dict[str, str], *, keep_alive: bool, head: bool = False) -> None:
        lines = [
            f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}",
            f"Date: {self._server.date(self._loop.time())}",
            f"Content-Length: {len(response.body)}",
        ]
        if response.body:
            lines.append(f"Content-Type: {response.content_type}")
        lines += [f"{name}: {value}" for name, value in (*response.headers.items(), *extra.items())]
        lines.append("Connection: keep-alive\r\n\r\n" if keep_alive else "Connection: close\r\n\r\n")
        self._transport.write("\r\n".join(lines).encode("latin-1") + (b"" if head else response.body))

    def check_deadline(self, now: float) -> None:
        """Close when a request takes too long to arrive, or the connection is idle for too long."""
        if self._answers or self._closing:
            return
        if self._reader.in_request and now - self._since > self._server.deadline_s:
            message = f"the request did not arrive within {self._server.deadline_s:g} s (http.request_deadline)"
            self._write(Response.error(408, message), {}, keep_alive=False)
        elif self._reader.in_request or now - self._since <= self._server.idle_s:
            return
        self._closing = True
        self._transport.close()

    def close_when_idle(self) -> None:
        """For the drain: close now, or after the answers that are due."""
        if not self._answers and not self._reader.in_request:
            self._closing = True
            self._transport.close()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()
