"""Frames as Kafka messages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import orjson
import pyarrow as pa
from confluent_kafka import Message

from eventmill._native.decode import Decoder
from eventmill.core import frame, ledger
from eventmill.core.errors import BodyError, FrameError
from eventmill.core.log import Count, Frame, StoredFrame
from eventmill.core.schema import RAW, REJECT, Hop, Reason, Topic

EVENTS: Final = "events"
COUNTS: Final = "counts"


def headers(made: Frame) -> list[tuple[str, bytes]]:
    """The frame's own headers, how many events it has, and what it adds to the ledger."""
    found = [(name, value.encode()) for name, value in made.headers.items()]
    found.append((EVENTS, str(made.events).encode()))
    if made.counts:
        found.append((COUNTS, dump(made.counts)))
    return found


def stored(topic: Topic, message: Message) -> StoredFrame:
    """A message as read. Raises ``FrameError`` when Eventmill did not write it."""
    given = {name: bytes(value or b"").decode("utf-8", "replace") for name, value in message.headers() or []}
    partition, offset, payload, key = message.partition(), message.offset(), message.value(), message.key()
    if partition is None or offset is None or payload is None:
        raise FrameError(f"message {topic}/{partition}@{offset} is empty")
    _, appended_at = message.timestamp()
    place = Place(topic, partition, offset, appended_at, key if isinstance(key, bytes) else None)
    if EVENTS not in given and topic is Topic.RAW:
        return from_json(place, bytes(payload))
    try:
        events = int(given[EVENTS])
    except (KeyError, ValueError):
        raise FrameError(
            f"message {topic}/{partition}@{offset} has no header {EVENTS!r}: something else than Eventmill has written to "
            "the topic; only raw takes the messages of others"
        ) from None
    return _frame(place, events, given, bytes(payload))


class Place(NamedTuple):
    """Where a message is, when it came there (ms since the epoch), and its key."""

    topic: Topic
    partition: int
    offset: int
    appended_at: int
    key: bytes | None


def _frame(place: Place, events: int, given: dict[str, str], payload: bytes) -> StoredFrame:
    return StoredFrame(place.topic, place.partition, place.offset, place.appended_at, events, place.key, given, payload)


def from_json(place: Place, payload: bytes) -> StoredFrame:
    """A message that somebody else has written: one event, or a batch, as the HTTP API takes them.

    It was received when it was appended. What cannot be taken of it are ``rejects``.
    """
    decoder = Decoder()
    for body in (payload, b'{"batch":[' + payload + b"]}"):
        try:
            decoder.append(body, place.appended_at)
            break
        except BodyError as error:
            broken = str(error)
    else:
        letter = {"reason": Reason.NOT_AN_OBJECT, "detail": f"a message that is not JSON: {broken}", "payload": payload}
        rejects = pa.RecordBatch.from_pylist([letter | {"received_at": place.appended_at}], REJECT)
        return _adopted(place, pa.RecordBatch.from_pylist([], RAW), rejects)
    return _adopted(place, *decoder.finish())


def _adopted(place: Place, events: pa.RecordBatch, rejects: pa.RecordBatch) -> StoredFrame:
    fates = ledger.counts(Hop.ACCEPTED, events) + ledger.counts(Hop.REJECTED, rejects)
    received = [Count(Hop.RECEIVED, fate.hour, fate.events) for fate in fates]
    made = frame.encode(place.topic, events)
    given = {**made.headers, EVENTS: str(made.events), COUNTS: dump([*received, *fates]).decode()}
    adopted = _frame(place, made.events, given, bytes(made.payload))
    return replace(adopted, rejects=rejects if rejects.num_rows else None, foreign=True)


def dump(counts: Iterable[Count]) -> bytes:
    """Counts as JSON."""
    return orjson.dumps([[count.hop, count.hour, count.events, count.reason] for count in counts])


def load(text: str | bytes) -> list[Count]:
    """What ``dump`` wrote."""
    return [Count(Hop(hop), hour, events, reason) for hop, hour, events, reason in orjson.loads(text)]


def carried(frames: Sequence[StoredFrame]) -> list[Count]:
    """What the frames add to the ledger."""
    return [count for each in frames if COUNTS in each.headers for count in load(each.headers[COUNTS])]
