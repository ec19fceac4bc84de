"""The traffic, block by block: request bodies and the truth about each event in them.

A block is made of whole columns: sessions with a phone and a start, events with gaps between them, then the faults: offline
phones, retries, bad events. Texts are joined column by column and cut into requests. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.generate.catalogue import VARIANTS, Texts, texts
from eventmill.generate.population import Population, population
from eventmill.generate.text import hex_uuids, iso_times
from eventmill.generate.truth import KIND, TRUTH, payload_hashes

BLOCK_EVENTS: Final = 100_000
_SESSION_EVENTS: Final = 12
_EVENT_GAP_MS: Final = 25_000.0
_OFFLINE_MS: Final = (3_600_000, 71 * 3_600_000)
_MINUTE_MS: Final = 60_000

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spec:
    """What to make. Times in ms; the shares are of all events sent."""

    events: int
    seed: int
    start_ms: int
    span_ms: int
    duplicates: float = 0.05
    late: float = 0.02
    bad: float = 0.01
    batch_size: int = 100

    @property
    def end_ms(self) -> int:
        """When all of it is sent, by a right clock."""
        return self.start_ms + self.span_ms


@dataclass(frozen=True, slots=True)
class Block:
    """Request bodies, and ``core`` truth rows whose ``request`` counts from the run's first body."""

    bodies: list[bytes]
    truth: pa.Table


def stream(spec: Spec) -> Iterator[Block]:
    """All blocks of a run. The same spec gives the same bytes."""
    people, words = population(spec.seed, spec.events), texts(spec.seed)
    request = 0
    blocks = -(-spec.events // BLOCK_EVENTS)
    for number in range(blocks):
        count = min(BLOCK_EVENTS, spec.events - number * BLOCK_EVENTS)
        block = _Maker(spec, people, words, number, blocks).make(count, request)
        request += len(block.bodies)
        yield block


class _Maker:
    def __init__(self, spec: Spec, people: Population, words: Texts, number: int, blocks: int) -> None:
        self._spec, self._people, self._words = spec, people, words
        self._rng = np.random.default_rng([spec.seed, 3, number])
        self._from = spec.start_ms + spec.span_ms * number // blocks
        self._to = spec.start_ms + spec.span_ms * (number + 1) // blocks

    def make(self, count: int, first_request: int) -> Block:
        spec, rng = self._spec, self._rng
        repeats = int(count * spec.duplicates)
        originals = count - repeats
        devices, times = self._sessions(originals)
        late = rng.random(originals) < spec.late
        times[late] -= rng.integers(*_OFFLINE_MS, int(late.sum()))
        bad = rng.random(originals) < spec.bad
        order, is_repeat = self._place_repeats(originals, repeats)
        request = np.arange(count) // spec.batch_size
        # A retry carries the time that the phone wrote when the event happened, so the first sending's clock counts.
        first_place = np.empty(originals, np.int64)
        first_place[order[~is_repeat]] = np.flatnonzero(~is_repeat)
        skews = self._skews(int(request[-1]) + 1)
        written = times + skews[request[first_place]]
        ids = rng.bytes(16 * originals)
        variant = self._variants(originals)
        device_index, variant_index = pa.array(devices), pa.array(variant)
        rendered = self._render(ids, variant_index, written, device_index, bad)
        bodies = self._cut(rendered.take(pa.array(order)), request, skews)
        words = self._words
        event = pa.array(words.events).take(variant_index)
        device = self._people.device_ids.take(device_index)
        properties = pa.array(words.properties, pa.binary()).cast(pa.string()).take(variant_index)
        kind = np.where(bad, KIND.index("bad"), np.where(late, KIND.index("late"), KIND.index("unique")))
        sent_kind = np.where(is_repeat & ~bad[order], KIND.index("duplicate"), kind[order])
        rows = pa.table(
            {
                "id": pa.Array.from_buffers(pa.binary(16), originals, [None, pa.py_buffer(ids)]),
                "payload_hash": payload_hashes(event, device, properties, pa.array(written)),
                "device": device,
                "time": pa.array(times),
                "event": event,
            }
        ).take(pa.array(order))
        rows = rows.append_column("kind", pa.array(np.array(KIND)[sent_kind]))
        rows = rows.append_column("request", pa.array(request + first_request))
        return Block(bodies, rows.cast(TRUTH))

    def _sessions(self, count: int) -> tuple[_Ints, _Ints]:
        """A phone and a time for each event, roughly in order of time."""
        rng = self._rng
        lengths = rng.geometric(1 / _SESSION_EVENTS, 2 * count // _SESSION_EVENTS + 20)
        lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), count)) + 1]
        sessions = len(lengths)
        phones = rng.choice(len(self._people.weights), sessions, p=self._people.weights)
        starts = np.sort(self._starts(sessions))
        session = np.repeat(np.arange(sessions), lengths)[:count]
        gaps = rng.exponential(_EVENT_GAP_MS, len(session)).astype(np.int64) + 1
        running = np.cumsum(gaps)
        first = np.searchsorted(session, np.arange(sessions))
        times = starts[session] + running - running[first[session]]
        times = np.minimum(times, self._spec.end_ms - 1)
        order = np.argsort(times, kind="stable")
        return phones[session][order].astype(np.int64), times[order]

    def _starts(self, count: int) -> _Ints:
        """Session starts within the block's share of the span, more by day than by night."""
        minutes = np.arange(self._from, max(self._to, self._from + _MINUTE_MS), _MINUTE_MS)
        by_hour = 1.2 + np.sin((minutes / 3_600_000 % 24 - 9) / 24 * 2 * np.pi)
        chosen = self._rng.choice(len(minutes), count, p=by_hour / by_hour.sum())
        starts: _Ints = minutes[chosen] + self._rng.integers(0, _MINUTE_MS, count)
        return starts

    def _place_repeats(self, originals: int, repeats: int) -> tuple[_Ints, npt.NDArray[np.bool_]]:
        """The order of sending, as indices of originals, and which of them are retries. A retry follows its original."""
        rng = self._rng
        source = rng.integers(0, originals, repeats)
        delay = np.where(
            rng.random(repeats) < 0.8, rng.geometric(0.005, repeats), rng.integers(1, originals + 1, repeats)
        )
        place = np.concatenate([np.arange(originals, dtype=np.float64), source + delay + 0.5])
        index = np.concatenate([np.arange(originals), source])
        order = np.argsort(place, kind="stable")
        return index[order], order >= originals

    def _skews(self, requests: int) -> _Ints:
        """How far each sender's clock is off, in ms: mostly seconds, some minutes, a few hours."""
        rng = self._rng
        scale = rng.choice([1_500.0, 240_000.0, 7_200_000.0], requests, p=[0.9, 0.08, 0.02])
        skews: _Ints = (rng.normal(0, 1, requests) * scale).astype(np.int64)
        return skews

    def _variants(self, count: int) -> _Ints:
        weights = self._words.weights
        kinds = self._rng.choice(len(weights), count, p=weights / weights.sum())
        return kinds * VARIANTS + self._rng.integers(0, VARIANTS, count)

    def _render(
        self, ids: bytes, variant: pa.Array, written: _Ints, device: pa.Array, bad: npt.NDArray[np.bool_]
    ) -> pa.Array:
        """Each original as JSON, with a comma behind it."""
        fragments = pa.array(self._words.fragments, pa.binary()).cast(pa.string())
        uuids = hex_uuids(ids)
        rendered = pc.binary_join_element_wise(
            '{"messageId":"', uuids, '",', fragments.take(variant), ',"originalTimestamp":"', iso_times(written),
            '",', self._people.fragments.take(device), "},", "",
        )  # fmt: skip
        if not bad.any():
            return rendered
        broken = pc.choose(
            pa.array(self._rng.integers(0, 6, len(bad))),
            pc.binary_join_element_wise('{"type":"track","messageId":"', uuids, '","userId":"u1"},', ""),
            pc.binary_join_element_wise('{"type":"track","event":"No One","messageId":"', uuids, '"},', ""),
            pc.binary_join_element_wise('{"type":"purchase","userId":"u1","messageId":"', uuids, '"},', ""),
            pc.binary_join_element_wise('{"type":"track","event":17,"userId":"u1","messageId":"', uuids, '"},', ""),
            pc.binary_join_element_wise(
                '{"type":"track","event":"Odd Time","userId":"u1","timestamp":"yesterday","messageId":"',
                uuids,
                '"},',
                "",
            ),
            pc.binary_join_element_wise('"', uuids, '",', ""),
        )
        return pc.if_else(pa.array(bad), broken, rendered)

    def _cut(self, rendered: pa.Array, request: _Ints, skews: _Ints) -> list[bytes]:
        spec = self._spec
        _, offsets_buffer, data_buffer = rendered.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int32)[: len(rendered) + 1]
        data = memoryview(data_buffer)
        sent = iso_times(spec.end_ms + skews).to_pylist()
        bodies = []
        for number, clock in enumerate(sent):
            begin = offsets[number * spec.batch_size]
            end = offsets[min((number + 1) * spec.batch_size, len(request))] - 1
            bodies.append(b"".join((b'{"sentAt":"', clock.encode(), b'","batch":[', data[begin:end], b"]}")))
        return bodies
