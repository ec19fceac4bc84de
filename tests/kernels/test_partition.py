"""Splits against plain Python; Kafka's key hash against the Java client's values."""

from __future__ import annotations

import partition_twin
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.kernels.arrow import strings
from eventmill.kernels.partition import Names, Partitioner, group_numbers, murmur2, partition

names = st.none() | st.text(max_size=3) | st.sampled_from(["__other__", "x" * 300, "x" * 301])


def batch_of(values, first=0):
    numbers = pa.array(range(first, first + len(values)), pa.int64())
    return pa.record_batch({"n": numbers, "event": pa.array(values, pa.string())})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(names, max_size=200), min_size=1, max_size=4), st.integers(1, 8), st.integers(0, 5), st.booleans()
)
def test_parts_are_the_twins_batch_after_batch(batches, names_max, offset, words):
    partitioner, known = Partitioner(names_max), set()
    for values in batches:
        batch = batch_of(values)
        if words:
            batch = batch.set_column(1, "event", batch["event"].dictionary_encode())
        parts = partitioner.split(batch[offset:])
        expected = partition_twin.split(values[offset:], known, names_max, "__other__")
        assert [name for name, _ in parts] == list(expected)
        for (_, part), rows in zip(parts, expected.values(), strict=True):
            part.validate(full=True)
            assert part["n"].to_pylist() == [row + offset for row in rows]
            assert part["event"].to_pylist() == [values[row + offset] for row in rows]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=2), max_size=300))
def test_groups_are_numbered_by_first_appearance(values):
    numbers, firsts = group_numbers(strings(pa.array(values, pa.string())))
    distinct = list(dict.fromkeys(values))
    assert [distinct[number] for number in numbers] == values
    assert [values[row] for row in firsts] == distinct
    assert firsts.tolist() == sorted(firsts.tolist())


def test_many_distinct_values_and_a_crowd_of_strangers():
    values = [f"event {number % 50_000}" for number in range(100_000)]
    parts = partition(batch_of(values), names_max=10)
    assert [name for name, _ in parts] == [*(f"event {number}" for number in range(10)), "__other__"]
    assert [part.num_rows for _, part in parts] == [2] * 10 + [99_980]
    assert len(partition(batch_of(values), names_max=50_000)) == 50_000


def test_words_that_are_in_the_dictionary_twice_or_not_in_the_batch():
    words = pa.DictionaryArray.from_arrays(pa.array([3, 0, 2, 0], pa.int32()), pa.array(["a", "b", "a", "c"]))
    parts = partition(pa.record_batch({"event": words, "n": [0, 1, 2, 3]}))
    assert [(name, part["n"].to_pylist()) for name, part in parts] == [("c", [0]), ("a", [1, 2, 3])]


def test_parts_are_views_and_a_single_group_is_the_batch_itself():
    batch = batch_of(["a"] * 5)
    assert [(name, part.equals(batch)) for name, part in partition(batch)] == [("a", True)]
    assert partition(batch)[0][1]["n"].buffers()[1].address == batch["n"].buffers()[1].address
    parts = partition(batch_of(["a", "b", "a"]))
    assert len({part["n"].buffers()[1].address for _, part in parts}) == 1
    assert partition(batch_of([])) == []


def test_known_names_may_be_shared():
    known = {"b"}
    assert [name for name, _ in partition(batch_of(["a", "b", "c"]), names_max=2, known=known)] == [
        "a",
        "b",
        "__other__",
    ]
    assert known == {"a", "b"}
    assert [name for name, _ in partition(batch_of(["c", "a"]), names_max=2, overflow="rest", known=known)] == [
        "rest",
        "a",
    ]
    bucket = Names(1, known=set())
    assert [bucket.bucket(name) for name in ("x", "y", "x")] == ["x", "__other__", "x"]


def test_other_columns_and_kinds_of_input():
    frame = pl.DataFrame({"kind": ["x", "y", "x"], "n": [1, 2, 3]})
    parts = partition(frame, column="kind")
    assert [(name, part["n"].to_pylist()) for name, part in parts] == [("x", [1, 3]), ("y", [2])]
    coded = pa.record_batch({"event": pa.array(["x", "y", "x"]).dictionary_encode()})
    assert [(name, part.num_rows) for name, part in partition(coded)] == [("x", 2), ("y", 1)]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="needs one column 'event'; it has n"):
        partition(pa.record_batch({"n": [1]}))
    with pytest.raises(TypeError, match="string is needed"):
        partition(pa.record_batch({"event": [[1]]}))
    with pytest.raises(ValueError, match="names_max must be"):
        Partitioner(0)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_the_java_clients(key, expected):
    """Values of Apache Kafka's own unit test of Utils.murmur2."""
    assert murmur2(key) == expected == partition_twin.murmur2(key)


@given(st.binary(max_size=40))
def test_murmur2_is_the_twins(key):
    assert murmur2(key) == partition_twin.murmur2(key)
