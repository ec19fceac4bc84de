"""The rotating Bloom filter in plain Python: the same bits, slowly."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

MASK = (1 << 64) - 1
CELLS, SECTIONS, GENERATIONS = 128, 8, 8


def ids_of(numbers):
    return pa.array([int(number).to_bytes(16, "big") for number in numbers], pa.binary(16))


def random_ids(seed, count):
    raw = np.random.default_rng(seed).bytes(16 * count)
    return pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(raw)])


def siphash13(key: bytes, text: bytes) -> int:
    """SipHash-1-3 of any text, after the paper."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(word, bits):
        return (word << bits | word >> (64 - bits)) & MASK

    def one_round():
        v[0] = (v[0] + v[1]) & MASK
        v[2] = (v[2] + v[3]) & MASK
        v[1], v[3] = rotate(v[1], 13) ^ v[0], rotate(v[3], 16) ^ v[2]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[1]) & MASK
        v[0] = (v[0] + v[3]) & MASK
        v[1], v[3] = rotate(v[1], 17) ^ v[2], rotate(v[3], 21) ^ v[0]
        v[2] = rotate(v[2], 32)

    padded = text + bytes(-(len(text) + 1) % 8) + bytes([len(text) & 0xFF])
    for begin in range(0, len(padded), 8):
        word = int.from_bytes(padded[begin : begin + 8], "little")
        v[3] ^= word
        one_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        one_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


class BloomTwin:
    """A set of bits per slice; the newest ``slices`` + 1 are asked."""

    def __init__(self, blocks: int, slices: int, slice_ms: int, secret: bytes) -> None:
        self.blocks, self.slices, self.slice_ms, self.secret = blocks, slices, slice_ms, secret
        self.current: int | None = None
        self.bits: dict[int, set[int]] = {}

    def bits_of(self, one: bytes) -> set[int]:
        hashed = siphash13(self.secret, one)
        block = ((hashed >> 32) * self.blocks) >> 32
        return {
            block * CELLS + section * (CELLS // SECTIONS) + (hashed >> 4 * section & 15) for section in range(SECTIONS)
        }

    def contains(self, one: bytes) -> bool:
        wanted = self.bits_of(one)
        return any(wanted <= bits for bits in self.bits.values())

    def observe(self, one: bytes, at: int) -> bool:
        number = at // self.slice_ms
        if self.current is None or number > self.current:
            self.current = number
            self.bits = {old: bits for old, bits in self.bits.items() if old >= number - self.slices}
        fresh = not self.contains(one)
        self.bits.setdefault(self.current, set()).update(self.bits_of(one))
        return fresh

    def live_cells(self) -> list[int]:
        """The filter's bytes, without the generations that nobody asks."""
        cells = [0] * (self.blocks * CELLS)
        for number, bits in self.bits.items():
            for bit in bits:
                cells[bit] |= 1 << number % GENERATIONS
        return cells

    def live_mask(self) -> int:
        return sum(1 << (self.current - back) % GENERATIONS for back in range(self.slices + 1))
