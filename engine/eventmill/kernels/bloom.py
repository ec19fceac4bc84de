"""Deduplication in bounded memory: which ids were seen within the last 24 hours?

The window is cut into S slices and S + 1 filters are kept, so an id is remembered for one to one and a slice's share more
than the window. All filters are asked, so with a false-positive rate f for each full one the rate over the whole window is
at most (S + 1) f; each filter is therefore sized for f = fpr / (S + 1) at capacity / S ids.

The rate of one split-block filter of N blocks (256 bits, 8 words, one bit a word) holding n ids: a block holds k ids with
the Poisson probability P(k; n / N), a word of 32 bits then has a given bit set with probability 1 - (31/32)^k, and the
eight words are independent:

    f(N) = sum over k of P(k; n / N) * (1 - (31/32)^k)^8

(Putze, Sanders, Singler, 2007). ``blocks_for`` solves f(N) = f for N. The eight multiply-shifts of one hash are not quite
independent: measured rates lie about 6 % above the formula, so filters are sized for MARGIN of what is asked.
"""

from __future__ import annotations

import math
import os
from typing import Any, Final

import numpy as np
import pyarrow as pa

from eventmill._native import bloom as native
from eventmill.core.clock import parse_duration_ms
from eventmill.core.schema import EVENT_ID
from eventmill.kernels import state
from eventmill.kernels.arrow import as_array, ids_address, times_ms

_WORD_BITS: Final = 32
_BLOCK_BYTES: Final = 32
_BLOCKS_MAX: Final = 0xFFFFFFFF
MARGIN: Final = 0.85


def false_positive_rate(blocks: int, ids: int) -> float:
    """f(N) of the module's text for one filter of ``blocks`` blocks holding ``ids`` ids."""
    mean = ids / blocks
    rate, probability = 0.0, math.exp(-mean)
    for k in range(int(mean + 12 * math.sqrt(mean) + 30)):
        rate += probability * (1 - (1 - 1 / _WORD_BITS) ** k) ** native.WORDS
        probability *= mean / (k + 1)
    return rate


def blocks_for(ids: int, rate: float) -> int:
    """The fewest blocks that keep one filter's rate at or below ``rate`` with ``ids`` ids in it."""
    low, high = max(1, ids // 128), max(2, ids)
    while false_positive_rate(high, ids) > rate:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        if false_positive_rate(middle, ids) <= rate:
            high = middle
        else:
            low = middle + 1
    return low


class RotatingBloom:
    """A Bloom filter over the last ``window``: never forgets an id within it, errs for ``fpr`` of new ids at full load.

    ``capacity`` is the number of ids within the window. Time comes from the ids' own ``at`` only, as a running maximum, so
    the state is a function of what was observed, whatever the batches were. The hash is keyed by ``secret`` (192 random
    bytes by default), so nobody who lacks it can choose ids that collide. Not thread-safe.

    >>> import pyarrow as pa
    >>> bloom = RotatingBloom(capacity=1_000)
    >>> ids = pa.array([b"0123456789abcdef", b"0123456789abcdef"], pa.binary(16))
    >>> bloom.observe(ids, at=pa.array([0, 0])).to_pylist()
    [True, False]
    """

    def __init__(
        self,
        capacity: int,
        fpr: float = 0.001,
        window: str | int = "24h",
        slices: int = 6,
        secret: bytes | None = None,
    ) -> None:
        if not (capacity >= 1 and 0 < fpr < 1 and 1 <= slices <= 64):
            raise ValueError("capacity must be at least 1, fpr between 0 and 1, slices between 1 and 64")
        self.capacity, self.fpr, self.slices = capacity, fpr, slices
        self.window_ms = parse_duration_ms(window)
        self.slice_ms = -(-self.window_ms // slices)
        self.generations = slices + 1
        self.blocks = blocks_for(-(-capacity // slices), MARGIN * fpr / self.generations)
        if self.blocks > _BLOCKS_MAX:
            raise ValueError(f"capacity {capacity:,} is too large for one filter")
        self._start(os.urandom(native.SECRET_BYTES) if secret is None else secret)

    def _start(self, secret: bytes) -> None:
        self._secret = secret
        self._words = np.zeros(self.blocks * self.generations * native.WORDS, np.uint32)
        self._native = native.Bloom(self._words, secret, self.generations, self.slice_ms)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self._words.nbytes)

    @property
    def bits_per_id(self) -> float:
        """Bits for each of ``capacity`` ids, over the whole window."""
        return self.nbytes * 8 / self.capacity

    @property
    def load(self) -> float:
        """Ids in the current slice, as a share of what it is sized for."""
        return self._native.inserted * self.slices / self.capacity

    def describe(self) -> str:
        """One line for people."""
        return (
            f"Bloom filter: {self.nbytes / 2**20:,.1f} MiB for {self.capacity:,} ids within "
            f"{self.window_ms / 3_600_000:g} h ({self.slices} + 1 slices, {self.bits_per_id:.1f} bits an id, "
            f"false positives at most {self.fpr:.2%} over the window)"
        )

    def observe(self, ids: Any, at: Any) -> pa.BooleanArray:
        """True for each id not seen within the window before (an earlier row of the same call counts as seen).

        ``ids``: fixed_size_binary(16) without nulls. ``at``: when each was received, timestamps or int64 ms since the epoch,
        as many as ids or one for all.
        """
        array = as_array(ids, EVENT_ID)
        times = times_ms(at if isinstance(at, (pa.Array, pa.ChunkedArray)) or np.ndim(at) else [at])
        fresh = np.empty(len(array), np.uint8)
        self._native.observe(ids_address(array), times, fresh)
        return pa.array(fresh.view(np.bool_))

    def contains(self, ids: Any) -> pa.BooleanArray:
        """True for each id that may have been seen; changes nothing."""
        array = as_array(ids, EVENT_ID)
        seen = np.empty(len(array), np.uint8)
        self._native.contains(ids_address(array), seen)
        return pa.array(seen.view(np.bool_))

    def _parameters(self) -> dict[str, Any]:
        return {"capacity": self.capacity, "fpr": self.fpr, "window_ms": self.window_ms, "slices": self.slices}

    def snapshot(self) -> bytes:
        """The whole state with parameters, secret and checksum."""
        position = {
            "slice": self._native.slice,
            "inserted": self._native.inserted,
            "secret": self._secret.hex(),
        }
        return state.pack("bloom", self._parameters(), position, memoryview(self._words).cast("B"))

    def restore(self, snapshot: bytes) -> None:
        """Replace the state. Raises ``StateError`` when it is damaged or was taken with other parameters."""
        position, content = state.unpack("bloom", self._parameters(), snapshot)
        self._start(bytes.fromhex(position["secret"]))
        self._words[:] = np.frombuffer(content, np.uint32)
        self._native.set_position(position["slice"], position["inserted"])
