"""Translation of csrc/partition.h."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t


cdef extern from "partition.h":
    void em_partition_order(const int32_t *codes, size_t n, size_t groups, int64_t *starts, int64_t *order) nogil
    int32_t em_murmur2(const uint8_t *key, size_t length) nogil


def order(const int32_t[::1] codes, int64_t[::1] starts, int64_t[::1] rows):
    cdef size_t n = codes.shape[0], groups = starts.shape[0] - 1
    if <size_t>rows.shape[0] != n:
        raise ValueError("rows must be as long as codes")
    if n == 0:
        return
    with nogil:
        em_partition_order(&codes[0], n, groups, &starts[0], &rows[0])


def murmur2(bytes key not None):
    return em_murmur2(<const uint8_t *>key, len(key))
