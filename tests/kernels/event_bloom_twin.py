"""The Bloom filter by own times in plain Python: the same bits, slowly."""

from __future__ import annotations

import math

from bloom_twin import MASK, BloomTwin, siphash13

MULTIPLIERS = [math.isqrt(prime << 64) & 0xFFFFFFFF | 1 for prime in (2, 3, 5, 7, 11, 13, 17, 19)]
EARLY = 1


class LatePart(BloomTwin):
    """Told the time apart from the ids."""

    def advance(self, at: int) -> None:
        self.current = at // self.slice_ms
        self.bits = {old: bits for old, bits in self.bits.items() if old >= self.current - self.slices}

    def put(self, one: bytes) -> bool:
        fresh = not self.contains(one)
        self.bits.setdefault(self.current, set()).update(self.bits_of(one))
        return fresh


class EventTwin:
    """Slices, lists and late part as dictionaries by number of the slice."""

    def __init__(self, shape, secret: bytes) -> None:
        self.shape, self.secret = shape, secret
        self.late = LatePart(shape.late_blocks, shape.late_slices, shape.late_slice_ms, secret)
        self.current: int | None = None
        self.slices: dict[int, set[tuple[int, int]]] = {}
        self.ahead: dict[int, list[bytes]] = {}

    def bits_of(self, one: bytes) -> set[tuple[int, int]]:
        """(word of the slice, bit)"""
        hashed = siphash13(self.secret, one)
        block = (hashed >> 32) * self.shape.blocks >> 32
        low = hashed & 0xFFFFFFFF
        return {(block * 8 + word, (low * factor & 0xFFFFFFFF) >> 26) for word, factor in enumerate(MULTIPLIERS)}

    def in_slice(self, one: bytes, number: int) -> bool:
        return self.bits_of(one) <= self.slices.get(number, set())

    def put(self, one: bytes, number: int) -> bool:
        fresh = not self.in_slice(one, number)
        self.slices.setdefault(number, set()).update(self.bits_of(one))
        return fresh

    def advance(self, at: int) -> None:
        number = at // self.shape.slice_ms
        if self.current is not None and number <= self.current:
            return
        opened = number + EARLY if self.current is None else self.current + EARLY
        self.current = number
        self.late.advance(number * self.shape.slice_ms)
        self.slices = {old: bits for old, bits in self.slices.items() if old >= self.oldest()}
        for ahead in sorted(self.ahead):
            if ahead < number - self.shape.lateness:
                del self.ahead[ahead]
            elif opened < ahead <= number + EARLY:
                for one in self.ahead[ahead][: self.shape.list_max]:
                    self.put(one, ahead)

    def oldest(self) -> int:
        return self.current - self.shape.lateness - self.shape.window

    def has_short_list(self, number: int) -> bool:
        return len(self.ahead.get(number, [])) > self.shape.list_max

    def observe(self, one: bytes, at: int, own: int | None) -> bool:
        self.advance(at)
        number = None if own is None else own // self.shape.slice_ms
        if number is None or number < self.oldest():
            return self.late.put(one)
        if number < self.current - self.shape.lateness:
            seen = self.in_slice(one, number)
            return self.late.put(one) and not seen
        if number <= self.current + EARLY:
            asked = self.has_short_list(number) and self.late.contains(one)
            return self.put(one, number) and not asked
        if number <= self.current + EARLY + self.shape.window:
            self.ahead.setdefault(number, []).append(one)
        return self.late.put(one)

    def words(self, number: int) -> list[int]:
        found = [0] * (self.shape.blocks * 8)
        for word, bit in self.slices.get(number, ()):
            found[word] |= 1 << bit & MASK
        return found
