"""Translation of csrc/decode.h."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

import pyarrow as pa

from kernels cimport em_enter, em_leave

from eventmill.core.errors import BodyError, EventmillError
from eventmill.core.schema import RAW, REJECT


cdef extern from "decode.h":
    struct ArrowArray:
        void (*release)(ArrowArray *) noexcept nogil

    ctypedef enum em_type:
        pass

    ctypedef enum em_status:
        EM_OK
        EM_NOT_JSON
        EM_NOT_A_BATCH
        EM_DECODER_FULL
        EM_NO_MEMORY

    ctypedef struct em_decode_limits:
        size_t event_bytes_max
        size_t event_name_bytes_max
        unsigned depth_max
        int64_t age_max_ms
        uint64_t seed

    ctypedef struct em_decoded:
        size_t accepted
        size_t rejected
        const uint8_t *write_key
        size_t write_key_bytes
        size_t offset
        const char *what

    ctypedef struct em_decoder:
        pass

    const char *em_decoder_implementation()
    em_decoder *em_decoder_new(const em_decode_limits *limits) nogil
    void em_decoder_free(em_decoder *decoder) nogil
    em_status em_decoder_append(em_decoder *decoder, const uint8_t *body, size_t length, int64_t received_at_ms,
                                em_type type, em_decoded *out) nogil
    void em_decoder_salt(em_decoder *decoder, uint64_t salt) nogil
    void em_decoder_rollback(em_decoder *decoder) nogil
    size_t em_decoder_rows(const em_decoder *decoder) nogil
    size_t em_decoder_reject_rows(const em_decoder *decoder) nogil
    size_t em_decoder_nbytes(const em_decoder *decoder) nogil
    em_status em_decoder_finish(em_decoder *decoder, ArrowArray *events, ArrowArray *rejects) nogil


cdef extern from "timestamp.h":
    int64_t EM_TIME_MS_MIN
    int64_t EM_TIME_MS_MAX
    int em_timestamp_parse(const uint8_t *text, size_t length, int64_t *ms) nogil


IMPLEMENTATION = em_decoder_implementation().decode()
cdef dict TYPES = {None: 0, "track": 1, "screen": 2, "page": 3, "identify": 4, "group": 5, "alias": 6}
#: What is kept in the context lies up to two levels deeper there, and JSON readers stop at 1024.
cdef unsigned DEPTH_MAX = 1000
cdef str EXAMPLE = 'send {"batch": [{"type": "track", "event": "Opened", "userId": "u1"}]}'


cdef void _drop_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef class _Columns:
    """An array that Arrow takes over by the Arrow PyCapsule interface."""

    cdef object _schema
    cdef object _capsule
    cdef ArrowArray *_array

    def __cinit__(self, schema):
        self._schema = schema
        self._array = <ArrowArray *>malloc(sizeof(ArrowArray))
        if self._array == NULL:
            raise MemoryError()
        self._array.release = NULL
        self._capsule = PyCapsule_New(self._array, "arrow_array", _drop_array)

    def __arrow_c_array__(self, requested_schema=None):
        return self._schema.__arrow_c_schema__(), self._capsule


cdef class Decoder:
    cdef em_decoder *_decoder
    cdef char _busy

    def __cinit__(self, *, size_t event_bytes_max=32768, size_t event_name_bytes_max=256, unsigned depth_max=64,
                  int64_t age_max_ms=730 * 86_400_000):
        if not 1 <= depth_max <= DEPTH_MAX:
            raise ValueError(f"depth_max is {depth_max}; it takes 1 to {DEPTH_MAX}")
        cdef em_decode_limits limits
        limits.event_bytes_max = event_bytes_max
        limits.event_name_bytes_max = event_name_bytes_max
        limits.depth_max = depth_max
        limits.age_max_ms = age_max_ms
        limits.seed = int.from_bytes(os.urandom(8), "little")
        self._decoder = em_decoder_new(&limits)
        if self._decoder == NULL:
            raise MemoryError()

    def __dealloc__(self):
        em_decoder_free(self._decoder)

    cdef int _enter(self) except -1:
        return em_enter(&self._busy, "Decoder")

    def append(self, body, int64_t received_at_ms, type=None):
        if type not in TYPES:
            raise ValueError(f"type is {type!r}; it takes track, screen, page, identify, group, alias or None")
        if not EM_TIME_MS_MIN <= received_at_ms <= EM_TIME_MS_MAX:
            raise ValueError(f"received_at_ms is {received_at_ms}; it takes milliseconds of the years 1 to 9999")
        cdef em_type kind = <em_type><int>TYPES[type]
        cdef Py_buffer view
        cdef em_decoded done
        cdef em_status status
        PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
        try:
            self._enter()
            with nogil:
                status = em_decoder_append(self._decoder, <const uint8_t *>view.buf, <size_t>view.len, received_at_ms,
                                           kind, &done)
            em_leave(&self._busy)
        finally:
            PyBuffer_Release(&view)
        if status != EM_OK:
            _refuse(status, &done)
        cdef object write_key = None
        if done.write_key != NULL:
            write_key = done.write_key[:done.write_key_bytes].decode()
        return done.accepted, done.rejected, write_key

    def salt(self, uint64_t salt):
        self._enter()
        em_decoder_salt(self._decoder, salt)
        em_leave(&self._busy)

    def rollback(self):
        self._enter()
        em_decoder_rollback(self._decoder)
        em_leave(&self._busy)

    @property
    def rows(self):
        return em_decoder_rows(self._decoder)

    @property
    def reject_rows(self):
        return em_decoder_reject_rows(self._decoder)

    @property
    def nbytes(self):
        return em_decoder_nbytes(self._decoder)

    def finish(self):
        cdef _Columns events = _Columns(RAW), rejects = _Columns(REJECT)
        self._enter()
        cdef em_status status = em_decoder_finish(self._decoder, events._array, rejects._array)
        em_leave(&self._busy)
        if status != EM_OK:
            raise MemoryError("the decoder cannot hand its rows over")
        return pa.record_batch(events), pa.record_batch(rejects)


cdef int _refuse(em_status status, em_decoded *done) except -1:
    if status == EM_NOT_JSON:
        raise BodyError(f"the body is not JSON: at byte {done.offset} {done.what.decode()}; {EXAMPLE}", done.offset)
    if status == EM_NOT_A_BATCH:
        raise BodyError(f"the body is not a batch of events: {done.what.decode()}; {EXAMPLE}", done.offset)
    if status == EM_DECODER_FULL:
        raise EventmillError("the decoder would hold over 1 GiB of one column; call finish() before the next append()")
    raise MemoryError("the decoder cannot hold another body")


def parse_timestamp(text not None):
    cdef bytes encoded = text.encode() if isinstance(text, str) else bytes(text)
    cdef int64_t ms
    return ms if em_timestamp_parse(<const uint8_t *><char *>encoded, len(encoded), &ms) else None
