"""The decoder beside its slow twin, on random bodies."""

from __future__ import annotations

import json
from typing import Any

import decode_twin as twin
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill._native.decode import Decoder
from eventmill.core.errors import BodyError

RECEIVED_AT = 1_795_400_000_000

TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "x", "ü", "a\\b", '"', "😀", "\x00", "\x7f", "é" * 40, "y" * 33])
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.sampled_from(["name", "id"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TIMES = st.one_of(
    st.sampled_from([
        "2026-11-23T02:13:20Z", "2026-11-23t02:13:20.123456789z", "2026-11-23 02:13:20+01:00", "2026-11-23", "2024-02-29",
        "2023-02-29", "1795400000", "1795400000123.9", 1795400000, 1795400000.5, 1795400000123, "yesterday", "", True, {},
        "1999-12-31T00:00:00Z", "2101-01-01T00:00:00Z", None, -5, 1.7954e9, "2026-11-23T02:13:20", "0001-01-01T00:00:00+01:00",
    ]),
    st.integers(RECEIVED_AT - 10**6, RECEIVED_AT + 10**5),
)  # fmt: skip
UUIDS = st.uuids().map(str)
IDS = st.one_of(UUIDS, UUIDS.map(str.upper), TEXTS, st.integers(), st.none(), st.just("x" * 36))
NAMES = st.one_of(TEXTS, TEXTS, st.integers(0, 9), st.none())
#: Now and then a value of a wrong type, at any member.
WRONG_ONE_IN = 60


def shuffled(draw: Any, made: list[tuple[str, Any]]) -> str:
    """The members as an object in random order, with random spaces and escapes, a duplicate now and then."""
    order = draw(st.permutations(made))
    if order and draw(st.integers(0, 9)) == 0:
        order = [*order, draw(st.sampled_from(order))]
    space = draw(st.sampled_from(["", "", " ", "\n\t"]))
    ascii_only = draw(st.booleans())
    parts = []
    for name, value in order:
        key = json.dumps(name, ensure_ascii=ascii_only)
        if name and name.isalpha() and name.isascii() and draw(st.integers(0, 30)) == 0:
            key = f'"\\u{ord(name[0]):04x}{name[1:]}"'
        raw = value if isinstance(value, Raw) else json.dumps(value, ensure_ascii=ascii_only)
        parts.append(f"{key}{space}:{space}{raw}{space}")
    return "{" + space + ",".join(parts) + "}"


class Raw(str):
    """JSON text."""


@st.composite
def contexts(draw: Any) -> Any:
    made: list[tuple[str, Any]] = []
    for name, inner in (("app", ["version", "build"]), ("os", ["name", "version"]), ("device", ["id", "model"])):
        if draw(st.booleans()):
            inside = [(key, draw(NAMES)) for key in inner if draw(st.booleans())]
            made.append(
                (name, draw(st.just(None) | LEAVES) if draw(st.integers(0, 9)) == 0 else Raw(shuffled(draw, inside)))
            )
    others = [name for name in ("locale", "library", "_unmapped", "_batch") if draw(st.integers(0, 5)) == 0]
    made += [(name, draw(VALUES)) for name in others]
    return Raw(shuffled(draw, made))


@st.composite
def events(draw: Any) -> str:
    if draw(st.integers(0, 19)) == 0:
        return json.dumps(draw(LEAVES | st.lists(LEAVES, max_size=2)))
    made: list[tuple[str, Any]] = [("type", draw(st.sampled_from([*twin.TYPES * 3, "track", "trak", None, 5])))]
    for name, values, share in (
        ("event", NAMES, 9),
        ("userId", IDS, 7),
        ("anonymousId", IDS, 8),
        ("messageId", IDS, 8),
        ("timestamp", TIMES, 3),
        ("originalTimestamp", TIMES, 6),
        ("sentAt", TIMES, 3),
        ("context", contexts(), 7),
        ("properties", st.dictionaries(TEXTS | st.sampled_from(["name", "category"]), VALUES, max_size=4), 6),
        ("traits", st.dictionaries(TEXTS, VALUES, max_size=3), 3),
        ("name", VALUES, 3),
        ("category", VALUES, 2),
        ("writeKey", TEXTS, 1),
        ("integrations", VALUES, 2),
        ("groupId", VALUES, 2),
        ("previousId", VALUES, 1),
        ("a longer name that nobody knows", VALUES, 1),
    ):
        if draw(st.integers(0, 9)) < share:
            made.append((name, draw(VALUES if draw(st.integers(0, WRONG_ONE_IN)) == 0 else values)))
    return shuffled(draw, made)


@st.composite
def bodies(draw: Any) -> tuple[bytes, str | None]:
    if draw(st.integers(0, 4)) == 0:
        return draw(events()).encode(), draw(st.sampled_from([None, *twin.TYPES]))
    batch: list[tuple[str, Any]] = [("batch", Raw("[" + ", ".join(draw(st.lists(events(), max_size=4))) + "]"))]
    for name, values, share in (
        ("sentAt", TIMES, 6),
        ("context", contexts(), 4),
        ("writeKey", TEXTS | st.integers(), 4),
        ("timestamp", VALUES, 3),
        ("integrations", VALUES, 2),
        ("type", VALUES, 1),
    ):
        if draw(st.integers(0, 9)) < share:
            batch.append((name, draw(values)))
    if draw(st.integers(0, 30)) == 0:
        batch.append(("batch", draw(VALUES)))
    return shuffled(draw, batch).encode(), None


def columns(batch: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    times = {"timestamp", "original_timestamp", "sent_at", "received_at"}
    values = {
        name: (batch.column(name).cast("int64") if name in times else batch.column(name)).to_pylist()
        for name in batch.schema.names
    }
    for row in range(batch.num_rows):
        one = {name: column[row] for name, column in values.items()}
        for name in ("properties", "context"):
            orjson.loads(one[name])
            one[name] = twin.loads(one[name])
        rows.append(one)
    return rows


def assert_same(decoder: Decoder, expected: list[twin.Twin]) -> None:
    batch, rejects = decoder.finish()
    batch.validate(full=True)
    rejects.validate(full=True)
    wanted = [row for one in expected for row in one.events]
    found = columns(batch)
    derived = [row["event_id"] for row, want in zip(found, wanted, strict=True) if want["event_id"] is None]
    assert len(set(derived)) == len(derived)
    for row, want in zip(found, wanted, strict=True):
        if want["event_id"] is None:
            row["event_id"] = None
        assert row == want
    got = list(zip(rejects.column("reason").to_pylist(), rejects.column("payload").to_pylist(), strict=True))
    assert got == [reject for one in expected for reject in one.rejects]


@settings(max_examples=700, deadline=None)
@given(st.lists(st.tuples(bodies(), st.booleans()), min_size=1, max_size=3))
def test_decoder_agrees_with_its_twin(sent: list[tuple[tuple[bytes, str | None], bool]]) -> None:
    limits = twin.Limits(event_bytes_max=900, event_name_bytes_max=40, depth_max=5)
    decoder = Decoder(event_bytes_max=900, event_name_bytes_max=40, depth_max=5)
    expected: list[twin.Twin] = []
    for (body, kind), take_back in sent:
        try:
            orjson.loads(body)
            want = twin.decode(body, RECEIVED_AT, kind, limits)
        except (orjson.JSONDecodeError, twin.NotABatch):
            with pytest.raises(BodyError):
                decoder.append(body, RECEIVED_AT, kind)
            continue
        answer = decoder.append(body, RECEIVED_AT, kind)
        assert answer == (len(want.events), len(want.rejects), want.write_key)
        if take_back:
            decoder.rollback()
        else:
            expected.append(want)
    assert decoder.rows == sum(len(one.events) for one in expected)
    assert_same(decoder, expected)
    assert (decoder.rows, decoder.reject_rows, decoder.nbytes) == (0, 0, 0)


@settings(max_examples=150, deadline=None)
@given(bodies(), st.data())
def test_damaged_bodies_are_refused_exactly_when_orjson_refuses_them(sent: tuple[bytes, str | None], data: Any) -> None:
    body, kind = bytearray(sent[0]), sent[1]
    decoder = Decoder()
    for _ in range(20):
        at = data.draw(st.integers(0, len(body) - 1))
        damaged = bytearray(body)
        damaged[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'{}[]",:\\u0d9-+.eE ')))
        try:
            orjson.loads(damaged)
            want = twin.decode(bytes(damaged), RECEIVED_AT, kind)
        except (orjson.JSONDecodeError, twin.NotABatch):
            with pytest.raises(BodyError):
                decoder.append(damaged, RECEIVED_AT, kind)
            continue
        decoder.append(damaged, RECEIVED_AT, kind)
        assert_same(decoder, [want])
