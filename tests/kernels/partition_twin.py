"""Splitting by name, and Kafka's key hash, in plain Python."""

from __future__ import annotations


def split(values: list[str | None], known: set[str], names_max: int, overflow: str) -> dict[str, list[int]]:
    """Row numbers by bucket, by first appearance; ``known`` grows."""
    parts: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        name = value or ""
        if name not in known and len(known) < names_max:
            known.add(name)
        parts.setdefault(name if name in known else overflow, []).append(row)
    return parts


def murmur2(key: bytes) -> int:
    """After org.apache.kafka.common.utils.Utils.murmur2."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for begin in range(0, whole, 4):
        word = int.from_bytes(key[begin : begin + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        hashed = hashed * multiplier & mask ^ word
    if rest := key[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * multiplier & mask
    hashed = (hashed ^ hashed >> 13) * multiplier & mask
    hashed ^= hashed >> 15
    return hashed - (1 << 32) if hashed >> 31 else hashed
