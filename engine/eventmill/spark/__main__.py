"""``spark-submit … eventmill/spark/__main__.py compact --data DIR``, or ``python -m eventmill.spark`` where pyspark is
installed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventmill.core.clock import moment_ms, now_ms, parse_duration_ms
from eventmill.core.config import Config, load
from eventmill.core.errors import ConfigError, EventmillError, SchemaError
from eventmill.lake.table import Lake
from eventmill.process.dimensions.source import open_dimensions
from eventmill.process.schemas.sets import UNAVAILABLE, SchemaSet
from eventmill.process.schemas.sources import open_source
from eventmill.serve.backfill import fresh_config
from eventmill.spark.backfill import backfill
from eventmill.spark.compact import GROUP_ROWS, compact
from eventmill.spark.enrich import known_now


def main(arguments: list[str] | None = None) -> int:
    """Do one job; prints its report as JSON."""
    chosen = _parser().parse_args(arguments)
    try:
        config = load(chosen.config, overrides={"data": chosen.data} if chosen.data else None)
        job = chosen.job(config, chosen)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        print("pyspark is missing: pip install 'eventmill[spark]', or run it by spark-submit", file=sys.stderr)
        return 2
    try:
        report = job(SparkSession.builder.appName(f"eventmill {chosen.name}").getOrCreate())
    except EventmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except PySparkException as error:
        print(f"error: {_cause(str(error))}{chosen.after}", file=sys.stderr)
        return 1
    print(json.dumps(report.as_dict()))
    return 0


def _cause(said: str) -> str:
    """What ended a job: an error of ours that an executor met, or else what Spark says first."""
    lines = said.splitlines()
    ours = [line.partition(": ")[2] for line in lines if line.startswith("eventmill.core.errors.")]
    return ours[-1] if ours else f"Spark ended the job: {lines[0] if lines else 'it does not say why'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eventmill.spark", description="Eventmill's long jobs on Apache Spark.")
    jobs = parser.add_subparsers(dest="name", required=True)
    compacts = jobs.add_parser("compact", help="compact the lake, and put right events that were stored unknown")
    compacts.add_argument("--group-rows", type=_positive, default=GROUP_ROWS, help="rows that one commit is for")
    compacts.set_defaults(job=_compact, after="")
    backfills = jobs.add_parser("backfill", help="process raw events again, into a fresh data folder")
    backfills.add_argument("--into", type=Path, required=True, help="the fresh data folder")
    backfills.add_argument("--since", help="events received since (ISO 8601, or 2h for two hours ago)")
    backfills.add_argument("--until", help="events received before")
    backfills.set_defaults(job=_backfill, after="; remove what stands in the folder of --into, and try again")
    for each in (compacts, backfills):
        each.add_argument("--data", type=Path, help="the data folder")
        each.add_argument("--config", type=Path, help="the configuration's file")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above zero")
    return int(text)


def _compact(config: Config, chosen: argparse.Namespace) -> Callable[[Any], Any]:
    if not config.lake_dir.exists():
        raise ConfigError(f"there is no lake in {config.data}; name the data folder by --data")

    def job(spark: Any) -> Any:
        lake = Lake(config.lake_dir, config.lake.partitions_max, settings=config.lake)
        gap_ms = parse_duration_ms(config.process.session_gap)
        known = known_now(spark, lake, open_dimensions(config.dimensions), _schemas(config))
        return compact(spark, lake, gap_ms=gap_ms, now_ms=now_ms(), enrich=known, group_rows=chosen.group_rows)

    return job


def _backfill(config: Config, chosen: argparse.Namespace) -> Callable[[Any], Any]:
    since_ms = 0 if chosen.since is None else moment_ms(chosen.since)
    until_ms = 1 << 62 if chosen.until is None else moment_ms(chosen.until)
    schemas = _schemas(fresh_config(config, chosen.into))

    def job(spark: Any) -> Any:
        return backfill(
            spark, config, chosen.into, since_ms=since_ms, until_ms=until_ms, schemas=schemas, now_ms=now_ms()
        )

    return job


def _schemas(config: Config) -> SchemaSet:
    """What the source says now; nothing, and a warning, while it cannot."""
    try:
        return open_source(config).fetch()
    except SchemaError as error:
        print(f"warning: {error}; events that nobody has judged stay so", file=sys.stderr)
        return UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
