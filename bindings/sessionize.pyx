"""Translation of csrc/sessionize.h; eventmill._native.sessionize is documented in its .pyi."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from kernels cimport (
    EM_NO_TIME,
    EM_SECRET_BYTES,
    as_secret,
    as_strings,
    em_device,
    em_enter,
    em_leave,
    em_moment,
    em_session_ids,
    em_sessions,
    em_sessions_assign,
    em_sessions_exact,
    em_sessions_reindex,
    em_strings,
)

DEVICE_BYTES = sizeof(em_device)
MOMENT_BYTES = sizeof(em_moment)
SECRET_BYTES = EM_SECRET_BYTES


cdef class Sessions:
    cdef em_sessions _state
    cdef uint8_t[::1] _devices
    cdef uint64_t[::1] _index
    cdef bytes _secret
    cdef char _busy

    def __cinit__(
        self,
        uint8_t[::1] devices not None,
        uint64_t[::1] index not None,
        bytes secret not None,
        int64_t gap_ms,
        int64_t lateness_ms,
        uint32_t count=0,
        uint64_t evicted=0,
        int64_t latest=EM_NO_TIME,
    ):
        cdef Py_ssize_t room = devices.shape[0] // <Py_ssize_t>sizeof(em_device)
        if not 1 <= room <= 0x7FFFFFFF or count > room or gap_ms < 0 or lateness_ms < 1:
            raise ValueError("devices, count, gap_ms or lateness_ms out of range")
        self._secret = secret
        self._state.secret = as_secret(secret)
        self._devices = devices
        self._state.devices = <em_device *>&devices[0]
        self._state.devices_max = room
        self._state.count = count
        self._state.evicted = evicted
        self._state.latest = latest
        self._state.gap_ms = gap_ms
        self._state.lateness_ms = lateness_ms
        self.reindex(index)

    @property
    def slots(self):
        return self._state.slots

    @property
    def count(self):
        return self._state.count

    @property
    def evicted(self):
        return self._state.evicted

    @property
    def latest(self):
        return self._state.latest

    def reindex(self, uint64_t[::1] index not None):
        cdef size_t slots = index.shape[0]
        em_enter(&self._busy, "Sessions")
        if slots < 4 or slots & (slots - 1) or slots <= self._state.count:
            em_leave(&self._busy)
            raise ValueError("index must have a power of two of slots, more than there are devices")
        self._index = index
        with nogil:
            em_sessions_reindex(&self._state, &index[0], slots)
        em_leave(&self._busy)

    def assign(
        self,
        const int32_t[::1] offsets not None,
        const uint8_t[::1] data not None,
        const int64_t[::1] at_ms not None,
        size_t begin,
        int64_t[::1] session_ids not None,
    ):
        cdef em_strings devices = as_strings(offsets, data)
        cdef size_t n = offsets.shape[0] - 1, done
        if <size_t>at_ms.shape[0] != n or <size_t>session_ids.shape[0] != n:
            raise ValueError("device ids, at_ms and session_ids must be equally many")
        if n == 0:
            return 0
        em_enter(&self._busy, "Sessions")
        with nogil:
            done = em_sessions_assign(&self._state, devices, &at_ms[0], begin, n, &session_ids[0])
        em_leave(&self._busy)
        return done


def exact(
    const int32_t[::1] offsets not None,
    const uint8_t[::1] data not None,
    const int32_t[::1] groups not None,
    const int32_t[::1] firsts not None,
    const int64_t[::1] at_ms not None,
    int64_t gap_ms,
    int64_t[::1] starts not None,
    uint8_t[::1] moments not None,
    uint8_t[::1] spare not None,
    int64_t[::1] session_ids not None,
):
    cdef em_strings devices = as_strings(offsets, data)
    cdef size_t n = offsets.shape[0] - 1, room = n * sizeof(em_moment), count = firsts.shape[0]
    if <size_t>at_ms.shape[0] != n or <size_t>session_ids.shape[0] != n or <size_t>groups.shape[0] != n:
        raise ValueError("device ids, groups, at_ms and session_ids must be equally many")
    if <size_t>moments.shape[0] < room or <size_t>spare.shape[0] < room or <size_t>starts.shape[0] != count + 1:
        raise ValueError("moments and spare must have room for every row, starts for every device and one more")
    if n == 0:
        return
    with nogil:
        em_sessions_exact(
            devices, &groups[0], &firsts[0], count, &at_ms[0], n, gap_ms, &starts[0], <em_moment *>&moments[0],
            <em_moment *>&spare[0], &session_ids[0]
        )


def session_ids(
    const int32_t[::1] offsets not None,
    const uint8_t[::1] data not None,
    const int64_t[::1] starts_ms not None,
    int64_t[::1] ids not None,
):
    cdef em_strings devices = as_strings(offsets, data)
    cdef size_t n = offsets.shape[0] - 1
    if <size_t>starts_ms.shape[0] != n or <size_t>ids.shape[0] != n:
        raise ValueError("device ids, starts_ms and ids must be equally many")
    if n == 0:
        return
    with nogil:
        em_session_ids(devices, &starts_ms[0], n, &ids[0])
