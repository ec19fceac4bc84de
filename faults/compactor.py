"""Somebody else at the lake of a running engine: a compactor that is killed at a point, or a sink that should be dead.

python -m faults.compactor FOLDER compact [POINT]
python -m faults.compactor FOLDER zombie: appends what comes next as soon as it is told to by a line, when it has long come
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final

from eventmill.core import frame, groups
from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.errors import DataFolderBusy, EventmillError
from eventmill.core.schema import EVENT, Topic
from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from eventmill.log.local import LocalLog

#: Where a compaction is killed.
POINTS: Final = ("files written", "before commit", "committed")
#: Exit codes: nothing was to be done; somebody else was at it, or was faster.
IDLE: Final = 3
BEATEN: Final = 4


def _compact(folder: Path, point: str) -> int:
    def checkpoint(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    lake = Lake(folder / "lake")
    gap_ms = parse_duration_ms(Config().process.session_gap)
    try:
        report = compact(lake, gap_ms=gap_ms, now_ms=now_ms(), checkpoint=checkpoint)
    except EventmillError as error:
        print(error, file=sys.stderr)
        if isinstance(error, DataFolderBusy) or "another compaction" in str(error):
            return BEATEN
        raise
    return 0 if report.snapshot_id is not None else IDLE


def _zombie(folder: Path) -> int:
    log = LocalLog(folder / "log")
    stalled = False

    def checkpoint(reached: str) -> None:
        nonlocal stalled
        if reached == "before commit" and not stalled:
            stalled = True
            print("stalled", flush=True)
            sys.stdin.readline()

    lake = Lake(folder / "lake", checkpoint=checkpoint)
    while not stalled:
        begin = lake.committed_offset()
        log.wait(Topic.ENRICHED, {0: begin}, 10.0)
        frames = log.read(Topic.ENRICHED, 0, begin, events_max=1)
        if frames:
            lake.append(frame.decode_all(frames, EVENT), group=groups.LAKE, ranges={0: (begin, begin + len(frames))})
    return 0


if __name__ == "__main__":
    where = Path(sys.argv[1])
    sys.exit(_zombie(where) if sys.argv[2] == "zombie" else _compact(where, (*sys.argv, "")[3]))
