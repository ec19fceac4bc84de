"""Deduplication in bounded memory: which ids were seen within the last 24 hours?

The window is cut into S slices, and each slice has a Bloom filter of its own. S + 1 of them are asked, so an id is
remembered for the window and at most a slice more. With a false-positive rate f for each full filter, the rate over all
that are asked is at most (S + 1) f; so each is sized for f = fpr / (S + 1) at capacity / S ids, whatever the moment.

A filter is made of N blocks of 128 bits, in 8 sections of 16; an id sets one bit in each section of one block. A block
holds k ids with the Poisson probability P(k; n / N), where n ids are in the filter; then a section has a given bit set
with probability 1 - (15/16)^k, and the sections are independent, since they take disjoint bits of the hash:

    f(N) = sum over k of P(k; n / N) * (1 - (15/16)^k)^8

(after Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007). ``blocks_for`` solves f(N) = f
for N. With 0.1 % over a window of 6 slices that is 41 bits an id, of 10 that no filter can do without: 2 bits are there for
a rate below 0.1 % in a measurement too (MARGIN), 1/6 since a seventh slice is asked, another 1/6 since the next slice's
filter is cleared while the current one lasts, so that no turn of a slice stops the stream. The rest buys speed. The eight
filters lie on top of one another, a bit each of the same bytes, so an id touches two neighbouring cache lines, whatever
S is; blocks of 256 bits would need 33 bits an id and four cache lines, and take 1.5 to 1.8 times as long beyond the cache.

The hash is SipHash-1-3 under a secret key. It is a pseudorandom function, so an attacker who does not know the key cannot
find ids that collide more often than random ones do; computed for many ids at once it costs 2 ns, as XXH3 does.
"""

from __future__ import annotations

import math
import os
from typing import Any, Final

import numpy as np
import pyarrow as pa

from eventmill._native import bloom as native
from eventmill.core.clock import parse_duration_ms
from eventmill.core.errors import StateError
from eventmill.kernels import state
from eventmill.kernels.arrow import booleans, id_bytes, times_ms
from eventmill.kernels.memory import zeroed

SECRET_BYTES: Final = 16
#: The share of the asked rate that filters are sized for.
MARGIN: Final = 0.9
_BLOCKS_MAX: Final = 0xFFFFFFFF
_SECTION: Final = native.CELLS // native.PROBES


def false_positive_rate(blocks: int, ids: int) -> float:
    """f(N) of the module's text for one filter of ``blocks`` blocks holding ``ids`` ids."""
    mean = ids / blocks
    rate, probability = 0.0, math.exp(-mean)
    for k in range(int(mean + 12 * math.sqrt(mean) + 30)):
        rate += probability * (1 - (1 - 1 / _SECTION) ** k) ** native.PROBES
        probability *= mean / (k + 1)
    return rate


def blocks_for(ids: int, rate: float) -> int:
    """The fewest blocks that keep one filter's rate at or below ``rate`` with ``ids`` ids in it."""
    low, high = max(1, ids // native.CELLS), max(2, ids)
    while false_positive_rate(high, ids) > rate:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if false_positive_rate(middle, ids) <= rate:
            high = middle
        else:
            low = middle + 1
    return low


class RotatingBloom:
    """A Bloom filter over the last ``window``: never forgets an id within it, errs for ``fpr`` of new ids at full load.

    ``capacity``: ids within the window, 1 or more. ``fpr``: rate of false positives over the whole window. ``slices``: 1 to 6;
    an id is forgotten one slice's share of the window late at most. ``secret``: 16 bytes that key the hash, random by default.
    ``populate``: take all memory at once, not as ids come.

    Time comes from the ids' own ``at`` only, as a running maximum, so the state is a function of what was observed,
    whatever the batches were. Raises ``ValueError`` for parameters out of range. Not thread-safe.

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
        populate: bool = False,
    ) -> None:
        if not (capacity >= 1 and 0 < fpr < 1 and 1 <= slices <= native.SLICES_MAX):
            raise ValueError(
                f"capacity must be at least 1, fpr between 0 and 1, slices between 1 and {native.SLICES_MAX}"
            )
        if secret is not None and len(secret) != SECRET_BYTES:
            raise ValueError(f"secret must be {SECRET_BYTES} bytes")
        self.capacity, self.fpr, self.slices = capacity, fpr, slices
        self.window_ms = parse_duration_ms(window)
        self.slice_ms = -(-self.window_ms // slices)
        self.slice_capacity = -(-capacity // slices)
        self.blocks = blocks_for(self.slice_capacity, MARGIN * fpr / (slices + 1))
        if self.blocks > _BLOCKS_MAX:
            raise ValueError(f"capacity must be smaller: {capacity:,} ids need more blocks than one filter has")
        self._populate = populate
        self._start(os.urandom(SECRET_BYTES) if secret is None else secret)

    def _start(self, secret: bytes) -> None:
        self._secret = secret
        self._cells = zeroed(self.nbytes, populate=self._populate)
        key0, key1 = int.from_bytes(secret[:8], "little"), int.from_bytes(secret[8:], "little")
        self._native = native.Bloom(self._cells, key0, key1, self.slices, self.slice_ms)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, once ids have come to every block."""
        return self.blocks * native.CELLS

    @property
    def bits_per_id(self) -> float:
        """Bits for each of ``capacity`` ids, over the whole window."""
        return self.nbytes * 8 / self.capacity

    @property
    def load(self) -> float:
        """The fullest slice's ids, as a share of what a slice is sized for; above 1, ``fpr`` is exceeded."""
        return max(self._native.position()[2]) / self.slice_capacity

    def describe(self) -> str:
        """One line for people."""
        return (
            f"Bloom filter: {self.nbytes / 2**20:,.1f} MiB for {self.capacity:,} ids within "
            f"{self.window_ms / 3_600_000:g} h ({self.slices} slices, {self.bits_per_id:.1f} bits an id, "
            f"false positives at most {self.fpr:.3%} over the window)"
        )

    def observe(self, ids: Any, at: Any) -> pa.BooleanArray:
        """True for each id not seen within the window before (an earlier row of the same call counts as seen).

        ``ids``: 16-byte binary without nulls. ``at``: when each was received, timestamps or int64 ms since the epoch, as
        many as ids or one for all. Raises ``TypeError`` or ``ValueError`` for anything else; nothing is observed then.
        """
        raw = id_bytes(ids)
        times = times_ms(at if np.ndim(at) or hasattr(at, "__arrow_c_array__") else [at])
        fresh = np.empty(len(raw) // 16, np.uint8)
        self._native.observe(raw, times, fresh)
        return booleans(fresh)

    def contains(self, ids: Any) -> pa.BooleanArray:
        """True for each id that may have been seen within the window; changes nothing."""
        raw = id_bytes(ids)
        seen = np.empty(len(raw) // 16, np.uint8)
        self._native.contains(raw, seen)
        return booleans(seen)

    def _parameters(self) -> dict[str, Any]:
        return {
            "capacity": self.capacity,
            "fpr": self.fpr,
            "window_ms": self.window_ms,
            "slices": self.slices,
            "blocks": self.blocks,
        }

    def snapshot(self) -> bytes:
        """The whole state with parameters, secret and checksum."""
        current, swept, counts = self._native.position()
        position = {"slice": current, "swept": swept, "ids": counts, "secret": self._secret.hex()}
        return state.pack("bloom", self._parameters(), position, self._cells.data)

    def restore(self, snapshot: bytes) -> None:
        """Replace the state, secret included. Raises ``StateError`` when it is damaged or has other parameters."""
        position, content = state.unpack("bloom", self._parameters(), snapshot)
        if len(content) != self.nbytes:
            raise StateError("the bloom state is damaged: it has another size; use an older snapshot")
        self._start(bytes.fromhex(position["secret"]))
        self._cells[:] = np.frombuffer(content, np.uint8)
        self._native.set_position(position["slice"], position["swept"], position["ids"])
