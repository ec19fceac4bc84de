"""Ten standard questions of a product's analysts, as each contender is asked them: over the store's tables, over a plain
table of ClickHouse, and over files by DuckDB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_PRICE = "JSONExtract(properties, 'price', 'Nullable(Float64)')"
_DUCK_PRICE = "try_cast(json_extract_string(properties, '$.price') AS DOUBLE)"


@dataclass(frozen=True, slots=True)
class Question:
    """``ours``, ``plain`` and ``duck`` give the same rows; ``about``: how far apart two answers may be."""

    name: str
    ours: str
    plain: str
    duck: str
    about: float = 1e-9

    def value(self, answer: pa.Table) -> list[tuple[Any, ...]]:
        """The answer's rows, numbers as floats, in order."""
        columns = [[_plain(value) for value in column.to_pylist()] for column in answer.columns]
        return sorted(zip(*columns, strict=True), key=str)

    def same(self, one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
        """Whether two answers are the same."""
        pairs = [pair for rows in zip(one, other, strict=False) for pair in zip(*rows, strict=True)]
        return len(one) == len(other) and all(
            math.isclose(a, b, rel_tol=self.about) if isinstance(a, float) and isinstance(b, float) else a == b
            for a, b in pairs
        )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return float(value) if isinstance(value, (int, float)) or type(value).__name__ == "Decimal" else value


def _rolled(columns: str, table: str, rest: str) -> str:
    return f"SELECT {columns} FROM eventmill.{table} {rest}"


QUESTIONS = (
    Question(
        "one event by the hour",
        _rolled("toUnixTimestamp(hour) AS m, sum(events)", "events_1h", "WHERE event = 'Event 3' GROUP BY m"),
        "SELECT toUnixTimestamp(toStartOfHour(timestamp)) AS m, count() FROM plain.events WHERE event = 'Event 3' GROUP BY m",
        "SELECT epoch(date_trunc('hour', timestamp)) AS m, count(*) FROM plain.events WHERE event = 'Event 3' GROUP BY m",
    ),
    Question(
        "all events by name",
        _rolled("toString(event) AS name, sum(events)", "events_1d", "GROUP BY name"),
        "SELECT toString(event) AS name, count() FROM plain.events GROUP BY name",
        "SELECT event AS name, count(*) FROM plain.events GROUP BY name",
    ),
    Question(
        "devices by the hour",
        _rolled("toUnixTimestamp(hour) AS m, uniqCombined64Merge(16)(devices)", "events_1h", "GROUP BY m"),
        "SELECT toUnixTimestamp(toStartOfHour(timestamp)) AS m, uniqCombined64(16)(device_id) FROM plain.events GROUP BY m",
        "SELECT epoch(date_trunc('hour', timestamp)) AS m, count(DISTINCT device_id) FROM plain.events GROUP BY m",
        0.03,
    ),
    Question(
        "devices by platform",
        _rolled("toString(platform) AS os, uniqCombined64Merge(16)(devices)", "events_1d", "GROUP BY os"),
        "SELECT toString(platform) AS os, uniqCombined64(16)(device_id) FROM plain.events GROUP BY os",
        "SELECT platform, count(DISTINCT device_id) FROM plain.events GROUP BY platform",
        0.03,
    ),
    Question(
        "revenue by the hour",
        _rolled(
            "toUnixTimestamp(hour) AS m, sum(value_sum)",
            "numbers_1h",
            "WHERE property = 'price' AND event = 'Event 0' GROUP BY m",
        ),
        f"SELECT toUnixTimestamp(toStartOfHour(timestamp)) AS m, sum({_PRICE}) FROM plain.events WHERE event = 'Event 0' "
        "GROUP BY m",
        f"SELECT epoch(date_trunc('hour', timestamp)) AS m, sum({_DUCK_PRICE}) FROM plain.events WHERE event = 'Event 0' "
        "GROUP BY m",
    ),
    Question(
        "95th percentile of a price",
        _rolled(
            "quantilesDDMerge(0.005, 0.5, 0.95, 0.99)(value_quantiles)[2]",
            "numbers_1d",
            "WHERE property = 'price' AND event = 'Event 0'",
        ),
        f"SELECT quantileDD(0.005, 0.95)({_PRICE}) FROM plain.events WHERE event = 'Event 0'",
        f"SELECT quantile_cont({_DUCK_PRICE}, 0.95) FROM plain.events WHERE event = 'Event 0'",
        0.03,
    ),
    Question(
        "events dearer than 150",
        "SELECT count() FROM eventmill.events WHERE p_price > 150",
        f"SELECT count() FROM plain.events WHERE {_PRICE} > 150",
        f"SELECT count(*) FROM plain.events WHERE {_DUCK_PRICE} > 150",
    ),
    Question(
        "by a property of few values",
        "SELECT toString(p_list) AS label, count() FROM eventmill.events GROUP BY label",
        "SELECT JSONExtract(properties, 'list', 'Nullable(String)') AS label, count() FROM plain.events GROUP BY label",
        "SELECT json_extract_string(properties, '$.list') AS label, count(*) FROM plain.events GROUP BY label",
    ),
    Question(
        "a device's last events",
        "SELECT toUnixTimestamp64Milli(timestamp) AS m FROM eventmill.events WHERE device_id = "
        "(SELECT min(device_id) FROM eventmill.events) ORDER BY m DESC LIMIT 50",
        "SELECT toUnixTimestamp64Milli(timestamp) AS m FROM plain.events WHERE device_id = "
        "(SELECT min(device_id) FROM plain.events) ORDER BY m DESC LIMIT 50",
        "SELECT epoch_ms(timestamp) AS m FROM plain.events WHERE device_id = "
        "(SELECT min(device_id) FROM plain.events) ORDER BY m DESC LIMIT 50",
    ),
    Question(
        "sessions and their events",
        "SELECT uniqExact(session_id), sum(events) FROM eventmill.sessions",
        "SELECT uniqExact(session_id), count() FROM plain.events",
        "SELECT count(DISTINCT session_id), count(*) FROM plain.events",
    ),
)
