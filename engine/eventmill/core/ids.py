"""Event ids as bytes and as text."""

from __future__ import annotations

import re
from typing import Final

import xxhash

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_HEX: Final = re.compile(r"[0-9a-fA-F]{32}")


def parse_event_id(text: str) -> bytes:
    """The 16 bytes of an event id: a UUID's or 32 hex digits' own bytes, the XXH3-128 digest of any other message id."""
    if _UUID.fullmatch(text) or _HEX.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    digest: bytes = xxhash.xxh3_128_digest(text.encode())
    return digest


def format_event_id(raw: bytes) -> str:
    """16 bytes in the spelling of a UUID."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
