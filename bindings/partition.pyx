"""Translation of csrc/partition.h; eventmill._native.partition is documented in its .pyi."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from kernels cimport (
    EM_SECRET_BYTES,
    EM_TABLE_LINE,
    as_strings,
    as_table,
    em_group_order,
    em_groups,
    em_key_partitions,
    em_murmur2,
    em_slot,
    em_strings,
    em_table,
)

SECRET_BYTES = EM_SECRET_BYTES
SLOT_BYTES = sizeof(em_slot)
LINE_SLOTS = EM_TABLE_LINE


def groups(
    const int32_t[::1] offsets not None,
    const uint8_t[::1] data not None,
    uint8_t[::1] slots not None,
    bytes secret not None,
    int32_t[::1] numbers not None,
    int32_t[::1] firsts not None,
):
    cdef size_t n = offsets.shape[0] - 1, count
    cdef em_strings strings = as_strings(offsets, data)
    cdef em_table table = as_table(slots, secret, n)
    if <size_t>numbers.shape[0] != n or <size_t>firsts.shape[0] != n:
        raise ValueError("numbers and firsts must be as long as the column")
    if n == 0:
        return 0
    with nogil:
        count = em_groups(&table, strings, n, &numbers[0], &firsts[0])
    return count


def order(const int32_t[::1] numbers not None, int64_t[::1] starts not None, int32_t[::1] rows not None):
    cdef size_t n = numbers.shape[0], count = starts.shape[0] - 1
    if <size_t>rows.shape[0] != n:
        raise ValueError("rows must be as long as numbers")
    if n == 0:
        return
    with nogil:
        em_group_order(&numbers[0], n, count, &starts[0], &rows[0])


def murmur2(bytes key not None):
    return em_murmur2(<const uint8_t *>key, len(key))


def key_partitions(
    const int32_t[::1] offsets not None,
    const uint8_t[::1] data not None,
    uint32_t count,
    int32_t[::1] numbers not None,
):
    cdef size_t n = offsets.shape[0] - 1
    cdef em_strings strings = as_strings(offsets, data)
    if <size_t>numbers.shape[0] != n:
        raise ValueError("numbers must be as long as the column")
    if count == 0:
        raise ValueError("there must be at least one partition")
    if n == 0:
        return
    with nogil:
        em_key_partitions(strings, n, count, &numbers[0])
