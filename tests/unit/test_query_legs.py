"""Which tables answer for which stretches of a trend."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.lakefile import LakeFile
from eventmill.query.legs import IN_LAKE, IN_REALTIME, LAKE_DAYS, LAKE_HOURS, cut, lake_legs, pieces
from eventmill.query.routing import Route, Span

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MOMENTS = st.integers(0, 5 * DAY) | st.integers(0, 120).map(lambda n: n * HOUR)


@given(MOMENTS, MOMENTS, st.sampled_from([(), (HOUR,), (DAY, HOUR), (DAY, HOUR, MINUTE)]))
def test_the_pieces_are_the_span_each_of_whole_lengths_and_the_longest_that_fit(one, other, lengths):
    span = Span(*sorted((one, other)))
    found = cut(span, lengths)
    at = span.start
    for length, piece in found:
        assert piece.start == at < piece.end
        assert not length or not (piece.start % length or piece.end % length)
        for longer in lengths:
            # No whole length that is longer lies in the piece.
            assert longer <= (length or 1) or -(-piece.start // longer) * longer + longer > piece.end
        at = piece.end
    assert at == (span.end if found else span.start)


def test_a_roll_up_fits_buckets_and_the_distance_of_the_period_before():
    whole = Span(0, 3 * DAY)
    assert pieces([(whole, 0)], DAY, IN_LAKE) == {LAKE_DAYS: [whole]}
    assert pieces([(whole, 0)], HOUR, IN_LAKE) == {LAKE_HOURS: [whole]}
    assert pieces([(whole, 0)], MINUTE, IN_LAKE) == {None: [whole]}
    assert pieces([(whole, 5 * HOUR)], DAY, IN_LAKE) == {LAKE_HOURS: [whole]}
    assert pieces([(whole, 5 * HOUR + 1)], DAY, IN_LAKE) == {None: [whole]}
    edges = {
        each and each.name: parts
        for each, parts in pieces([(Span(1, DAY + HOUR + 90_000), 0)], DAY, IN_REALTIME).items()
    }
    assert edges == {
        None: [Span(1, MINUTE), Span(DAY + HOUR + MINUTE, DAY + HOUR + 90_000)],
        "eventmill.events_1m": [Span(MINUTE, HOUR), Span(DAY + HOUR, DAY + HOUR + MINUTE)],
        "eventmill.events_1h": [Span(HOUR, DAY + HOUR)],
    }  # fmt: skip


def test_files_that_are_not_rolled_up_are_read_and_no_others():
    one = LakeFile("a.parquet", 0, "tap", 10, 1, 5, DAY - 1, compacted=True)
    new = replace(one, name="b.parquet", compacted=False)
    elsewhere = replace(one, name="c.parquet", date=9, start_ms=9 * DAY, end_ms=9 * DAY + 1)
    other = replace(one, name="d.parquet", group="purchase")
    files = (one, new, elsewhere, other)
    way = Route(Span(0, DAY), None, DAY, files=files, is_rolled_up=lambda file: file.compacted)
    rolled, raw = lake_legs(way, [(Span(0, DAY), 0)], DAY, ["tap"], rolls_up=True)
    assert (rolled.table, rolled.files) == (LAKE_DAYS, (one,))
    assert (raw.table, raw.spans, raw.files) == (None, (Span(0, DAY),), (new,))


@pytest.mark.parametrize("change", [{"files": None}, {"is_rolled_up": lambda _: False}])
def test_without_roll_ups_all_events_are_read(change):
    file = LakeFile("a.parquet", 0, "tap", 10, 1, 5, DAY - 1, compacted=True)
    way = replace(Route(Span(0, DAY), None, DAY, files=(file,), is_rolled_up=lambda _: True), **change)
    (leg,) = lake_legs(way, [(Span(0, DAY), 0)], DAY, None, rolls_up=True)
    assert (leg.table, leg.spans, leg.files) == (None, (Span(0, DAY),), None)
