"""A ``serve`` process to measure, and requests to send to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sampling import children
from eventmill.core.config import Config
from eventmill.serve.remote import ask


@dataclass(frozen=True)
class Served:
    """``roles``: the process of each role."""

    url: str
    config: Config
    roles: dict[str, int]

    def ask(self, method: str, path: str) -> dict[str, Any]:
        """An answer of the engine's own socket."""
        answer: dict[str, Any] = ask(self.config, method, path)
        return answer


@contextlib.contextmanager
def serving(data: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """``eventmill serve`` over a folder, ready; stopped at the end."""
    data.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "eventmill", "serve", "--data", str(data), "--port", "0", *arguments]
    with (data / "serve.log").open("w") as messages:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=messages, text=True, env={**os.environ, **(environment or {})}
        )
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith("ready "):
        raise SystemExit(f"serve did not start:\n{(data / 'serve.log').read_text()[-2000:]}")
    engine, *workers = children(process.pid)
    roles = {"engine": engine} | {"ingest" + (f" {n}" if n else ""): pid for n, pid in enumerate(workers)}
    try:
        yield Served(line.split()[1], Config(data=data), roles)
    finally:
        process.terminate()
        process.wait()


def generate(*arguments: str) -> dict[str, Any]:
    """What ``eventmill generate --json`` reports."""
    done = subprocess.run(
        [sys.executable, "-m", "eventmill", "generate", "--json", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"generate failed: {done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report
