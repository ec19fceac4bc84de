"""Translation of csrc/gather.h; eventmill._native.gather is documented in its .pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdlib cimport calloc, free, malloc
from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels cimport (
    EM_GATHER_PADDING,
    em_gather_bits,
    em_gather_fixed,
    em_gather_look,
    em_gather_offsets,
    em_gather_parts_offsets,
    em_gather_parts_strings,
    em_gather_places,
    em_gather_strings,
    em_part,
    em_place,
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


cdef class PartStrings:
    cdef em_part *_parts
    cdef size_t _count
    cdef list _held

    def __cinit__(self, list columns not None):
        cdef Bytes places, content
        cdef em_part *part
        cdef size_t rows, offset
        self._held, self._count = [], len(columns)
        self._parts = <em_part *>calloc(max(self._count, 1), sizeof(em_part))
        if self._parts == NULL:
            raise MemoryError
        for number, (rows, offset, offsets, data) in enumerate(columns):
            places, content = Bytes(offsets, False), Bytes(data, False)
            part = self._parts + <size_t>number
            part.strings.offsets, part.strings.data = <const int32_t *>places.at + offset, content.at
            part.size = content.size
            if (
                places.size // 4 < offset + rows + 1
                or part.strings.offsets[0] < 0
                or part.strings.offsets[0] > part.strings.offsets[rows]
                or <size_t>part.strings.offsets[rows] > content.size
            ):
                raise ValueError("offsets and data are not those of a string column")
            self._held.append((rows, places, content))

    def __dealloc__(self):
        free(self._parts)

    cdef void _check(self, Places places) except *:
        if places.sizes != [held[0] for held in self._held]:
            raise ValueError("the parts of the column must have the rows that the places are counted in")

    def offsets(self, Places places not None, to):
        cdef Bytes given = Bytes(to, True)
        cdef int64_t total
        self._check(places)
        if given.size != <size_t>((places.n + 1) * 4):
            raise ValueError("what is given must have one offset more than rows picked")
        with nogil:
            total = em_gather_parts_offsets(places.places, places.n, self._parts, <int32_t *>given.at)
        return total

    def strings(self, Places places not None, size_t total, to):
        cdef Bytes given = Bytes(to, True)
        self._check(places)
        if given.size < total + EM_GATHER_PADDING:
            raise ValueError(f"what is given must have room for the strings and {EM_GATHER_PADDING} bytes more")
        with nogil:
            em_gather_parts_strings(places.places, places.n, self._parts, total, given.at)


cdef class Places:
    cdef em_place *places
    cdef size_t n
    cdef list sizes

    def __cinit__(self, const int32_t[::1] rows not None, list sizes not None):
        cdef em_rows picked
        cdef size_t total = sum(sizes), count = len(sizes)
        cdef int32_t *starts
        cdef int32_t start = 0
        cdef bint fits
        if total > 0x7FFFFFFF or (count and min(sizes) < 0):
            raise ValueError("parts must have less than 2**31 rows in all")
        self.sizes, self.n = list(sizes), rows.shape[0]
        picked.n, picked.runs, picked.rows = self.n, 0, NULL
        if self.n:
            picked.rows = &rows[0]
        with nogil:
            fits = em_gather_look(&picked, total)
        if not fits:
            raise IndexError(f"rows must be numbers from 0 to {<object>total - 1}")
        self.places = <em_place *>malloc(max(self.n, 1) * sizeof(em_place))
        starts = <int32_t *>malloc(max(count, 1) * sizeof(int32_t))
        try:
            if self.places == NULL or starts == NULL:
                raise MemoryError
            for number in range(count):
                starts[<size_t>number] = start
                start += <int32_t>sizes[number]
            with nogil:
                em_gather_places(picked, starts, count, self.places)
        finally:
            free(starts)

    def __dealloc__(self):
        free(self.places)
