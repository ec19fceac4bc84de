"""The lake is open: each engine reads the same rows from the same table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chdb
import duckdb
import orjson
import polars as pl
import pytest

import lake_readers
from eventmill.core.config import Config
from eventmill.lake.table import Lake
from lake_events import DAY_MS, START_MS
from lake_readers import Sums
from serving import eventmill

pytestmark = pytest.mark.filterwarnings("ignore:Iceberg scan planning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, Lake]]:
    config, lake = lake_readers.make(tmp_path_factory.mktemp("engines") / "data")
    yield config, lake
    lake.close()


@pytest.fixture(scope="module")
def expected(made: tuple[Config, Lake]) -> Sums:
    return lake_readers.expected(made[1])


def listed(config: Config, *arguments: str) -> dict:
    done = eventmill("lake", "files", "--json", "--data", str(config.data), *arguments)
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


def test_clickhouse(made: tuple[Config, Lake], expected: Sums, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    answer = chdb.query(
        "SELECT event_group, count(), sum(session_id % 1000003), sum(toUnixTimestamp64Milli(timestamp)), "
        f"sum(length(device_id)) FROM {made[1].source_sql()} GROUP BY 1",
        "JSONCompactEachRow",
    )
    assert lake_readers.sums(orjson.loads(line) for line in answer.bytes().splitlines()) == expected


def test_duckdb_reads_the_files(made: tuple[Config, Lake], expected: Sums) -> None:
    paths = [file["path"] for file in listed(made[0])["files"]]
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT event_group, count(*), sum(session_id % 1000003), sum(epoch_ms(timestamp)), sum(length(device_id)) "
            "FROM read_parquet(?) GROUP BY 1",
            [paths],
        ).fetchall()
    assert lake_readers.sums(rows) == expected


def by_polars(frame: pl.LazyFrame) -> Sums:
    found = frame.group_by("event_group").agg(
        pl.len(), (pl.col("session_id") % 1_000_003).sum(), pl.col("timestamp").dt.epoch("ms").sum(),
        pl.col("device_id").str.len_bytes().cast(pl.Int64).sum(),
    )  # fmt: skip
    return lake_readers.sums(found.collect().rows())


def test_polars_reads_the_table_and_the_files(made: tuple[Config, Lake], expected: Sums) -> None:
    config, lake = made
    assert by_polars(pl.scan_parquet([file["path"] for file in listed(config)["files"]])) == expected
    assert by_polars(pl.scan_iceberg(lake.local(lake.load().metadata_location))) == expected


def test_the_examples_of_the_docs_run(made: tuple[Config, Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made[0].data.parent)
    page = (Path(__file__).parents[2] / "docs" / "lake.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found = []
    for example in examples:
        names: dict[str, Any] = {}
        exec(compile(example, "docs/lake.md", "exec"), names)
        found.append(names)
    iceberg, polars, duck, clickhouse = found
    assert 0 < iceberg["rows"].num_rows < 1_250
    counts = sorted((name, count) for name, count in duck["counts"])
    assert sum(count for _, count in counts) == 1_250
    assert sorted(polars["counts"].rows()) == counts
    lines = csv.reader(clickhouse["counts"].bytes().decode().splitlines())
    assert sorted((name, int(count)) for name, count in lines) == counts


def test_files_are_listed_with_their_rows_and_bytes_and_narrowed_by_event_and_time(made: tuple[Config, Lake]) -> None:
    config, lake = made
    everything = listed(config)
    assert everything["rows"] == 1_250 == sum(file["rows"] for file in everything["files"])
    assert everything["snapshot_id"] == lake.load().current_snapshot().snapshot_id
    for file in everything["files"]:
        assert Path(file["path"]).stat().st_size == file["bytes"]
    named = listed(config, "--event", "event 1")["files"]
    assert {file["event_group"] for file in named} == {"event 1"}
    assert 0 < len(named) < len(everything["files"])
    begin = f"2026-05-{27 + 1}T00:00:00Z"  # START_MS is the 27th
    later = listed(config, "--from", begin)["files"]
    earlier = listed(config, "--to", begin)["files"]
    assert sorted(map(str, later + earlier)) == sorted(map(str, everything["files"]))
    assert {file["first_ms"] >= START_MS + DAY_MS for file in later} == {True}
    people = eventmill("lake", "files", "--data", str(config.data), COLUMNS="200")
    assert b"1,250 rows" in people.stdout
    wrong = eventmill("lake", "files", "--data", str(config.data), "--from", "yesterday")
    assert (wrong.returncode, b"is no time" in wrong.stderr) == (2, True)
    nowhere = eventmill("lake", "files", "--data", str(config.data / "nowhere"))
    assert (nowhere.returncode, b"no data folder" in nowhere.stderr) == (2, True)
