"""The rotating Bloom filter: never forgets within the window, errs as designed, depends on nothing but its input."""

from __future__ import annotations

import datetime
import itertools

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from bloom_twin import GENERATIONS, BloomTwin, ids_of, random_ids, siphash13
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill._native.bloom import hash_ids
from eventmill.core.errors import StateError
from eventmill.kernels.bloom import RotatingBloom, blocks_for, false_positive_rate

HOUR = 3_600_000
SECRET = bytes(range(16))


def trues(array):
    return int(np.count_nonzero(array.to_numpy(zero_copy_only=False)))


def in_parts(cuts, *columns):
    """The columns cut at the given sizes, in step."""
    begin, total = 0, len(columns[0])
    for size in [*cuts, total]:
        yield [column[begin : begin + size] for column in columns]
        begin = min(begin + size, total)


# Hash


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "dcc40f055801acab"),
        (7, "4011b19b987d92d3"),
        (8, "8e9a298d11959036"),
        (16, "668b907d1add4fcc"),
        (63, "a8b3bbb76290199d"),
    ],
)
def test_the_twins_hash_is_siphash_1_3(length, expected):
    """Vectors of Rust's standard library (coretests, hash/sip.rs)."""
    assert siphash13(SECRET, bytes(range(length))) == int.from_bytes(bytes.fromhex(expected), "little")


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=40), st.binary(min_size=16, max_size=16))
def test_ids_are_hashed_with_siphash_1_3(ids, key):
    hashes = np.empty(len(ids), np.uint64)
    words = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    hash_ids(np.frombuffer(b"".join(ids), np.uint8), *words, hashes)
    assert hashes.tolist() == [siphash13(key, one) for one in ids]


# The window

# Often a little forward, at times back, at times many slices on.
moves = st.one_of(
    st.integers(-3 * HOUR, 5 * HOUR), st.sampled_from([4 * HOUR, 24 * HOUR, 28 * HOUR, 32 * HOUR, 400 * HOUR])
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 80), moves), min_size=1, max_size=150),
    st.lists(st.integers(1, 40), max_size=6),
    st.integers(1, 6),
    st.integers(-5_000, 5_000),
)
def test_bit_by_bit_as_the_twin_whatever_the_batches(steps, cuts, slices, start):
    """So small a filter that false positives are frequent: they must be the same ones."""
    bloom = RotatingBloom(capacity=30, fpr=0.5, slices=slices, secret=SECRET)
    twin = BloomTwin(bloom.blocks, slices, bloom.slice_ms, SECRET)
    at = list(itertools.accumulate((delta for _, delta in steps), initial=start * HOUR))[1:]
    ids = [number for number, _ in steps]
    expected = [twin.observe(int(one).to_bytes(16, "big"), time) for one, time in zip(ids, at, strict=True)]
    found = []
    for part, times in in_parts(cuts, ids, at):
        found += bloom.observe(ids_of(part), pa.array(times, pa.int64())).to_pylist()
    assert found == expected
    cells = np.frombuffer(bloom.snapshot()[:-16], np.uint8)[-bloom.nbytes :] & twin.live_mask()
    assert cells.tolist() == twin.live_cells()
    probes = list(range(120))
    assert bloom.contains(ids_of(probes)).to_pylist() == [twin.contains(n.to_bytes(16, "big")) for n in probes]


@pytest.mark.parametrize("turns", range(1, 11))
@pytest.mark.parametrize("slices", [1, 5, 6])
def test_a_turn_clears_what_comes_into_use_again(turns, slices):
    """All eight generations hold ids, then time goes on by some slices at once, and again."""
    bloom = RotatingBloom(300, slices=slices, secret=SECRET)
    twin = BloomTwin(bloom.blocks, slices, bloom.slice_ms, SECRET)
    for step, number in enumerate([*range(9), 8 + turns, 8 + 2 * turns]):
        # Few enough that a turn finds its generation not cleared yet.
        ids, at = random_ids(step, 3), number * bloom.slice_ms
        assert bloom.observe(ids, at).to_pylist() == [twin.observe(one.as_py(), at) for one in ids]
        cells = np.frombuffer(bloom.snapshot()[:-16], np.uint8)[-bloom.nbytes :] & twin.live_mask()
        assert cells.tolist() == twin.live_cells()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 3_000), max_size=8),
    st.integers(1, 6),
    st.sampled_from([2_000, 60_000]),
    st.integers(0, 2**32),
)
def test_state_does_not_depend_on_the_cuts(cuts, slices, capacity, seed):
    rng = np.random.default_rng(seed)
    count = 5_000
    ids, at = random_ids(seed, count), pa.array(np.sort(rng.integers(0, 60 * HOUR, count)))
    whole, parts = (RotatingBloom(capacity, slices=slices, secret=SECRET) for _ in range(2))
    fresh = whole.observe(ids, at)
    found = [parts.observe(part, times) for part, times in in_parts(cuts, ids, at)]
    assert pa.concat_arrays(found).equals(fresh)
    assert parts.snapshot() == whole.snapshot()


@settings(max_examples=60, deadline=None)
@given(st.integers(-10 * HOUR, 100 * HOUR), st.integers(0, 24 * HOUR), st.integers(1, 6))
def test_an_id_is_remembered_for_the_whole_window_and_no_longer_than_a_slice_more(seen, later, slices):
    bloom = RotatingBloom(1_000, window="24h", slices=slices, secret=SECRET)
    one, other = ids_of([1]), ids_of([2])
    assert bloom.observe(one, seen).to_pylist() == [True]
    bloom.observe(other, seen + later)
    assert bloom.contains(one).to_pylist() == [True]
    bloom.observe(other, seen + 24 * HOUR + bloom.slice_ms)
    assert bloom.contains(one).to_pylist() == [False]
    assert bloom.observe(one, seen).to_pylist() == [True]


def test_seeing_an_id_again_renews_it():
    bloom = RotatingBloom(1_000, window="24h", slices=6)
    one = ids_of([1])
    assert [bloom.observe(one, day * 24 * HOUR - 1).to_pylist()[0] for day in range(5)] == [True] + [False] * 4


def test_the_next_slice_is_cleared_before_it_begins():
    """As many ids as there are blocks are enough, a third of a full slice: then its turn has nothing left to do."""
    bloom = RotatingBloom(10_000, secret=SECRET)
    assert bloom.blocks < bloom.slice_capacity / 3
    for slice_number in range(2 * GENERATIONS):
        bloom.observe(random_ids(slice_number, bloom.blocks), slice_number * bloom.slice_ms)
    cells = np.frombuffer(bloom.snapshot()[:-16], np.uint8)[-bloom.nbytes :]
    assert not np.any(cells >> (2 * GENERATIONS % GENERATIONS) & 1)
    for generation in range(1, GENERATIONS):
        assert np.any(cells >> generation & 1)


# The rate


def test_false_positives_over_the_window_at_full_load():
    """The worst moment: all slices that are asked are full."""
    capacity, probes = 1_000_000, 1_000_000
    bloom = RotatingBloom(capacity, fpr=0.001, window="24h", slices=6, secret=SECRET)
    batches = [random_ids(number, bloom.slice_capacity) for number in range(7)]
    for number, batch in enumerate(batches):
        bloom.observe(batch, number * 4 * HOUR)
    assert 0.99 < bloom.load <= 1
    for batch in batches:
        assert trues(bloom.contains(batch)) == len(batch)
    assert 0.0008 < trues(bloom.contains(random_ids(99, probes))) / probes <= 0.001


def test_the_rate_of_one_filter_is_the_formulas():
    ids, rate = 200_000, 0.004
    bloom = RotatingBloom(6 * ids, fpr=7 * rate / 0.9, secret=SECRET)
    assert bloom.blocks == blocks_for(ids, rate)
    bloom.observe(random_ids(1, ids), 0)
    assert trues(bloom.contains(random_ids(2, 1_000_000))) / 1_000_000 == pytest.approx(rate, rel=0.05)


def test_the_size_follows_from_the_formula():
    blocks = blocks_for(100_000, 0.001)
    assert false_positive_rate(blocks, 100_000) <= 0.001 < false_positive_rate(blocks - 1, 100_000)
    assert 19 < blocks * 128 / 100_000 < 20
    assert blocks_for(1, 0.5) == 1
    bloom = RotatingBloom(20_000_000)
    assert 40 < bloom.bits_per_id < 42
    assert "97.6 MiB for 20,000,000 ids within 24 h (6 slices, 40.9 bits an id" in bloom.describe()


def structured(count):
    """Ids that differ in few places, as attackers and careless clients make them."""
    numbers = np.arange(count, dtype=np.uint64)
    zeros = np.zeros(count, np.uint64)
    for high, low in ((zeros, numbers), (numbers, zeros), (numbers, numbers), (numbers << np.uint64(40), ~numbers)):
        raw = np.stack([high, low], axis=1).tobytes()
        yield pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(raw)])


def test_structured_ids_fare_like_random_ones():
    for ids in structured(400_000):
        bloom = RotatingBloom(1_200_000, fpr=0.007, slices=6, secret=SECRET)
        seen, strangers = ids[:200_000], ids[200_000:]
        bloom.observe(seen, 0)
        assert trues(bloom.contains(seen)) == len(seen)
        assert trues(bloom.contains(strangers)) / len(strangers) == pytest.approx(0.0009, rel=0.3)


def test_ids_chosen_without_the_secret_collide_no_more_than_others():
    """An attacker who filled his own filter until these ids collided gains nothing in ours."""
    his = RotatingBloom(12_000, secret=bytes(16))
    his.observe(random_ids(1, 2_000), 0)
    candidates = random_ids(2, 1_000_000)
    chosen = candidates.filter(his.contains(candidates))
    assert len(chosen) > 50
    ours = RotatingBloom(12_000)
    ours.observe(random_ids(1, 2_000), 0)
    assert trues(ours.contains(chosen)) <= 3


# Snapshots


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4_000), st.integers(1, 6))
def test_a_restored_filter_goes_on_as_the_original(cut, slices):
    ids = pa.concat_arrays([random_ids(1, 2_000), random_ids(1, 2_000)])
    at = np.sort(np.random.default_rng(3).integers(0, 50 * HOUR, 4_000))
    first, second = RotatingBloom(1_000, slices=slices), RotatingBloom(1_000, slices=slices)
    first.observe(ids[:cut], at[:cut])
    second.observe(random_ids(7, 500), 80 * HOUR)
    second.restore(first.snapshot())
    assert second.observe(ids[cut:], at[cut:]).equals(first.observe(ids[cut:], at[cut:]))
    assert second.snapshot() == first.snapshot()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_snapshot_is_refused_wherever_the_damage_is(data):
    bloom = RotatingBloom(500, secret=SECRET)
    bloom.observe(random_ids(1, 300), 0)
    good = bloom.snapshot()
    regions = [(0, 8), (8, 12), (12, 300), (300, len(good) - 16), (len(good) - 16, len(good))]
    begin, end = data.draw(st.sampled_from(regions))
    bad = bytearray(good)
    bad[data.draw(st.integers(begin, end - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateError, match="damaged"):
        bloom.restore(bytes(bad))
    with pytest.raises(StateError, match="damaged"):
        bloom.restore(good[: data.draw(st.integers(0, len(good) - 1))])
    assert bloom.snapshot() == good


@pytest.mark.parametrize("other", [{"capacity": 20_000}, {"fpr": 0.01}, {"window": "12h"}, {"slices": 3}])
def test_another_configuration_is_refused_with_the_cure(other):
    taken = RotatingBloom(**{"capacity": 10_000} | other).snapshot()
    with pytest.raises(StateError, match=r"configuration says .*; set it back, or start with an empty --data folder"):
        RotatingBloom(10_000).restore(taken)


# Input


@pytest.mark.parametrize(
    "arguments",
    [{"capacity": 0}, {"fpr": 1.0}, {"fpr": 0.0}, {"slices": 0}, {"slices": 7}, {"secret": b"short"}],
)
def test_senseless_parameters_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        RotatingBloom(**{"capacity": 1} | arguments)


def test_ids_and_times_come_in_many_kinds():
    raw = [bytes([number] * 16) for number in range(4)]
    kinds = [
        pa.array(raw, pa.binary()),
        pa.array(raw, pa.binary(16)),
        pa.chunked_array([raw[:1], raw[1:]], pa.binary(16)),
        pa.array(raw, pa.uuid()),
        pl.Series(raw, dtype=pl.Binary),
        raw,
        pa.array([b"x" * 16, *raw], pa.binary(16))[1:],
    ]
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    when = int(moment.timestamp() * 1000)
    times = [
        when,
        pa.scalar(moment),
        moment,
        pa.array([moment] * 4, pa.timestamp("us", "UTC")),
        np.array([when] * 4),
        pa.chunked_array([[when] * 2, [when] * 2]),
        pl.Series([when] * 4),
    ]
    expected = RotatingBloom(100, secret=SECRET)
    expected.observe(kinds[0], when)
    for ids, at in [*((kind, when) for kind in kinds), *((kinds[0], time) for time in times)]:
        bloom = RotatingBloom(100, secret=SECRET)
        assert bloom.observe(ids, at).to_pylist() == [True] * 4
        assert bloom.snapshot() == expected.snapshot()
    assert expected.observe(pa.array([], pa.binary(16)), pa.array([], pa.int64())).to_pylist() == []
    assert expected.contains([]).to_pylist() == []


@pytest.mark.parametrize(
    ("ids", "at", "error"),
    [
        (pa.array([b"0123456789abcdef", None], pa.binary(16)), 0, TypeError),
        (pa.array([b"too short"]), 0, TypeError),
        (pa.array(["a string"]), 0, TypeError),
        (pa.array([1, 2]), 0, TypeError),
        (ids_of([1, 2, 3]), pa.array([1, 2]), ValueError),
        (ids_of([1]), pa.array([None], pa.int64()), TypeError),
        (ids_of([1]), pa.array(["noon"]), TypeError),
        (ids_of([1]), 1 << 62, ValueError),
    ],
)
def test_wrong_input_is_refused_and_changes_nothing(ids, at, error):
    bloom = RotatingBloom(10, secret=SECRET)
    before = bloom.snapshot()
    with pytest.raises(error):
        bloom.observe(ids, at)
    assert bloom.snapshot() == before
