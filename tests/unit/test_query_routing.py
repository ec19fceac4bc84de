"""Which store answers for which buckets: a table of cases, and the rule that makes them one answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.query.routing import Route, Span, route

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_000 * DAY + 5 * HOUR + 17


@pytest.mark.parametrize(
    ("span", "interval", "lake_exists", "watermark", "expected"),
    [
        pytest.param(Span(0, NOW), HOUR, False, None, Route(None, Span(0, NOW), None), id="no lake yet"),
        pytest.param(
            Span(NOW - HOUR, NOW), HOUR, True, NOW - 5,
            Route(None, Span(NOW - HOUR, NOW), NOW // HOUR * HOUR - DAY), id="the last hour",
        ),
        pytest.param(
            Span(0, 10 * DAY), DAY, True, NOW - 5, Route(Span(0, 10 * DAY), None, 999 * DAY), id="long ago",
        ),
        pytest.param(
            Span(990 * DAY, NOW), DAY, True, NOW - 5,
            Route(Span(990 * DAY, 999 * DAY), Span(999 * DAY, NOW), 999 * DAY), id="both, cut where a day begins",
        ),
        pytest.param(
            Span(990 * DAY, NOW), HOUR, True, NOW - 5,
            Route(Span(990 * DAY, 999 * DAY + 5 * HOUR), Span(999 * DAY + 5 * HOUR, NOW), 999 * DAY + 5 * HOUR),
            id="both, cut where an hour begins",
        ),
        pytest.param(
            Span(990 * DAY, NOW), DAY, True, 995 * DAY + 3,
            Route(Span(990 * DAY, 995 * DAY), Span(995 * DAY, NOW), 995 * DAY), id="the lake is behind",
        ),
        pytest.param(
            Span(990 * DAY, NOW), DAY, True, 980 * DAY, Route(None, Span(990 * DAY, NOW), 980 * DAY), id="far behind",
        ),
        pytest.param(
            Span(990 * DAY, NOW), DAY, True, None,
            Route(Span(990 * DAY, 999 * DAY), Span(999 * DAY, NOW), 999 * DAY), id="no watermark",
        ),
        pytest.param(
            Span(999 * DAY + 7, NOW), DAY, True, NOW, Route(None, Span(999 * DAY + 7, NOW), 999 * DAY), id="within",
        ),
    ],
)  # fmt: skip
def test_cases(span: Span, interval: int, lake_exists: bool, watermark: int | None, expected: Route) -> None:
    assert route(span, interval, lake_exists=lake_exists, watermark=watermark, now=NOW, window_ms=DAY) == expected


@given(
    st.integers(0, 2 * NOW), st.integers(1, NOW), st.sampled_from([60_000, HOUR, DAY]), st.integers(0, 2 * NOW) | st.none(),
    st.integers(1, 40 * DAY), st.booleans(),
)  # fmt: skip
def test_every_bucket_has_one_store(
    start: int, length: int, interval: int, watermark: int | None, window: int, lake_exists: bool
) -> None:
    span = Span(start, start + length)
    found = route(span, interval, lake_exists=lake_exists, watermark=watermark, now=NOW, window_ms=window)
    pieces = [piece for piece in (found.lake, found.realtime) if piece]
    assert pieces[0].start == span.start
    assert pieces[-1].end == span.end
    assert found.stores == [n for n, piece in (("realtime", found.realtime), ("lake", found.lake)) if piece]
    if len(pieces) == 2:
        assert pieces[0].end == pieces[1].start == found.boundary
        assert found.boundary % interval == 0
    if found.lake is not None:
        # The lake has all that was received for these buckets, as far as a clock can tell.
        assert found.lake.end <= max(NOW - window, 0)
        assert watermark is None or found.lake.end <= watermark
