"""Translation of csrc/gather.h; eventmill._native.gather is documented in its .pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels cimport (
    EM_GATHER_PADDING,
    em_gather_bits,
    em_gather_fixed,
    em_gather_look,
    em_gather_offsets,
    em_gather_strings,
    em_rows,
    em_strings,
)

PADDING = EM_GATHER_PADDING


cdef class Bytes:
    """An object's bytes while this lives: a batch has many columns, and typed memory views would cost more than some."""
    cdef Py_buffer _view
    cdef uint8_t *at
    cdef size_t size

    def __cinit__(self, object of, bint written):
        PyObject_GetBuffer(of, &self._view, PyBUF_WRITABLE if written else PyBUF_SIMPLE)
        self.at, self.size = <uint8_t *>self._view.buf, self._view.len

    def __dealloc__(self):
        PyBuffer_Release(&self._view)


cdef class Rows:
    cdef em_rows _picked
    cdef const int32_t[::1] _rows
    cdef size_t _limit

    def __cinit__(self, const int32_t[::1] rows not None, size_t limit):
        cdef bint fits
        self._rows, self._limit = rows, limit
        self._picked.n = rows.shape[0]
        if self._picked.n:
            self._picked.rows = &rows[0]
        with nogil:
            fits = em_gather_look(&self._picked, limit)
        if not fits:
            raise IndexError(f"rows must be numbers from 0 to {<object>limit - 1}")

    def fixed(self, source, size_t offset, size_t width, to):
        cdef Bytes values = Bytes(source, False), given = Bytes(to, True)
        cdef bint known
        if values.size < (offset + self._limit) * width or given.size != self._picked.n * width:
            raise ValueError("source must have a value for each row, and what is given one for each row picked")
        with nogil:
            known = em_gather_fixed(self._picked, values.at + offset * width, width, given.at)
        if not known:
            raise ValueError(f"values must have 1, 2, 4, 8 or 16 bytes, not {width}")

    def bits(self, source, size_t offset, to):
        cdef Bytes bitmap = Bytes(source, False), given = Bytes(to, True)
        cdef size_t count
        if bitmap.size * 8 < offset + self._limit or given.size * 8 < self._picked.n:
            raise ValueError("source must have a bit for each row, and what is given one for each row picked")
        with nogil:
            count = em_gather_bits(self._picked, bitmap.at, offset, given.at)
        return count

    cdef em_strings _strings(self, Bytes offsets, size_t offset, Bytes data) except *:
        cdef em_strings strings
        strings.offsets = <const int32_t *>offsets.at + offset
        strings.data = data.at
        if offsets.size // 4 < offset + self._limit + 1:
            raise ValueError("offsets must be one more than rows")
        if (
            strings.offsets[0] < 0
            or strings.offsets[0] > strings.offsets[self._limit]
            or <size_t>strings.offsets[self._limit] > data.size
        ):
            raise ValueError("offsets and data are not those of a string column")
        return strings

    def offsets(self, offsets, size_t offset, data, to):
        cdef Bytes places = Bytes(offsets, False), content = Bytes(data, False), given = Bytes(to, True)
        cdef em_strings source = self._strings(places, offset, content)
        cdef int64_t total
        if given.size != (self._picked.n + 1) * 4:
            raise ValueError("what is given must have one offset more than rows picked")
        with nogil:
            total = em_gather_offsets(self._picked, source, <int32_t *>given.at)
        return total

    def strings(self, offsets, size_t offset, data, size_t total, to):
        cdef Bytes places = Bytes(offsets, False), content = Bytes(data, False), given = Bytes(to, True)
        cdef em_strings source = self._strings(places, offset, content)
        if given.size < total + EM_GATHER_PADDING:
            raise ValueError(f"what is given must have room for the strings and {EM_GATHER_PADDING} bytes more")
        with nogil:
            em_gather_strings(self._picked, source, content.size, total, given.at)
