"""Processed events as JSON, a message each, for consumers that know nothing of Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pyarrow as pa

from eventmill.core.ids import format_event_id

_RAW_JSON: Final = ("properties", "context")


def messages(events: pa.RecordBatch) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each event (EVENT): the device's id, and an object of the event's columns, nulls left out.

    Times are ISO 8601 in UTC with milliseconds, ids UUIDs; properties and context are the client's own objects.
    """
    for row in events.to_pylist():
        event = {name: _plain(name, value) for name, value in row.items() if value is not None}
        yield row["device_id"].encode(), orjson.dumps(event)


def _plain(name: str, value: Any) -> Any:
    if name in _RAW_JSON:
        return orjson.Fragment(value)
    if isinstance(value, bytes):
        return format_event_id(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # Beyond 2^53 JavaScript would round it.
    return str(value) if name == "session_id" else value
