"""A ClickHouse server for tests: the embedded engine behind ClickHouse's HTTP interface (see ``clickhouse_http``)."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

from testbed.process import Server, eventually, free_port

PASSWORD: Final = "it's a secret: /@%"
_HERE: Final = Path(__file__).parents[1]


class ClickHouse:
    """One server on loopback, over a folder that outlives a kill."""

    def __init__(self, folder: Path | None = None) -> None:
        self.port = free_port()
        self._made = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="eventmill-clickhouse-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "testbed.clickhouse_http", str(self.folder / "data"), str(self.port), PASSWORD,
        ]  # fmt: skip
        environ = {"PYTHONPATH": f"{_HERE}:{':'.join(path for path in sys.path if path)}"}
        self.server = Server(command, self.folder / "messages.txt", environ)

    @property
    def url(self) -> str:
        """For ``realtime.url``."""
        return f"clickhouse://default:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers."""
        self.server.start()
        eventually(self.answers, lambda: f"ClickHouse answers: {self.server.tail()}")

    def answers(self) -> bool:
        """It answers a ping now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as pipe:
                pipe.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b" 200 " in pipe.recv(64)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL. What had been stored is there again after ``start``."""
        self.server.kill()

    def close(self) -> None:
        """End it, and remove the folder if it made one."""
        self.server.kill()
        if self._made:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> ClickHouse:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
