"""Row 17: a disk is full, that of the log, of the snapshots, of ClickHouse or of the lake; then there is room again.

Each of the folders is a small file system of its own in memory, so that one can be filled and the others not. That takes the
right to mount.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from faults.alone import Alone
from faults.role import refused
from faults.scene import Scene
from faults.sinks import stored
from testbed.process import eventually

_BYTES: Final = 1 << 30
_BALLAST: Final = "ballast"
#: Folders of the data folder, what they hold, and by which words the engine says that it has no room there.
FOLDERS: Final = {
    "log": ("the log", "the log cannot take"),
    "state": ("snapshots", "no snapshot was written"),
    "realtime": ("ClickHouse", "realtime waits"),
    "lake": ("Parquet", "lake waits"),
}
#: How often it is met before there is room again: more often than any other error is borne.
_TIMES: Final = 6
#: Requests that are answered while a disk other than the log's is full.
_UNDER_FAULT: Final = 40


def why_not() -> str | None:
    """Why this machine cannot run the row; None when it can."""
    with tempfile.TemporaryDirectory(prefix="eventmill-mount-") as name:
        done = _mount(Path(name), 1 << 20)
        if done.returncode:
            return f"a file system cannot be mounted: {done.stderr.strip()}"
        _unmount(Path(name))
    return None


def _mount(folder: Path, size: int) -> subprocess.CompletedProcess[str]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "eventmill-fault", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


class SmallDisks(Alone):
    """One machine with a file system for each folder."""

    def __init__(self, folder: Path) -> None:
        # Often, so that a full disk is met soon.
        super().__init__(folder, EVENTMILL_LAKE__BATCH_INTERVAL="500ms", EVENTMILL_REALTIME__BATCH_INTERVAL="500ms")
        for name in FOLDERS:
            place = self.data / name
            place.mkdir(parents=True)
            if _mount(place, _BYTES).returncode:
                raise RuntimeError(f"cannot mount {place}: {why_not()}")

    def fill(self, name: str) -> None:
        """Leave no block free there, whatever has been freed since it was filled last."""
        place = self.data / name
        with (place / _BALLAST).open("ab") as file:
            while free := os.statvfs(place).f_bavail * os.statvfs(place).f_frsize:
                with contextlib.suppress(OSError):  # somebody else was faster
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free)

    def free(self, name: str) -> None:
        """Room again."""
        (self.data / name / _BALLAST).unlink()

    def close(self) -> None:
        """End it, and the file systems."""
        super().close()
        for name in FOLDERS:
            _unmount(self.data / name)


def fill_disk(scene: Scene) -> None:
    """Each folder in turn; recovered when all that stood on the log at the fault is processed and in both stores."""
    system = scene.system
    assert isinstance(system, SmallDisks)
    name = list(FOLDERS)[len(scene.recoveries) % len(FOLDERS)]
    title, words = FOLDERS[name]
    answered_503 = refused(system.url)
    before = system.role.said.count(words)
    enriched = int(system.ask("GET", "/v1/status")["ledger"]["enriched"])

    def met() -> bool:
        system.fill(name)
        if name == "log":
            return refused(system.url) >= answered_503 + _TIMES
        return system.role.said.count(words) >= before + (1 if name == "state" else _TIMES)

    def fault() -> None:
        eventually(met, lambda: f"the full disk of {name} is met: {system.role.server.tail()}")
        if name != "log":
            scene.load.await_more(_UNDER_FAULT)
        system.free(name)

    scene.strike(fault, recovered=lambda mark: system.passed(mark) and stored(system) >= enriched)
    scene.notes[f"{title} full"] += 1
    assert system.role.server.running, system.role.server.tail()
