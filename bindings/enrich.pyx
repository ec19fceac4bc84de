"""Translation of csrc/enrich.h; eventmill._native.enrich is documented in its .pyi."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels cimport (
    EM_SECRET_BYTES,
    EM_TABLE_LINE,
    as_strings,
    as_table,
    em_dimension_build,
    em_dimension_find,
    em_dimension_flags,
    em_dimension_gather,
    em_slot,
    em_strings,
    em_table,
)

SECRET_BYTES = EM_SECRET_BYTES
SLOT_BYTES = sizeof(em_slot)
LINE_SLOTS = EM_TABLE_LINE


cdef class Dimension:
    cdef em_table _table
    cdef bytes _secret
    cdef uint8_t[::1] _slots

    def __cinit__(
        self,
        const int32_t[::1] offsets not None,
        const uint8_t[::1] data not None,
        const int32_t[::1] numbers not None,
        uint8_t[::1] slots not None,
        bytes secret not None,
    ):
        cdef em_strings keys = as_strings(offsets, data)
        cdef size_t n = offsets.shape[0] - 1
        cdef int64_t twice = -1
        self._slots, self._secret = slots, secret
        self._table = as_table(slots, secret, n)
        if <size_t>numbers.shape[0] != n:
            raise ValueError("numbers must be as long as the column")
        if n:
            with nogil:
                twice = em_dimension_build(&self._table, keys, &numbers[0], n)
        if twice >= 0:
            raise KeyError(twice)

    def find(
        self,
        const int32_t[::1] offsets not None,
        const uint8_t[::1] data not None,
        const uint8_t[::1] valid,
        size_t valid_offset,
        int32_t missing,
        int32_t[::1] found not None,
    ):
        cdef em_strings values = as_strings(offsets, data)
        cdef size_t n = offsets.shape[0] - 1
        cdef const uint8_t *bitmap = NULL
        if <size_t>found.shape[0] != n:
            raise ValueError("found must be as long as the column")
        if n == 0:
            return
        if valid is not None:
            if <size_t>valid.shape[0] * 8 < valid_offset + n:
                raise ValueError("valid must have a bit for each value")
            bitmap = &valid[0]
        with nogil:
            em_dimension_find(&self._table, values, bitmap, valid_offset, n, missing, &found[0])


def gather(
    const int32_t[::1] found not None,
    const int32_t[::1] codes_of not None,
    int32_t[::1] codes not None,
    uint8_t[::1] valid not None,
):
    cdef size_t n = found.shape[0], i
    cdef int32_t most = -1, least = 0
    if <size_t>codes.shape[0] != n or <size_t>valid.shape[0] * 8 < n:
        raise ValueError("codes must be as long as found, valid have a bit for each")
    if n == 0:
        return
    with nogil:
        for i in range(n):
            most, least = max(most, found[i]), min(least, found[i])
        if least >= 0 and most < codes_of.shape[0]:
            em_dimension_gather(&found[0], n, &codes_of[0], &codes[0], &valid[0])
    if least < 0 or most >= codes_of.shape[0]:
        raise ValueError("found must be numbers of codes_of")


def flagged(
    const int32_t[::1] found not None,
    int32_t missing,
    int32_t flag,
    const int32_t[::1] flags not None,
    int32_t[::1] given not None,
):
    cdef size_t n = found.shape[0]
    if <size_t>flags.shape[0] != n or <size_t>given.shape[0] != n:
        raise ValueError("found, flags and what is given must be equally many")
    if n:
        with nogil:
            em_dimension_flags(&found[0], n, missing, flag, &flags[0], &given[0])
