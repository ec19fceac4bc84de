"""A lean HTTP client that sends request bodies as an SDK does: again and again until the server says 200 or no.

It shares the machine with what it loads, so it parses no more of an answer than it needs.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import zstandard
from isal import igzip

from eventmill.core.errors import ConfigError
from eventmill.generate.truth import OUTCOME

ACKED: Final = OUTCOME.index("acked")
REFUSED: Final = OUTCOME.index("refused")
_RETRY_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY_AFTER: Final = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to send. ``give_up_s``: how long one body is tried; ``rate``: events a second, 0 = as fast as it goes."""

    url: str
    write_key: str = ""
    encoding: str = "identity"
    concurrency: int = 100
    rate: float = 0.0
    batch_size: int = 100
    give_up_s: float = 60.0


@dataclass(slots=True)
class Sent:
    """What became of the requests. ``latencies`` in seconds, of the answered ones."""

    requests: int = 0
    acked: int = 0
    refused: int = 0
    unknown: int = 0
    retries: int = 0
    bytes: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


class Bodies(Protocol):
    """Request bodies by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> bytes | memoryview:
        """One body."""
        ...


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = self._buffer[:end]
        length = _LENGTH.search(head)
        if len(self._buffer) < end + 4 + (int(length[1]) if length else 0):
            return
        self._buffer = b""
        answer, self._answer = self._answer, None
        if b"onnection: close" in head:
            self.lost = True
        if not answer.done():
            answer.set_result((int(head[9:12]), head))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection was closed before the answer"))

    def exchange(self, head: bytes, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send one request; its status and head come back."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines((head, body))  # type: ignore[attr-defined]
        return self._answer

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


class Sender:
    """Sends bodies over a fixed number of connections."""

    def __init__(self, target: Target, *, progress: Callable[[int], None] = lambda _: None) -> None:
        address = urlsplit(target.url)
        if address.scheme != "http" or not address.hostname:
            raise ConfigError(f"{target.url!r} is no address to send to; write for example http://127.0.0.1:8080")
        if target.encoding not in ("identity", "gzip", "zstd"):
            raise ConfigError(f"encoding {target.encoding!r} is not known; choose identity, gzip or zstd")
        self._target = target
        self._host, self._port = address.hostname, address.port or 80
        self._progress = progress
        self._compress = zstandard.ZstdCompressor(level=1)
        lines = ["POST /v1/batch HTTP/1.1", f"Host: {self._host}:{self._port}", "Content-Type: application/json"]
        if target.write_key:
            lines.append(f"Authorization: Bearer {target.write_key}")
        if target.encoding != "identity":
            lines.append(f"Content-Encoding: {target.encoding}")
        self._head = ("\r\n".join(lines) + "\r\nContent-Length: ").encode()

    async def send(self, bodies: Bodies, outcomes: npt.NDArray[np.uint8]) -> Sent:
        """Send all bodies; ``outcomes[i]`` becomes the outcome of body i as soon as it is known."""
        sent = Sent(requests=len(bodies))
        queue = iter(range(len(bodies)))
        started = time.perf_counter()
        lanes = [self._lane(queue, bodies, outcomes, sent, started) for _ in range(self._target.concurrency)]
        await asyncio.gather(*lanes)
        sent.seconds = time.perf_counter() - started
        sent.unknown = sent.requests - sent.acked - sent.refused
        return sent

    def _encode(self, body: bytes | memoryview) -> bytes:
        if self._target.encoding == "gzip":
            return bytes(igzip.compress(bytes(body), compresslevel=1))
        if self._target.encoding == "zstd":
            return bytes(self._compress.compress(body))
        return bytes(body)

    async def _lane(
        self,
        queue: Iterator[int],
        bodies: Bodies,
        outcomes: npt.NDArray[np.uint8],
        sent: Sent,
        started: float,
    ) -> None:
        connection: _Connection | None = None
        per_request = self._target.batch_size / self._target.rate if self._target.rate else 0.0
        for number in queue:
            if per_request:
                await asyncio.sleep(max(0.0, started + number * per_request - time.perf_counter()))
            body = self._encode(bodies[number])
            head = self._head + str(len(body)).encode() + b"\r\n\r\n"
            begun = time.perf_counter()
            for attempt in range(1 << 30):
                pause = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                try:
                    if connection is None or connection.lost:
                        connection = await self._connect()
                    status, answer = await connection.exchange(head, body)
                    if status not in _RETRY_STATUS:
                        outcomes[number] = ACKED if status == 200 else REFUSED
                        sent.acked += status == 200
                        sent.refused += status != 200
                        break
                    wait = _RETRY_AFTER.search(answer)
                    pause = min(float(wait[1]) if wait else pause, 5.0)
                except OSError:
                    connection = None
                if time.perf_counter() - begun > self._target.give_up_s:
                    break
                sent.retries += 1
                await asyncio.sleep(pause)
            sent.latencies.append(time.perf_counter() - begun)
            sent.bytes += len(body)
            self._progress(1)
        if connection is not None:
            connection.close()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection
