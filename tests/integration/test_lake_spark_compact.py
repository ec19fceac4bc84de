"""Compaction by Spark: the lake that the local compaction makes of the same rows."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eventmill.core.schema import Flag
from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from eventmill.spark.compact import _later, stored
from lake_events import DAY_MS, GAP_MS, GROUP, batch, random_rows, row, rows_of
from testbed.packages import Unavailable
from testbed.spark import iceberg_jar


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        jar = iceberg_jar()
    except Unavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is missing: pip install 'eventmill[spark]'")
    os.environ["PYSPARK_PYTHON"] = sys.executable  # the executors' Python has Eventmill installed too
    session = (
        sql.SparkSession.builder.master("local[2]")
        .config("spark.jars", str(jar))
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.local.dir", str(tmp_path_factory.mktemp("spark")))
        .getOrCreate()
    )
    yield session
    session.stop()


def append(lake: Lake, rows: list[dict[str, Any]]) -> None:
    offset = lake.committed_offset()
    lake.append(batch(rows), group=GROUP, ranges={0: (offset, offset + 1)})


def twins(folder: Path) -> tuple[Lake, Lake]:
    """Two lakes of the same rows: over several dates, late, repeated, flagged, some compacted before."""
    ours, theirs = Lake(folder / "ours"), Lake(folder / "theirs")
    for lake in (ours, theirs):
        rng = np.random.default_rng(5)
        first = random_rows(rng, 0, 300)
        append(lake, first + first[:20])
        compact(lake, gap_ms=GAP_MS, now_ms=1)
        late = [one | {"timestamp": one["timestamp"] + 2 * DAY_MS} for one in random_rows(rng, 1_000, 100, days=2)]
        append(lake, late + [one | {"received_at": one["received_at"] - 7} for one in first[:30]])
        append(lake, [*random_rows(rng, 2_000, 200), row(3_000, flags=int(Flag.DIMENSIONS_UNKNOWN)), *first[50:60]])
    return ours, theirs


@pytest.mark.soak
def test_spark_makes_the_lake_that_the_local_compaction_makes(spark: Any, tmp_path: Path) -> None:
    from eventmill.spark.compact import compact as by_spark

    ours, theirs = twins(tmp_path)
    local = compact(ours, gap_ms=GAP_MS, now_ms=2)
    spread = by_spark(spark, theirs, gap_ms=GAP_MS, now_ms=2)
    expected, found = rows_of(ours), rows_of(theirs)
    assert len(found) == len(expected) > 500
    assert found == expected
    for name in ("duplicates", "sessions_changed", "rows_read", "files_read", "files_written", "dates"):
        assert getattr(spread, name) == getattr(local, name), name
    assert theirs.committed_offset() == ours.committed_offset() == 3
    assert theirs.counts_by_hour() == ours.counts_by_hour()
    kinds = [(file.kind, file.date, file.group, file.rows) for file in ours.live_files()]
    assert sorted((file.kind, file.date, file.group, file.rows) for file in theirs.live_files()) == sorted(kinds)
    assert by_spark(spark, theirs, gap_ms=GAP_MS, now_ms=3).files_read == 0
    append(theirs, [row(4_000)])
    shutil.rmtree(tmp_path)


def test_of_duplicates_with_a_new_one_the_first_received_stays() -> None:
    ids = [bytes([number] * 16) for number in (1, 1, 2, 2, 3, 1)]
    received = pa.array([9_000, 5_000, 1_000, 2_000, 1_000, 7_000], pa.int64()).cast(pa.timestamp("us", "UTC"))
    rows = pa.table(
        {
            "event_id": pa.array(ids, pa.binary()),
            "received_at": received,
            "file": pa.array([0, 1, 0, 2, 0, 1], pa.int32()),
            "row": pa.array([0, 1, 2, 3, 4, 5], pa.int64()),
            "appended": [False, True, False, False, True, True],
        }
    )
    gone = _later(rows)
    # Of the second id all rows are old, and left alone.
    assert sorted(zip(gone["file"].to_pylist(), gone["row"].to_pylist(), strict=True)) == [(0, 0), (1, 5)]
    assert _later(rows.slice(0, 0)).num_rows == 0


def test_rows_come_back_from_spark_as_they_are_stored() -> None:
    given = pa.Table.from_batches([batch([row(1, user_id="a"), row(2)])])
    widened = given.set_column(0, "event_id", given["event_id"].cast(pa.binary()))
    assert stored(widened).cast(given.schema).equals(given)
