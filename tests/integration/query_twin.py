"""Trends computed the slow and obvious way: Python over every row."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

INTERVALS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
TIMES = ("timestamp", "original_timestamp", "sent_at", "received_at")


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with times in ms and JSON parsed."""
    table = pa.Table.from_batches([batch])
    for name in TIMES:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table.column(name).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row["properties"], row["context"] = json.loads(row["properties"]), json.loads(row["context"])
    return rows


def ms(text: str) -> int:
    """An ISO time."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def iso(at: int) -> str:
    """And back."""
    return datetime.fromtimestamp(at // 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def raw(row: dict[str, Any], name: str) -> Any:
    """The field's value; null where there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(value: Any) -> str | None:
    """As JSON spells it, strings as they are."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def number(value: Any) -> float | None:
    """A number, or a string that spells one."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    try:
        return float(value) if isinstance(value, str) and value else None
    except ValueError:
        return None


def meets(row: dict[str, Any], condition: dict[str, Any]) -> bool:
    """Whether a row passes a filter."""
    name, op, wanted = condition["field"], condition["op"], condition.get("value")
    value = raw(row, name)
    if op == "is_set":
        return value is not None
    if op == "is_not_set":
        return value is None
    if op in ("ne", "not_in"):
        return not meets(row, condition | {"op": "eq" if op == "ne" else "in"})
    if value is None:
        return False
    if name in TIMES:
        wanted = ms(wanted)
    elif "." in name:
        sample = wanted[0] if isinstance(wanted, list) else wanted
        numeric = isinstance(sample, (int, float)) and not isinstance(sample, bool)
        value = number(value) if numeric else text(value)
        if value is None:
            return False
        if isinstance(wanted, bool):
            wanted = "true" if wanted else "false"
    if op == "contains":
        return wanted in value
    if op == "in":
        return value in wanted
    order = {"eq": value == wanted, "gt": False, "gte": False, "lt": False, "lte": False}
    if op != "eq":
        left, right = (value.encode(), wanted.encode()) if isinstance(value, str) else (value, wanted)
        order |= {"gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}
    return order[op]


def measured(rows: list[dict[str, Any]], measure: str) -> Any:
    """The measure over rows."""
    function, _, name = measure.partition(":")
    if function == "events":
        return len(rows)
    if not name:
        column = {"devices": "device_id", "users": "user_id", "sessions": "session_id"}[function]
        return len({row[column] for row in rows} - {None})
    values = sorted(value for row in rows if (value := number(raw(row, name))) is not None)
    if function == "sum":
        return math.fsum(values)
    if not values:
        return None
    if function == "avg":
        return math.fsum(values) / len(values)
    if function in ("min", "max"):
        return values[0] if function == "min" else values[-1]
    return values[math.floor(int(function[1:]) / 100 * (len(values) - 1))]


def trends(rows: list[dict[str, Any]], body: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """(time, and with a breakdown its value) to the measure."""
    start, end, interval = ms(body["from"]), ms(body["to"]), INTERVALS[body.get("interval", "hour")]
    measure, breakdown = body.get("measure", "events"), body.get("breakdown")
    chosen = [
        row
        for row in rows
        if start <= row["timestamp"] < end
        and body.get("event") in (None, row["event"])
        and all(meets(row, condition) for condition in body.get("filters", []))
    ]
    fills = ":" not in measure or measure.startswith("sum:")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    if breakdown is None:
        if fills:
            groups = defaultdict(list, {(iso(at),): [] for at in range(start // interval * interval, end, interval)})
        for row in chosen:
            groups[(iso(row["timestamp"] // interval * interval),)].append(row)
    else:
        by_label: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for row in chosen:
            by_label[text(raw(row, breakdown))].append(row)
        weight = {label: measured(part, measure) if fills else len(part) for label, part in by_label.items()}
        ranked = sorted(by_label, key=lambda label: (-weight[label], label is not None, (label or "").encode()))
        kept = set(ranked[: body.get("limit", 20)])
        for row in chosen:
            label = text(raw(row, breakdown))
            groups[iso(row["timestamp"] // interval * interval), label if label in kept else "other"].append(row)
    return {key: measured(part, measure) for key, part in groups.items()}
