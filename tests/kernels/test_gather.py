"""Rows picked by number: as pyarrow gathers them, whatever the columns are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill._native import gather as native
from eventmill.core.schema import EVENT_ID, TIME, WORD
from eventmill.kernels import gather
from eventmill.kernels.gather import take

TYPES = [
    pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.float16(), pa.float64(), pa.date32(), pa.duration("s"), TIME, EVENT_ID,
    pa.binary(3), pa.binary(8), pa.bool_(), pa.string(), pa.binary(), pa.large_string(), pa.string_view(), WORD,
    pa.dictionary(pa.int32(), pa.string(), ordered=True), pa.dictionary(pa.int8(), pa.string()), pa.decimal128(20, 3),
    pa.list_(pa.int32()), pa.struct([pa.field("a", pa.string())]), pa.null(), pa.uuid(),
]  # fmt: skip


@pytest.fixture(autouse=True)
def however_few(monkeypatch):
    monkeypatch.setattr(gather, "_ROWS_FEW", 1)


def column(kind: pa.DataType, rng: np.random.Generator, count: int, nulls: float) -> pa.Array:
    """Random values of a type; strings of 0 to 300 bytes."""
    null = rng.random(count) < nulls
    if pa.types.is_null(kind):
        return pa.nulls(count)
    if isinstance(kind, pa.UuidType):
        return pa.ExtensionArray.from_storage(kind, column(pa.binary(16), rng, count, nulls))
    if pa.types.is_dictionary(kind):
        words = pa.array([f"word {n}" for n in range(9)])
        indices = pa.array(rng.integers(0, 9, count), kind.index_type, mask=null)
        return pa.DictionaryArray.from_arrays(indices, words, ordered=kind.ordered)
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays(
            [column(pa.string(), rng, count, nulls)], fields=list(kind), mask=pa.array(null)
        )
    if pa.types.is_list(kind):
        return pa.array([None if none else list(range(n % 3)) for n, none in enumerate(null)], kind)
    if pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind):
        return pa.array([None if none else rng.bytes(kind.byte_width) for none in null], kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        return pa.array(rng.integers(0, 100, count), pa.int64(), mask=null).cast(
            pa.int32() if pa.types.is_date32(kind) else pa.int64()
        ).cast(kind)  # fmt: skip
    if pa.types.is_boolean(kind):
        return pa.array(rng.random(count) < 0.5, mask=null)
    if pa.types.is_decimal(kind):
        return pa.array(rng.integers(0, 10**6, count), pa.int64(), mask=null).cast(pa.decimal128(30, 3)).cast(kind)
    lengths = rng.choice([0, 1, 15, 36, 63, 64, 65, 300], count)
    return pa.array(
        [None if none else "x" * n + str(i) for i, (n, none) in enumerate(zip(lengths, null, strict=True))], kind
    )


def check(batch: pa.RecordBatch, rows: np.ndarray) -> None:
    """As pyarrow does it, and sound in all its buffers."""
    taken = take(batch, rows)
    taken.validate(full=True)
    assert taken.schema.equals(batch.schema, check_metadata=True)
    assert taken.num_rows == len(rows)
    for got, source in zip(taken.columns, batch.columns, strict=True):
        views = source.type == pa.string_view()  # of which pyarrow gathers none
        expected = (
            source.cast(pa.string()).take(pa.array(rows)).cast(source.type) if views else source.take(pa.array(rows))
        )
        assert got.equals(expected)
        assert got.null_count == expected.null_count


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([kind for kind in TYPES if kind != pa.string_view()]), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.integers(0, 90),
    st.integers(0, 20),
    st.sampled_from([0, 0.2, 1]),
    st.sampled_from(["random", "runs", "all", "same", "none"]),
    st.sampled_from([np.int32, np.int64]),
)
def test_as_pyarrow_does_it(kinds, seed, count, skipped, nulls, order, integer):
    rng = np.random.default_rng(seed)
    columns = {f"c{n}": column(kind, rng, count + skipped + 3, nulls) for n, kind in enumerate(kinds)}
    fields = [pa.field(name, array.type, metadata={"k": name}) for name, array in columns.items()]
    whole = pa.record_batch(list(columns.values()), schema=pa.schema(fields, {"of": "the batch"}))
    batch = whole.slice(skipped, count)
    rows = {
        "random": lambda: rng.integers(0, count, 70) if count else np.empty(0),
        "runs": lambda: np.flatnonzero(rng.random(count) < 0.95),
        "all": lambda: np.arange(count),
        "same": lambda: np.full(20, count - 1) if count else np.empty(0),
        "none": lambda: np.empty(0),
    }[order]()
    check(batch, rows.astype(integer))


@pytest.mark.parametrize("kind", [pa.string(), EVENT_ID, pa.int64(), WORD], ids=str)
def test_many_rows(kind):
    rng = np.random.default_rng(7)
    batch = pa.record_batch({"c": column(kind, rng, 5_000, 0.1)})
    check(batch, rng.permutation(5_000).astype(np.int32))
    check(batch, np.flatnonzero(rng.random(5_000) < 0.99))


@pytest.mark.parametrize("few", [1, 1_000])
def test_rows_that_are_none_are_refused(few, monkeypatch):
    monkeypatch.setattr(gather, "_ROWS_FEW", few)
    batch = pa.record_batch({"n": [1, 2, 3]})
    for rows in ([3], [-1], [2**40], np.array([0, 3], np.int32), np.array([-1], np.int32)):
        with pytest.raises(IndexError, match="from 0 to 2"):
            take(batch, rows)
    with pytest.raises(IndexError):
        take(batch.slice(0, 0), [0])
    for rows in ([None], pa.array([0, None]), ["a"], [[1]]):
        with pytest.raises(TypeError):
            take(batch, rows)


def test_a_column_past_two_gibibytes_is_refused():
    batch = pa.record_batch({"s": ["x" * (1 << 20)]})
    with pytest.raises(ValueError, match=r"2,147,483,648 bytes.*take fewer rows"):
        take(batch, np.zeros(1 << 11, np.int32))


def test_buffers_that_do_not_fit_are_refused():
    rows = native.Rows(np.array([1, 0], np.int32), 2)
    offsets, room = np.array([0, 1, 3], np.int32), np.empty(3 + native.PADDING, np.uint8)
    for call in (
        lambda: rows.fixed(b"1234567", 0, 4, bytearray(8)),
        lambda: rows.fixed(b"12345678", 1, 4, bytearray(8)),
        lambda: rows.fixed(b"12345678", 0, 4, bytearray(7)),
        lambda: rows.fixed(b"123456", 0, 3, bytearray(6)),
        lambda: rows.bits(b"1", 7, bytearray(1)),
        lambda: rows.bits(b"1", 0, bytearray()),
        lambda: rows.bits(b"1", 0, b"1"),
        lambda: rows.offsets(offsets, 1, b"abc", np.empty(3, np.int32)),
        lambda: rows.offsets(offsets, 0, b"ab", np.empty(3, np.int32)),
        lambda: rows.offsets(offsets, 0, b"abc", np.empty(2, np.int32)),
        lambda: rows.strings(offsets, 0, b"abc", 3, room[1:]),
    ):
        with pytest.raises((ValueError, BufferError, TypeError)):
            call()
    rows.strings(offsets, 0, b"abc", 3, room)
    assert room[:3].tobytes() == b"bca"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([kind for kind in TYPES if kind != pa.string_view()]), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 300), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.booleans(),
)
def test_rows_of_parts_are_those_of_the_parts_joined(
    kinds: list[pa.DataType], seed: int, sizes: list[int], nulls: float, again: bool
) -> None:
    rng = np.random.default_rng(seed)
    names = [f"{number}" for number in range(len(kinds))]
    batches = []
    for size in sizes:
        columns = [column(kind, rng, size + 3, nulls) for kind in kinds]
        batches.append(pa.RecordBatch.from_arrays(columns, names).slice(int(rng.integers(0, 4)), size))
    joined = pa.Table.from_batches(batches)
    buffers: dict[str, pa.Buffer] = {}
    parts = gather.Parts(batches, buffers if again else None)
    assert len(parts) == sum(sizes)
    for _ in range(2):
        rows = rng.integers(0, sum(sizes), int(rng.integers(0, 500))) if sum(sizes) else np.empty(0, np.int64)
        taken = parts.take(rows)
        taken.validate(full=True)
        assert taken.schema.equals(joined.schema)
        assert pa.Table.from_batches([taken]).equals(joined.take(pa.array(rows, pa.int64())).combine_chunks())


def test_parts_refuse_rows_that_are_not_theirs_and_columns_of_other_sizes() -> None:
    parts = gather.Parts([pa.record_batch({"a": ["x", "y"]}), pa.record_batch({"a": ["z"]})])
    for wrong in ([3], [-1]):
        with pytest.raises(IndexError, match="from 0 to 2"):
            parts.take(wrong)
    with pytest.raises(ValueError, match="a batch"):
        gather.Parts([])
    places = native.Places(np.array([2], np.int32), [2, 1])
    offsets = np.array([0, 1, 2], np.int32)
    with pytest.raises(ValueError, match="counted in"):
        native.PartStrings([(2, 0, offsets, b"ab")]).offsets(places, np.empty(8, np.uint8))
    with pytest.raises(ValueError, match="string column"):
        native.PartStrings([(3, 0, offsets, b"ab")])
    with pytest.raises(ValueError, match="string column"):
        native.PartStrings([(2, 0, offsets, b"a")])
    with pytest.raises(ValueError, match="less than"):
        native.Places(np.array([2], np.int32), [2**31])
    column = native.PartStrings([(2, 0, offsets, b"ab"), (1, 1, offsets, b"ab")])
    with pytest.raises(ValueError, match="one offset more"):
        column.offsets(places, np.empty(12, np.uint8))
    with pytest.raises(ValueError, match="room for the strings"):
        column.strings(places, 1, np.empty(native.PADDING, np.uint8))
