"""``spark-submit … eventmill/spark/__main__.py --data DIR``, or ``python -m eventmill.spark`` where pyspark is installed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import Config, load
from eventmill.core.errors import EventmillError, SchemaError
from eventmill.lake.table import Lake
from eventmill.process.dimensions.source import open_dimensions
from eventmill.process.schemas.sets import SchemaSet
from eventmill.process.schemas.sources import open_source
from eventmill.spark.compact import GROUP_ROWS, compact
from eventmill.spark.enrich import known_now


def main(arguments: list[str] | None = None) -> int:
    """Compact the lake of a data folder, and put right what is flagged there; prints the report as JSON."""
    parser = argparse.ArgumentParser(
        prog="eventmill.spark", description="Compact the lake by Spark, and put right events that were stored unknown."
    )
    parser.add_argument("--data", type=Path, help="the data folder")
    parser.add_argument("--config", type=Path, help="the configuration's file")
    parser.add_argument("--group-rows", type=int, default=GROUP_ROWS, help="rows that one commit is for")
    chosen = parser.parse_args(arguments)
    if chosen.group_rows < 1:
        parser.error("--group-rows must be above zero")
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        print("pyspark is missing: pip install 'eventmill[spark]', or run it by spark-submit", file=sys.stderr)
        return 2
    try:
        config = load(chosen.config, overrides={"data": chosen.data} if chosen.data else None)
        if not config.lake_dir.exists():
            print(f"there is no lake in {config.data}; name the data folder by --data", file=sys.stderr)
            return 2
        lake = Lake(config.lake_dir, config.lake.partitions_max, settings=config.lake)
        spark = SparkSession.builder.appName("eventmill compact").getOrCreate()
        gap_ms = parse_duration_ms(config.process.session_gap)
        known = known_now(spark, lake, open_dimensions(config.dimensions), _schemas(config))
        report = compact(spark, lake, gap_ms=gap_ms, now_ms=now_ms(), enrich=known, group_rows=chosen.group_rows)
    except EventmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report.as_dict()))
    return 0


def _schemas(config: Config) -> SchemaSet | None:
    """What the source says now; null, and a warning, while it cannot."""
    try:
        return open_source(config).fetch()
    except SchemaError as error:
        print(f"warning: {error}; events that nobody has judged stay so", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
