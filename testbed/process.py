"""A server process that can be killed, frozen and started again, and ends with whoever started it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

READY_S: Final = 120.0
_POLL_S: Final = 0.05
#: Below the kernel's ephemeral ports: nobody's outgoing connection takes one while its server is down.
_PORTS: Final = range(12_000, 32_000)
_taken: set[int] = set()


def free_port() -> int:
    """A TCP port on loopback that nobody listens at; never given twice, nor to two workers of one test run."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    while True:
        port = random.choice(ports)
        if port in _taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _taken.add(port)
        return port


def eventually(probe: Callable[[], bool], what: Callable[[], str], deadline_s: float = READY_S) -> None:
    """Return once ``probe`` is true; TimeoutError with ``what`` otherwise."""
    end = time.monotonic() + deadline_s
    while not probe():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {what()}")
        time.sleep(_POLL_S)


class Server:
    """One process at a time, always with the same command; what it prints is appended to ``messages``."""

    def __init__(self, command: Sequence[str], messages: Path, environ: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.messages = messages
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """It has a process, which may be frozen."""
        return self.pid is not None

    @property
    def crashed(self) -> bool:
        """It has ended, and not by ``kill`` or ``stop``."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start it unless it runs. Being ready is another matter: see who owns this server."""
        if self.running:
            return
        with self.messages.open("ab") as messages:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages, env=self._environ,
                start_new_session=True,
            )  # fmt: skip
        # The guard's input ends with this process, however that ends, kill -9 included.
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -9 "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.frozen = False

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self, deadline_s: float = READY_S) -> int | None:
        """SIGTERM, and SIGKILL if that does not end it in time; gives its exit code, None when it did not run."""
        self.resume()
        return self._end(signal.SIGTERM, deadline_s)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nobody answers."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)
            self.frozen = True

    def resume(self) -> None:
        """SIGCONT."""
        if self.pid is not None and self.frozen:
            os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def tail(self, size: int = 2000) -> str:
        """The end of its messages."""
        return self.messages.read_text(errors="replace")[-size:] if self.messages.exists() else ""

    def _end(self, how: signal.Signals, deadline_s: float = READY_S) -> int | None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(deadline_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        code = None if self._process is None else self._process.returncode
        self._process = self._guard = None
        self.frozen = False
        return code
