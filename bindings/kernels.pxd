"""The C headers of the kernels over columns, and string columns as they take them."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "strings.h" nogil:
    int EM_SECRET_BYTES
    int EM_TABLE_LINE

    ctypedef struct em_strings:
        const int32_t *offsets
        const uint8_t *data

    ctypedef struct em_slot:
        uint32_t number_next

    ctypedef struct em_table:
        em_slot *slots
        uint64_t size
        const uint8_t *secret


cdef extern from "bloom.h" nogil:
    int EM_BLOOM_CELLS
    int EM_BLOOM_PROBES
    int EM_BLOOM_GENERATIONS
    int EM_BLOOM_SLICES_MAX
    int EM_BLOOM_ID_BYTES
    int64_t EM_BLOOM_NO_SLICE

    ctypedef struct em_bloom:
        uint8_t *cells
        uint64_t blocks
        uint64_t key[2]
        int64_t slice_ms
        uint32_t slices
        int64_t slice
        uint64_t swept
        uint64_t ids[8]

    void em_bloom_observe(
        em_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride, size_t n, uint8_t *fresh
    )
    void em_bloom_contains(const em_bloom *bloom, const uint8_t *ids, size_t n, uint8_t *seen)
    void em_bloom_hash(const uint8_t *ids, size_t n, uint64_t key0, uint64_t key1, uint64_t *hashes)


cdef extern from "event_bloom.h" nogil:
    int EM_EVENT_BLOOM_WORDS
    int EM_EVENT_BLOOM_EARLY
    int EM_EVENT_BLOOM_SPARE
    int64_t EM_NO_OWN_TIME

    ctypedef struct em_event_bloom:
        uint64_t *words
        uint64_t *lists
        uint64_t *ids
        uint64_t *waiting
        em_bloom late
        uint64_t list_max
        int64_t slice_ms
        uint32_t blocks
        uint32_t window
        uint32_t lateness
        uint32_t slots
        int64_t slice
        int64_t latest
        uint64_t swept

    void em_event_bloom_observe(
        em_event_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride, const int64_t *own_ms,
        size_t own_stride, size_t n, uint8_t *fresh
    )
    void em_event_bloom_contains(
        const em_event_bloom *bloom, const uint8_t *ids, const int64_t *own_ms, size_t own_stride, size_t n,
        uint8_t *seen
    )
    void em_event_bloom_sweep(em_event_bloom *bloom)


cdef extern from "sessionize.h" nogil:
    int64_t EM_NO_TIME
    int64_t EM_LATENESS_MAX_MS
    uint64_t EM_SESSIONS_SPARE

    ctypedef struct em_device:
        uint64_t key

    ctypedef struct em_visit:
        uint64_t device
        int64_t at_ms
        int64_t row

    ctypedef struct em_sessions:
        em_device *devices
        uint64_t slots
        uint64_t count
        uint64_t devices_max
        uint64_t evicted
        int64_t latest
        int64_t gap_ms
        int64_t lateness_ms
        const uint8_t *secret

    size_t em_sessions_assign(
        em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n, int64_t *session_ids
    )
    bint em_sessions_enter(em_sessions *state, const em_device *devices, uint64_t n)
    void em_sessions_pack(const em_sessions *state, em_device *to)
    void em_device_hashes(em_strings devices, size_t n, uint64_t *hashes)
    void em_sessions_exact(
        const uint64_t *devices, const int64_t *at_ms, size_t n, int64_t gap_ms, unsigned bits, int64_t *starts,
        em_visit *visits, em_visit *spare, int64_t *session_ids
    )
    void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids)


cdef extern from "enrich.h" nogil:
    int64_t em_dimension_build(const em_table *table, em_strings keys, const int32_t *numbers, size_t n)
    void em_dimension_find(
        const em_table *table, em_strings values, const uint8_t *valid, size_t valid_offset, size_t n, int32_t missing,
        int32_t *found
    )
    void em_dimension_gather(const int32_t *found, size_t n, const int32_t *codes_of, int32_t *codes, uint8_t *valid)
    void em_dimension_flags(
        const int32_t *found, size_t n, int32_t missing, int32_t flag, const int32_t *flags, int32_t *flagged
    )


cdef extern from "partition.h" nogil:
    size_t em_groups(const em_table *table, em_strings strings, size_t n, int32_t *groups, int32_t *firsts)
    void em_group_order(const int32_t *groups, size_t n, size_t count, int64_t *starts, int32_t *order)
    int32_t em_murmur2(const uint8_t *key, size_t length)
    void em_key_partitions(em_strings strings, size_t n, uint32_t count, int32_t *numbers)


cdef extern from "schema.h" nogil:
    ctypedef struct em_schema_node:
        pass
    ctypedef struct em_schema_key:
        pass
    ctypedef struct em_schema_value:
        pass
    ctypedef struct em_schema:
        const em_schema_node *nodes
        const em_schema_key *keys
        const em_schema_value *values
        const uint8_t *text
    ctypedef struct em_schema_deferred:
        int32_t *rows
        int32_t *nodes
        int32_t *begins
        int32_t *ends
        size_t capacity

    size_t em_schema_check(
        const em_schema *schema, const int32_t *offsets, const uint8_t *data, const int32_t *rows, size_t n, uint8_t *passes,
        em_schema_deferred *deferred
    )


cdef extern from "gather.h" nogil:
    int EM_GATHER_PADDING

    ctypedef struct em_rows:
        const int32_t *rows
        size_t n
        size_t runs

    bint em_gather_look(em_rows *picked, size_t limit)
    bint em_gather_fixed(em_rows picked, const uint8_t *source, size_t width, uint8_t *to)
    size_t em_gather_bits(em_rows picked, const uint8_t *source, size_t offset, uint8_t *to)
    int64_t em_gather_offsets(em_rows picked, em_strings source, int32_t *offsets)
    void em_gather_strings(em_rows picked, em_strings source, size_t size, size_t total, uint8_t *to)


cdef extern from "gather_parts.h" nogil:
    ctypedef struct em_part:
        em_strings strings
        size_t size

    ctypedef struct em_place:
        int32_t part
        int32_t row

    void em_gather_places(em_rows picked, const int32_t *starts, size_t count, em_place *places)
    int64_t em_gather_parts_offsets(const em_place *places, size_t n, const em_part *parts, int32_t *offsets)
    void em_gather_parts_strings(const em_place *places, size_t n, const em_part *parts, size_t total, uint8_t *to)


cdef inline em_strings as_strings(const int32_t[::1] offsets, const uint8_t[::1] data) except *:
    """A column of ``len(offsets) - 1`` strings; ``data`` has at least one byte, which may lie beyond the last string."""
    cdef Py_ssize_t n = offsets.shape[0] - 1
    if n < 0 or data.shape[0] < 1 or offsets[0] < 0 or offsets[n] > data.shape[0] or offsets[0] > offsets[n]:
        raise ValueError("offsets and data are not those of a string column")
    cdef em_strings strings
    strings.offsets = &offsets[0]
    strings.data = &data[0]
    return strings


cdef inline const uint8_t *as_secret(bytes secret) except NULL:
    """The bytes of a secret, which must outlive their use."""
    if len(secret) != EM_SECRET_BYTES:
        raise ValueError(f"the secret must have {EM_SECRET_BYTES} bytes")
    return <const uint8_t *>secret


cdef inline em_table as_table(uint8_t[::1] slots, bytes secret, size_t strings_max) except *:
    """A table in ``slots``: the bytes of whole lines of slots, more than there are strings. Both must outlive it."""
    cdef size_t size = slots.shape[0] // sizeof(em_slot)
    if size < 1 or size % EM_TABLE_LINE or size <= strings_max or slots.shape[0] % <Py_ssize_t>sizeof(em_slot):
        raise ValueError(f"slots must be a multiple of {EM_TABLE_LINE}, above the number of strings")
    cdef em_table table
    table.slots = <em_slot *>&slots[0]
    table.size = size
    table.secret = as_secret(secret)
    return table


cdef extern from *:
    """
    static inline int em_taken(char *busy) { return __atomic_exchange_n(busy, 1, __ATOMIC_ACQUIRE); }
    static inline void em_leave(char *busy) { __atomic_store_n(busy, 0, __ATOMIC_RELEASE); }
    """
    int em_taken(char *busy) noexcept nogil
    void em_leave(char *busy) noexcept nogil


cdef inline int em_enter(char *busy, str name) except -1:
    """Claims an object for a call, atomically, since there may be no GIL; em_leave gives it back."""
    if em_taken(busy):
        raise RuntimeError(f"a {name} serves one thread at a time; give each thread its own")
    return 0
