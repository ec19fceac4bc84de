"""The Bloom filter by own times: never forgets within the window, errs as designed, depends on nothing but its input."""

from __future__ import annotations

import copy
import datetime

import numpy as np
import pyarrow as pa
import pytest
from bloom_twin import ids_of, random_ids
from event_bloom_twin import EARLY, EventTwin
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill._native.bloom import BLOCK_BYTES, CELLS
from eventmill.core.errors import StateError
from eventmill.kernels.bloom import RotatingBloom
from eventmill.kernels.event_bloom import EventTimeBloom, blocks_for_slice, slice_rates

SECRET = bytes(range(16))
SLICE, WINDOW, LATENESS = 10, 120, 20
SMALL = {"window": "120ms", "slice_length": "10ms", "lateness": "20ms", "secret": SECRET}
MINUTE, HOUR = 60_000, 3_600_000
NOT_OWN = -(1 << 63)


def trues(array):
    return int(np.count_nonzero(array.to_numpy(zero_copy_only=False)))


def id_bytes(number):
    return number.to_bytes(16, "big")


def in_parts(cuts, *columns):
    """The columns cut at the given sizes, in step."""
    begin, total = 0, len(columns[0])
    for size in [*cuts, total]:
        yield [column[begin : begin + size] for column in columns]
        begin = min(begin + size, total)


def slice_words(bloom):
    shape = bloom.shape
    content = np.frombuffer(bloom.snapshot()[:-16], np.uint8)[-bloom.nbytes :]
    words = content[shape.late_blocks * CELLS :][: shape.slots * shape.blocks * BLOCK_BYTES]
    return words.view(np.uint64).reshape(shape.slots, -1)


# Arrival mostly a little forward, at times back, at times by some slices or beyond everything that is remembered.
moves = st.one_of(
    st.integers(0, 12),
    st.integers(-30, 30),
    st.sampled_from([SLICE, WINDOW - 1, WINDOW, WINDOW + SLICE, 2 * WINDOW, 10 * WINDOW]),
)
# The own time against the time at which the id is first sent, and what no clock shows.
clocks = st.one_of(
    st.integers(-5, 0),
    st.integers(-40, 40),
    st.integers(-WINDOW - 50, WINDOW + 50),
    st.sampled_from([-30, 30, 60]),
    st.none(),
    st.sampled_from([1 << 62, -(1 << 62), (1 << 63) - 1, -(1 << 63) + 1]),
)
steps = st.lists(st.tuples(st.integers(0, 12), moves, clocks), min_size=1, max_size=120)


def traffic(drawn, start):
    """(id, at, own) where all copies of an id have the own time of the first."""
    at, latest, owns, rows = start, start, {}, []
    for number, move, clock in drawn:
        at = max(at + move, latest - 40)
        latest = max(at, latest)
        own = clock if clock is None or abs(clock) > 1 << 60 else latest + clock
        rows.append((number, at, owns.setdefault(number, own)))
    return rows


def columns(rows):
    numbers, at, own = zip(*rows, strict=True)
    return ids_of(numbers), pa.array(at, pa.int64()), pa.array(own, pa.int64())


# The window


@settings(max_examples=400, deadline=None)
@given(
    steps, st.lists(st.integers(1, 40), max_size=6), st.integers(-5_000, 5_000), st.sampled_from([20, 6_000, 40_000])
)
def test_an_id_within_the_window_is_never_forgotten(drawn, cuts, start, capacity):
    """Against the exact answer. The sizes give lists of one, two and fourteen ids ahead."""
    rows = traffic(drawn, start)
    bloom = EventTimeBloom(capacity, **SMALL)
    fresh = [one for part in in_parts(cuts, *columns(rows)) for one in bloom.observe(*part).to_pylist()]
    seen, latest = {}, -(1 << 62)
    for (number, at, _), is_fresh in zip(rows, fresh, strict=True):
        latest = max(latest, at)
        if latest - seen.get(number, -(1 << 62)) <= WINDOW:
            assert not is_fresh
        seen[number] = latest


@settings(max_examples=200, deadline=None)
@given(
    steps,
    st.lists(st.integers(1, 40), max_size=6),
    st.integers(-5_000, 5_000),
    st.sampled_from([(20, 0.5), (40, 0.9), (6_000, 0.5)]),
)
def test_bit_by_bit_as_the_twin_whatever_the_batches(drawn, cuts, start, size):
    """So small a filter that false positives are frequent: they must be the same ones."""
    rows = traffic(drawn, start)
    bloom = EventTimeBloom(size[0], size[1], **SMALL)
    twin = EventTwin(bloom.shape, SECRET)
    expected = [twin.observe(id_bytes(number), at, own) for number, at, own in rows]
    found = [one for part in in_parts(cuts, *columns(rows)) for one in bloom.observe(*part).to_pylist()]
    assert found == expected
    words = slice_words(bloom)
    for number in range(twin.oldest(), twin.current + EARLY + 1):
        assert words[number % bloom.shape.slots].tolist() == twin.words(number)
    now, asked = twin.current * SLICE, [*range(-WINDOW - 40, WINDOW + 60, 7), None]
    asked = [own if own is None else now + own for own in asked]
    probes = [copy.deepcopy(twin).observe(id_bytes(5), now, own) for own in asked]
    seen = bloom.contains(ids_of([5] * len(asked)), pa.array(asked, pa.int64())).to_pylist()
    assert seen == [not one for one in probes]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3_000), max_size=8), st.sampled_from([2_000, 60_000]), st.integers(0, 2**32))
def test_state_does_not_depend_on_the_cuts(cuts, capacity, seed):
    rng = np.random.default_rng(seed)
    count = 5_000
    at = np.sort(rng.integers(0, 60 * HOUR, count))
    own = at + rng.choice([0, -HOUR, 5 * HOUR, 90 * HOUR], count, p=[0.7, 0.1, 0.1, 0.1])
    given = random_ids(seed, count), pa.array(at), pa.array(own)
    whole, parts = (EventTimeBloom(capacity, secret=SECRET) for _ in range(2))
    fresh = whole.observe(*given)
    assert pa.concat_arrays([parts.observe(*part) for part in in_parts(cuts, *given)]).equals(fresh)
    assert parts.snapshot() == whole.snapshot()


@settings(max_examples=100, deadline=None)
@given(st.integers(-10 * HOUR, 100 * HOUR), st.one_of(st.none(), st.integers(-40 * HOUR, 40 * HOUR)))
def test_an_id_is_forgotten_some_time_after_the_window(seen, clock):
    """By its slice after lateness, by the late part after a sixth of the window, ahead ones after their own time too."""
    bloom = EventTimeBloom(1_000, secret=SECRET)
    one, own = ids_of([1]), None if clock is None else seen + clock
    assert bloom.observe(one, seen, own).to_pylist() == [True]
    bloom.observe(ids_of([2]), seen + 24 * HOUR, seen)
    assert bloom.contains(one, own).to_pylist() == [True]
    bloom.observe(ids_of([2]), seen + 28 * HOUR + 10 * MINUTE + max(0, clock or 0), seen)
    assert bloom.contains(one, own).to_pylist() == [False]


@pytest.mark.parametrize("more", [-1, 0, 1, 50])
def test_a_list_that_is_too_short_forgets_nothing(more):
    """Ids ahead of one slice, some more than its list takes, come again at its time; then the next ids use that memory."""
    bloom = EventTimeBloom(40_000, **SMALL)
    count = bloom.shape.list_max + more
    ids, own = random_ids(1, count), 8 * SLICE
    assert count > 5
    assert bloom.observe(ids, 0, own).to_pylist() == [True] * count
    assert bloom._counts[1].tolist() == [0] * 8 + [count] + [0] * (bloom.shape.slots - 9)
    assert bloom.observe(ids, own - SLICE, own).to_pylist() == [False] * count
    assert bloom.contains(ids, own).to_pylist() == [True] * count
    bloom.observe(ids_of([1]), own + LATENESS + SLICE, own)
    assert not bloom._counts[1].any()


@pytest.mark.parametrize("slice_ms", [1, 3, 10, 1_000, 86_399_999])
@pytest.mark.parametrize("start", [0, -7, 1_795_000_000_000])
def test_a_slice_answers_for_each_of_its_times_to_the_end(start, slice_ms):
    """Ids on time are in no other part, so the division of times must be exact at both ends of each slice."""
    lengths = {"window": f"{12 * slice_ms}ms", "slice_length": f"{slice_ms}ms", "lateness": f"{2 * slice_ms}ms"}
    bloom = EventTimeBloom(200_000, **lengths, secret=SECRET)
    first = start // slice_ms
    for number in range(first, first + 40):
        begin = number * slice_ms
        owns = sorted({begin, begin + slice_ms // 2, begin + slice_ms - 1})
        ids = ids_of([own % (1 << 64) for own in owns])
        assert all(bloom.observe(ids, begin + slice_ms - 1, pa.array(owns)).to_pylist())
        last = begin - bloom.shape.window * slice_ms - 2 * slice_ms
        for edge in (last, last + slice_ms - 1, last - 1):
            known = edge >= first * slice_ms and edge >= last
            assert bloom.contains(ids_of([edge % (1 << 64)]), edge).to_pylist() == [known]


def test_a_slice_is_cleared_in_step_with_time():
    """Before its turn, its ids are gone already, and none of the others'."""
    bloom = EventTimeBloom(20_000, secret=SECRET, window="30m", lateness="5m")
    slots = bloom.shape.slots
    for number in range(3 * slots):
        at = number * 5 * MINUTE
        bloom.observe(random_ids(number, 500), at, at)
        going = (number + EARLY + 1) % slots
        for part in (0, 1, 2, 3):
            bloom.observe(ids_of([7]), at + part * 5 * MINUTE // 4, at)
            words = slice_words(bloom)[going]
            assert not words[: part * len(words) // 4 // 8 * 8].any()
            assert number < slots or words.any()
        bloom.observe(ids_of([7]), at + 5 * MINUTE - 1, at)
        words = slice_words(bloom)
        assert not words[going][:-8].any()
        assert all(words[(number - back) % slots].any() for back in range(min(number, slots - 3)))


# The rate


def test_false_positives_of_a_stream_at_full_load():
    """26 hours without a repeated id: most own times within 10 minutes, 2 % late, ahead or absent, as the filter is told."""
    capacity, hours = 1_000_000, 26
    rng = np.random.default_rng(1)
    count = capacity * hours // 24
    at = np.sort(rng.integers(0, hours * HOUR, count))
    own = at - rng.exponential(MINUTE, count).astype(np.int64).clip(max=9 * MINUTE)
    kind = rng.random(count)
    own = np.where(kind < 0.017, at - rng.integers(10 * MINUTE, 40 * HOUR, count), own)
    own = np.where((kind >= 0.017) & (kind < 0.019), at + rng.integers(10 * MINUTE, 10 * HOUR, count), own)
    own = pa.array(own, mask=kind >= 0.999)
    ids = random_ids(2, count)
    bloom = EventTimeBloom(capacity, secret=SECRET)
    fresh = bloom.observe(ids, at, own).to_numpy(zero_copy_only=False)
    last = at >= 2 * HOUR
    assert 0.95 < bloom.load < 1.1
    assert 0.0007 < np.count_nonzero(~fresh[last]) / np.count_nonzero(last) <= 0.001
    assert bloom.bits_per_id < 13
    late = kind < 0.017
    assert 0.001 < np.count_nonzero(~fresh[late & last]) / np.count_nonzero(late & last) < 0.01
    remembered = at > hours * HOUR - 24 * HOUR
    assert trues(bloom.observe(ids.filter(pa.array(remembered)), hours * HOUR, own.filter(pa.array(remembered)))) == 0


def test_the_rates_of_one_slice_are_the_formulas():
    ids = 400_000
    bloom = EventTimeBloom(ids, 0.01, window="5m", slice_length="5m", lateness="5m", secret=SECRET)
    full, filling = slice_rates(ids, bloom.shape.blocks)
    errors = ids - trues(bloom.observe(random_ids(1, ids), 0, 0))
    assert errors / ids == pytest.approx(filling, rel=0.05)
    assert trues(bloom.contains(random_ids(2, 1_000_000), 0)) / 1_000_000 == pytest.approx(full, rel=0.05)


def test_the_size_follows_from_the_formula():
    def rate(blocks):
        full, filling = slice_rates(10_000, blocks)
        return filling + 0.02 * (full + 0.0025)

    blocks = blocks_for_slice(10_000, 0.001, 0.02, 0.0025)
    assert rate(blocks) <= 0.001 < rate(blocks - 1)
    full, filling = slice_rates(10_000, blocks)
    steps = np.linspace(0.5, 9_999.5, 10_000)
    assert filling == pytest.approx(np.mean([slice_rates(step, blocks)[0] for step in steps[::50]]), rel=0.02)
    assert full / 10 < filling < full / 5
    assert blocks_for_slice(1, 0.9, 0.02, 0.0025) == 1
    bloom = EventTimeBloom(20_000_000)
    assert 12 < bloom.bits_per_id < 13
    assert "30.3 MiB for 20,000,000 ids within 24 h (293 slices of 5 min of own time, 12.7 bits" in bloom.describe()
    assert bloom.nbytes < RotatingBloom(20_000_000).nbytes / 3


def test_structured_ids_fare_like_random_ones():
    numbers = np.arange(400_000, dtype=np.uint64)
    zeros = np.zeros_like(numbers)
    for high, low in ((zeros, numbers), (numbers, zeros), (numbers, numbers), (numbers << np.uint64(40), ~numbers)):
        raw = pa.py_buffer(np.stack([high, low], axis=1).tobytes())
        ids = pa.Array.from_buffers(pa.binary(16), len(numbers), [None, raw])
        bloom = EventTimeBloom(200_000, 0.01, window="5m", slice_length="5m", secret=SECRET)
        bloom.observe(ids[:200_000], 0, 0)
        full, _ = slice_rates(200_000, bloom.shape.blocks)
        assert trues(bloom.contains(ids[:200_000], 0)) == 200_000
        assert trues(bloom.contains(ids[200_000:], 0)) / 200_000 == pytest.approx(full, rel=0.1)


# Snapshots


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4_000))
def test_a_restored_filter_goes_on_as_the_original(cut):
    rng = np.random.default_rng(3)
    ids = pa.concat_arrays([random_ids(1, 2_000), random_ids(1, 2_000)])
    at = np.sort(rng.integers(0, 50 * HOUR, 4_000))
    own = np.tile(at[:2_000] + rng.choice([0, -HOUR, 8 * HOUR], 2_000), 2)
    first, second = EventTimeBloom(1_000), EventTimeBloom(1_000)
    first.observe(ids[:cut], at[:cut], own[:cut])
    second.observe(random_ids(7, 500), 80 * HOUR, 80 * HOUR)
    second.restore(first.snapshot())
    assert second.observe(ids[cut:], at[cut:], own[cut:]).equals(first.observe(ids[cut:], at[cut:], own[cut:]))
    assert second.snapshot() == first.snapshot()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_damaged_snapshot_is_refused_wherever_the_damage_is(data):
    bloom = EventTimeBloom(500, **SMALL)
    bloom.observe(random_ids(1, 300), 0, 0)
    good = bloom.snapshot()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateError, match="damaged"):
        bloom.restore(bytes(bad))
    assert bloom.snapshot() == good


@pytest.mark.parametrize(
    "other",
    [
        {"capacity": 20_000},
        {"fpr": 0.01},
        {"window": "12h"},
        {"slice_length": "10m"},
        {"lateness": "1h"},
        {"late_share": 0.1},
    ],
)
def test_another_configuration_is_refused_with_the_cure(other):
    taken = EventTimeBloom(**{"capacity": 10_000} | other).snapshot()
    with pytest.raises(StateError, match=r"configuration says .*; set it back, or start with an empty --data folder"):
        EventTimeBloom(10_000).restore(taken)


# Input


@pytest.mark.parametrize(
    "arguments",
    [
        {"capacity": 0},
        {"fpr": 1.0},
        {"fpr": 0.0},
        {"late_share": 0.0},
        {"late_share": 1.1},
        {"window": "24h", "slice_length": "1ms"},
        {"window": "900000000d", "slice_length": "900000000d"},
        {"secret": b"short"},
    ],
)
def test_senseless_parameters_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be|is not a duration"):
        EventTimeBloom(**{"capacity": 1} | arguments)


def test_own_times_come_in_many_kinds():
    ids = ids_of(range(4))
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    when = int(moment.timestamp() * 1000)
    expected = EventTimeBloom(100, **SMALL)
    expected.observe(ids, when, when)
    for own in (moment, pa.scalar(moment), pa.array([moment] * 4, pa.timestamp("us", "UTC")), np.array([when] * 4)):
        bloom = EventTimeBloom(100, **SMALL)
        assert bloom.observe(ids, moment, own).to_pylist() == [True] * 4
        assert bloom.snapshot() == expected.snapshot()
    expected = EventTimeBloom(100, **SMALL)
    expected.observe(ids, when, None)
    for own in (pa.array([None] * 4, pa.timestamp("ms", "UTC")), pa.nulls(4), [None] * 4, NOT_OWN):
        bloom = EventTimeBloom(100, **SMALL)
        assert bloom.observe(ids, when, own).to_pylist() == [True] * 4
        assert bloom.snapshot() == expected.snapshot()
    empty = pa.array([], pa.int64())
    assert bloom.observe(pa.array([], pa.binary(16)), empty, empty).to_pylist() == []
    assert bloom.contains([], empty).to_pylist() == []
    assert EventTimeBloom(1).contains(ids, when).to_pylist() == [False] * 4


@pytest.mark.parametrize(
    ("ids", "at", "own", "error"),
    [
        (pa.array([b"too short"]), 0, 0, TypeError),
        (ids_of([1, 2, 3]), pa.array([1, 2]), 0, ValueError),
        (ids_of([1, 2, 3]), 0, pa.array([1, 2]), ValueError),
        (ids_of([1]), pa.array([None], pa.int64()), 0, TypeError),
        (ids_of([1]), 0, pa.array(["noon"]), TypeError),
        (ids_of([1]), 1 << 62, 0, ValueError),
    ],
)
def test_wrong_input_is_refused_and_changes_nothing(ids, at, own, error):
    bloom = EventTimeBloom(10, **SMALL)
    before = bloom.snapshot()
    with pytest.raises(error):
        bloom.observe(ids, at, own)
    assert bloom.snapshot() == before
