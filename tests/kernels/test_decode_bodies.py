"""Bodies as SDKs send them, bad bodies, limits, and the decoder's own manners."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill import decode
from eventmill._native.decode import Decoder
from eventmill.core.errors import BodyError
from eventmill.core.schema import DECODE_REASONS, RAW, REJECT, Flag

RECEIVED_AT = 1_795_400_000_000
RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "sdk_requests" / "captured.jsonl").read_text().splitlines()
]
EVENT: dict[str, Any] = {"type": "track", "event": "Opened", "userId": "u1"}


def one(event: Any, **limits: int) -> dict[str, Any]:
    """The row of the only event of a batch."""
    decoder = Decoder(**limits)
    assert decoder.append(orjson.dumps({"batch": [event]}), RECEIVED_AT)[:2] == (1, 0)
    return dict(decoder.finish()[0].to_pylist()[0])


def reject(event: Any, **limits: int) -> tuple[str, str]:
    """Reason and detail of the only event of a batch, which is bad."""
    decoder = Decoder(**limits)
    assert decoder.append(orjson.dumps({"batch": [event]}), RECEIVED_AT)[:2] == (0, 1)
    row = decoder.finish()[1].to_pylist()[0]
    assert row["payload"] == orjson.dumps(event)
    return row["reason"], row["detail"]


@pytest.mark.parametrize("request_", RECORDED)
def test_recorded_sdk_requests(request_: dict[str, Any]) -> None:
    body = request_["body"].encode()
    sent = orjson.loads(body)
    decoder = Decoder()
    assert decoder.append(body, RECEIVED_AT) == (len(sent["batch"]), 0, sent.get("writeKey"))
    events, _ = decoder.finish()
    for row, event in zip(events.to_pylist(), sent["batch"], strict=True):
        context, properties = orjson.loads(row["context"]), orjson.loads(row["properties"])
        for name, value in event["context"].items():
            assert context[name] == value
        for name, value in {**event.get("properties", {}), **event.get("traits", {})}.items():
            assert properties[name] == value
        assert row["event_id"].hex() == event["messageId"].replace("-", "")
        assert row["user_id"] == event["userId"]
        assert row["type"] == event["type"]
        assert row["flags"] == 0
        if event["type"] == "screen":
            assert properties["name"] == event["name"]
        for name in ("integrations", "channel", "_metadata"):
            if name in event:
                assert context["_unmapped"][name] == event[name]
        if "timestamp" in sent:
            assert context["_batch"]["timestamp"] == sent["timestamp"]


def test_every_reason_has_a_text() -> None:
    bad: dict[str, tuple[Any, dict[str, int]]] = {
        "not_an_object": (17, {}),
        "unknown_type": ({**EVENT, "type": "trak"}, {}),
        "missing_event": ({**EVENT, "event": ""}, {}),
        "missing_identity": ({"type": "track", "event": "E"}, {}),
        "wrong_field_type": ({**EVENT, "properties": []}, {}),
        "bad_timestamp": ({**EVENT, "timestamp": "tomorrow"}, {}),
        "event_too_large": (EVENT, {"event_bytes_max": 20}),
        "name_too_long": (EVENT, {"event_name_bytes_max": 5}),
        "too_deep": ({**EVENT, "properties": {"a": {"b": 1}}}, {"depth_max": 2}),
    }
    assert set(bad) == set(DECODE_REASONS)
    for reason, (event, limits) in bad.items():
        found, detail = reject(event, **limits)
        assert found == reason
        assert len(detail) > 20
        assert "; " in detail or reason == "unknown_type"


@pytest.mark.parametrize(
    "field", ["userId", "anonymousId", "messageId", "context", "properties", "event", "timestamp", "originalTimestamp"]
)
@pytest.mark.parametrize("value", [True, [], [1], "s", 5])
def test_wrong_types_name_the_field(field: str, value: Any) -> None:
    textual = field in ("userId", "anonymousId", "messageId")
    good = (textual and not isinstance(value, bool | list)) or (field == "event" and value == "s")
    if good or (field.lower().endswith("timestamp") and value == 5):
        one({**EVENT, field: value})
    else:
        assert field in reject({**EVENT, field: value})[1]


def test_limits_are_inclusive() -> None:
    size = len(orjson.dumps(EVENT))
    one(EVENT, event_bytes_max=size)
    assert reject(EVENT, event_bytes_max=size - 1)[0] == "event_too_large"
    one({**EVENT, "event": "ü" * 4}, event_name_bytes_max=8)
    assert reject({**EVENT, "event": "ü" * 4}, event_name_bytes_max=7)[0] == "name_too_long"
    one({**EVENT, "properties": {"a": [1]}}, depth_max=3)
    assert reject({**EVENT, "properties": {"a": [1]}}, depth_max=2)[0] == "too_deep"


def test_an_envelope_must_not_nest_too_deep() -> None:
    for name in ("context", "extra"):
        body = b'{"%s": {"a": %s1%s}, "batch": []}'
        Decoder().append(body % (name.encode(), b"[" * 63, b"]" * 63), RECEIVED_AT)
        with pytest.raises(BodyError, match="nests too deep"):
            Decoder().append(body % (name.encode(), b"[" * 64, b"]" * 64), RECEIVED_AT)


def test_what_is_kept_at_the_greatest_depth_still_reads() -> None:
    deep = b"[" * 998 + b"]" * 998
    event = b'{"type": "track", "event": "E", "userId": "u", "x": {"y": %s}}' % deep
    decoder = Decoder(depth_max=1000)
    assert decoder.append(b'{"batch": [%s], "x": {"y": [%s]}}' % (event, deep), RECEIVED_AT)[:2] == (1, 0)
    orjson.loads(decoder.finish()[0].column("context")[0].as_py())


def test_a_bad_event_takes_no_other_with_it() -> None:
    decoder = Decoder()
    batch = [EVENT, 1, EVENT, {**EVENT, "type": None}, EVENT]
    assert decoder.append(orjson.dumps({"batch": batch}), RECEIVED_AT) == (3, 2, None)
    events, rejects = decoder.finish()
    assert (events.num_rows, rejects.num_rows) == (3, 2)
    assert rejects.column("received_at").cast(pa.int64()).to_pylist() == [RECEIVED_AT] * 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON value"),
        (b"  \n", "no JSON value"),
        (b"{", "ends too soon"),
        (b'{"batch": [', "ends too soon"),
        (b'{"batch": []', "ends too soon"),
        (b'{"batch": [}', "JSON value"),
        (b'{"batch": []} x', "behind the end"),
        (b'{"batch": []}{}', "behind the end"),
        (b'{"batch": ["a]}', "not closed"),
        (b'{"batch": ["a\nb"]}', "control character"),
        (b'{"batch": ["\xff"]}', "UTF-8"),
        (b'{"batch": ["\\x"]}', "escape"),
        (b"[]", "not an object"),
        (b'"x"', "not an object"),
        (b"null", "not an object"),
        (b"{}", 'neither "batch" nor "type"'),
        (b'{"batch": null}', 'neither "batch" nor "type"'),
        (b'{"batch": {}}', '"batch" is not an array'),
        (b'{"batch": "x", "type": "track"}', '"batch" is not an array'),
        (b'{"event": "Opened"}', 'neither "batch" nor "type"'),
        (b"[" * 5000, "deeper"),
    ],
)
def test_bad_bodies_say_what_to_send(body: bytes, says: str) -> None:
    decoder = Decoder()
    with pytest.raises(BodyError, match=says) as caught:
        decoder.append(body, RECEIVED_AT)
    assert '{"batch":' in str(caught.value)
    assert 0 <= caught.value.offset <= len(body)
    assert decoder.rows == decoder.reject_rows == 0


def test_the_offset_is_where_it_broke() -> None:
    for body, offset in (
        (b'{"batch": [tru]}', 11),
        (b'{"batch": ["\\q"]}', 12),
        (b'{"batch" []}', 9),
        (b'{"a": "\xff"}', 7),
    ):
        with pytest.raises(BodyError) as caught:
            Decoder().append(body, RECEIVED_AT)
        assert caught.value.offset == offset


def test_a_body_cut_anywhere_is_refused_and_leaves_nothing() -> None:
    body = RECORDED[2]["body"].encode()
    decoder = Decoder()
    decoder.append(body, RECEIVED_AT)
    for length in range(len(body)):
        with pytest.raises(BodyError):
            decoder.append(body[:length], RECEIVED_AT)
    assert decoder.rows == 3
    decoder.finish()[0].validate(full=True)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    with pytest.raises(BodyError):
        Decoder().append(body, RECEIVED_AT)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(RECORDED), st.data())
def test_random_damage_never_crashes(request_: dict[str, Any], data: Any) -> None:
    decoder = Decoder()
    original = request_["body"].encode()
    for _ in range(30):
        body = bytearray(original)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(body) - 1))
            body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        try:
            decoder.append(body, RECEIVED_AT)
        except BodyError:
            continue
        assert isinstance(orjson.loads(body), dict)
    events, rejects = decoder.finish()
    events.validate(full=True)
    rejects.validate(full=True)


def test_envelope_members_reach_events_wherever_they_stand() -> None:
    batch = b'"batch": [{"type": "track", "event": "E", "userId": "u"}]'
    context = b'"context": {"device": {"id": "d"}, "app": {"version": "7"}}'
    sent = b'"sentAt": "2026-11-23T02:13:19Z"'
    rows = []
    for parts in ([context, sent, batch], [batch, context, sent], [sent, batch, context]):
        decoder = Decoder()
        decoder.append(b"{" + b",".join(parts) + b"}", RECEIVED_AT)
        row = decoder.finish()[0].to_pylist()[0]
        rows.append({**row, "event_id": b""})
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["device_id"] == "d"
    assert rows[0]["app_version"] == "7"
    assert rows[0]["flags"] == Flag.TIMESTAMP_MISSING | Flag.ID_DERIVED


def test_a_small_body_cannot_ask_for_gigabytes() -> None:
    padding = "x" * 100_000
    events = [{"type": "alias", "userId": 1}] * 5_000
    for body in (
        {"context": {"p": padding}, "batch": events},
        {"batch": events, "context": {"p": padding}},
        {"batch": events, "padding": padding},
    ):
        decoder = Decoder()
        with pytest.raises(BodyError, match="kept with every event"):
            decoder.append(orjson.dumps(body), RECEIVED_AT)
        assert decoder.rows == 0


def test_equal_events_without_id_and_time_stay_apart() -> None:
    decoder = Decoder()
    for _ in range(2):
        decoder.append(orjson.dumps({"batch": [EVENT, EVENT]}), RECEIVED_AT)
    ids = decoder.finish()[0].column("event_id").to_pylist()
    decoder.append(orjson.dumps({"batch": [EVENT]}), RECEIVED_AT)
    assert len({*ids, *decoder.finish()[0].column("event_id").to_pylist()}) == 5


def test_the_same_salt_gives_equal_events_without_id_and_time_the_same_ids() -> None:
    def ids(*salts: int) -> list[bytes]:
        decoder = Decoder()
        for salt in salts:
            decoder.salt(salt)
            decoder.append(orjson.dumps({"batch": [EVENT, EVENT]}), RECEIVED_AT)
        found: list[bytes] = decoder.finish()[0].column("event_id").to_pylist()
        return found

    both = ids(1, 2**64 - 1)
    assert len(set(both)) == 4
    assert ids(2**64 - 1, 1) == both[2:] + both[:2]
    with pytest.raises(OverflowError):
        Decoder().salt(-1)


def test_write_keys_are_given_but_not_kept() -> None:
    secret = 'k"\u00e9'
    for body, kind in (
        ({"batch": [{**EVENT, "writeKey": secret}], "writeKey": secret}, None),
        ({**EVENT, "writeKey": secret}, None),
        ({**EVENT, "writeKey": secret}, "track"),
    ):
        decoder = Decoder()
        assert decoder.append(json.dumps(body).encode(), RECEIVED_AT, kind) == (1, 0, secret)
        row = decoder.finish()[0].to_pylist()[0]
        assert (row["properties"], row["context"]) == ("{}", "{}")


def test_rollback_takes_back_the_last_body_only() -> None:
    decoder = Decoder()
    body = orjson.dumps({"batch": [EVENT, 1]})
    decoder.rollback()
    decoder.append(body, RECEIVED_AT)
    size = decoder.nbytes
    assert size > 0
    decoder.append(body, RECEIVED_AT)
    decoder.rollback()
    decoder.rollback()
    assert (decoder.rows, decoder.reject_rows, decoder.nbytes) == (1, 1, size)
    decoder.finish()
    decoder.rollback()
    assert (decoder.rows, decoder.reject_rows, decoder.nbytes) == (0, 0, 0)


def test_batches_outlive_the_decoder_and_one_another() -> None:
    decoder = Decoder()
    kept = []
    for number in range(50):
        events = [{**EVENT, "userId": f"{number}-{i}" * 5} for i in range(number * 7)]
        decoder.append(orjson.dumps({"batch": events}), RECEIVED_AT)
        kept.append(decoder.finish()[0])
    del decoder
    for number, batch in enumerate(kept):
        batch.validate(full=True)
        assert batch.column("user_id").to_pylist() == [f"{number}-{i}" * 5 for i in range(number * 7)]
    column = kept[-1].column("user_id")
    del kept, batch
    assert column[0].as_py() == "49-0" * 5


def test_schemas_and_empty_batches() -> None:
    decoder = Decoder()
    for _ in range(2):
        events, rejects = decoder.finish()
        assert events.schema.equals(RAW)
        assert rejects.schema.equals(REJECT)
        assert events.num_rows == rejects.num_rows == 0
        assert decoder.append(b'{"batch": [], "context": {"a": 1}, "x": 2}', RECEIVED_AT) == (0, 0, None)


def test_arguments() -> None:
    decoder = Decoder()
    with pytest.raises(ValueError, match="track, screen"):
        decoder.append(b"{}", RECEIVED_AT, "trak")
    with pytest.raises(ValueError, match="years 1 to 9999"):
        decoder.append(b"{}", 1 << 60)
    for depth in (0, 1001):
        with pytest.raises(ValueError, match="1 to 1000"):
            Decoder(depth_max=depth)
    with pytest.raises(TypeError):
        decoder.append("{}", RECEIVED_AT)  # type: ignore[arg-type]
    body = orjson.dumps({"batch": [EVENT]})
    for taken in (bytearray(body), memoryview(body), memoryview(b"xx" + body)[2:]):
        assert decoder.append(taken, RECEIVED_AT)[0] == 1


def test_decoders_work_side_by_side() -> None:
    body = orjson.dumps({"batch": [{**EVENT, "properties": {"n": i}} for i in range(200)]})
    found: list[pa.RecordBatch] = []

    def work() -> None:
        decoder = Decoder()
        for _ in range(50):
            decoder.append(body, RECEIVED_AT)
        found.append(decoder.finish()[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [batch.num_rows for batch in found] == [10_000] * 4
    assert all(batch.column("properties").equals(found[0].column("properties")) for batch in found)


def test_public_decode() -> None:
    event = {**EVENT, "originalTimestamp": RECEIVED_AT - 5000, "sentAt": RECEIVED_AT - 1000, "messageId": "m"}
    for payload in (orjson.dumps(event), orjson.dumps(event).decode(), memoryview(orjson.dumps({"batch": [event]}))):
        decoded = decode(payload, received_at=RECEIVED_AT)
        assert decoded.events.column("timestamp").cast(pa.int64()).to_pylist() == [RECEIVED_AT - 4000]
        assert decoded.rejects.num_rows == 0
    at = datetime.fromtimestamp(RECEIVED_AT / 1000, UTC)
    for moment in (at, at.astimezone(timezone(timedelta(hours=5)))):
        assert decode(orjson.dumps({"batch": [event]}), received_at=moment).events.equals(decoded.events)
    assert decode(b'{"event": "E", "userId": "u"}', type="track").events.num_rows == 1
    assert abs(decode(orjson.dumps(EVENT)).events.column("received_at")[0].as_py() - datetime.now(UTC)) < timedelta(
        hours=1
    )
    with pytest.raises(BodyError):
        decode("[]")
