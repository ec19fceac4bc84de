"""Which file a row goes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.lake.duplicates import contains, mixed, repeated, words
from eventmill.lake.files import partition
from eventmill.lake.recompute import _runs
from lake_events import DAY_MS, batch, event_id, row

names = st.text(max_size=3)


def table(given: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_batches([batch(given)])


rows = st.lists(st.tuples(names, st.integers(-3 * DAY_MS, 3 * DAY_MS)), max_size=60)


@given(rows, st.integers(1, 8), st.integers(1, 12), st.integers(1, 6), st.integers(1, 25))
@settings(max_examples=200, deadline=None)
def test_every_row_has_one_place_by_date_and_name(
    given_rows: list[tuple[str, int]], files_few: int, files_max: int, rows_few: int, chunk_rows: int
) -> None:
    events = batch(row(i, event=name, timestamp=at) for i, (name, at) in enumerate(given_rows))
    expected = {entry["event_id"]: entry for entry in events.to_pylist()}
    numbered = {entry: number for number, entry in enumerate(expected)}
    chunks = pa.Table.from_batches(
        [events.slice(begin, chunk_rows) for begin in range(0, len(events), chunk_rows)], schema=events.schema
    )
    slices = partition(
        chunks, lambda name: name or "nameless", files_few=files_few, files_max=files_max, rows_few=rows_few
    )
    seen: Counter[str] = Counter()
    for part in slices:
        found = part.rows.to_pylist()
        numbers = [numbered[entry["event_id"]] for entry in found]
        assert [number // chunk_rows for number in numbers] == sorted(number // chunk_rows for number in numbers)
        for _, together in groupby(zip(numbers, found, strict=True), lambda pair: pair[0] // chunk_rows):
            times = [entry["timestamp"] for _, entry in together]
            assert times == sorted(times)
        assert {given_rows[number][1] // DAY_MS for number in numbers} == {part.date}
        assert part.group == "__other__" or {entry["event"] or "nameless" for entry in found} == {part.group}
        assert all(str(entry) == str(expected[entry["event_id"]]) for entry in found)
        seen.update(entry["event_id"] for entry in found)
    assert seen == Counter(expected.keys())
    keys = [(part.date, part.group) for part in slices]
    assert len(keys) == len(set(keys))
    dates = {at // DAY_MS for _, at in given_rows}
    assert len(slices) <= max(files_few, files_max + len(dates))


def test_few_partitions_are_left_as_they_are() -> None:
    slices = partition(table(row(i, event=f"event {i}") for i in range(5)), lambda name: name)
    assert {part.group for part in slices} == {f"event {i}" for i in range(5)}


def test_small_partitions_share_one_when_there_are_many() -> None:
    large = [row(i, event="large") for i in range(20)]
    events = table([*large, *(row(100 + i, event=f"rare {i}") for i in range(10))])
    slices = partition(events, lambda name: name, files_few=4, rows_few=3)
    assert {part.group: part.rows.num_rows for part in slices} == {"large": 20, "__other__": 10}


def test_the_largest_keep_their_own_when_there_are_too_many() -> None:
    events = table(row(i * 100 + k, event=f"event {i}") for i in range(8) for k in range(i + 1))
    slices = partition(events, lambda name: name, files_few=2, files_max=3, rows_few=1)
    assert {part.group for part in slices} == {"event 7", "event 6", "event 5", "__other__"}


def test_runs_of_dates() -> None:
    assert list(_runs([])) == []
    assert list(_runs({7, 1, 2, 3, 9, 10})) == [(1, 3), (7, 7), (9, 10)]


@given(st.lists(st.integers(0, 30), max_size=40))
def test_repeated_ids_are_found(numbers: list[int]) -> None:
    ids = pa.array([event_id(number) for number in numbers], pa.binary(16))
    hashes = mixed(words(ids))
    again = repeated(hashes)
    expected = [count > 1 for count in map(Counter(numbers).__getitem__, numbers)]
    assert contains(again, hashes).tolist() == expected
    assert words(ids.slice(1)).tobytes() == b"".join(ids.slice(1).to_pylist())


def test_contains_of_nothing() -> None:
    assert contains(np.empty(0, np.uint64), np.arange(2, dtype=np.uint64)).tolist() == [False, False]
