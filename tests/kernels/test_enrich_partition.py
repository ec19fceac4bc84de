"""Joins and splits against plain Python."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.schema import EVENT, RAW, Flag
from eventmill.kernels.enrich import Enricher
from eventmill.kernels.partition import Partitioner, murmur2, partition

names = st.text(max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(names, names, max_size=40), st.lists(st.none() | names, max_size=60), st.integers(0, 5))
def test_a_join_is_a_dictionary_look_up(table, users, offset):
    enricher = Enricher(
        pa.table({"user_id": pa.array(list(table), pa.string()), "tier": pa.array(list(table.values()), pa.string())})
    )
    batch = pa.record_batch({"user_id": pa.array(users, pa.string()), "flags": pa.array([1] * len(users), pa.int32())})
    result = enricher.apply(batch.slice(offset))
    users = users[offset:]
    assert result["tier"].to_pylist() == [None if user is None else table.get(user) for user in users]
    if table:
        unknown = int(Flag.DIMENSIONS_UNKNOWN)
        expected = [1 | (unknown if user is not None and user not in table else 0) for user in users]
        assert result["flags"].to_pylist() == expected


def test_columns_come_in_the_order_of_events():
    batch = RAW.empty_table().to_batches()[0] if RAW.empty_table().to_batches() else pa.RecordBatch.from_pylist([], RAW)
    result = Enricher.empty().apply(batch)
    assert result.schema.names == [name for name in EVENT.names if name not in ("session_id", "project")]


def test_a_key_twice_or_null_or_missing_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Enricher(pa.table({"user_id": ["a", "a"], "tier": ["x", "y"]}))
    with pytest.raises(ValueError, match="nulls"):
        Enricher(pa.table({"user_id": ["a", None], "tier": ["x", "y"]}))
    with pytest.raises(ValueError, match="no column"):
        Enricher(pa.table({"id": ["a"]}))


@settings(max_examples=100, deadline=None)
@given(st.lists(names, max_size=80), st.integers(1, 8))
def test_parts_conserve_rows_and_order_and_bound_the_names(values, names_max):
    batch = pa.record_batch({"event": pa.array(values, pa.string()), "n": pa.array(range(len(values)), pa.int64())})
    parts = partition(batch, names_max=names_max)
    known = list(dict.fromkeys(values))[:names_max]
    expected = {}
    for number, value in enumerate(values):
        expected.setdefault(value if value in known else "__other__", []).append(number)
    assert [(name, part["n"].to_pylist()) for name, part in parts] == list(expected.items())


def test_the_bound_holds_over_all_batches_and_the_name_stays_in_its_column():
    partitioner = Partitioner(2)
    seen = set()
    for number in range(5):
        for name, part in partitioner.split(pa.record_batch({"event": [f"e{number}"]})):
            seen.add(name)
            assert part["event"].to_pylist() == [f"e{number}"]
    assert seen == {"e0", "e1", "__other__"}


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
    """Values from Apache Kafka's own unit test of Utils.murmur2."""
    assert murmur2(key) == expected
