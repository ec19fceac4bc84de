"""Translation of csrc/schema.h; eventmill._native.schema is documented in its .pyi."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t

from kernels cimport (
    em_schema,
    em_schema_check,
    em_schema_deferred,
    em_schema_key,
    em_schema_node,
    em_schema_value,
)

NODE_BYTES = sizeof(em_schema_node)
KEY_BYTES = sizeof(em_schema_key)
VALUE_BYTES = sizeof(em_schema_value)


def check(
    const uint8_t[::1] nodes not None,
    const uint8_t[::1] keys not None,
    const uint8_t[::1] values not None,
    const uint8_t[::1] text not None,
    const int32_t[::1] offsets not None,
    const uint8_t[::1] data not None,
    const int32_t[::1] rows,
    uint8_t[::1] passes not None,
    int32_t[:, ::1] deferred not None,
):
    cdef size_t n = passes.shape[0], found
    cdef em_schema schema
    cdef em_schema_deferred room
    cdef const int32_t *chosen = NULL
    if nodes.shape[0] == 0 or nodes.shape[0] % NODE_BYTES or keys.shape[0] % KEY_BYTES or values.shape[0] % VALUE_BYTES:
        raise ValueError("the compiled schema has parts of a wrong size")
    if deferred.shape[0] != 4 or deferred.shape[1] == 0:
        raise ValueError("deferred must have 4 rows and some room")
    if (rows is None and offsets.shape[0] - 1 != <Py_ssize_t>n) or (rows is not None and rows.shape[0] != <Py_ssize_t>n):
        raise ValueError("passes must be as long as the rows")
    if n == 0:
        return 0
    if rows is not None:
        chosen = &rows[0]
    schema.nodes = <const em_schema_node *>&nodes[0]
    schema.keys = <const em_schema_key *>(&keys[0] if keys.shape[0] else NULL)
    schema.values = <const em_schema_value *>(&values[0] if values.shape[0] else NULL)
    schema.text = &text[0]
    room.rows, room.nodes, room.begins, room.ends = &deferred[0, 0], &deferred[1, 0], &deferred[2, 0], &deferred[3, 0]
    room.capacity = deferred.shape[1]
    with nogil:
        found = em_schema_check(&schema, &offsets[0], &data[0], chosen, n, &passes[0], &room)
    return found
