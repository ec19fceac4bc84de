"""Programs and jars that the servers need, installed or fetched where that is allowed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eventmill"


class Unavailable(Exception):
    """A server cannot be had on this machine; the message says what to install."""


def program(name: str, package: str) -> str:
    """The path of a program; as root on Debian its package is installed first. Raises Unavailable."""
    found = shutil.which(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with locked("apt"):
            found = shutil.which(name) or _install(name, package)
    if found is None:
        raise Unavailable(f"{name} is missing: please install it (Debian, Ubuntu: sudo apt-get install -y {package})")
    return found


def _install(name: str, package: str) -> str | None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # no service of its own
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
    ):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"`{' '.join(command)}` failed: {done.stderr[-500:]}")
    return shutil.which(name)


@contextlib.contextmanager
def locked(name: str) -> Iterator[Path]:
    """The cache folder, while no other process prepares the same thing in it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE
