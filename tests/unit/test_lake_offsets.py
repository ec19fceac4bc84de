"""What a snapshot's summary says about offsets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from eventmill.core.errors import StateError
from eventmill.lake import offsets


def snapshot(**entries: str) -> Any:
    return SimpleNamespace(snapshot_id=7, summary=SimpleNamespace(additional_properties=entries))


AT_TEN = {"eventmill.group": "lake", "eventmill.offset.enriched.0": "10", "added-records": "3"}


@pytest.mark.parametrize(
    ("given", "first", "following", "expected"),
    [
        (None, 0, 5, False),
        (snapshot(**AT_TEN), 10, 12, False),
        (snapshot(**AT_TEN), 8, 10, True),
        (snapshot(**AT_TEN), 0, 3, True),
        (snapshot(**AT_TEN), 11, 12, StateError),
        (snapshot(**AT_TEN), 8, 12, StateError),
        (None, 1, 5, StateError),
        (snapshot(**{"added-records": "3"}), 0, 5, StateError),
        (snapshot(**(AT_TEN | {"eventmill.group": "other"})), 10, 12, StateError),
    ],
)
def test_a_range_is_stored_next_or_wrong(given: Any, first: int, following: int, expected: bool | type) -> None:
    if expected is StateError:
        with pytest.raises(StateError):
            offsets.covers(given, "enriched", {0: (first, following)}, "lake")
    else:
        assert offsets.covers(given, "enriched", {0: (first, following)}, "lake") is expected


def test_all_our_entries_are_carried_and_no_others() -> None:
    assert offsets.carried(snapshot(**AT_TEN)) == {
        name: AT_TEN[name] for name in AT_TEN if name.startswith("eventmill.")
    }
    assert offsets.carried(None) == {}


def test_a_partition_without_an_entry_begins_at_zero() -> None:
    assert offsets.committed(snapshot(**AT_TEN), "enriched", 1) == 0
    assert offsets.committed(snapshot(**AT_TEN), "enriched", 0) == 10


def test_advancing_keeps_the_other_partitions() -> None:
    ours = offsets.advanced({"eventmill.offset.enriched.1": "3"}, "lake", "enriched", {0: (10, 20)})
    assert ours == {"eventmill.offset.enriched.1": "3", "eventmill.offset.enriched.0": "20", "eventmill.group": "lake"}
