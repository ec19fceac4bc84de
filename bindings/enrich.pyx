"""Translation of csrc/enrich.h."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t


cdef extern from "enrich.h":
    ctypedef struct em_slot:
        uint32_t tag
        int32_t row

    ctypedef struct em_dimension:
        em_slot *slots
        uint64_t size
        uint64_t seed
        const int32_t *offsets
        const uint8_t *data

    int64_t em_dimension_build(em_dimension *dimension, size_t n) nogil
    void em_dimension_find(
        const em_dimension *dimension, const int32_t *offsets, const uint8_t *data, const uint8_t *valid,
        size_t valid_offset, size_t n, int32_t *rows
    ) nogil


SLOT_BYTES = sizeof(em_slot)


cdef class Dimension:
    cdef em_dimension _dimension
    cdef uint8_t[::1] _slots

    def __init__(self, uint8_t[::1] slots not None, uint64_t seed, uintptr_t offsets, uintptr_t data, size_t n):
        cdef Py_ssize_t size = slots.shape[0] // <Py_ssize_t>sizeof(em_slot)
        if size < 2 or size & (size - 1) or <size_t>size < 2 * n:
            raise ValueError("slots must be a power of two, at least twice the number of keys")
        self._slots = slots
        self._dimension.slots = <em_slot *>&slots[0]
        self._dimension.size = size
        self._dimension.seed = seed
        self._dimension.offsets = <const int32_t *>offsets
        self._dimension.data = <const uint8_t *>data
        cdef int64_t twice
        with nogil:
            twice = em_dimension_build(&self._dimension, n)
        if twice >= 0:
            raise KeyError(twice)

    def find(self, uintptr_t offsets, uintptr_t data, uintptr_t valid, size_t valid_offset, int32_t[::1] rows):
        cdef size_t n = rows.shape[0]
        if n == 0:
            return
        with nogil:
            em_dimension_find(
                &self._dimension, <const int32_t *>offsets, <const uint8_t *>data, <const uint8_t *>valid,
                valid_offset, n, &rows[0]
            )
