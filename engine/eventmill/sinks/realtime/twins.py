"""The rescue lane's exact look-up."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.schema import EVENT_ID
from eventmill.sinks.realtime.clients import Connections

#: A retry of the same event has nearly the same corrected time: the clock's correction differs by the transit.
_AROUND_MS: Final = 3_600_000
#: Stretches of time to look into; more scattered suspects are looked for everywhere at once.
_STRETCHES_MAX: Final = 8


class Twins:
    """Looks ids up in a table of events."""

    def __init__(self, clients: Connections, table: str) -> None:
        self._clients = clients
        self._table = table

    def contains(self, ids: pa.Array, events: pa.Array, timestamps: pa.Array) -> pa.BooleanArray:
        """See ``RealtimeStore.contains``.

        First where a twin most likely is, by event name and time, which reads little; then the rest everywhere.
        """
        suspects = pa.table({"event_id": ids.cast(EVENT_ID), "event": events, "at": timestamps.cast(pa.int64())})
        found = pa.array([], EVENT_ID)
        times = suspects.column("at").to_numpy()
        stretches = _stretches(times)
        if len(stretches) <= _STRETCHES_MAX:
            for start, end in stretches:
                near = suspects.filter(pa.array((times >= start) & (times <= end)))
                found = pa.concat_arrays([found, self._near(near, start - _AROUND_MS, end + _AROUND_MS)])
        rest = suspects.filter(pc.invert(pc.is_in(suspects.column("event_id"), value_set=found)))
        if rest.num_rows:
            found = pa.concat_arrays([found, self._anywhere(rest)])
        return pc.is_in(ids.cast(EVENT_ID), value_set=found)

    def _near(self, suspects: pa.Table, from_ms: int, to_ms: int) -> pa.Array:
        source = self._clients.source
        return _ids(
            self._clients.query(
                f"SELECT DISTINCT event_id FROM {self._table} "
                f"WHERE event IN (SELECT assumeNotNull(event) FROM {source}) "
                "AND timestamp BETWEEN fromUnixTimestamp64Milli({from_ms:Int64}) "
                "AND fromUnixTimestamp64Milli({to_ms:Int64}) "
                f"AND event_id IN (SELECT assumeNotNull(event_id) FROM {source})",
                {"from_ms": from_ms, "to_ms": to_ms},
                rows=suspects,
            )
        )

    def _anywhere(self, suspects: pa.Table) -> pa.Array:
        return _ids(
            self._clients.query(
                f"SELECT DISTINCT event_id FROM {self._table} "
                f"WHERE event_id IN (SELECT assumeNotNull(event_id) FROM {self._clients.source})",
                rows=suspects,
            )
        )


def _ids(table: pa.Table) -> pa.Array:
    return table.column(0).cast(EVENT_ID).combine_chunks() if table.num_rows else pa.array([], EVENT_ID)


def _stretches(times: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[tuple[int, int]]:
    """(first, last) of each run of times with no gap of more than two looks around."""
    if not len(times):
        return []
    ordered = np.sort(times)
    gaps = np.flatnonzero(np.diff(ordered) > 2 * _AROUND_MS)
    return list(zip(ordered[np.r_[0, gaps + 1]].tolist(), ordered[np.r_[gaps, len(ordered) - 1]].tolist(), strict=True))
