"""Forwarding a request to the engine's HTTP on a unix socket, over pooled connections."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from eventmill.net.messages import Request, Response

_POOL: Final = 16
_HEAD_BYTES_MAX: Final = 65_536
_TIMEOUT_S: Final = 600.0
_FORWARDED: Final = ("accept", "content-type")

_Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Requests to one unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[_Pipe] = []

    async def forward(self, request: Request) -> Response:
        """The engine's answer; 503 when it cannot be reached."""
        head = [f"{request.method} {request.path} HTTP/1.1", "Host: engine", f"Content-Length: {len(request.body)}"]
        head += [f"{name}: {request.headers[name]}" for name in _FORWARDED if name in request.headers]
        message = "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + request.body
        while True:
            reused = bool(self._idle)
            try:
                pipe = (
                    self._idle.pop()
                    if reused
                    else await asyncio.open_unix_connection(str(self._path), limit=_HEAD_BYTES_MAX)
                )
                async with asyncio.timeout(_TIMEOUT_S):
                    return await self._exchange(pipe, message)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                if not reused:  # an idle connection may have been closed meanwhile: try a new one
                    return Response.error(503, "the engine does not answer; try again", {"Retry-After": "1"})

    async def _exchange(self, pipe: _Pipe, message: bytes) -> Response:
        reader, writer = pipe
        try:
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "keep-alive" and len(self._idle) < _POOL:
            self._idle.append(pipe)
        else:
            writer.close()
        passed = {"Retry-After": headers["retry-after"]} if "retry-after" in headers else {}
        return Response(int(head[0].split()[1]), body, headers.get("content-type", "application/json"), passed)

    def close(self) -> None:
        """Close the idle connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()
