"""Deduplication by the ids' own times: one cache line and 13 bits an id.

A retried event carries the time that its client gave it the first time. So the filter is cut into slices by that *own time*,
an id belongs to one slice, and only that one has to be asked, however long the window is. ``now`` is the running maximum of the
times of arrival, s the length of a slice, c the number of the slice of ``now``, W and L the window and the lateness in slices,
rounded up. With q the number of an id's own slice, the id is

- **on time** for c - L <= q <= c + 1: it is looked up in slice q, and put there;
- **late** for q < c - L, or without an own time: it is looked up in slice q if c - L - W <= q, and in the *late part*, a filter
  by time of arrival as ``RotatingBloom``'s; it is put into the late part;
- **ahead** for q > c + 1: it is looked up in the late part, put there, and, up to q = c + 1 + W, kept in the list of slice q,
  which is put into the slice when c turns to q - 1. A list is bounded; when one was too short for all that came, ids on time
  for its slice ask the late part too.

Slice q is alive while c <= q + L + W; then it is cleared within one slice's time, and its memory serves slice
q + W + L + 3.

**Nothing is forgotten.** Let copies i and j of an id, i before j, arrive within the window. Then c_j <= c_i + W, and neither c
ever sinks, so later copies are never of an earlier class in the order ahead, on time, late. The late part, which is asked by
the slice of ``now`` too, remembers what was put into it at c_i while c <= c_i + W.

- j is ahead, so i was: the late part has i, and j asks it.
- j is on time and i was: slice q has i, and is alive as q >= c_j - L.
- j is on time and i was ahead: q <= c_j + 1 <= c_i + W + 1, so i was in reach of the lists. Slice q has been opened since, and
  i's hash put into it; or the list was too short, then j asks the late part, which has i.
- j is late and i was on time: slice q has i, q >= c_i - L >= c_j - L - W, so it is alive, and j asks it.
- j is late and i was not on time: the late part has i, and j asks it.

It does hold only for copies with the same own time. A client that stamps an event anew with each attempt defeats it.

**The rate of errors.** A full filter of N blocks of 512 bits, n ids in it, an id setting one bit in each of 8 words (Putze,
Sanders, Singler, 2007), takes a new id for a seen one with probability

    f(n) = sum over k of P(k; n / N) * (1 - (63/64)^k)^8,    P(k; m) = e^-m m^k / k!

But an id on time is put into the slice that it is looked up in, so the k-th one finds k - 1 there, whenever and in whatever
order they come: over a slice the mean is F(n) = 1/n * (the integral of f from 0 to n) at most, some seventh of f(n). As that of
P(k; x) from 0 to m is Pr[Poisson(m) > k], F is a sum too. Only late ids meet full slices. So with a share l of new ids
that are late or ahead, and the late part's rate g, the rate over all new ids of a stream at full load is at most

    F(n) + l * (f(n) + g)

``blocks_for_slice`` solves this for N. For 0.1 % over 24 h and l = 2 % that is 12.7 bits an id with all parts, where a Bloom
filter that is asked when full cannot do with less than 14.4. A late id meets f(n) + g there, 0.75 %; who wants
0.1 % for those too sets ``fpr`` to an eighth and pays 18.5 bits.
"""

from __future__ import annotations

import math
import os
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from eventmill._native import bloom as native
from eventmill.core.clock import parse_duration_ms
from eventmill.core.errors import StateError
from eventmill.kernels import state
from eventmill.kernels.arrow import booleans, id_bytes, own_times_ms, times_ms
from eventmill.kernels.bloom import SECRET_BYTES, blocks_for
from eventmill.kernels.memory import zeroed

#: The share of the asked rate that the filter is sized for.
MARGIN: Final = 0.95
#: Slices of the late part.
_LATE_SLICES: Final = native.SLICES_MAX
#: The late part's rate as a multiple of the asked one, unless that took more than a quarter of the whole: there a bit spared
#: costs what it costs in the slices.
_LATE_RATE: Final = 2.5
#: Ids ahead that a slice's list takes, as a share of the slice's.
_AHEAD_SHARE: Final = 1 / 256
_BLOCKS_MAX: Final = 0xFFFFFFFF
_SLOTS_MAX: Final = 1 << 17
_SPAN_MS_MAX: Final = 1 << 49
_WORD_BITS: Final = 64


class Shape(NamedTuple):
    """What the kernel is made of; lengths in slices where no unit is named."""

    blocks: int
    list_max: int
    slice_ms: int
    window: int
    lateness: int
    late_blocks: int
    late_slice_ms: int
    late_slices: int

    @property
    def slots(self) -> int:
        """Slices that have memory."""
        return self.window + self.lateness + native.SLOTS_BESIDES

    @property
    def nbytes(self) -> int:
        """Bytes of the late part, the slices and the lists, which lie in that order."""
        in_slot = self.blocks * native.BLOCK_BYTES + self.list_max * 8
        return self.late_blocks * native.CELLS + self.slots * in_slot


def slice_rates(ids: int, blocks: int) -> tuple[float, float]:
    """f and F of the module's text: the rate of a slice with ``ids`` ids, and its mean while they came."""
    mean = ids / blocks
    full = filling = 0.0
    probability = math.exp(-mean)
    beyond = 1 - probability
    for k in range(int(mean + 12 * math.sqrt(mean) + 30)):
        taken = (1 - (1 - 1 / _WORD_BITS) ** k) ** native.WORDS
        full += probability * taken
        filling += beyond / mean * taken
        probability *= mean / (k + 1)
        beyond = max(0.0, beyond - probability)
    return full, filling


def blocks_for_slice(ids: int, rate: float, late_share: float, late_rate: float) -> int:
    """The fewest blocks of a slice for ``ids`` ids that keep the rate of a whole stream at or below ``rate``."""

    def suffices(blocks: int) -> bool:
        full, filling = slice_rates(ids, blocks)
        return filling + late_share * (full + late_rate) <= rate

    low, high = max(1, ids // (native.BLOCK_BYTES * 8)), max(2, ids)
    while not suffices(high):
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle + 1, high)
    return low


class EventTimeBloom:
    """A Bloom filter over the last ``window`` for ids that have a time of their own, the same in all copies of an id.

    It never forgets an id within the window and errs for ``fpr`` of a stream's new ids at full load. ``capacity``: ids within
    the window at the busiest rate, as each slice is made for its share. ``slice_length``: of own time that has a filter
    of its own. ``lateness``: how long after its own time an id is on time. ``late_share``: of the new ids, those that are
    late, far ahead or without own time; they cost three times the memory. ``secret``: 16 bytes that key the hash, random
    by default. ``populate``: take all memory at once, not as ids come.

    Time comes from ``at`` only, as a running maximum, so the state is a function of what was observed, whatever the
    batches were. Raises ``ValueError`` for parameters out of range. Not thread-safe.

    >>> import pyarrow as pa
    >>> bloom = EventTimeBloom(capacity=1_000)
    >>> ids = pa.array([b"0123456789abcdef", b"0123456789abcdef"], pa.binary(16))
    >>> bloom.observe(ids, at=pa.array([7_000, 900_000]), own=pa.array([5_000, 5_000])).to_pylist()
    [True, False]
    """

    def __init__(
        self,
        capacity: int,
        fpr: float = 0.001,
        window: str | int = "24h",
        slice_length: str | int = "5m",
        lateness: str | int = "10m",
        late_share: float = 0.02,
        secret: bytes | None = None,
        populate: bool = False,
    ) -> None:
        if not (capacity >= 1 and 0 < fpr < 1 and 0 < late_share <= 1):
            raise ValueError("capacity must be at least 1, fpr between 0 and 1, late_share above 0 and at most 1")
        if secret is not None and len(secret) != SECRET_BYTES:
            raise ValueError(f"secret must be {SECRET_BYTES} bytes")
        self.capacity, self.fpr, self.late_share = capacity, fpr, late_share
        self.window_ms, self.lateness_ms = parse_duration_ms(window), parse_duration_ms(lateness)
        self.slice_ms = parse_duration_ms(slice_length)
        self.slice_capacity = max(1, math.ceil(capacity * min(1, self.slice_ms / self.window_ms)))
        self.late_capacity = math.ceil(capacity * late_share)
        self.shape = self._shape()
        self._populate = populate
        self._start(os.urandom(SECRET_BYTES) if secret is None else secret)

    def _shape(self) -> Shape:
        late_rate = self.fpr * min(_LATE_RATE, 1 / (4 * self.late_share))
        blocks = blocks_for_slice(self.slice_capacity, MARGIN * self.fpr, self.late_share, late_rate)
        window = -(-self.window_ms // self.slice_ms)
        shape = Shape(
            blocks=blocks,
            list_max=math.ceil(self.slice_capacity * _AHEAD_SHARE),
            slice_ms=self.slice_ms,
            window=window,
            lateness=-(-self.lateness_ms // self.slice_ms),
            late_blocks=blocks_for(-(-self.late_capacity // _LATE_SLICES), late_rate / (_LATE_SLICES + 1)),
            late_slice_ms=-(-window * self.slice_ms // _LATE_SLICES),
            late_slices=_LATE_SLICES,
        )
        if max(shape.blocks, shape.late_blocks) > _BLOCKS_MAX:
            raise ValueError(f"capacity must be smaller: {self.capacity:,} ids need more blocks than one filter has")
        if shape.slots > _SLOTS_MAX or (shape.slots + window) * self.slice_ms >= _SPAN_MS_MAX:
            raise ValueError("window and lateness must be shorter, or slice_length longer")
        return shape

    def _start(self, secret: bytes) -> None:
        self._secret = secret
        self._memory = zeroed(self.shape.nbytes, populate=self._populate)
        self._counts = np.zeros((2, self.shape.slots), np.uint64)
        key0, key1 = int.from_bytes(secret[:8], "little"), int.from_bytes(secret[8:], "little")
        self._native = native.EventBloom(self._memory, self._counts[0], self._counts[1], key0, key1, self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, once ids have come to every block."""
        return self.shape.nbytes

    @property
    def bits_per_id(self) -> float:
        """Bits for each of ``capacity`` ids, over the whole window and all parts."""
        return self.nbytes * 8 / self.capacity

    @property
    def load(self) -> float:
        """The fullest slice's ids, or the late part's, as a share of what it is sized for; above 1, ``fpr`` is exceeded."""
        late = max(self._native.position()[2][2]) * _LATE_SLICES / self.late_capacity
        return max(int(self._counts[0].max()) / self.slice_capacity, late)

    def describe(self) -> str:
        """One line for people."""
        return (
            f"Bloom filter: {self.nbytes / 2**20:,.1f} MiB for {self.capacity:,} ids within {self.window_ms / 3_600_000:g} h "
            f"({self.shape.slots} slices of {self.slice_ms / 60_000:g} min of own time, {self.bits_per_id:.1f} bits an id, "
            f"false positives at most {self.fpr:.3%} over the window with {self.late_share:.0%} late)"
        )

    def observe(self, ids: Any, at: Any, own: Any) -> pa.BooleanArray:
        """True for each id not seen within the window before (an earlier row of the same call counts as seen).

        ``ids``: 16-byte binary without nulls. ``at``: when each was received, ``own``: its own time, null where it has none;
        both timestamps or int64 ms since the epoch, as many as ids or one for all. Raises ``TypeError`` or ``ValueError`` for
        anything else; nothing is observed then.
        """
        raw = id_bytes(ids)
        arrived, owned = times_ms(_several(at)), own_times_ms(_several(own))
        fresh = np.empty(len(raw) // 16, np.uint8)
        self._native.observe(raw, arrived, owned, fresh)
        return booleans(fresh)

    def contains(self, ids: Any, own: Any) -> pa.BooleanArray:
        """True for each id that ``observe`` would call seen now; changes nothing."""
        raw = id_bytes(ids)
        seen = np.empty(len(raw) // 16, np.uint8)
        self._native.contains(raw, own_times_ms(_several(own)), seen)
        return booleans(seen)

    def _parameters(self) -> dict[str, Any]:
        return {
            "capacity": self.capacity,
            "fpr": self.fpr,
            "window_ms": self.window_ms,
            "late_share": self.late_share,
        } | (self.shape._asdict())

    def snapshot(self) -> bytes:
        """The whole state with parameters, secret and checksum."""
        current, latest, late = self._native.position()
        counts = self._counts.tolist()
        position = {"slice": current, "latest": latest, "late": late, "counts": counts, "secret": self._secret.hex()}
        return state.pack("event bloom", self._parameters(), position, self._memory.data)

    def restore(self, snapshot: bytes) -> None:
        """Replace the state, secret included. Raises ``StateError`` when it is damaged or has other parameters."""
        position, content = state.unpack("event bloom", self._parameters(), snapshot)
        if len(content) != self.nbytes:
            raise StateError("the bloom state is damaged: it has another size; use an older snapshot")
        self._start(bytes.fromhex(position["secret"]))
        self._memory[:] = np.frombuffer(content, np.uint8)
        self._counts[:] = position["counts"]
        self._native.set_position(position["slice"], position["latest"], position["late"])


def _several(times: Any) -> Any:
    return times if np.ndim(times) or hasattr(times, "__arrow_c_array__") else [times]
