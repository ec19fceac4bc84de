"""The view over both stores, for SQL."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from eventmill.core.config import QueryConfig
from eventmill.core.schema import EVENT
from eventmill.lake.table import Lake
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS, events


def test_the_view_has_each_event_once_from_the_store_that_answers_for_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the boundary the other store holds what never happened; the boundary moves on, and before the first event of
    the lake there is none."""
    monkeypatch.chdir(tmp_path)
    store, lake, now = RealtimeStore(tmp_path / "realtime"), Lake(tmp_path / "lake"), [START_MS + 2 * DAY_MS]
    service = QueryService(store, lake.source_sql, QueryConfig(), window_ms=DAY_MS, clock=lambda: now[0])
    in_lake, in_store = events(500, seed=6), events(700, seed=7)

    def expected() -> int:
        times = [batch.column("timestamp").cast(pa.int64()).to_numpy() for batch in (in_lake, in_store)]
        return int((times[0] < now[0] - DAY_MS).sum() + (times[1] >= now[0] - DAY_MS).sum())

    def counted() -> tuple[int, list[str]]:
        answer = service.ask("sql", {"query": "SELECT uniqExact(event_id), count() FROM all_events"})
        assert answer["rows"][0][0] == answer["rows"][0][1]
        return answer["rows"][0][1], answer["meta"]["stores"]

    store.insert(in_store, "token")
    assert counted() == (700, ["realtime"])
    lake.append(in_lake.select(EVENT.names), group="lake", ranges={0: (0, 1)})
    assert counted() == (expected(), ["realtime", "lake"])
    now[0] += DAY_MS // 4
    assert counted() == (expected(), ["realtime", "lake"])
    service.close()
    store.close()
