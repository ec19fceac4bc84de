"""The events' skip indexes: a look-up of one device, user or event reads little, and finds what is found without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from eventmill.core.config import QueryConfig
from eventmill.query.asker import TooManyRows
from eventmill.query.scan import LOOKED_UP
from eventmill.query.service import QueryService
from eventmill.sinks.realtime import ddl
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import START_MS

ROWS = 100_000
#: Events of one device and of one user follow one another.
OF_ONE = 10
#: What stands in each column of row ``number``. Every other device has no user.
COLUMNS = {
    "event_id": "reinterpretAsFixedString(sipHash128(number))",
    "device_id": f"hex(sipHash64(1, intDiv(number, {OF_ONE})))",
    "user_id": f"if(intDiv(number, {OF_ONE}) % 2 = 0, NULL, hex(sipHash64(2, intDiv(number, {OF_ONE}))))",
    "anonymous_id": f"hex(sipHash64(3, intDiv(number, {OF_ONE})))",
}
#: The granules that a look-up reads: those of the value, and a few of a hundred for nothing.
READ_MAX = 0.5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealtimeStore]:
    with closing(RealtimeStore(tmp_path_factory.mktemp("indexes") / "realtime")) as store:
        names, values = ", ".join(COLUMNS), ", ".join(COLUMNS.values())
        store.command(
            "INSERT INTO eventmill.events (event, type, timestamp, received_at, session_id, properties, context, log_offset, "
            f"{names}) "
            f"SELECT 'tap', 'track', fromUnixTimestamp64Milli({START_MS} + number * 100, 'UTC'), "
            f"fromUnixTimestamp64Milli({START_MS}, 'UTC'), 1, '{{}}', '{{}}', 1, {values} FROM numbers({ROWS})"
        )
        yield store


def some(store: RealtimeStore, column: str) -> list[str]:
    """Values of a column, as SQL, and one that nobody has."""
    kind = "toFixedString(unhex('{}'), 16)" if column == "event_id" else "'{}'"
    shown = f"hex({column})" if column == "event_id" else f"toString({column})"
    found = store.query_arrow(
        f"SELECT DISTINCT {shown} AS shown FROM eventmill.events WHERE {column} IS NOT NULL ORDER BY cityHash64(shown) LIMIT 20"
    )
    return [kind.format(value) for value in [*found.column(0).to_pylist(), "00" * 16]]


def rows_read(store: RealtimeStore, where: str) -> int:
    lines = store.explain_readonly("ESTIMATE", f"SELECT 1 FROM eventmill.events WHERE {where}", None, {})
    return sum(int(line[3]) for line in lines if len(line) > 3)


def test_each_column_that_is_looked_up_has_one() -> None:
    assert {what.split()[0] for what in ddl.INDEXES.values()} == set(LOOKED_UP) == set(COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_look_up_reads_little_and_finds_the_same(store: RealtimeStore, column: str) -> None:
    for value in some(store, column):
        where = f"{column} = {value}"
        counted = f"SELECT count(), sum(cityHash64(event_id)) FROM eventmill.events WHERE {where}"
        found = store.query_arrow(counted)
        assert found.equals(store.query_arrow(counted, settings={"use_skip_indexes": 0}))
        absent = value == some(store, column)[-1]
        assert found.column(0)[0].as_py() == (0 if absent else 1 if column == "event_id" else OF_ONE)
        assert rows_read(store, where) < READ_MAX * ROWS


@pytest.mark.parametrize("key", ["device", "user", "id"])
def test_a_timeline_is_answered_where_a_scan_is_refused(store: RealtimeStore, key: str) -> None:
    end = START_MS + ROWS * 100
    config = QueryConfig(scan_rows_max=ROWS // 2)
    span = {"from": f"{np.datetime64(START_MS, 'ms')}Z", "to": f"{np.datetime64(end, 'ms')}Z"}
    column = "user_id" if key == "user" else "device_id"
    whose = some(store, column)[0].strip("'")
    with closing(QueryService(store, lambda: None, config, window_ms=end, clock=lambda: end)) as service:
        answer: dict[str, Any] = service.ask("timeline", {key: whose} | span)
        assert len(answer["rows"]) == OF_ONE
        filtered = [{"field": column, "op": "eq", "value": whose}]
        counted = service.ask("trends", {"interval": "day", "filters": filtered, "breakdown": "tier"} | span)
        assert [row[-1] for row in counted["rows"]] == [OF_ONE]
        with pytest.raises(TooManyRows):
            service.ask("trends", {"interval": "day", "breakdown": "tier"} | span)
        with pytest.raises(TooManyRows):  # which no index helps with
            service.ask("trends", {"interval": "day", "filters": [filtered[0] | {"op": "ne"}]} | span)
