"""One connection of the server: requests to the handler, answers in order, and an end that loses no answer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from eventmill.net.messages import Request, Response
from eventmill.net.protocol import Continue, Found, Received, Refused, RequestReader

if TYPE_CHECKING:
    from eventmill.net.server import HttpServer

logger = logging.getLogger(__name__)

#: A client that is refused while it still sends is read on, and what comes thrown away, until it is silent for so long:
#: closing with bytes unread would reset the connection, and the client would lose the answer.
LINGER_S: Final = 2.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_NO_CONTENT: Final = (204, 304)
_PREFLIGHT: Final = Response(
    204,
    headers={
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding, AnonymousId",
        "Access-Control-Max-Age": "86400",
    },
)


def encode(response: Response, date: str, extra: dict[str, str], *, keep_alive: bool, head: bool) -> bytes:
    """The answer's bytes; ``head`` leaves the body out, as HEAD wants it."""
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}", f"Date: {date}"]
    if response.status not in _NO_CONTENT:
        lines.append(f"Content-Length: {len(response.body)}")
    if response.body:
        lines.append(f"Content-Type: {response.content_type}")
    lines += [f"{name}: {value}" for name, value in (*response.headers.items(), *extra.items())]
    lines.append("Connection: keep-alive\r\n\r\n" if keep_alive else "Connection: close\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1", "replace") + (b"" if head else response.body)


class _Due:
    """An answer that is due; ``response`` once there is one. ``refusal``: its client may still be sending."""

    __slots__ = ("keep_alive", "refusal", "request", "response", "task")

    def __init__(self, request: Request, keep_alive: bool, refusal: Response | None = None) -> None:
        self.request, self.keep_alive, self.response, self.refusal = request, keep_alive, refusal, refusal is not None
        self.task: asyncio.Task[None] | None = None


class Connection(asyncio.Protocol):
    """Belongs to a ``HttpServer``, which calls ``check`` about once a second."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(server.limits)
        self._due: deque[_Due] = deque()
        self._begun = 0
        self._begun_at = 0.0
        self._idle_since = self._loop.time()
        self._linger_since: float | None = None
        self._linger_until = 0.0
        self._unsent = (0, 0.0)
        self._write_paused = self._read_paused = self._peer_done = self._lost = self._continue_due = False
        #: Whether it came past the cap, to be told so and no more.
        self.shed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.shed = self._server.full
        if not self._server.joined(self):
            self._transport.abort()
        elif self.shed:
            self.refuse(Refused(503, "too many connections; try again"), {"Retry-After": "1"})

    def connection_lost(self, error: Exception | None) -> None:
        # Requests under way go on: their events may be on the way to the log already.
        self._lost = True
        self._reader.close()
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        if self._linger_since is None:
            self._read(data)
        else:
            self._linger_since = self._loop.time()

    def eof_received(self) -> bool:
        # A client may end its side and still wait for its answers.
        self._peer_done = True
        return bool(self._due or self._reader.waiting) and self._linger_since is None

    def _read(self, data: bytes) -> None:
        reader = self._reader
        for found in reader.feed(data, self._server.limits.pipelined_max - len(self._due)):
            self._take(found)
        if reader.begun != self._begun:
            self._begun, self._begun_at = reader.begun, self._loop.time()
        self._regulate()

    def _take(self, found: Found) -> None:
        if isinstance(found, Received):
            self._continue_due = False
            due = _Due(found.request, found.keep_alive)
            self._due.append(due)
            due.task = self._loop.create_task(self._answer(due))
        elif isinstance(found, Refused):
            self.refuse(found)
        else:
            self._continue(found)

    def _continue(self, found: Continue) -> None:
        response = self._server.admit(found.request)
        if response is not None:
            self._reader.stop()
            self._due.append(_Due(found.request, keep_alive=False, refusal=response))
            self._flush()
        elif self._due:
            self._continue_due = True
        else:
            self._transport.write(_CONTINUE)

    async def _answer(self, due: _Due) -> None:
        request = due.request
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            due.response = _PREFLIGHT
        else:
            try:
                due.response = await self._server.handler(request)
            except Exception:
                logger.exception("%s %s failed", request.method, request.path)
                due.response = Response.error(500, "an internal error; the server's log has its cause")
        self._flush()

    def refuse(self, refused: Refused, headers: dict[str, str] | None = None) -> None:
        """Answer with an error, after the answers that are due, and end the connection."""
        self._reader.stop()
        self._server.on_refused(refused.status)
        response = Response.error(refused.status, refused.message, headers)
        self._due.append(_Due(Request("", "", {}, refused.headers, b""), keep_alive=False, refusal=response))
        self._flush()

    def _flush(self) -> None:
        """Write the answers that there are, in the order of their requests, and go on reading."""
        server = self._server
        while self._due and self._due[0].response is not None:
            due = self._due.popleft()
            response = due.response
            if self._lost or self._linger_since is not None or response is None:
                continue
            last = not due.keep_alive or (server.draining and not self._due and not self._reader.in_request)
            extra = server.cors(due.request)
            head = due.request.method == "HEAD"
            self._transport.write(encode(response, server.date(), extra, keep_alive=not last, head=head))
            if last:
                self._end(linger=due.refusal or self._reader.waiting)
        if self._lost or self._linger_since is not None or self._due:
            return
        self._idle_since = self._loop.time()
        if self._continue_due:
            self._continue_due = False
            self._transport.write(_CONTINUE)
        if self._reader.waiting and not self._write_paused:
            self._read(b"")
        elif self._peer_done and not self._reader.waiting:
            self._transport.close()
        else:
            self._regulate()

    def _end(self, *, linger: bool) -> None:
        """No more requests: close once the client has the last answer."""
        self._reader.stop()
        self._linger_since = self._loop.time()
        self._linger_until = self._linger_since + self._server.deadline_s
        if linger and not self._peer_done:
            self._transport.write_eof()
            self._regulate()
        else:
            self._transport.close()

    def _regulate(self) -> None:
        """Read only what can be handled; while lingering, read to throw away."""
        busy = self._write_paused or self._reader.waiting or len(self._due) >= self._server.limits.pipelined_max
        pause = busy and self._linger_since is None
        if pause != self._read_paused and not self._transport.is_closing():
            self._read_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._write_paused = True
        self._regulate()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._reader.waiting and not self._due:
            self._read(b"")
        else:
            self._regulate()

    def check(self, now: float) -> None:
        """End what takes too long: a request that does not arrive, an answer that is not taken, nothing at all."""
        server = self._server
        unsent = self._transport.get_write_buffer_size()
        if unsent:
            if unsent < self._unsent[0] or not self._unsent[0]:
                self._unsent = (unsent, now)
            elif now - self._unsent[1] > server.deadline_s:
                self._transport.abort()
            return
        self._unsent = (0, now)
        if self._linger_since is not None:
            if now - self._linger_since > LINGER_S or now > self._linger_until:
                self._transport.abort()
        elif self._reader.in_request:
            if now - self._begun_at > server.deadline_s:
                seconds = f"{server.deadline_s:g} s (http.request_deadline)"
                self.refuse(Refused(408, f"the request did not arrive within {seconds}"))
        elif not self._due and now - self._idle_since > server.idle_s:
            self._transport.close()

    def close_when_idle(self) -> None:
        """For the drain: close now, or after the answers that are due."""
        if not self._due and not self._reader.in_request and not self._reader.waiting and self._linger_since is None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()
