"""The rotating Bloom filter: never forgets within the window, errs as designed, depends on nothing but its input."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.errors import StateError
from eventmill.kernels.bloom import RotatingBloom, blocks_for, false_positive_rate

HOUR = 3_600_000


def ids_of(numbers):
    return pa.array([int(number).to_bytes(16, "big") for number in numbers], pa.binary(16))


def random_ids(seed, count):
    raw = np.random.default_rng(seed).bytes(16 * count)
    return pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(raw)])


class Twin:
    """The same window with sets: exact, slow."""

    def __init__(self, slices, slice_ms):
        self.generations, self.slice_ms = slices + 1, slice_ms
        self.sets, self.slice = {}, None

    def observe(self, ids, at):
        fresh = []
        for one, time in zip(ids, at, strict=True):
            number = time // self.slice_ms
            if self.slice is None or number > self.slice:
                self.slice = number
                self.sets = {s: v for s, v in self.sets.items() if s > number - self.generations}
            fresh.append(not any(one in seen for seen in self.sets.values()))
            self.sets.setdefault(self.slice, set()).add(one)
        return fresh


steps = st.lists(st.tuples(st.integers(0, 60), st.integers(-3 * HOUR, 9 * HOUR)), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(steps, st.lists(st.integers(1, 40), max_size=6))
def test_agrees_with_sets_whatever_the_batches(moves, cuts):
    at, now = [], 100 * HOUR
    for _, delta in moves:
        now += delta
        at.append(now)
    ids = [number for number, _ in moves]
    # So large that the filter itself makes no false positive among 60 ids.
    bloom, twin = RotatingBloom(100_000, window="24h", slices=6), Twin(6, 4 * HOUR)
    expected = twin.observe(ids, at)
    found, begin = [], 0
    for size in [*cuts, len(ids)]:
        part = slice(begin, begin + size)
        found += bloom.observe(ids_of(ids[part]), pa.array(at[part], pa.int64())).to_pylist()
        begin += size
    assert found == expected


def test_an_id_is_remembered_for_the_whole_window_and_forgotten_later():
    bloom = RotatingBloom(1_000, window="24h", slices=6)
    one = ids_of([1])
    assert bloom.observe(one, 0).to_pylist() == [True]
    assert bloom.contains(one).to_pylist() == [True]
    assert bloom.observe(one, 24 * HOUR - 1).to_pylist() == [False]
    assert bloom.observe(one, 48 * HOUR - 2).to_pylist() == [False]
    assert bloom.observe(one, 48 * HOUR + 29 * HOUR).to_pylist() == [True]


def test_false_positives_over_the_window_at_full_load():
    capacity = 300_000
    bloom = RotatingBloom(capacity, fpr=0.001, window="24h", slices=6)
    for slice_number in range(7):
        batch = random_ids(slice_number, capacity // 6)
        bloom.observe(batch, slice_number * 4 * HOUR)
        assert bloom.contains(batch).to_pylist().count(False) == 0
    strangers = random_ids(99, 400_000)
    rate = bloom.contains(strangers).to_pylist().count(True) / 400_000
    assert 0 < rate <= 0.001


def test_the_size_follows_from_the_formula():
    blocks = blocks_for(100_000, 0.001)
    assert false_positive_rate(blocks, 100_000) <= 0.001 < false_positive_rate(blocks - 1, 100_000)
    # 256-bit split blocks need about 16.9 bits an id for 0.1 % in one filter.
    assert 16.5 < blocks * 256 / 100_000 < 17.3


def test_ids_chosen_without_the_secret_collide_no_more_than_others():
    """An attacker who filled his own filter until these ids collided gains nothing in ours."""
    his = RotatingBloom(12_000, secret=bytes(192))
    his.observe(random_ids(1, 2_000), 0)
    candidates = random_ids(2, 1_000_000)
    chosen = candidates.filter(his.contains(candidates))
    assert len(chosen) > 20
    ours = RotatingBloom(12_000)
    ours.observe(random_ids(1, 2_000), 0)
    assert ours.contains(chosen).to_pylist().count(True) <= len(chosen) // 10


def test_a_restored_filter_goes_on_as_the_original():
    first = RotatingBloom(10_000)
    first.observe(random_ids(1, 5_000), 0)
    second = RotatingBloom(10_000)
    second.restore(first.snapshot())
    probe = pa.concat_arrays([random_ids(1, 5_000), random_ids(2, 5_000)])
    assert second.observe(probe, 5 * HOUR).equals(first.observe(probe, 5 * HOUR))
    assert second.snapshot() == first.snapshot()


@pytest.mark.parametrize("place", [0, 10, 200, 5_000, -1])
def test_a_damaged_snapshot_is_refused(place):
    bloom = RotatingBloom(10_000)
    state = bytearray(bloom.snapshot())
    state[place] ^= 1
    with pytest.raises(StateError, match="damaged"):
        bloom.restore(bytes(state))
    with pytest.raises(StateError):
        bloom.restore(bytes(state[:3]))


def test_another_configuration_is_refused():
    with pytest.raises(StateError, match="configuration"):
        RotatingBloom(10_000).restore(RotatingBloom(20_000).snapshot())


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"capacity": 1, "fpr": 1.0}, {"capacity": 1, "slices": 0}])
def test_senseless_parameters_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        RotatingBloom(**arguments)


def test_wrong_input_is_refused():
    bloom = RotatingBloom(10)
    with pytest.raises(TypeError):
        bloom.observe(pa.array([b"0123456789abcdef", None], pa.binary(16)), 0)
    with pytest.raises(ValueError, match="one value"):
        bloom.observe(ids_of([1, 2, 3]), pa.array([1, 2]))
