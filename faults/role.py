"""Processes of Eventmill, and the load on them."""

from __future__ import annotations

import re
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from testbed.process import READY_S, Server, eventually

_READY: Final = b"ready "
_ASK_S: Final = 10.0
_BATCH: Final = 50


class Role:
    """A command of Eventmill; ``url`` is what its ready line says."""

    def __init__(self, arguments: Sequence[str], messages: Path, environ: dict[str, str]) -> None:
        self._arguments = list(arguments)
        messages.parent.mkdir(parents=True, exist_ok=True)
        self.server = Server([], messages, environ)
        self._from = 0

    def launch(self, failpoint: tuple[str, int] | None = None, *, after_ms: int = 0) -> None:
        """Start it, not waiting; with ``failpoint`` it kills itself when it has reached that point for the n-th time."""
        armed = [] if failpoint is None else [failpoint[0], str(failpoint[1]), str(after_ms)]
        main = ["-m", "faults.child", *armed] if armed else ["-m", "eventmill"]
        self.server.command = [sys.executable, *main, *self._arguments]
        self._from = self.server.messages.stat().st_size if self.server.messages.exists() else 0
        self.server.start()

    def start(self) -> None:
        """Returns once it takes traffic. Raises RuntimeError when it ends instead."""
        self.launch()
        eventually(self._is_ready, lambda: f"{self._arguments} is ready: {self.server.tail()}")

    @property
    def url(self) -> str:
        """Where it answers; to be asked once it is ready."""
        (line,) = [line for line in self.said.splitlines() if line.startswith(_READY.decode())][-1:]
        return line.split()[1]

    @property
    def said(self) -> str:
        """What it has printed since it was started."""
        with self.server.messages.open("rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    def await_end(self, deadline_s: float = READY_S, load: Load | None = None) -> None:
        """Returns once the process has ended by itself. With a ``load`` that ends before: RuntimeError."""

        def ended() -> bool:
            if load is not None:
                load.require()
            return self.server.crashed

        eventually(ended, lambda: f"{self._arguments} ends: {self.server.tail()}", deadline_s)

    def _is_ready(self) -> bool:
        if self.server.crashed:
            raise RuntimeError(f"{self._arguments} ended at once: {self.server.tail()}")
        return any(line.startswith(_READY.decode()) for line in self.said.splitlines())


def refused(url: str) -> int:
    """Requests that ingest at that address has answered with 503."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=_ASK_S) as answer:
        text = answer.read().decode()
    found = re.findall(r'^eventmill_requests_total\{.*status="503".*\} ([0-9.e+]+)$', text, re.MULTILINE)
    return int(sum(map(float, found)))


class Load:
    """The generator as a process of its own. It tries again whatever it is not sure of, as SDKs do, without end."""

    def __init__(self, url: str, folder: Path, *, events: int, rate: float, seed: int) -> None:
        self.truth = folder / "truth.parquet"
        self._outcomes = folder / "truth.parquet.outcomes"
        self._events = events
        command = [
            sys.executable, "-m", "eventmill", "generate", "--json", "--events", str(events), "--rate", str(rate),
            "--seed", str(seed), "--url", url, "--truth", str(self.truth), "--give-up", "1h", "--concurrency", "32",
            "--batch-size", str(_BATCH),
        ]  # fmt: skip
        self._server = Server(command, folder / "load.txt")

    def start(self) -> None:
        """Returns once the first requests have been answered."""
        self._server.start()
        eventually(lambda: self.answered() > 0, lambda: f"the load is taken: {self._server.tail()}")

    def answered(self) -> int:
        """Requests with a final answer."""
        if not self._outcomes.exists():
            return 0
        return int(np.count_nonzero(np.fromfile(self._outcomes, np.uint8)))

    def left(self) -> int:
        """Events whose requests have no answer yet."""
        return max(self._events - self.answered() * _BATCH, 0)

    def require(self) -> None:
        """Raises RuntimeError when it has ended by itself: a fault would find nothing to break."""
        if self._server.crashed:
            raise RuntimeError(f"the load has ended after {self._events:,} events: {self._server.tail()}")

    def await_more(self, requests: int) -> float:
        """Return once so many more requests have their answers; gives the seconds that took."""
        begun, least = time.monotonic(), self.answered() + requests

        def arrived() -> bool:
            self.require()
            return self.answered() >= least

        eventually(arrived, lambda: f"{requests} more requests are answered", READY_S)
        return time.monotonic() - begun

    def stop(self) -> None:
        """As a client's phone dies: what it had sent last may have arrived or not, and the truth says unknown."""
        self._server.kill()
