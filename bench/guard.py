"""How fast the guard refuses to read a billion events, and lets a question pass that roll-ups answer.

The billion is real to ClickHouse: parts are attached again and again, which links their files instead of copying them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from eventmill.core.config import QueryConfig
from eventmill.query.asker import TooManyRows
from eventmill.query.service import QueryService
from eventmill.sinks.realtime import ddl
from eventmill.sinks.realtime.store import RealtimeStore

_DATE: Final = "2026-05-27"
_START_MS: Final = 20_600 * 86_400_000
_BODY: Final = {"from": _DATE, "to": "2026-05-28", "interval": "day"}
_TIMES: Final = 20


def refused(folder: Path, *, rows: int = 5_000_000, doublings: int = 11) -> dict[str, Any]:
    """The ``rows`` there are, and the median milliseconds until one question was ``refused`` and the other ``answered``."""
    store = RealtimeStore(folder)
    try:
        total = _fill(store, rows, doublings)
        config = QueryConfig(scan_rows_max=min(total - 1, 1_000_000_000))
        service = QueryService(store, lambda: None, config, window_ms=86_400_000, clock=lambda: _START_MS)

        def refuse() -> None:
            try:
                service.ask("trends", _BODY | {"breakdown": "country"})
            except TooManyRows:
                return
            raise SystemExit(f"a question about {total:,} events was not refused")

        taken = {"refused": _median_ms(refuse), "answered": _median_ms(lambda: service.ask("trends", _BODY))}
        service.close()
    finally:
        store.close()
    return {"rows": total, **taken}


def _fill(store: RealtimeStore, rows: int, doublings: int) -> int:
    store.command("SYSTEM STOP MERGES")
    for name in ("filler", "double"):
        store.command(f"CREATE TABLE eventmill.{name} AS eventmill.events")
    store.command(
        "INSERT INTO eventmill.filler (event, type, device_id, timestamp, received_at, session_id, properties, context, "
        f"log_offset) SELECT 'tap', 'track', 'device', fromUnixTimestamp64Milli({_START_MS} + 1000, 'UTC'), "
        f"fromUnixTimestamp64Milli({_START_MS}, 'UTC'), 1, '{{}}', '{{}}', 1 FROM numbers({rows}) "
        f"SETTINGS max_block_size = {rows}, min_insert_block_size_rows = {rows}"
    )
    store.command(f"INSERT INTO {ddl.DAYS.name} {ddl.DAYS.query('eventmill.filler')}")
    less, more = "double", "filler"
    for _ in range(doublings):
        _attach(store, more, less)
        less, more = more, less
    _attach(store, more, "events")
    _attach(store, less, "events")
    return int(store.query_arrow("SELECT count() FROM eventmill.events").column(0)[0].as_py())


def _attach(store: RealtimeStore, source: str, target: str) -> None:
    store.command(f"ALTER TABLE eventmill.{target} ATTACH PARTITION '{_DATE}' FROM eventmill.{source}")


def _median_ms(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1_000)
    return round(statistics.median(taken), 2)
