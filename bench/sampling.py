"""CPU seconds by thread name and memory of running processes, from /proc."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            inner = (task / "children").read_text().split()
        except OSError:
            continue
        for child in inner:
            found += children(int(child))
    return found


def _stat(path: Path) -> tuple[str, float, float] | None:
    """(name, user seconds, system seconds) of a thread."""
    try:
        text = path.read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return text[text.index("(") + 1 : text.rindex(")")], int(fields[11]) / _TICKS, int(fields[12]) / _TICKS


class Sampler:
    """Watches processes from the beginning of a ``with`` block to its end.

    A thread's time goes to the name that it has when it is looked at, for a pool's threads change theirs with the work.
    """

    def __init__(self, roles: dict[str, int], *, interval_s: float = 0.05) -> None:
        self._roles = roles
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._last: dict[tuple[str, str], tuple[float, float]] = {}
        #: Seconds by role and thread.
        self.user: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.system: defaultdict[tuple[str, str], float] = defaultdict(float)
        #: (seconds since the start, resident bytes per role)
        self.memory: list[tuple[float, dict[str, int]]] = []

    def __enter__(self) -> Sampler:
        self._look(count=False)
        self._begun = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._look()

    def _look(self, *, count: bool = True) -> None:
        resident = {}
        for role, pid in self._roles.items():
            try:
                tasks = list(Path(f"/proc/{pid}/task").iterdir())
                resident[role] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            except OSError:
                continue
            for task in tasks:
                seen = _stat(task / "stat")
                if seen is None:
                    continue
                name, user, system = seen
                before = self._last.get((role, task.name), (0.0, 0.0))
                self._last[role, task.name] = (user, system)
                if count:
                    self.user[role, name] += user - before[0]
                    self.system[role, name] += system - before[1]
        if count:
            self.memory.append((time.monotonic() - self._begun, resident))
