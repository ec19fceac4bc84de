"""A ClickHouse server for tests: the embedded engine behind ClickHouse's HTTP interface (see ``clickhouse_http``)."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

from testbed.single import SingleServer

PASSWORD: Final = "it's a secret: /@%"
_HERE: Final = Path(__file__).parents[1]


class ClickHouse(SingleServer):
    """What has been stored is there again after ``kill`` and ``start``."""

    name = "ClickHouse"

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        command = [
            sys.executable, "-m", "testbed.clickhouse_http", str(self.folder / "data"), str(self.port), PASSWORD,
        ]  # fmt: skip
        environ = {"PYTHONPATH": f"{_HERE}:{':'.join(path for path in sys.path if path)}"}
        self.serve(command, environ)

    @property
    def url(self) -> str:
        """For ``realtime.url``."""
        return f"clickhouse://default:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """It answers a ping now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as pipe:
                pipe.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b" 200 " in pipe.recv(64)
        except OSError:
            return False
