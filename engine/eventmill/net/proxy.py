"""Forwarding a request to the engine's HTTP on a unix socket, over pooled connections."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from eventmill.net import unix
from eventmill.net.grants import CALLER
from eventmill.net.messages import JSON, Request, Response

_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_POOL: Final = 16
_FORWARDS_MAX: Final = 256
_HEAD_BYTES_MAX: Final = 65_536
_ANSWER_BYTES_MAX: Final = 256 << 20
_TIMEOUT_S: Final = 600.0
_FORWARDED: Final = ("accept", "content-type", "last-event-id", CALLER)
#: What may stand in a path beside letters and digits; everything else, above all CR, LF and space, is escaped again.
_PATH_SAFE: Final = "/:@!$&'()*+,;=~-._"

_Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Requests to one unix socket. Only ``_METHODS`` go through; a HEAD asks as GET, and the server drops the body."""

    def __init__(self, path: Path, *, answer_bytes_max: int = _ANSWER_BYTES_MAX) -> None:
        self._path = path
        self._answer_bytes_max = answer_bytes_max
        self._idle: list[_Pipe] = []
        self._forwards = 0

    async def forward(self, request: Request) -> Response:
        """The engine's answer; 405, 502, 503 or 504 when there is none to pass on."""
        method = "GET" if request.method == "HEAD" else request.method
        if method not in _METHODS:
            allowed = ", ".join(_METHODS)
            return Response.error(405, f"send {allowed}", {"Allow": f"{allowed}, HEAD, OPTIONS"})
        if self._forwards >= _FORWARDS_MAX:
            return Response.error(503, f"{_FORWARDS_MAX} requests wait for the engine already", {"Retry-After": "1"})
        self._forwards += 1
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._forward(_encode(method, request))
        except TimeoutError:
            return Response.error(504, f"the engine did not answer within {_TIMEOUT_S:g} s; ask for less")
        except _BadAnswer as error:
            return Response.error(502, str(error))
        finally:
            self._forwards -= 1

    async def _forward(self, message: bytes) -> Response:
        while True:
            reused = bool(self._idle)
            try:
                pipe = self._idle.pop() if reused else await unix.connect(self._path, limit=_HEAD_BYTES_MAX)
                return await self._exchange(pipe, message)
            except TimeoutError:  # an OSError too, but trying again would double the wait
                raise
            except (OSError, asyncio.IncompleteReadError):
                if not reused:  # an idle connection may have been closed meanwhile: try a new one
                    return Response.error(503, "the engine does not answer; try again", {"Retry-After": "1"})

    async def _exchange(self, pipe: _Pipe, message: bytes) -> Response:
        reader, writer = pipe
        try:
            writer.write(message)
            status, headers = _decode_head(await reader.readuntil(b"\r\n\r\n"))
            length = int(headers.get("content-length", "0"))
            if length > self._answer_bytes_max:
                raise _BadAnswer(
                    f"the answer has {length:,} bytes, at most {self._answer_bytes_max:,} pass; ask for less"
                )
            body = await reader.readexactly(length)
        except (asyncio.LimitOverrunError, ValueError, IndexError) as error:
            writer.close()
            raise _BadAnswer(f"the engine's answer cannot be read: {error}") from error
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "keep-alive" and len(self._idle) < _POOL:
            self._idle.append(pipe)
        else:
            writer.close()
        passed = {name: headers[name.lower()] for name in ("Retry-After", "Allow") if name.lower() in headers}
        return Response(status, body, headers.get("content-type", JSON), passed)

    def close(self) -> None:
        """Close the idle connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


class _BadAnswer(Exception):
    """The engine answered something that cannot be passed on."""


def _encode(method: str, request: Request) -> bytes:
    # The path came unescaped: escaping it again keeps a client from writing lines of its own into this head.
    target = quote(request.path, safe=_PATH_SAFE) + (f"?{urlencode(request.query)}" if request.query else "")
    head = [f"{method} {target} HTTP/1.1", "Host: engine", f"Content-Length: {len(request.body)}"]
    head += [f"{name}: {request.headers[name]}" for name in _FORWARDED if name in request.headers]
    return "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + request.body


def _decode_head(head: bytes) -> tuple[int, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers
