"""One table for many engines: after appends, late data, duplicates and a compaction; and what each of them must find in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eventmill.core.config import Config
from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from eventmill.serve.engine_log import open_log
from lake_events import DAY_MS, GAP_MS, GROUP, batch, random_rows, rows_of

#: Per group: rows, and sums of an integer, of a time (ms) and of a text's length; what SQL it takes differs by engine.
Sums = dict[str, tuple[int, int, int, int]]


def make(data: Path, settings: dict[str, Any] | None = None) -> tuple[Config, Lake]:
    """A data folder with a lake of 4 dates, late rows and rows that came after the compaction."""
    config = Config(data=data)
    config = replace(config, lake=replace(config.lake, **(settings or {})))
    open_log(config).close()
    lake = Lake(config.lake_dir, settings=config.lake)
    rng = np.random.default_rng(7)
    for number in range(3):
        rows = random_rows(rng, number * 400, 400)
        lake.append(batch(rows + rows[:20]), group=GROUP, ranges={0: (number, number + 1)})
    compact(lake, gap_ms=GAP_MS, now_ms=0)
    late = [one | {"timestamp": one["timestamp"] - DAY_MS} for one in random_rows(rng, 5_000, 50)]
    lake.append(batch(late), group=GROUP, ranges={0: (3, 4)})
    return config, lake


def expected(lake: Lake) -> Sums:
    """By plain Python, over the rows that pyiceberg reads under a catalog of its own."""
    sums: dict[str, list[int]] = {}
    for row in rows_of(lake):
        mine = sums.setdefault(row["event_group"], [0, 0, 0, 0])
        for place, value in enumerate((1, row["session_id"] % 1_000_003, row["timestamp"], len(row["device_id"]))):
            mine[place] += value
    assert sum(one[0] for one in sums.values()) == 1_250
    return {group: (one[0], one[1], one[2], one[3]) for group, one in sums.items()}


def sums(rows: Any) -> Sums:
    """From an answer's rows."""
    return {str(row[0]): (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows}
