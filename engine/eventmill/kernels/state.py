"""States as bytes: magic and version, a header that names what they belong to, the content, and a checksum."""

from __future__ import annotations

import sys
from typing import Any, Final

import orjson
import xxhash

from eventmill.core.errors import StateError

_MAGIC: Final = b"EVMSTAT1"
_SIZE_BYTES: Final = 4
_DIGEST_BYTES: Final = 16


def pack(kind: str, parameters: dict[str, Any], position: dict[str, Any], content: memoryview) -> bytes:
    """A state of ``kind``: ``parameters`` must be equal when it is restored, ``position`` comes back.

    Layout: magic with version (8 bytes), length of the header (4, little-endian), header (JSON), content, XXH3-128 of all
    that (16).
    """
    described = {"kind": kind, "byteorder": sys.byteorder, "parameters": parameters, "position": position}
    header = orjson.dumps(described)
    parts: list[bytes | memoryview] = [_MAGIC, len(header).to_bytes(_SIZE_BYTES, "little"), header, content]
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()])


def unpack(kind: str, parameters: dict[str, Any], state: bytes) -> tuple[dict[str, Any], memoryview]:
    """Position and content. Raises ``StateError`` for damage, another kind or version, or other parameters than given."""
    view = memoryview(state)
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    begin = len(_MAGIC) + _SIZE_BYTES
    if len(body) < begin or xxhash.xxh3_128_digest(body) != bytes(digest):
        raise StateError(f"the {kind} state is damaged: its checksum differs; use an older snapshot")
    if bytes(body[: len(_MAGIC)]) != _MAGIC:
        raise StateError(
            f"the {kind} state is of another version; fold the log again, or start with an empty --data folder"
        )
    end = begin + int.from_bytes(body[len(_MAGIC) : begin], "little")
    header = orjson.loads(body[begin:end])
    if header["kind"] != kind:
        raise StateError(f"this is a {header['kind']} state, not a {kind} state; restore each where it belongs")
    if header["byteorder"] != sys.byteorder:
        raise StateError(
            f"the {kind} state comes from a {header['byteorder']}-endian machine; restore it on such a one"
        )
    if header["parameters"] != parameters:
        raise StateError(
            f"the {kind} state was taken with {header['parameters']}, the configuration says {parameters}; "
            "set it back, or start with an empty --data folder"
        )
    return header["position"], body[end:]
