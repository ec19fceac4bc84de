"""SIGKILL at every point of an append and of a compaction: rows are conserved, and what was left over is removed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lake_child import PER_APPEND, rows

from eventmill.lake.compact import compact
from eventmill.lake.maintain import maintain
from eventmill.lake.table import Lake
from lake_events import GAP_MS, GROUP, batch, data_files, event_id, rows_of, sessions_by_polars

POINTS = ("files written", "before commit", "committed")
LATER_MS = 1 << 50


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    for offset in range(3):
        lake.append(batch(rows(offset)), group=GROUP, ranges={0: (offset, offset + 1)})
    return lake


def start(lake: Lake, action: str, point: str = "") -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    command = [sys.executable, str(here / "lake_child.py"), str(lake.folder), action, point]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})


def assert_whole(lake: Lake, appends: int) -> None:
    """Every row is there once, and no file that is not needed."""
    found = rows_of(lake)
    assert sorted(entry["event_id"] for entry in found) == sorted(event_id(i) for i in range(appends * PER_APPEND))
    assert lake.committed_offset() == appends
    maintain(lake, now_ms=LATER_MS, snapshots_kept=1, grace_ms=0)
    assert data_files(lake) == {Path(file.path) for file in lake.live_files()}
    assert rows_of(lake) == found


@pytest.mark.parametrize("point", POINTS)
def test_an_append_that_is_killed(lake: Lake, point: str) -> None:
    assert start(lake, "append", point).wait() == -signal.SIGKILL
    appends = 4 if point == "committed" else 3
    assert lake.committed_offset() == appends
    left_over = data_files(lake) - {Path(file.path) for file in lake.live_files()}
    assert bool(left_over) is (point != "committed")
    assert_whole(lake, appends)
    # The log gives the range again, whatever became of it.
    lake.append(batch(rows(3)), group=GROUP, ranges={0: (3, 4)})
    assert_whole(lake, 4)


@pytest.mark.parametrize("point", POINTS)
def test_a_compaction_that_is_killed(lake: Lake, point: str) -> None:
    assert start(lake, "compact", point).wait() == -signal.SIGKILL
    assert any(file.appended for file in lake.live_files()) is (point != "committed")
    assert_whole(lake, 3)
    lake.append(batch(rows(3)), group=GROUP, ranges={0: (3, 4)})
    # The dead one's lock is gone with it.
    assert compact(lake, gap_ms=GAP_MS, now_ms=0).snapshot_id is not None
    assert_whole(lake, 4)
    found = rows_of(lake)
    assert {entry["event_id"]: entry["session_id"] for entry in found} == sessions_by_polars(found)


def test_kills_at_any_moment(lake: Lake) -> None:
    """Appends and compactions side by side, killed when it happens to be; in the end all is there once."""
    moments = random.Random(7)
    for _ in range(4):
        children = [start(lake, "append"), start(lake, "compact")]
        try:
            # From before the imports are done to after the commit.
            children[0].wait(timeout=moments.uniform(0.2, 2.5))
        except subprocess.TimeoutExpired:
            pass
        for child in children:
            child.kill()
            child.wait()
        survivor = Lake(lake.folder)
        assert len(rows_of(survivor)) == survivor.committed_offset() * PER_APPEND
    appends = lake.committed_offset()
    assert_whole(lake, appends)
