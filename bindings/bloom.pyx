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
    em_bloom,
    em_bloom_contains,
    em_bloom_hash,
    em_bloom_observe,
    em_enter,
    em_leave,
)

CELLS = EM_BLOOM_CELLS
PROBES = EM_BLOOM_PROBES
SLICES_MAX = EM_BLOOM_SLICES_MAX


cdef size_t count_ids(const uint8_t[::1] ids, Py_ssize_t n) except? 0:
    if ids.shape[0] != n * EM_BLOOM_ID_BYTES:
        raise ValueError("ids must have 16 bytes a row")
    return n


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
        if at_ms.shape[0] != 1 and <size_t>at_ms.shape[0] != n:
            raise ValueError("at must have one value, or one an id")
        if n == 0:
            return
        cdef size_t stride = 0 if at_ms.shape[0] == 1 else 1
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


def hash_ids(const uint8_t[::1] ids not None, uint64_t key0, uint64_t key1, uint64_t[::1] hashes not None):
    cdef size_t n = count_ids(ids, hashes.shape[0])
    if n == 0:
        return
    with nogil:
        em_bloom_hash(&ids[0], n, key0, key1, &hashes[0])
