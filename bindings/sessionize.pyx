"""Translation of csrc/sessionize.h; eventmill._native.sessionize is documented in its .pyi."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from kernels cimport (
    EM_LATENESS_MAX_MS,
    EM_NO_TIME,
    EM_SECRET_BYTES,
    EM_SESSIONS_SPARE,
    as_secret,
    as_strings,
    em_device,
    em_device_hashes,
    em_enter,
    em_leave,
    em_session_ids,
    em_sessions,
    em_sessions_assign,
    em_sessions_enter,
    em_sessions_exact,
    em_sessions_pack,
    em_strings,
    em_visit,
)

DEVICE_BYTES = sizeof(em_device)
VISIT_BYTES = sizeof(em_visit)
BITS_MAX = 24
SECRET_BYTES = EM_SECRET_BYTES
SPARE = EM_SESSIONS_SPARE
LATENESS_MAX_MS = EM_LATENESS_MAX_MS


cdef class Sessions:
    cdef em_sessions _state
    cdef uint8_t[::1] _table
    cdef bytes _secret
    cdef char _busy

    def __cinit__(
        self,
        uint8_t[::1] table not None,
        bytes secret not None,
        int64_t gap_ms,
        int64_t lateness_ms,
        uint64_t devices_max,
        uint64_t evicted=0,
        int64_t latest=EM_NO_TIME,
    ):
        if gap_ms < 0 or not 1 <= lateness_ms <= EM_LATENESS_MAX_MS or devices_max < 1:
            raise ValueError("gap_ms, lateness_ms or devices_max out of range")
        self._secret = secret
        self._state.secret = as_secret(secret)
        self._state.devices_max = devices_max
        self._state.evicted = evicted
        self._state.latest = latest
        self._state.gap_ms = gap_ms
        self._state.lateness_ms = lateness_ms
        self._take(table)

    cdef _take(self, uint8_t[::1] table):
        cdef uint64_t slots = table.shape[0] // sizeof(em_device) - EM_SESSIONS_SPARE
        if table.shape[0] % sizeof(em_device) or not 2 <= slots <= 1ULL << 32 or slots % 2 or <size_t>&table[0] % 64:
            raise ValueError("table must have an even number of slots besides the spare ones, and be aligned to 64 bytes")
        self._table = table
        self._state.devices = <em_device *>&table[0]
        self._state.slots = slots

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

    def enter(self, uint8_t[::1] table not None, const uint8_t[::1] devices not None):
        cdef const em_device *given = <const em_device *>&devices[0] if devices.shape[0] else NULL
        cdef uint64_t count = devices.shape[0] // sizeof(em_device)
        cdef bint done
        em_enter(&self._busy, "Sessions")
        try:
            self._take(table)
            with nogil:
                done = em_sessions_enter(&self._state, given, count)
        finally:
            em_leave(&self._busy)
        return done

    def pack(self):
        cdef bytearray packed
        cdef uint8_t[::1] to
        em_enter(&self._busy, "Sessions")
        try:
            packed = bytearray(self._state.count * sizeof(em_device))
            if len(packed):
                to = packed
                with nogil:
                    em_sessions_pack(&self._state, <em_device *>&to[0])
        finally:
            em_leave(&self._busy)
        return packed

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


def device_hashes(const int32_t[::1] offsets not None, const uint8_t[::1] data not None, uint64_t[::1] hashes not None):
    cdef em_strings devices = as_strings(offsets, data)
    cdef size_t n = offsets.shape[0] - 1
    if <size_t>hashes.shape[0] != n:
        raise ValueError("device ids and hashes must be equally many")
    if n == 0:
        return
    with nogil:
        em_device_hashes(devices, n, &hashes[0])


def exact(
    const uint64_t[::1] devices not None,
    const int64_t[::1] at_ms not None,
    int64_t gap_ms,
    unsigned bits,
    int64_t[::1] starts not None,
    uint8_t[::1] visits not None,
    uint8_t[::1] spare not None,
    int64_t[::1] session_ids not None,
):
    cdef size_t n = devices.shape[0], room = n * sizeof(em_visit)
    if <size_t>at_ms.shape[0] != n or <size_t>session_ids.shape[0] != n:
        raise ValueError("devices, at_ms and session_ids must be equally many")
    if not 1 <= bits <= BITS_MAX or starts.shape[0] != (<Py_ssize_t>1 << bits) + 1:
        raise ValueError(f"bits must be 1 to {BITS_MAX}, and starts 2**bits + 1")
    if <size_t>visits.shape[0] < room or <size_t>spare.shape[0] < room:
        raise ValueError("visits and spare must have room for every row")
    if n == 0:
        return
    with nogil:
        em_sessions_exact(
            &devices[0], &at_ms[0], n, gap_ms, bits, &starts[0], <em_visit *>&visits[0], <em_visit *>&spare[0],
            &session_ids[0]
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
