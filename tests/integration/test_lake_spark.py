"""Spark reads the lake too."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.needs import had

import lake_readers
from testbed.spark import iceberg_jar

pytestmark = pytest.mark.soak


def test_spark(tmp_path: Path) -> None:
    jar = had(iceberg_jar)
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is missing: pip install 'eventmill[spark]'")
    _, lake = lake_readers.make(tmp_path / "data")
    spark = (
        sql.SparkSession.builder.master("local[1]")
        .config("spark.jars", str(jar))
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "512m")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.local.dir", str(tmp_path))
        .getOrCreate()
    )
    try:
        spark.read.format("iceberg").load(lake.local(lake.load().metadata_location)).createOrReplaceTempView("events")
        rows = spark.sql(
            "SELECT event_group, count(*), sum(session_id % 1000003), sum(unix_millis(timestamp)), sum(length(device_id)) "
            "FROM events GROUP BY 1"
        ).collect()
    finally:
        spark.stop()
    assert lake_readers.sums(rows) == lake_readers.expected(lake)
