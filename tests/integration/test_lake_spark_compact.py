"""Compaction by Spark: the lake that the local compaction makes of the same rows."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eventmill.core.schema import Flag
from eventmill.kernels.enrich import Enricher
from eventmill.lake.compact import compact
from eventmill.lake.iceberg import DATE, Kind
from eventmill.lake.iceberg import GROUP as GROUP_COLUMN
from eventmill.lake.table import Lake
from eventmill.process.dimensions.files import write_dimensions
from eventmill.process.put_right import put_right
from eventmill.process.schemas.ruling import Ruling
from eventmill.process.schemas.sets import Schema, SchemaSet
from eventmill.process.schemas.sources import FolderSource
from eventmill.spark.__main__ import main
from eventmill.spark.compact import _later
from eventmill.spark.enrich import PutRight, _stream
from eventmill.spark.files import pack_writer, stored
from lake_events import DAY_MS, GAP_MS, GROUP, START_MS, batch, random_rows, row, rows_of


def append(lake: Lake, rows: list[dict[str, Any]]) -> None:
    offset = lake.committed_offset()
    lake.append(batch(rows), group=GROUP, ranges={0: (offset, offset + 1)})


def twins(folder: Path) -> tuple[Lake, Lake]:
    """Two lakes of the same rows: over several dates, late, repeated, flagged, some compacted before."""
    ours, theirs = Lake(folder / "ours" / "lake"), Lake(folder / "theirs" / "lake")
    for lake in (ours, theirs):
        rng = np.random.default_rng(5)
        first = random_rows(rng, 0, 300)
        append(lake, first + first[:20])
        compact(lake, gap_ms=GAP_MS, now_ms=1)
        late = [one | {"timestamp": one["timestamp"] + 2 * DAY_MS} for one in random_rows(rng, 1_000, 100, days=2)]
        append(lake, late + [one | {"received_at": one["received_at"] - 7} for one in first[:30]])
        append(lake, [*random_rows(rng, 2_000, 200), row(3_000, flags=int(Flag.DIMENSIONS_UNKNOWN)), *first[50:60]])
    return ours, theirs


def flagged(first: int, users: list[str | None], flag: Flag, day: int, **columns: Any) -> list[dict[str, Any]]:
    """An event for each of the users, of whom (or of whose schema) nothing was known."""
    at = START_MS + day * DAY_MS + DAY_MS // 2
    return [
        row(
            first + n,
            event=f"event {n % 2}",
            user_id=user,
            flags=int(flag),
            timestamp=at + n,
            received_at=at + n,
            **columns,
        )
        for n, user in enumerate(users)
    ]


SCHEMA = {"properties": {"price": {"type": "number"}}}
#: Of the first event, of version 1; nobody knows version 2.
SCHEMAS = SchemaSet.of([Schema("event 0", "1", "1", SCHEMA), Schema("event 1", "1", "2", SCHEMA)])
USERS = ["known", "also known", "of nothing", "unknown", None]
DIMENSIONS = pa.table(
    {
        "user_id": ["known", "also known", "of nothing", "never seen"],
        "country": ["DE", "FR", None, "IT"],
        "segment": ["a", None, None, "b"],
        "tier": [None, "gold", None, "c"],
    }
)


def with_unknown(lakes: tuple[Lake, Lake]) -> None:
    """Flagged events in old files of three dates, of one of which nothing is known now, and in new ones."""
    for lake in lakes:
        append(lake, flagged(5_000, USERS, Flag.DIMENSIONS_UNKNOWN, 0))
        append(lake, flagged(5_100, USERS, Flag.SCHEMA_UNKNOWN, 1, properties='{"price":"x"}'))
        append(lake, flagged(5_150, ["unknown"], Flag.DIMENSIONS_UNKNOWN, 8))
        compact(lake, gap_ms=GAP_MS, now_ms=3)
        both = Flag.DIMENSIONS_UNKNOWN | Flag.SCHEMA_UNKNOWN
        append(lake, flagged(5_200, USERS, both, 2, properties='{"price":1}'))
        append(lake, flagged(5_300, USERS, both, 2, properties='{"schemaVersion":"2"}'))


@pytest.mark.soak
def test_spark_puts_right_what_the_local_compaction_does(
    spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job as an operator starts it, beside the local one with the same users and schemas."""
    ours, theirs = (Lake(tmp_path / name / "lake") for name in ("ours", "theirs"))
    with_unknown((ours, theirs))
    write_dimensions(DIMENSIONS, tmp_path / "users.csv")
    for schema in SCHEMAS.schemas:
        file = tmp_path / "schemas" / schema.event / f"{schema.version}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(schema.document))
    config = tmp_path / "eventmill.toml"
    config.write_text(f"[dimensions]\nfile = '{tmp_path}/users.csv'\n[schemas]\nfolder = '{tmp_path}/schemas'\n")
    ruling, users = Ruling(FolderSource(tmp_path / "schemas").fetch()), Enricher(DIMENSIONS)
    for wrote in (True, False):
        local = compact(ours, gap_ms=GAP_MS, now_ms=4, enrich=lambda rows: put_right(rows, ruling, users))
        assert (local.enriched > 10, local.files_written > 0) == (wrote, wrote)
        capsys.readouterr()
        assert main(["compact", "--data", str(tmp_path / "theirs"), "--config", str(config)]) == 0
        spread = json.loads(capsys.readouterr().out)
        same = local.as_dict() | {"snapshot_id": spread["snapshot_id"], "dates": list(local.dates)}
        assert spread == same
        found = rows_of(theirs)
        assert found == rows_of(ours)
        assert kinds(theirs) == kinds(ours)
    flags = {(one["user_id"], one["timestamp"]): (one["country"], one["flags"]) for one in found}
    noon = START_MS + DAY_MS // 2
    assert flags["known", noon] == ("DE", 0)
    assert flags["unknown", noon + 3] == (None, int(Flag.DIMENSIONS_UNKNOWN))
    assert flags["known", noon + DAY_MS] == (None, int(Flag.SCHEMA_BROKEN))
    shutil.rmtree(tmp_path)


def kinds(lake: Lake) -> list[tuple[Kind, int, str, int]]:
    return sorted((file.kind, file.date, file.group, file.rows) for file in lake.live_files())


def test_flagged_rows_are_put_right_where_they_are_written(tmp_path: Path) -> None:
    """What an executor does with a pack's rows, here in this process: the order of time stays, and every row once."""
    lake = Lake(tmp_path)
    rows = flagged(1, ["known", None, "unknown", "also known"], Flag.DIMENSIONS_UNKNOWN, 0)
    rows += [row(10 + n, timestamp=START_MS + DAY_MS // 2 + n, tier="silver") for n in range(4)]
    given = pa.Table.from_batches([batch(rows)])
    count = given.num_rows
    for name, values in (("pack", [3] * count), ("place", [0, 1] * (count // 2)), ("row", range(count))):
        given = given.append_column(name, pa.array(values, pa.int64()))
    given = given.append_column(DATE, pa.array([START_MS // DAY_MS] * count, pa.int32()).cast(pa.date32()))
    given = given.append_column(GROUP_COLUMN, pa.array(["tap"] * count))
    users = pa.record_batch(DIMENSIONS.to_batches()[0].columns, schema=DIMENSIONS.schema)
    enrich = pickle.loads(pickle.dumps(PutRight(_stream(users), SCHEMAS.dump())))
    made = pack_writer(lake.storage, f"{lake.storage.recorded}/data", "run", enrich)(given).to_pylist()[0]
    assert (made["known"], made["date"], made["name"]) == (3, START_MS // DAY_MS, "tap")
    assert f"/{Kind.FLAGGED}-run-00003-" in made["location"]
    path = Path(lake.storage.path(made["location"]))
    stored_rows = pq.read_table(path).to_pylist()
    assert [one["timestamp"] for one in stored_rows] == sorted(one["timestamp"] for one in stored_rows)
    assert {one["event_id"] for one in stored_rows} == {one["event_id"] for one in rows}
    assert sorted((one["user_id"] or "", one["tier"] or "", one["flags"]) for one in stored_rows) == sorted(
        [("known", "", 0), ("", "", 0), ("unknown", "", int(Flag.DIMENSIONS_UNKNOWN)), ("also known", "gold", 0)]
        + [("", "silver", 0)] * 4
    )
    lake.close()


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
    assert kinds(theirs) == kinds(ours)
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
