"""Timestamps as SDKs spell them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from decode_twin import parse_time
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventmill._native.decode import parse_timestamp

AT = 1_795_400_000_000  # 2026-11-23T02:13:20Z


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-23T02:13:20Z", AT),
        ("2026-11-23t02:13:20z", AT),
        ("2026-11-23 02:13:20Z", AT),
        ("2026-11-23T02:13:20", AT),
        ("2026-11-23T02:13:20.1Z", AT + 100),
        ("2026-11-23T02:13:20.12Z", AT + 120),
        ("2026-11-23T02:13:20.123Z", AT + 123),
        ("2026-11-23T02:13:20.123999999Z", AT + 123),
        ("2026-11-23T02:13:20.000000001Z", AT),
        ("2026-11-23T04:13:20+02:00", AT),
        ("2026-11-23T04:13:20+0200", AT),
        ("2026-11-23T04:13:20+02", AT),
        ("2026-11-22T20:43:20-05:30", AT),
        ("2026-11-23T02:13:20-00:00", AT),
        ("2026-11-23", AT - 8_000_000),
        ("2024-02-29", 1_709_164_800_000),
        ("2000-02-29", 951_782_400_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("1795400000", AT),
        ("1795400000.123", AT + 123),
        ("1795400000.1239", AT + 123),
        ("1795400000000", AT),
        ("1795400000000.9", AT),
        ("1.7954e9", AT),
        ("1.7954E+12", AT),
        ("17954000000000e-1", AT),
        ("0", 0),
        ("-0.0005", -1),
        ("-1", -1000),
        ("99999999999", 99_999_999_999_000),
        ("100000000000", 100_000_000_000),
        ("1.001", 1001),
        ("0e99999999999999999999", 0),
    ],
)
def test_spellings(text: str, ms: int) -> None:
    assert parse_timestamp(text) == ms
    assert parse_time(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "now", "null", "2026-", "2026-13-01", "2026-00-01", "2026-01-00", "2026-01-32", "2026-04-31",
        "2023-02-29", "1900-02-29", "2100-02-29", "0000-01-01", "2026-1-1", "2026/01/01", "2026-01-01T", "2026-01-01T00",
        "2026-01-01T00:00", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.1234567890Z", "2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+00:60",
        "2026-01-01T00:00:00+1", "2026-01-01T00:00:00+00:0", "2026-01-01T00:00:00+000", "2026-01-01  00:00:00Z",
        "2026-01-01T00:00:00 Z", " 2026-01-01", "2026-01-01 ", "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01", "253402300800000", "-62135596800001", "1e400", "1e", "1.", ".5", "+5", "--5", "0x10",
        "1_000", "NaN", "Infinity", "١٢٣٤", "1" * 65, "2026-01-01T00:00:00.1２3Z",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    assert parse_timestamp(text) is None
    assert parse_time(text) is None


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),  # noqa: DTZ001
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from("Tt "),
    st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]),
)
def test_any_moment_in_any_zone(moment: datetime, minutes: int, separator: str, precision: str) -> None:
    at = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = at.isoformat(separator, precision)
    floor = (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert parse_timestamp(text) == floor


@settings(max_examples=500)
@given(
    st.one_of(
        st.text("0123456789-+.:eETtZz ", max_size=32),
        st.from_regex(r"-?[0-9]{1,15}(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
        st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][012][0-9]:[0-6][0-9]:[0-6][0-9]Z)?", fullmatch=True),
        st.text(max_size=20),
    )
)
@example("1e-999999999")
@example("-1e-999999999")
@example("0.00000000000000000001e23")
def test_any_text_as_the_twin(text: str) -> None:
    if any(c.isdigit() and not c.isascii() for c in text):
        return  # Python's int() takes other scripts' digits, JSON has none
    assert parse_timestamp(text) == parse_time(text)
