"""Sessions: 30 minutes of inactivity per device, in event time.

``Sessionizer`` assigns ids as events come, in bounded memory; ``sessions_exact`` computes them over a whole data set. A
session's id is a hash of its device and its start, so both agree wherever the start is the same.
"""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native import sessionize as native
from eventmill.core.clock import parse_duration_ms
from eventmill.core.schema import EVENT
from eventmill.kernels import state
from eventmill.kernels.arrow import as_array, as_batch, string_addresses, times_ms, with_columns

_SLOTS_AT_FIRST: Final = 1 << 12
_FIELD: Final = EVENT.field("session_id")
_NEVER: Final = -(1 << 62)


class Sessionizer:
    """Assigns sessions in log order; events may come out of order and late.

    The two newest sessions of every device active within ``lateness`` (event time) are kept, in at most 64 bytes a device
    at the usual load. An event within ``gap`` of a kept session joins it; one that bridges two joins them under the older's
    id; an older one is a session of its own. Ids given before a start moved or sessions were joined stay as they are: they
    are provisional until the lake's compaction. The state is a function of the rows, whatever the batches were. Not
    thread-safe.

    >>> import pyarrow as pa
    >>> batch = pa.record_batch({"device_id": ["a", "a", "a"], "timestamp": [0, 60_000, 9_000_000]})
    >>> first, second, third = Sessionizer(gap="30m").assign(batch).column("session_id").to_pylist()
    >>> first == second, second == third
    (True, False)
    """

    def __init__(self, gap: str | int = "30m", lateness: str | int = "72h") -> None:
        self.gap_ms = parse_duration_ms(gap)
        self.lateness_ms = parse_duration_ms(lateness)
        self._start(_SLOTS_AT_FIRST, int.from_bytes(os.urandom(8), "little"))

    def _start(self, slots: int, seed: int) -> None:
        self._seed = seed
        self._table = np.zeros(slots * native.DEVICE_BYTES, np.uint8)
        self._native = native.Sessions(self._table, self.gap_ms, seed)

    @property
    def devices(self) -> int:
        """Devices with state."""
        return self._native.used

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self._table.nbytes)

    def assign(self, batch: Any) -> pa.RecordBatch:
        """The batch with ``session_id`` (int64), from its columns ``device_id`` (string) and ``timestamp`` (ms)."""
        rows = as_batch(batch)
        devices = as_array(rows.column("device_id"), pa.string())
        if devices.null_count:
            raise TypeError("device_id must not be null")
        times = times_ms(rows.column("timestamp"))
        ids = np.empty(len(times), np.int64)
        offsets, data = string_addresses(devices)
        done = 0
        while (done := self._native.assign(offsets, data, times, done, self._limit, ids)) < len(times):
            self._make_room()
        return with_columns(rows, {"session_id": (_FIELD, pa.array(ids))})

    @property
    def _limit(self) -> int:
        return self._native.slots * 3 // 4

    def _make_room(self) -> None:
        """Forget devices beyond the lateness horizon; grow when that frees less than half."""
        keep_from = max(self._native.latest - self.lateness_ms, _NEVER)
        kept = self._native.count(keep_from)
        slots = self._native.slots * (2 if kept * 2 > self._limit else 1)
        table = np.zeros(slots * native.DEVICE_BYTES, np.uint8)
        grown = native.Sessions(table, self.gap_ms, self._seed)
        self._native.move_to(grown, keep_from)
        self._table, self._native = table, grown

    def _parameters(self) -> dict[str, Any]:
        return {"gap_ms": self.gap_ms, "lateness_ms": self.lateness_ms}

    def snapshot(self) -> bytes:
        """The whole state with parameters and checksum."""
        position = {"used": self._native.used, "latest": self._native.latest, "seed": self._seed}
        return state.pack("sessions", self._parameters(), position, memoryview(self._table))

    def restore(self, snapshot: bytes) -> None:
        """Replace the state. Raises ``StateError`` when it is damaged or was taken with other parameters."""
        position, content = state.unpack("sessions", self._parameters(), snapshot)
        self._start(len(content) // native.DEVICE_BYTES, position["seed"])
        self._table[:] = np.frombuffer(content, np.uint8)
        self._native.set_position(position["used"], position["latest"])


def sessions_exact(device_id: Any, timestamp: Any, gap_ms: int) -> pa.Int64Array:
    """Session ids (int64) of a whole data set, in the order of its rows, which may be any.

    Per device by time, an event more than ``gap_ms`` after the one before starts a session, whose id is made of the device
    and that event's time. ``device_id``: strings without nulls; ``timestamp``: timestamps or int64 ms.
    """
    devices = as_array(device_id, pa.string())
    times = times_ms(timestamp)
    if len(devices) == 0:
        return pa.array([], pa.int64())
    codes = pc.dictionary_encode(devices).indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((times, codes))
    by_device, by_time = codes[order], times[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (by_device[1:] != by_device[:-1]) | (by_time[1:] - by_time[:-1] > gap_ms)
    first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    starts = np.empty(len(order), np.int64)
    starts[order] = by_time[first]
    return session_ids(devices, starts)


def session_ids(device_id: Any, start_ms: Any) -> pa.Int64Array:
    """The ids of sessions given by device and start (int64, ms since the epoch)."""
    devices = as_array(device_id, pa.string())
    starts = np.ascontiguousarray(start_ms, np.int64)
    ids = np.empty(len(devices), np.int64)
    native.session_ids(*string_addresses(devices), starts, ids)
    return pa.array(ids)
