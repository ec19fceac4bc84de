"""Translation of csrc/bloom.h: buffers in, lengths checked by the caller in eventmill.kernels.bloom."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t


cdef extern from "bloom.h":
    int EM_BLOOM_WORDS
    int EM_BLOOM_SECRET_BYTES

    ctypedef struct em_bloom:
        uint32_t *words
        const uint8_t *secret
        uint64_t blocks
        uint32_t generations
        int64_t slice_ms
        int64_t slice
        uint64_t inserted

    void em_bloom_observe(
        em_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride, size_t n, uint8_t *fresh
    ) nogil
    void em_bloom_contains(const em_bloom *bloom, const uint8_t *ids, size_t n, uint8_t *seen) nogil


SECRET_BYTES = EM_BLOOM_SECRET_BYTES
WORDS = EM_BLOOM_WORDS


cdef class Bloom:
    cdef em_bloom _bloom
    cdef uint32_t[::1] _words
    cdef bytes _secret

    def __init__(self, uint32_t[::1] words not None, bytes secret not None, uint32_t generations, int64_t slice_ms):
        if len(secret) != EM_BLOOM_SECRET_BYTES or generations < 2 or slice_ms < 1:
            raise ValueError("secret, generations or slice_ms out of range")
        cdef Py_ssize_t per_block = generations * EM_BLOOM_WORDS
        if words.shape[0] == 0 or words.shape[0] % per_block or words.shape[0] // per_block > 0xFFFFFFFF:
            raise ValueError("words must hold a whole number of blocks, at most 2**32 - 1")
        self._words = words
        self._secret = secret
        self._bloom.words = &words[0]
        self._bloom.secret = <const uint8_t *>secret
        self._bloom.blocks = words.shape[0] // per_block
        self._bloom.generations = generations
        self._bloom.slice_ms = slice_ms
        self._bloom.slice = -0x7FFFFFFFFFFFFFFF - 1
        self._bloom.inserted = 0

    @property
    def slice(self):
        return self._bloom.slice

    @property
    def inserted(self):
        return self._bloom.inserted

    def set_position(self, int64_t slice_number, uint64_t inserted):
        self._bloom.slice = slice_number
        self._bloom.inserted = inserted

    def observe(self, uintptr_t ids, const int64_t[::1] at_ms, uint8_t[::1] fresh):
        cdef size_t n = fresh.shape[0]
        if at_ms.shape[0] != 1 and <size_t>at_ms.shape[0] != n:
            raise ValueError("at must have one value, or one an id")
        if n == 0:
            return
        cdef size_t stride = 0 if at_ms.shape[0] == 1 else 1
        with nogil:
            em_bloom_observe(&self._bloom, <const uint8_t *>ids, &at_ms[0], stride, n, &fresh[0])

    def contains(self, uintptr_t ids, uint8_t[::1] seen):
        cdef size_t n = seen.shape[0]
        if n == 0:
            return
        with nogil:
            em_bloom_contains(&self._bloom, <const uint8_t *>ids, n, &seen[0])
