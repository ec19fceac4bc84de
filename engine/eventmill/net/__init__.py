"""HTTP for every role: a protocol without I/O, and the server round it."""
