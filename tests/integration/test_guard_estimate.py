"""What a question has to read, as the guard on cost counts it: neither what lies outside its time nor other names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eventmill.core.config import QueryConfig
from eventmill.query.asker import TooManyRows
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS

ROWS = 100_000


@pytest.mark.parametrize(
    ("end", "event", "refused"), [(6, None, False), (18, None, True), (24, "tap", False), (24, None, True)]
)
def test_of_an_even_flow_half_a_day_may_be_read(tmp_path: Path, end: int, event: str | None, refused: bool) -> None:
    """A tenth of the events are taps."""
    midnight = START_MS // DAY_MS * DAY_MS
    store = RealtimeStore(tmp_path / "realtime")
    store.command(
        "INSERT INTO eventmill.events (event, type, device_id, timestamp, received_at, session_id, properties, context, "
        "log_offset) SELECT if(number % 10 = 0, 'tap', 'view'), 'track', 'device', "
        f"fromUnixTimestamp64Milli({midnight} + intDiv(number * {DAY_MS}, {ROWS}), 'UTC'), "
        f"fromUnixTimestamp64Milli({midnight}, 'UTC'), 1, '{{}}', '{{}}', 1 FROM numbers({ROWS})"
    )
    config, now = QueryConfig(scan_rows_max=ROWS // 2), midnight + DAY_MS
    service = QueryService(store, lambda: None, config, window_ms=DAY_MS, clock=lambda: now)
    start = np.datetime64(midnight, "ms")
    question = {
        "from": f"{start}Z",
        "to": f"{start + np.timedelta64(end, 'h')}Z",
        "event": event,
        "breakdown": "country",
    }
    try:
        if refused:
            with pytest.raises(TooManyRows) as refusal:
                service.ask("trends", question)
            assert refusal.value.rows == pytest.approx(ROWS * end / 24, rel=0.02)
        else:
            assert sum(row[2] for row in service.ask("trends", question)["rows"]) == ROWS * (0.1 if event else end / 24)
    finally:
        service.close()
        store.close()
