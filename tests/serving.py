"""A real ``eventmill serve`` for tests, and how to wait for what it does."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from eventmill.net import unix

T = TypeVar("T")
DEADLINE_S = 120.0


def eventually(probe: Callable[[], T], *, deadline_s: float = DEADLINE_S) -> T:
    """The first true value of ``probe``; fails when none comes in time."""
    end = time.monotonic() + deadline_s
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < end, f"{probe} did not come true within {deadline_s} s"
        time.sleep(0.02)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self.path = path

    def connect(self) -> None:
        self.sock = unix.connect_blocking(self.path, DEADLINE_S)


class Serving:
    """One process; ``url`` once it is ready."""

    def __init__(self, data: Path, *arguments: str, **environ: str) -> None:
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        self.messages = (data / "messages.txt").open("ab")
        port = () if "--port" in arguments else ("--port", "0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eventmill", "serve", "--data", str(data), *port, *arguments],
            stdout=subprocess.PIPE,
            stderr=self.messages,
            env={**os.environ, **environ},
        )
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready "), (data / "messages.txt").read_text()[-3000:]
        self.url = line.split()[1]

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname, parts.port

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """(status, decoded answer)."""
        connection = http.client.HTTPConnection(*self.address, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, orjson.loads(content) if json and content else content

    def post(self, path: str, value: Any, **headers: str) -> tuple[int, Any]:
        return self.request("POST", path, orjson.dumps(value), **headers)

    def sql(self, query: str, **parameters: Any) -> list[list[Any]]:
        status, answer = self.post("/v1/query/sql", {"query": query, "parameters": parameters})
        assert status == 200, answer
        return answer["rows"]

    def engine(self, method: str, path: str) -> Any:
        """An answer of the engine's own socket."""
        connection = _Unix(self.data / "engine.sock")
        try:
            connection.request(method, path)
            return orjson.loads(connection.getresponse().read())
        finally:
            connection.close()

    def flush(self) -> None:
        """Everything sent stands in both stores afterwards."""
        assert self.engine("POST", "/v1/flush") == {"stored": True}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_S)
        self._close()
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        self.process.stdout.close()
        self.messages.close()


@contextlib.contextmanager
def seeded(data: Path, events: int) -> Iterator[Serving]:
    """A server whose stores hold so many events of the last 20 hours, one in twenty of them bad."""
    found = Serving(data)
    try:
        load = ("--events", str(events), "--span", "20h", "--bad", "0.05")
        sent = eventmill("generate", "--url", found.url, *load, "--json")
        assert sent.returncode == 0, sent.stderr
        found.flush()
        yield found
    finally:
        found.kill()


def eventmill(*arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "eventmill", *arguments], capture_output=True, env={**os.environ, **environ}, check=False
    )
