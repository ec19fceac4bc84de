"""A Redis server of Debian's package, in memory only."""

from __future__ import annotations

import socket

from testbed.packages import program
from testbed.single import SingleServer


class Redis(SingleServer):
    """Its data ends with it: a restart begins empty, as a cache's may.

    ``settings``: further options of redis.conf, for instance ``{"maxmemory": "16mb"}``.
    """

    name = "Redis"

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        command = [program("redis-server", "redis-server")]
        super().__init__()
        options = {"bind": "127.0.0.1", "port": str(self.port), "save": "", "appendonly": "no", "dir": str(self.folder)}
        for name, value in {**options, **(settings or {})}.items():
            command += [f"--{name}", value]
        self.serve(command)

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        """It answers a PING now."""
        try:
            return self._ask(b"PING\r\n") == b"+PONG\r\n"
        except OSError:
            return False

    def empty(self) -> None:
        """Remove every key."""
        assert self._ask(b"FLUSHALL\r\n") == b"+OK\r\n"

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as pipe:
            pipe.sendall(command)
            return pipe.recv(64)
