"""Events that look like ones before are read by comparison; a decoder that has seen nothing reads them the long way.

Both must say the same of every body: good ones, ones that differ in a value's kind or a member, and ones broken on purpose
where the comparison could be fooled.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill._native.decode import Decoder
from eventmill.core.errors import BodyError
from eventmill.core.schema import Flag

RECEIVED_AT = 1_795_400_000_000
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TIME = "2026-11-23T02:13:20.123Z"

#: What SDKs send, and what is close to it: numbers as ids, nulls, members twice, members of nobody, deep and empty ones.
EVENTS: list[str] = [
    f'{{"type":"track","messageId":"{ID}","anonymousId":"a","event":"Tap","originalTimestamp":"{TIME}",'
    '"context":{"app":{"version":"4.1"},"os":{"name":"iOS","version":"17.1"},"device":{"id":"d","model":"m"},"locale":"de"},'
    '"properties":{"price":1.5,"n":0,"ok":true,"list":[1,2,3],"none":null}}',
    f'{{"type":"track","event":"Tap","userId":null,"anonymousId":"a","messageId":"{ID}","timestamp":"{TIME}",'
    f'"sentAt":"{TIME}","context":{{"_batch":1,"locale":null}},"properties":{{}}}}',
    f'{{"messageId":"{ID}","type":"identify","userId":7,"traits":{{"name":"n"}},"context":{{}},"timestamp":{RECEIVED_AT}}}',
    f'{{"type":"screen","name":"Home","category":"c","properties":{{"name":"x"}},"userId":"u","messageId":"{ID}",'
    f'"originalTimestamp":"{TIME}","context":{{"device":{{"id":"d","id":"e"}}}}}}',
    f'{{"type":"track","event":"E","userId":"u","messageId":"not-a-uuid","integrations":{{"All":true}},"timestamp":"{TIME}",'
    '"context":{"os":5,"app":{"version":12},"_unmapped":{}},"writeKey":"k"}',
    f'{{"type":"track","event":"E","userId":"u","messageId":"{ID}","messageId":"m","originalTimestamp":"{TIME}"}}',
    f'{{"type": "track", "event": "spaced", "userId": "u", "messageId": "{ID}", "timestamp": "{TIME}", "context": {{"a": 1}}}}',
    f'{{"type":"group","groupId":"g","userId":"u","messageId":"{ID}","traits":{{"plan":"x"}},"context":{{"locale":"en"}}}}',
    f'{{"type":"track","event":"{"long " * 30}","userId":"u","messageId":"{ID}",'
    f'"context":{{"{"key" * 20}":"v","b":[[],{{}},[{{}}]]}}}}',
    f'{{"type":"track","event":"E","name":"n","userId":"u","messageId":"{ID}","context":{{"a":1}}}}',
    f'{{"type":"track","event":"E","category":"c","userId":"u","messageId":"{ID}","context":{{"a":1}}}}',
    f'{{"type":"track","event":"E","traits":{{}},"userId":"u","messageId":"{ID}","context":{{"a":1}}}}',
    f'{{"type":"page","event":"E","userId":"u","messageId":"{ID}","context":{{"a":1}}}}',
    f'{{"type":"track","event":"E","timestamp":"{TIME}","originalTimestamp":"{TIME}","userId":"u","context":{{"a":1}}}}',
    '{"type": "track" , "event": "E", "userId": null , "anonymousId": "a"}',
    '{"type":"track","event":"","userId":"u"}',
    '{"type":"nothing","userId":"u"}',
]
VALUES = [
    '"x"',
    '""',
    '"a\\"b"',
    '"\\ud83d\\ude00"',
    '"\\ud83d"',
    '"é"',
    "0",
    "-1.25",
    "01",
    "1.",
    "1e5",
    "1e999",
    "true",
    "nul",
    "null",
    "{}",
    "[]",
]
VALUES += [
    '{"a":1}',
    "[1,[2]]",
    f'"{TIME}"',
    f'"{ID.upper()}"',
    '"x" "y"',
    "1 2",
    "",
    '"x',
    "\t3\n",
    '"tab\t"',
    "12345678",
    "123456789.5",
]


def verdict(decoder: Decoder, body: bytes) -> tuple[Any, ...]:
    """What the decoder says of a body: its rows, or its error."""
    try:
        decoder.append(body, RECEIVED_AT)
    except BodyError as error:
        return str(error), error.offset
    events, rejects = decoder.finish()
    events.validate(full=True)
    rows = events.to_pylist()
    for row in rows:
        if row["flags"] & Flag.ID_DERIVED and row["original_timestamp"] is None:
            row["event_id"] = "random"
    return rows, rejects.to_pylist()


def agree(warm: Decoder, event: str) -> None:
    """The decoder that has seen others says what one says that has not."""
    body = b'{"batch":[' + event.encode(errors="surrogatepass") + b"]}"
    assert verdict(warm, body) == verdict(Decoder(), body), event


def spans(event: str) -> list[tuple[int, int]]:
    """Where values stand that are neither objects nor arrays."""
    found, at = [], 0
    decoder = json.JSONDecoder()
    while at < len(event):
        if event[at] in '"-0123456789tfn':
            _, end = decoder.raw_decode(event, at)
            if not event[end:].lstrip().startswith(":"):
                found.append((at, end))
            at = end
        else:
            at += 1
    return found


@pytest.fixture(scope="module")
def warm() -> Decoder:
    """One decoder for all tests: what it has learned of one event must never show in another."""
    decoder = Decoder()
    for event in EVENTS * 3:
        agree(decoder, event)
    return decoder


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.randoms(use_true_random=False)), min_size=1, max_size=12))
def test_other_values(warm: Decoder, chosen: list[tuple[str, random.Random]]) -> None:
    for event, rng in chosen:
        begin, end = rng.choice(spans(event))
        agree(warm, event[:begin] + rng.choice(VALUES) + event[end:])
        agree(warm, event)


@given(st.sampled_from(EVENTS), st.randoms(use_true_random=False))
def test_broken_anywhere(warm: Decoder, event: str, rng: random.Random) -> None:
    at = rng.randrange(len(event))
    inserted = rng.choice([*'{}[]:,"\\ \n0a-.', '"}', "},{", '"}}', ',"x":1', "\x00", "null"])
    agree(warm, event[:at] + inserted + event[at + rng.randrange(3) :])
    agree(warm, event[:at])


@given(st.lists(st.text(alphabet='ab"\\:{},', max_size=12), min_size=2, max_size=30), st.randoms(use_true_random=False))
def test_members_in_any_order(warm: Decoder, names: list[str], rng: random.Random) -> None:
    """More shapes than are kept: the oldest give way, and none is mistaken for another."""
    members = {name: rng.choice(["v", 1, None, {"n": 1}, [], {}]) for name in names}
    event = {**members, "type": "track", "event": "e", "userId": "u", "messageId": ID, "context": dict(members)}
    items = list(event.items())
    rng.shuffle(items)
    agree(warm, json.dumps(dict(items), separators=(",", ":")))


def test_a_batch_is_what_its_events_are() -> None:
    """Rows of one body equal those of a body for each event, for each other one too."""
    decoder, together = Decoder(), Decoder()
    for event in EVENTS * 3:
        decoder.append(f'{{"batch":[{event}]}}'.encode(), RECEIVED_AT)
    together.append(f'{{"batch":[{",".join(EVENTS * 3)}]}}'.encode(), RECEIVED_AT)
    single, at_once = decoder.finish(), together.finish()
    assert at_once[0].num_rows > 0
    for one, other in zip(single, at_once, strict=True):
        columns = [name for name in one.schema.names if name != "event_id"]
        assert one.select(columns).equals(other.select(columns))
