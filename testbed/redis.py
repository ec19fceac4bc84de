"""A Redis server of Debian's package, in memory only."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType

from testbed.packages import program
from testbed.process import Server, eventually, free_port


class Redis:
    """One server on loopback. Its data ends with it: a restart begins empty, as a cache's may.

    ``settings``: further options of redis.conf, for instance ``{"maxmemory": "16mb"}``.
    """

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        command = [program("redis-server", "redis-server")]
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="eventmill-redis-"))
        options = {"bind": "127.0.0.1", "port": str(self.port), "save": "", "appendonly": "no", "dir": str(self.folder)}
        for name, value in {**options, **(settings or {})}.items():
            command += [f"--{name}", value]
        self.server = Server(command, self.folder / "messages.txt")

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns once it answers."""
        self.server.start()
        eventually(self.answers, lambda: f"Redis answers: {self.server.tail()}")

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

    def kill(self) -> None:
        """SIGKILL: everything in it is gone."""
        self.server.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.server.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.server.resume()

    def mend(self) -> None:
        """Runs and answers again, whatever was done to it."""
        self.server.resume()
        self.start()

    def close(self) -> None:
        """End it and remove its folder."""
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Redis:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
