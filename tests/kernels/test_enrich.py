"""The dimension join against dictionaries and Polars."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from enrich_twin import flagged, join
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.schema import EVENT, RAW, Flag
from eventmill.kernels.enrich import Enricher

UNKNOWN = int(Flag.DIMENSIONS_UNKNOWN)

names = st.text(max_size=4) | st.sampled_from(["x" * 300, "x" * 301])
dimensions = st.tuples(st.none() | st.sampled_from("abc"), st.none() | st.integers(0, 3))


def table_of(rows):
    return pa.table(
        {
            "user_id": pa.array(list(rows), pa.string()),
            "tier": pa.array([tier for tier, _ in rows.values()], pa.string()),
            "level": pa.array([level for _, level in rows.values()], pa.int16()),
        }
    )


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(names, dimensions, min_size=1, max_size=60),
    st.lists(st.tuples(st.none() | names, st.integers(0, 1023)), max_size=150),
    st.integers(0, 9),
)
def test_a_join_is_a_dictionary_look_up(table, rows, offset):
    users = [*([None] * 3), *(user for user, _ in rows), *list(table)[:20]]
    flags = [*([0] * 3), *(flag for _, flag in rows), *([UNKNOWN] * len(list(table)[:20]))]
    batch = pa.record_batch({"user_id": pa.array(users, pa.string()), "flags": pa.array(flags, pa.int32())})
    result = Enricher(table_of(table)).apply(batch.slice(offset))
    users, flags = users[offset:], flags[offset:]
    found = list(zip(result["tier"].to_pylist(), result["level"].to_pylist(), strict=True))
    assert found == join(table, 2, users)
    assert result["flags"].to_pylist() == flagged(table, users, flags, UNKNOWN)
    assert result["user_id"].to_pylist() == users
    result.validate(full=True)


def test_many_users_are_joined_as_polars_does():
    rng = np.random.default_rng(2)
    users = pl.DataFrame({"user_id": [f"user-{number}" for number in range(100_000)]}).with_columns(
        country=pl.Series(rng.choice(["DE", "FR", "US"], 100_000)),
        segment=pl.Series([("new", "loyal", None)[number] for number in rng.integers(0, 3, 100_000)]),
        tier=pl.Series([f"tier {number}" for number in rng.integers(0, 90_000, 100_000)]),
    )
    events = pl.DataFrame({"user_id": [f"user-{number}" for number in rng.integers(0, 130_000, 200_000)]})
    expected = events.join(users, on="user_id", how="left", maintain_order="left")
    result = Enricher(users).apply(events)
    assert pl.from_arrow(pa.Table.from_batches([result])).select(expected.columns).equals(expected)


def test_columns_come_in_the_order_of_events():
    batch = pa.RecordBatch.from_pylist([], RAW)
    expected = [name for name in EVENT.names if name not in ("session_id", "project")]
    assert Enricher.empty().apply(batch).schema.names == expected
    extra = batch.append_column("extra", pa.array([], pa.int8()))
    twice = Enricher.empty().apply(Enricher.empty().apply(extra))
    assert twice.schema.names == [*expected, "extra"]
    for name in ("country", "segment", "tier"):
        assert twice.schema.field(name).equals(EVENT.field(name))
    other = pa.record_batch({"n": [1], "user_id": ["a"]})
    assert Enricher.empty().apply(other).schema.names == ["n", "user_id", "country", "segment", "tier"]


def test_without_dimensions_nothing_is_flagged():
    batch = pa.record_batch({"user_id": ["a", None], "flags": pa.array([1, UNKNOWN], pa.int32())})
    result = Enricher.empty().apply(batch)
    assert result["flags"].to_pylist() == [1, UNKNOWN]
    assert result["tier"].to_pylist() == [None, None]


def test_enriching_again_puts_the_flag_right():
    batch = pa.record_batch({"user_id": ["a", "b"], "flags": pa.array([0, 1], pa.int32())})
    first = Enricher(table_of({"a": ("gold", 1)})).apply(batch)
    assert first["flags"].to_pylist() == [0, 1 | UNKNOWN]
    second = Enricher(table_of({"a": ("gold", 2), "b": ("blue", 3)})).apply(first)
    assert second["flags"].to_pylist() == [0, 1]
    assert second["tier"].to_pylist() == ["gold", "blue"]


def test_dimensions_of_events_become_strings():
    batch = pa.record_batch({"user_id": ["a", "b"]})
    coded = pa.table({"user_id": ["a"], "tier": pa.array([7]), "country": pa.array(["DE"]).dictionary_encode()})
    result = Enricher(coded).apply(batch)
    assert (result["tier"].to_pylist(), result["country"].to_pylist()) == (["7", None], ["DE", None])


def test_key_and_flag_may_be_others():
    enricher = Enricher(pa.table({"device": ["d1"], "model": ["m"]}), key="device", flag=4)
    result = enricher.apply(pa.record_batch({"device": ["d1", "d2"], "flags": pa.array([4, 0], pa.int32())}))
    assert (result["model"].to_pylist(), result["flags"].to_pylist()) == (["m", None], [0, 4])


def test_threads_may_share_it():
    enricher = Enricher(table_of({f"u{number}": (str(number), 0) for number in range(10_000)}))
    users = pa.array([f"u{number}" for number in range(20_000)])
    expected = [str(number) for number in range(10_000)] + [None] * 10_000
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: enricher.apply(pa.record_batch({"user_id": users})), range(16)))
    assert all(result["tier"].to_pylist() == expected for result in results)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"user_id": ["a", "b", "a"], "tier": ["x", "y", "z"]}, "'a' is in the table twice; keep one row a key"),
        ({"user_id": ["a", None], "tier": ["x", "y"]}, "has nulls; leave those rows out"),
        ({"user_id": ["a"]}, "no columns beside 'user_id'; add the dimensions"),
        ({"id": ["a"]}, "no column 'user_id'; it has id"),
        ({"user_id": ["a"], "tier": [[1]]}, "columns country, segment, tier must be strings"),
    ],
)
def test_a_table_that_is_no_dimension_is_refused_with_the_cure(table, match):
    with pytest.raises(ValueError, match=match):
        Enricher(pa.table(table))


def test_a_batch_without_the_key_is_refused():
    with pytest.raises(ValueError, match="needs one column 'user_id'; it has n"):
        Enricher.empty().apply(pa.record_batch({"n": [1]}))
