"""A process that works on a lake and is killed at one point.

python lake_child.py FOLDER append|compact POINT
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from lake_events import GAP_MS, GROUP, batch, row

PER_APPEND = 20


def rows(offset: int) -> list[dict[str, object]]:
    """What stands at an offset of the log."""
    return [
        row(offset * PER_APPEND + i, event=f"event {i % 3}", device_id=f"device-{i % 5}") for i in range(PER_APPEND)
    ]


def main(folder: str, action: str, point: str) -> None:
    """Never returns when the point is reached."""

    def checkpoint(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    if action == "append":
        lake = Lake(Path(folder), checkpoint=checkpoint)
        offset = lake.committed_offset()
        lake.append(batch(rows(offset)), group=GROUP, ranges={0: (offset, offset + 1)})
    else:
        compact(Lake(Path(folder)), gap_ms=GAP_MS, now_ms=0, checkpoint=checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
