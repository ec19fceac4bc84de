"""Sessions: 30 minutes of inactivity per device, in event time.

``Sessionizer`` assigns ids as events come, in bounded memory; ``sessions_exact`` computes them over a whole data set. A
session's id is a hash of its device and its start (``session_ids``), so both agree wherever the start is the same.
"""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill._native import sessionize as native
from eventmill.core.clock import parse_duration_ms
from eventmill.core.errors import StateError
from eventmill.core.schema import EVENT
from eventmill.kernels import state
from eventmill.kernels.arrow import Int64s, Strings, as_array, as_batch, column, strings, times_ms, with_columns
from eventmill.kernels.memory import zeroed

_SLOTS_AT_FIRST: Final = 1 << 12
_GROWTH: Final = 1.4
_DEVICES_MAX: Final = (1 << 31) - 1
#: Of ``sessions_exact``; a bucket of so many is sorted while it is in the nearest cache.
_ROWS_A_BUCKET: Final = 16
_FIELD: Final = EVENT.field("session_id")


class Sessionizer:
    """Assigns sessions in log order; events may come out of order and late.

    The two newest sessions of a device are kept. An event within ``gap`` of one of them joins it; one that bridges both
    joins them under the older's id; another is a session of its own. A session keeps the id that it began with: where a
    late event moves a start or bridges sessions, ids given before stay as they are. So they are provisional, and the exact
    ones are computed when the lake is compacted (``sessions_exact``).

    Time is the newest ``timestamp`` seen, so timestamps must be bounded beforehand (ingest clamps them to a minute after
    receipt). Devices idle for longer than ``lateness`` are forgotten, an eighth of it later at most. ``max_devices`` bounds
    the state: when yet another device comes, the eighth idle longest is forgotten early, and counted in ``evicted``. A device
    takes 32 bytes, and its share of the free slots another 11 to 28. ``lateness`` may be 20 days at most, and a session is
    cut when it is longer than 24. The state is a function of the rows, whatever the batches were. Not thread-safe.

    >>> import pyarrow as pa
    >>> batch = pa.record_batch({"device_id": ["a", "a", "a"], "timestamp": [0, 60_000, 9_000_000]})
    >>> first, second, third = Sessionizer(gap="30m").assign(batch).column("session_id").to_pylist()
    >>> first == second, second == third
    (True, False)
    """

    def __init__(self, gap: str | int = "30m", lateness: str | int = "72h", max_devices: int = 20_000_000) -> None:
        if not 1 <= max_devices <= _DEVICES_MAX:
            raise ValueError(f"max_devices must be between 1 and {_DEVICES_MAX:,}")
        self.gap_ms = parse_duration_ms(gap)
        self.lateness_ms = parse_duration_ms(lateness)
        if not 1 <= self.lateness_ms <= native.LATENESS_MAX_MS:
            raise ValueError(
                f"lateness must be between 1ms and {native.LATENESS_MAX_MS // 86_400_000}d, not {lateness}"
            )
        self.max_devices = max_devices
        self._secret = os.urandom(native.SECRET_BYTES)
        self._table = _table(_SLOTS_AT_FIRST)
        self._native = native.Sessions(self._table, self._secret, self.gap_ms, self.lateness_ms, max_devices)

    @property
    def devices(self) -> int:
        """Devices with state."""
        return self._native.count

    @property
    def evicted(self) -> int:
        """Devices forgotten early because ``max_devices`` were known."""
        return self._native.evicted

    @property
    def nbytes(self) -> int:
        """Bytes of memory for the devices that there are."""
        return (self._native.slots + native.SPARE) * native.DEVICE_BYTES

    def assign(self, batch: Any) -> pa.RecordBatch:
        """The batch with ``session_id`` (int64), from its columns ``device_id`` (string) and ``timestamp`` (ms).

        Raises ``TypeError`` or ``ValueError`` when a column is missing, null or of another type; nothing is assigned then.
        """
        rows = as_batch(batch)
        devices = _devices(column(rows, "device_id"))
        times = times_ms(column(rows, "timestamp"))
        ids = np.empty(len(times), np.int64)
        done = 0
        while (done := self._native.assign(*devices, times, done, ids)) < len(times):
            self._grow()
        return with_columns(rows, {"session_id": (_FIELD, pa.array(ids))})

    def _grow(self) -> None:
        """A larger table: one pass over the old one, which is in the new one's order."""
        old, entered = self._table, False
        while not entered:
            self._table = _table(int(self._native.slots * _GROWTH) // 2 * 2)
            entered = self._native.enter(self._table, old)

    def _parameters(self) -> dict[str, Any]:
        return {"gap_ms": self.gap_ms, "lateness_ms": self.lateness_ms}

    def snapshot(self) -> bytes:
        """The whole state with parameters, secret and checksum."""
        position = {
            "slots": self._native.slots,
            "evicted": self._native.evicted,
            "latest": self._native.latest,
            "secret": self._secret.hex(),
        }
        return state.pack("sessions", self._parameters(), position, memoryview(self._native.pack()))

    def restore(self, snapshot: bytes) -> None:
        """Replace the state. Raises ``StateError`` when it is damaged, has other parameters, or too many devices."""
        position, content = state.unpack("sessions", self._parameters(), snapshot)
        count, rest = divmod(len(content), native.DEVICE_BYTES)
        if rest:
            raise StateError("the sessions state is damaged: it has another size; use an older snapshot")
        if count > self.max_devices:
            raise StateError(f"the sessions state has {count:,} devices; raise max_devices ({self.max_devices:,})")
        self._secret = bytes.fromhex(position["secret"])
        self._table = _table(position["slots"])
        self._native = native.Sessions(
            self._table,
            self._secret,
            self.gap_ms,
            self.lateness_ms,
            self.max_devices,
            position["evicted"],
            position["latest"],
        )
        self._native.enter(self._table, np.frombuffer(content, np.uint8))


def _table(slots: int) -> npt.NDArray[np.uint8]:
    return zeroed((slots + native.SPARE) * native.DEVICE_BYTES)


def _devices(device_id: Any) -> Strings:
    devices = as_array(device_id, pa.string())
    if devices.null_count:
        raise TypeError("device_id must not be null")
    return strings(devices)


def sessions_exact(device_id: Any, timestamp: Any, gap_ms: int) -> pa.Int64Array:
    """Session ids (int64) of a whole data set, in the order of its rows, which may be any.

    Per device by time, an event more than ``gap_ms`` after the one before starts a session, whose id is made of the device
    and that event's time. ``device_id``: strings without nulls; ``timestamp``: timestamps or int64 ms. Takes 64 bytes a row
    while it runs. Raises ``TypeError`` or ``ValueError`` for anything else.
    """
    hashes, times = device_hashes(device_id), times_ms(timestamp)
    if len(hashes) != len(times):
        raise ValueError(f"device_id and timestamp must be equally many, not {len(hashes)} and {len(times)}")
    return pa.array(sessions_of_hashes(hashes, times, gap_ms))


def device_hashes(device_id: Any) -> npt.NDArray[np.uint64]:
    """XXH3-64 of each device's bytes: what of a device its sessions' ids are made of, so it stands for the device.

    Among 100 million devices any two have the same with a probability of 0.03 %.
    """
    offsets, data = _devices(device_id)
    hashes = np.empty(len(offsets) - 1, np.uint64)
    native.device_hashes(offsets, data, hashes)
    return hashes


def sessions_of_hashes(devices: npt.NDArray[np.uint64], times: Int64s, gap_ms: int) -> Int64s:
    """As ``sessions_exact``, of devices given by their hashes and times in ms (within 2**61 of the epoch)."""
    count = len(devices)
    bits = min(max(count // _ROWS_A_BUCKET, 1).bit_length(), native.BITS_MAX)
    ids = np.empty(count, np.int64)
    starts = np.zeros((1 << bits) + 1, np.int64)
    visits = np.empty(count * native.VISIT_BYTES, np.uint8)
    spare = np.empty_like(visits)
    native.exact(devices, times, gap_ms, bits, starts, visits, spare, ids)
    return ids


def session_ids(device_id: Any, start_ms: Any) -> pa.Int64Array:
    """The ids of sessions given by device and start (timestamps or int64 ms since the epoch).

    XXH3-64 of 16 bytes, top bit cleared: XXH3-64 of the device's bytes, and the start, both little-endian.
    """
    devices, starts = _devices(device_id), times_ms(start_ms)
    ids = np.empty(len(starts), np.int64)
    native.session_ids(*devices, starts, ids)
    return pa.array(ids)
