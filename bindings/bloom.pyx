"""Translation of csrc/bloom.h; eventmill._native.bloom is documented in its .pyi."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kernels cimport (
    EM_BLOOM_CELLS,
    EM_BLOOM_GENERATIONS,
    EM_BLOOM_ID_BYTES,
    EM_BLOOM_NO_SLICE,
    EM_BLOOM_PROBES,
    EM_BLOOM_SLICES_MAX,
    EM_EVENT_BLOOM_EARLY,
    EM_EVENT_BLOOM_SPARE,
    EM_EVENT_BLOOM_WORDS,
    em_bloom,
    em_bloom_contains,
    em_bloom_hash,
    em_bloom_observe,
    em_enter,
    em_leave,
    em_event_bloom,
    em_event_bloom_contains,
    em_event_bloom_observe,
    em_event_bloom_sweep,
)

CELLS = EM_BLOOM_CELLS
PROBES = EM_BLOOM_PROBES
SLICES_MAX = EM_BLOOM_SLICES_MAX
WORDS = EM_EVENT_BLOOM_WORDS
BLOCK_BYTES = EM_EVENT_BLOOM_WORDS * 8
SLOTS_BESIDES = EM_EVENT_BLOOM_EARLY + EM_EVENT_BLOOM_SPARE


cdef size_t count_ids(const uint8_t[::1] ids, Py_ssize_t n) except? 0:
    if ids.shape[0] != n * EM_BLOOM_ID_BYTES:
        raise ValueError("ids must have 16 bytes a row")
    return n


cdef size_t stride_of(const int64_t[::1] times, size_t n) except? 0:
    if times.shape[0] != 1 and <size_t>times.shape[0] != n:
        raise ValueError("times must be one value, or one an id")
    return 0 if times.shape[0] == 1 else 1


cdef class Bloom:
    cdef em_bloom _bloom
    cdef uint8_t[::1] _cells
    cdef char _busy

    def __cinit__(self, uint8_t[::1] cells not None, uint64_t key0, uint64_t key1, uint32_t slices, int64_t slice_ms):
        cdef size_t blocks = cells.shape[0] // EM_BLOOM_CELLS
        if blocks < 1 or blocks > 0xFFFFFFFF or cells.shape[0] % EM_BLOOM_CELLS:
            raise ValueError("cells must hold a whole number of blocks, 1 to 2**32 - 1")
        if not 1 <= slices <= EM_BLOOM_SLICES_MAX or slice_ms < 1:
            raise ValueError("slices or slice_ms out of range")
        self._cells = cells
        self._bloom.cells = &cells[0]
        self._bloom.blocks = blocks
        self._bloom.key[0] = key0
        self._bloom.key[1] = key1
        self._bloom.slices = slices
        self._bloom.slice_ms = slice_ms
        self._bloom.slice = EM_BLOOM_NO_SLICE

    def position(self):
        return self._bloom.slice, self._bloom.swept, [self._bloom.ids[i] for i in range(EM_BLOOM_GENERATIONS)]

    def set_position(self, int64_t slice_number, uint64_t swept, list ids not None):
        if swept > self._bloom.blocks or len(ids) != EM_BLOOM_GENERATIONS:
            raise ValueError("swept or ids out of range")
        self._bloom.slice = slice_number
        self._bloom.swept = swept
        for i in range(EM_BLOOM_GENERATIONS):
            self._bloom.ids[i] = ids[i]

    def observe(self, const uint8_t[::1] ids not None, const int64_t[::1] at_ms not None, uint8_t[::1] fresh not None):
        cdef size_t n = count_ids(ids, fresh.shape[0])
        cdef size_t stride = stride_of(at_ms, n)
        if n == 0:
            return
        em_enter(&self._busy, "Bloom")
        with nogil:
            em_bloom_observe(&self._bloom, &ids[0], &at_ms[0], stride, n, &fresh[0])
        em_leave(&self._busy)

    def contains(self, const uint8_t[::1] ids not None, uint8_t[::1] seen not None):
        cdef size_t n = count_ids(ids, seen.shape[0])
        if n == 0:
            return
        em_enter(&self._busy, "Bloom")
        with nogil:
            em_bloom_contains(&self._bloom, &ids[0], n, &seen[0])
        em_leave(&self._busy)


cdef class EventBloom:
    cdef em_event_bloom _bloom
    cdef char _busy
    cdef uint8_t[::1] _memory
    cdef uint64_t[::1] _ids, _waiting

    def __init__(
        self,
        uint8_t[::1] memory not None,
        uint64_t[::1] ids not None,
        uint64_t[::1] waiting not None,
        uint64_t key0,
        uint64_t key1,
        shape,
    ):
        cdef em_event_bloom *bloom = &self._bloom
        bloom.blocks, bloom.list_max, bloom.slice_ms = shape.blocks, shape.list_max, shape.slice_ms
        bloom.window, bloom.lateness, bloom.slots = shape.window, shape.lateness, shape.slots
        bloom.late.blocks, bloom.late.slice_ms, bloom.late.slices = (
            shape.late_blocks, shape.late_slice_ms, shape.late_slices
        )
        if bloom.window < 1 or bloom.slots != bloom.window + bloom.lateness + SLOTS_BESIDES:
            raise ValueError("window or slots out of range")
        if not 1 <= bloom.late.slices <= EM_BLOOM_SLICES_MAX or bloom.late.slice_ms < 1 or bloom.slice_ms < 1:
            raise ValueError("late_slices, late_slice_ms or slice_ms out of range")
        if bloom.blocks < 1 or not 1 <= bloom.late.blocks <= 0xFFFFFFFF:
            raise ValueError("blocks or late_blocks out of range")
        cdef size_t late_bytes = bloom.late.blocks * EM_BLOOM_CELLS
        cdef size_t word_bytes = <size_t>bloom.slots * bloom.blocks * EM_EVENT_BLOOM_WORDS * 8
        if <size_t>memory.shape[0] != late_bytes + word_bytes + bloom.slots * bloom.list_max * 8:
            raise ValueError("memory does not fit the shape")
        if ids.shape[0] != bloom.slots or waiting.shape[0] != bloom.slots or <size_t>&memory[0] % 64:
            raise ValueError("ids and waiting must have a number a slot, and memory be aligned to 64 bytes")
        self._memory, self._ids, self._waiting = memory, ids, waiting
        bloom.late.cells = &memory[0]
        bloom.words = <uint64_t *>(&memory[0] + late_bytes)
        bloom.lists = bloom.words + word_bytes // 8
        bloom.ids, bloom.waiting = &ids[0], &waiting[0]
        bloom.late.key[0], bloom.late.key[1] = key0, key1
        bloom.slice = bloom.late.slice = EM_BLOOM_NO_SLICE

    def position(self):
        late = self._bloom.late.slice, self._bloom.late.swept, [
            self._bloom.late.ids[i] for i in range(EM_BLOOM_GENERATIONS)
        ]
        return self._bloom.slice, self._bloom.latest, late

    def set_position(self, int64_t slice_number, int64_t latest, late not None):
        self._bloom.late.slice, self._bloom.late.swept = late[0], late[1]
        for i in range(EM_BLOOM_GENERATIONS):
            self._bloom.late.ids[i] = late[2][i]
        self._bloom.slice, self._bloom.latest, self._bloom.swept = slice_number, latest, 0
        em_event_bloom_sweep(&self._bloom)

    def observe(
        self,
        const uint8_t[::1] ids not None,
        const int64_t[::1] at_ms not None,
        const int64_t[::1] own_ms not None,
        uint8_t[::1] fresh not None,
    ):
        cdef size_t n = count_ids(ids, fresh.shape[0])
        cdef size_t at_stride = stride_of(at_ms, n), own_stride = stride_of(own_ms, n)
        if n == 0:
            return
        em_enter(&self._busy, "EventBloom")
        with nogil:
            em_event_bloom_observe(&self._bloom, &ids[0], &at_ms[0], at_stride, &own_ms[0], own_stride, n, &fresh[0])
        em_leave(&self._busy)

    def contains(
        self, const uint8_t[::1] ids not None, const int64_t[::1] own_ms not None, uint8_t[::1] seen not None
    ):
        cdef size_t n = count_ids(ids, seen.shape[0])
        cdef size_t own_stride = stride_of(own_ms, n)
        if n == 0:
            return
        em_enter(&self._busy, "EventBloom")
        with nogil:
            em_event_bloom_contains(&self._bloom, &ids[0], &own_ms[0], own_stride, n, &seen[0])
        em_leave(&self._busy)


def hash_ids(const uint8_t[::1] ids not None, uint64_t key0, uint64_t key1, uint64_t[::1] hashes not None):
    cdef size_t n = count_ids(ids, hashes.shape[0])
    if n == 0:
        return
    with nogil:
        em_bloom_hash(&ids[0], n, key0, key1, &hashes[0])
