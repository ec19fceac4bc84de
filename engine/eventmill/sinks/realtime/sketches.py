"""Rolling up events by minute outside the store's tables, with the states that its own roll-up keeps.

A state leaves ClickHouse as the bytes that it has in a column, and becomes a state again by a cast: so what is rolled up here,
and kept elsewhere, merges with the store's roll-up and with raw events.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.rollup import DISTINCT_TYPES, distinct_merge, distinct_state, restored
from eventmill.sinks.realtime.store import RealtimeStore

_MINUTE_US: Final = 60_000_000
_KEYS: Final = ("event_date", "minute", "event", "platform", "project")
_SETTINGS: Final = {"output_format_arrow_string_as_string": "0"}
_RAW: Final = {"devices": "assumeNotNull(device_id)", "users": "user_id", "sessions": "assumeNotNull(session_id)"}


class Sketches:
    """A ``lake.retire.Roll`` that computes in the store's ClickHouse."""

    def __init__(self, store: RealtimeStore) -> None:
        self._store = store

    def minutes(self, rows: pa.Table) -> pa.Table:
        """Rows by date, minute, event, platform and project: ``events``, and states of ``devices``, ``users``, ``sessions``.

        ``rows`` has ``event_date``, ``timestamp`` (µs) and the columns that are counted. Raises ``StoreError``.
        """
        at = rows.column("timestamp").cast(pa.int64()).to_numpy()
        columns = {
            "event_date": rows.column("event_date").cast(pa.int32()),
            "minute": pa.array(at // _MINUTE_US * _MINUTE_US),
            **{name: _text(rows.column(name)) for name in ("event", "platform", "project", "device_id", "user_id")},
            "session_id": rows.column("session_id"),
        }
        states = ", ".join(_bytes(distinct_state(of), name) for name, of in _RAW.items())
        return self._grouped(pa.table(columns), "count()", states)

    def merged(self, minutes: pa.Table) -> pa.Table:
        """One row for all with the same keys. Raises ``StoreError``."""
        keys = {
            "event_date": minutes.column("event_date").cast(pa.int32()),
            "minute": minutes.column("minute").cast(pa.int64()),
        }
        columns = keys | {name: minutes.column(name) for name in minutes.column_names if name not in keys}
        states = ", ".join(_bytes(distinct_merge(restored(name)), name) for name in DISTINCT_TYPES)
        return self._grouped(pa.table(columns), "sum(assumeNotNull(events))", states)

    def _grouped(self, rows: pa.Table, events: str, states: str) -> pa.Table:
        keys = ", ".join(_KEYS)
        found = self._store.query_rows(
            rows,
            lambda source: (
                f"SELECT {keys}, toInt64({events}) AS counted, {states} FROM (SELECT * REPLACE ({_REPLACED}) FROM {source}) "
                f"GROUP BY {keys} ORDER BY event, minute, platform, project"
            ),
            _SETTINGS,
        )
        if not found.num_rows:
            return _EMPTY
        columns = [
            found.column("event_date").cast(pa.int32()).cast(pa.date32()),
            found.column("minute").cast(pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            *(found.column(name).cast(pa.string()) for name in ("event", "platform", "project")),
            found.column("counted"),
            *(found.column(f"{name}_state").cast(pa.binary()) for name in DISTINCT_TYPES),
        ]
        return pa.Table.from_arrays(columns, _EMPTY.column_names).cast(_EMPTY.schema)


_REPLACED: Final = ", ".join(f"assumeNotNull({name}) AS {name}" for name in ("event_date", "minute", "event"))
_EMPTY: Final = pa.schema(
    [
        pa.field("event_date", pa.date32(), nullable=False),
        pa.field("minute", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("event", pa.string(), nullable=False),
        pa.field("platform", pa.string()),
        pa.field("project", pa.string()),
        pa.field("events", pa.int64(), nullable=False),
        *(pa.field(name, pa.binary(), nullable=False) for name in DISTINCT_TYPES),
    ]
).empty_table()


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_string(column.type) else pc.cast(column, pa.string())


def _bytes(state: str, name: str) -> str:
    return f"unhex(hex({state})) AS {name}_state"
