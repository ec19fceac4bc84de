"""Rows 14 to 16: compactors that are killed or meet others, a sink that should be dead, and a reader all the while."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, Final

from eventmill.core.clock import now_ms
from eventmill.core.errors import EventmillError
from eventmill.lake.maintain import maintain
from eventmill.lake.table import Lake
from faults.alone import Alone
from faults.compactor import BEATEN, IDLE, POINTS
from faults.scene import Scene
from testbed.process import eventually

_COUNTS: Final = "SELECT count(), uniqExact(event_id) FROM lake.events"
_CHILD_S: Final = 120
_KINDS: Final = ("two compactors", "compactor against appends", "zombie sink")


class WithReader(Alone):
    """One machine whose lake is read all the while: rows never get fewer, and none is seen twice. What the reader sees
    wrong, and files that nothing needs and no clean-up removes, count as corrupt in the lake."""

    def __init__(self, folder: Path) -> None:
        # Many small appends, so that there is something to compact at any time.
        super().__init__(folder, EVENTMILL_LAKE__BATCH_INTERVAL="500ms")
        self.seen: Counter[str] = Counter()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Returns once it takes traffic."""
        super().start()
        self._reader.start()

    def _read(self) -> None:
        most = 0
        while not self._ended.wait(0.05):
            asked = urllib.request.Request(f"{self.url}/v1/query/sql", json.dumps({"query": _COUNTS}).encode())
            try:
                with urllib.request.urlopen(asked, timeout=_CHILD_S) as answer:
                    rows, ids = json.load(answer)["rows"][0]
            except urllib.error.HTTPError as error:
                # Before the first append there is no lake to ask.
                self.seen["refused"] += error.code != 400 or most > 0
                continue
            except OSError:
                continue
            self.seen["answers"] += 1
            self.seen["wrong answers"] += rows != ids or rows < most
            most = max(most, rows)

    def child(self, *arguments: str) -> subprocess.Popen[str]:
        """Somebody else at the lake."""
        command = [sys.executable, "-m", "faults.compactor", str(self.data), *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, text=True, **pipes)

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """See ``Alone``; then it is stopped, and what is left over is removed."""
        verdicts = super().verdicts(truth)
        self._ended.set()
        self._reader.join()
        assert self.role.server.stop() == 0
        lake = Lake(self.lake_dir)
        maintain(lake, now_ms=now_ms(), snapshots_kept=1, grace_ms=0)
        live = {file.path for file in lake.live_files()}
        left = {path for path, _ in lake.storage.list() if path.endswith(".parquet")} ^ live
        lake.close()
        verdicts["lake"]["corrupt"] += len(left) + self.seen["wrong answers"] + self.seen["refused"]
        assert self.seen["answers"], "nobody has read the lake"
        return verdicts


def _system(scene: Scene) -> WithReader:
    assert isinstance(scene.system, WithReader)
    system = scene.system
    eventually(lambda: (system.lake_dir / "events" / "data").exists(), lambda: "the lake has files")
    return system


def _told(scene: Scene, system: WithReader) -> None:
    scene.notes["reader's answers"] = system.seen["answers"]
    scene.notes["wrong ones"] = system.seen["wrong answers"] + system.seen["refused"]


def kill_compactor(scene: Scene) -> None:
    """kill -9 of a compactor when its files are written, before its commit, after it; the engine's own then does the work."""
    system = _system(scene)
    point = POINTS[sum(scene.notes[name] for name in POINTS) % len(POINTS)]
    scene.notes[point] += 1

    def fault() -> None:
        while (code := system.child("compact", point).wait(_CHILD_S)) in (IDLE, BEATEN):
            scene.load.await_more(5)
        assert code == -signal.SIGKILL, code
        system.compact()

    scene.strike(fault)
    _told(scene, system)


def meet_compactor(scene: Scene) -> None:
    """Two compactors at once; a compactor while the sink appends; a sink that comes too late with what has been stored."""
    system = _system(scene)
    kind = _KINDS[sum(scene.notes[name] for name in _KINDS) % len(_KINDS)]
    scene.notes[kind] += 1

    def fault() -> None:
        if kind == "zombie sink":
            _raise_zombie(system)
            return
        child = system.child("compact")
        if kind == "two compactors":
            try:
                system.compact()
            except EventmillError as error:
                assert "compacted or cleaned" in str(error) or "another compaction" in str(error), error
        else:
            scene.load.await_more(20)
        assert child.wait(_CHILD_S) in (0, IDLE, BEATEN)

    scene.strike(fault)
    _told(scene, system)


def _raise_zombie(system: WithReader) -> None:
    """It has written its files and stands before its commit; the engine's sink goes on; then it awakes."""
    zombie = system.child("zombie")
    assert zombie.stdout is not None
    assert zombie.stdout.readline() == "stalled\n"
    lake = Lake(system.lake_dir)
    begin = lake.committed_offset()
    eventually(lambda: lake.committed_offset() > begin, lambda: "the engine's own sink goes on")
    lake.close()
    system.compact()
    zombie.communicate("\n", timeout=_CHILD_S)
    assert zombie.returncode == 0
