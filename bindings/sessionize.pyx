"""Translation of csrc/sessionize.h."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t


cdef extern from "sessionize.h":
    ctypedef struct em_session:
        int64_t first

    ctypedef struct em_device:
        uint64_t key

    ctypedef struct em_sessions:
        em_device *devices
        uint64_t slots
        uint64_t used
        int64_t latest
        int64_t gap_ms
        uint64_t seed

    ctypedef struct em_strings:
        const int32_t *offsets
        const uint8_t *data

    size_t em_sessions_assign(
        em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n, uint64_t limit,
        int64_t *session_ids
    ) nogil
    void em_sessions_move(const em_sessions *source, em_sessions *to, int64_t keep_from_ms) nogil
    uint64_t em_sessions_count(const em_sessions *state, int64_t keep_from_ms) nogil
    void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids) nogil


DEVICE_BYTES = sizeof(em_device)


cdef class Sessions:
    cdef em_sessions _state
    cdef uint8_t[::1] _table

    def __init__(self, uint8_t[::1] table not None, int64_t gap_ms, uint64_t seed):
        cdef Py_ssize_t slots = table.shape[0] // <Py_ssize_t>sizeof(em_device)
        if slots < 2 or slots & (slots - 1) or table.shape[0] % <Py_ssize_t>sizeof(em_device):
            raise ValueError("the table must have a power of two of slots")
        self._table = table
        self._state.devices = <em_device *>&table[0]
        self._state.slots = slots
        self._state.used = 0
        self._state.latest = -0x7FFFFFFFFFFFFFFF - 1
        self._state.gap_ms = gap_ms
        self._state.seed = seed

    @property
    def slots(self):
        return self._state.slots

    @property
    def used(self):
        return self._state.used

    @property
    def latest(self):
        return self._state.latest

    def set_position(self, uint64_t used, int64_t latest):
        self._state.used = used
        self._state.latest = latest

    def assign(self, uintptr_t offsets, uintptr_t data, const int64_t[::1] at_ms, size_t begin, uint64_t limit,
               int64_t[::1] session_ids):
        cdef size_t n = at_ms.shape[0], done
        if <size_t>session_ids.shape[0] != n:
            raise ValueError("session_ids must be as long as at_ms")
        if limit >= self._state.slots:
            raise ValueError("limit must be below the number of slots")
        if n == 0:
            return 0
        cdef em_strings devices
        devices.offsets = <const int32_t *>offsets
        devices.data = <const uint8_t *>data
        with nogil:
            done = em_sessions_assign(&self._state, devices, &at_ms[0], begin, n, limit, &session_ids[0])
        return done

    def count(self, int64_t keep_from_ms):
        cdef uint64_t found
        with nogil:
            found = em_sessions_count(&self._state, keep_from_ms)
        return found

    def move_to(self, Sessions to not None, int64_t keep_from_ms):
        with nogil:
            em_sessions_move(&self._state, &to._state, keep_from_ms)
        to._state.latest = self._state.latest


def session_ids(uintptr_t offsets, uintptr_t data, const int64_t[::1] starts_ms, int64_t[::1] ids):
    cdef size_t n = starts_ms.shape[0]
    if <size_t>ids.shape[0] != n:
        raise ValueError("ids must be as long as starts_ms")
    if n == 0:
        return
    cdef em_strings devices
    devices.offsets = <const int32_t *>offsets
    devices.data = <const uint8_t *>data
    with nogil:
        em_session_ids(devices, &starts_ms[0], n, &ids[0])
