"""Log, real-time store and lake of one data folder, opened together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from eventmill.core.config import Config
from eventmill.core.errors import StoreError
from eventmill.core.tombstones import Tombstones, recorded
from eventmill.generate.oracle import Verdict, judge, stored_rows
from eventmill.generate.truth import TruthFile
from eventmill.lake.table import Lake
from eventmill.observe.audit import Audit, Stored, balance, flights
from eventmill.observe.trace import trace
from eventmill.serve.engine_log import open_log
from eventmill.sinks.realtime.lake_rollups import LakeRollUps
from eventmill.sinks.realtime.open import open_store

logger = logging.getLogger(__name__)

_STORED_EVENTS: Final = "SELECT event_id, event, device_id, properties, original_timestamp FROM eventmill.events"
_TOTALS: Final = """
    SELECT uniqExact(session_id) AS sessions, uniqExact(device_id) AS devices,
           quantileExact(0.5)(seconds) AS e2e_seconds_p50, quantileExact(0.99)(seconds) AS e2e_seconds_p99
    FROM (SELECT session_id, device_id,
                 (toUnixTimestamp64Milli(inserted_at) - toUnixTimestamp64Milli(received_at)) / 1000 AS seconds
          FROM eventmill.events)
"""
_TOP_EVENTS: Final = """
    SELECT event::String AS event, count() AS events, uniqExact(device_id) AS devices
    FROM eventmill.events GROUP BY event ORDER BY events DESC, event LIMIT 10
"""


class Stores:
    """Log, real-time store and lake of one data folder, opened together. The caller holds the ``DataFolder``."""

    def __init__(self, config: Config) -> None:
        self.log = open_log(config, name="sink")
        self.realtime = open_store(config)
        self.lake = Lake(config.lake_dir, config.lake.partitions_max, settings=config.lake)
        self.lake_rollups = LakeRollUps(self.realtime)
        self.tombstones = Tombstones(recorded(self.log).tombstones)

    def roll_up(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Roll up the lake's files that compaction has written; gives how many."""
        source = self.lake.source_sql()
        files = None if source is None else self.lake.files_of(source)
        if source is None or files is None:
            return 0
        try:
            return self.lake_rollups.keep_up(source, files, stopped)
        except StoreError as error:
            # Answers stay right without: then the events are read.
            logger.warning("the lake's files could not be rolled up: %s", error)
            return 0

    def audit(self) -> Audit:
        """The ledger's proof. Nothing may be consumed meanwhile."""
        stores = {
            "realtime": [Stored(*row) for row in self.realtime.counts_by_hour()],
            "lake": [Stored(*row) for row in self.lake.counts_by_hour()],
        }
        return balance(self.log.ledger(), stores, flights(self.log))

    def trace(self, text: str) -> dict[str, Any]:
        """One event's fate, by its message id or event id."""
        return trace(text, self.log, self.realtime.find, self.lake.find)

    def judge(self, truth: Path) -> dict[str, Verdict]:
        """The oracle's verdict on both stores by a truth file. Nothing may be consumed meanwhile."""
        sent = TruthFile(truth).read()
        columns = ("event_id", "event", "device_id", "properties", "original_timestamp")
        stored = {
            "realtime": self.realtime.query_arrow(_STORED_EVENTS),
            "lake": self.lake.load().scan(selected_fields=columns).to_arrow(),
        }
        return {store: judge(sent, stored_rows(rows)) for store, rows in stored.items()}

    def summary(self) -> dict[str, Any]:
        """Figures of all that is stored."""
        totals = self.realtime.query_arrow(_TOTALS).to_pylist()[0]
        return {**totals, "top_events": self.realtime.query_arrow(_TOP_EVENTS).to_pylist()}

    def close(self) -> None:
        """Close all three."""
        self.realtime.close()
        self.lake.close()
        self.log.close()
