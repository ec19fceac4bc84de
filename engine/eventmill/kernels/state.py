"""States as bytes: a header that names what they belong to, the content, and a checksum."""

from __future__ import annotations

from typing import Any, Final

import orjson
import xxhash

from eventmill.core.errors import StateError

_DIGEST_BYTES: Final = 16


def pack(kind: str, parameters: dict[str, Any], position: dict[str, Any], content: memoryview) -> bytes:
    """A state of ``kind``: ``parameters`` must be equal when it is restored, ``position`` comes back."""
    header = orjson.dumps({"kind": kind, "parameters": parameters, "position": position})
    body = b"".join((len(header).to_bytes(4, "little"), header, content))
    return body + xxhash.xxh3_128_digest(body)


def unpack(kind: str, parameters: dict[str, Any] | None, state: bytes) -> tuple[dict[str, Any], memoryview]:
    """Position and content. Raises ``StateError`` for damage, another kind, or other parameters than given."""
    view = memoryview(state)
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if len(view) < 4 + _DIGEST_BYTES or xxhash.xxh3_128_digest(body) != bytes(digest):
        raise StateError(f"the {kind} state is damaged: its checksum differs; use an older snapshot")
    size = int.from_bytes(body[:4], "little")
    header = orjson.loads(body[4 : 4 + size])
    if header["kind"] != kind:
        raise StateError(f"this is a {header['kind']} state, not a {kind} state")
    if parameters is not None and header["parameters"] != parameters:
        raise StateError(
            f"the {kind} state was taken with {header['parameters']}, the configuration says {parameters}; "
            "set it back, or start with an empty --data folder"
        )
    return header["position"], body[4 + size :]
