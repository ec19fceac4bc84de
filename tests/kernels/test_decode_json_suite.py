"""Verdicts on the JSON parsing test suite (github.com/nst/JSONTestSuite) agree with orjson's, file by file."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from eventmill._native.decode import Decoder
from eventmill.core.errors import BodyError

SUITE = Path(__file__).parent.parent / "data" / "json_test_suite" / "test_parsing"
FILES = sorted(SUITE.glob("*.json"))

#: (file, how it was sent) -> why the verdict differs from orjson's on purpose. There is no difference.
DIFFERENCES: dict[tuple[str, str], str] = {}

HEAD = b'{"batch": [{"type": "track", "event": "E", "userId": "u", "properties": {"x": '
PLACES = {
    "whole body": (b"", b""),
    "properties": (HEAD, b"}}]}"),
    "context": (HEAD + b'1}, "context": {"x": ', b"}}]}"),
    "unknown member": (HEAD + b'1}, "x": ', b"}]}"),
    "unknown envelope member": (HEAD + b'1}}], "x": ', b"}"),
    "user id": (HEAD + b'1}, "userId": ', b"}]}"),
}


def is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def is_taken_as_json(body: bytes) -> bool:
    """Whether the decoder takes the body for JSON, be it a batch or not."""
    decoder = Decoder()
    try:
        accepted, rejected, _ = decoder.append(body, 1_795_400_000_000)
    except BodyError as error:
        return "is not JSON" not in str(error)
    assert accepted + rejected == 1
    events, rejects = decoder.finish()
    events.validate(full=True)
    rejects.validate(full=True)
    for name in ("properties", "context"):
        for text in events.column(name).to_pylist():
            orjson.loads(text)
    return True


def test_the_suite_is_complete() -> None:
    assert len(FILES) == 318


@pytest.mark.parametrize("place", PLACES)
def test_verdicts_agree_with_orjson(place: str) -> None:
    head, tail = PLACES[place]
    different = []
    for file in FILES:
        body = head + file.read_bytes() + tail
        if is_taken_as_json(body) != is_json(body) and (file.name, place) not in DIFFERENCES:
            different.append(file.name)
    assert different == []


@pytest.mark.parametrize(
    "value",
    [
        "1e400", "-1e400", "1e-400", "1.7976931348623157e308", "1.7976931348623159e308", "9" * 308, "9" * 309, "1" + "0" * 308,
        "0." + "0" * 400 + "1e700", "1" + "0" * 400 + "e-200", "0e99999999999999999999", "1e99999999999999999999",
        "1e-99999999999999999999", "-0", "0.0e400", "-", "01", "1.", ".1", "1e", "1e+", "+1", "0x1", "1_0", "truE", "nul",
        "truefalse", "true1", '"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00"', '"\\ud83d\\ud83d"', '"\\ud83dx"', '"\\u12g4"',
        '"\\x41"', '"\\u0000"', '"\\/"', '"a\x00b"', '"\x1f"', '"\x7f"', "\x00", "1\x00", "\x0c", "1\x0c", '"a""b"', '"a"b',
        "[1,]", "[,1]", '{"a":1,}', '{"a"}', '{"a":}', "{1:2}", "{'a':1}", "[1 2]", "[1}", "{]", "1]", "//", "1/**/", "NaN",
        '{"a":1 "b":2}', '{"a":1,"a":2}', '{"\\ud800":1}', '{"\\u0061":1}', "[[]", "]", '"', '"\\', '"\\"', '{"a', '[""', "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", PLACES)
def test_edges_agree_with_orjson(place: str, value: str) -> None:
    head, tail = PLACES[place]
    body = head + value.encode() + tail
    assert is_taken_as_json(body) == is_json(body)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_depth_ends_where_orjsons_does(place: str, opening: bytes, closing: bytes) -> None:
    head, tail = PLACES[place]
    for depth in (*range(40, 80), *range(505, 520), *range(1010, 1030), 100_000):
        body = head + opening * depth + b"1" + closing * depth + tail
        assert is_taken_as_json(body) == is_json(body), depth


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\xf0\x9f\x98\x80",
        b"\xc3\xa9",
        b"\x00",
    ],
)
@pytest.mark.parametrize("place", ['"x%sy"', '{"x%sy": 1}', "%s", "[1%s]"])
def test_bytes_agree_with_orjson(damage: bytes, place: str) -> None:
    for head, tail in PLACES.values():
        body = head + place.encode().replace(b"%s", damage) + tail
        assert is_taken_as_json(body) == is_json(body)
