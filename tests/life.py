"""A pipeline behind its processor, with a clock that is set: what is stored, kept and retired over any time, and what must be
there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from eventmill.core import frame, ledger
from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import load
from eventmill.core.schema import EVENT, Hop, Topic
from eventmill.lake.compact import compact
from eventmill.query.service import QueryService
from eventmill.serve import retain
from eventmill.serve.folder import DataFolder
from eventmill.serve.stores import Stores
from eventmill.sinks.runner import LakeRunner, RealtimeRunner
from lake_events import batch

DAY_MS = 86_400_000
_TRUTH = ("event_id", "event", "platform", "device_id", "user_id", "session_id", "timestamp", "received_at")


def iso(at: int) -> str:
    """A time in ms since the epoch as questions have it."""
    return datetime.fromtimestamp(at / 1_000, UTC).isoformat()


class Life:
    """One data folder without HTTP and processor: what the latter would write is given to the log."""

    def __init__(self, data: Path, **overrides: Any) -> None:
        self.config = load(None, environ={}, overrides={"data": data, **overrides})
        self.gap_ms = parse_duration_ms(self.config.process.session_gap)
        self.now = 0
        self.rows: list[dict[str, Any]] = []
        self.folder = DataFolder(data)
        self.open()

    def open(self) -> None:
        """As after a start."""
        self.stores = Stores(self.config)
        log, tombstones = self.stores.log, self.stores.tombstones
        size = {"events_max": 100_000, "interval_ms": 1, "tombstones": tombstones}
        self.sinks = [RealtimeRunner(log, self.stores.realtime, **size), LakeRunner(log, self.stores.lake, **size)]
        for sink in self.sinks:
            sink.recover()
        self.query = QueryService(
            self.stores.realtime, self.stores.lake.source_sql, self.config.query, clock=lambda: self.now,
            window_ms=parse_duration_ms(self.config.realtime.window), watermark=self.stores.lake.watermark,
            lake_view=self.stores.lake.asked, files_of=self.stores.lake.files_of,
        )  # fmt: skip

    def close(self) -> None:
        """Close it all."""
        self.query.close()
        self.stores.close()

    def enter(self, rows: Iterable[dict[str, Any]], *, known: bool = True) -> None:
        """The processor has these events; ``known``: and they are to be there from now on."""
        given = list(rows)
        events = batch(given)
        with self.stores.log.transaction() as transaction:
            transaction.append([frame.encode(Topic.ENRICHED, events)])
            for hop in (Hop.RECEIVED, Hop.ACCEPTED, Hop.ENRICHED):
                transaction.count(ledger.counts(hop, events))
        self.rows += given if known else []

    def store(self) -> None:
        """Both sinks take all that there is."""
        for sink in self.sinks:
            while sink.step(0.0, hurry=lambda: True):
                continue

    def compact(self) -> None:
        """The hourly upkeep; its clean-up is left to ``retain``."""
        compact(self.stores.lake, gap_ms=self.gap_ms, now_ms=self.now)

    def retain(self, **more: Any) -> dict[str, tuple[int, int]]:
        """The daily one; gives (partitions, rows) by store and rule."""
        return by_rule(retain.retain(self.stores, self.config, self.now, **more))

    def truth(self) -> duckdb.DuckDBPyConnection:
        """What must be there, as DuckDB's table ``truth``, under the names of now."""
        columns = {name: [row.get(name) for row in self.rows] for name in _TRUTH}
        columns["event"] = [self.config.query.renames.now(name) for name in columns["event"]]
        kinds = [pa.binary(16) if name == "event_id" else EVENT.field(name).type for name in _TRUTH]
        kinds = [pa.string() if pa.types.is_dictionary(kind) else kind for kind in kinds]
        kinds = [pa.int64() if pa.types.is_timestamp(kind) else kind for kind in kinds]
        given = pa.table(
            [pa.array(columns[name], kind) for name, kind in zip(_TRUTH, kinds, strict=True)], list(_TRUTH)
        )
        connection = duckdb.connect()
        connection.register("given", given)
        connection.execute("CREATE TABLE truth AS SELECT * FROM given")
        return connection

    def ask(self, kind: str, start: int, end: int, **body: Any) -> dict[str, Any]:
        """A question about a stretch of time."""
        return self.query.ask(kind, {"from": iso(start), "to": iso(end), **body})


def by_rule(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(partitions, rows) by store and rule."""
    return {f"{each['store']}.{each['rule']}": (each["partitions"], each["rows"]) for each in report["rules"]}
