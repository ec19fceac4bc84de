"""Unix sockets whose path may be longer than the 108 bytes that ``sockaddr_un`` holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PATH_BYTES_MAX: Final = 100


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """``path`` as it is when it fits, else by way of its open folder (Linux)."""
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listener(path: Path) -> socket.socket:
    """A socket bound to ``path`` that only this user may connect to."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(bound.fileno(), 0o600)  # before bind: the file then never has other rights, not even for a moment
        with _address(path) as address:
            bound.bind(address)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def connect_blocking(path: Path, timeout_s: float) -> socket.socket:
    """A connected socket whose operations block for at most ``timeout_s``. Raises ``OSError``."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout_s)
        with _address(path) as address:
            connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected


async def connect(path: Path, *, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams to whoever listens on ``path``; ``limit`` bounds the reader's buffer. Raises ``OSError``."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        with _address(path) as address:
            await asyncio.get_running_loop().sock_connect(connected, address)
        return await asyncio.open_unix_connection(sock=connected, limit=limit)
    except BaseException:
        connected.close()
        raise
