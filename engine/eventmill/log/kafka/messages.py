"""Frames as Kafka messages, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import orjson
from confluent_kafka import Message

from eventmill.core import frame, ledger
from eventmill.core.errors import FrameError
from eventmill.core.log import Count, Frame, StoredFrame
from eventmill.core.schema import REJECT, Hop, Topic
from eventmill.log.kafka.foreign import Foreign, Place

EVENTS: Final = "events"
COUNTS: Final = "counts"


def headers(made: Frame) -> list[tuple[str, bytes]]:
    """The frame's own headers, how many events it has, and what it adds to the ledger."""
    found = [(name, value.encode()) for name, value in made.headers.items()]
    found.append((EVENTS, str(made.events).encode()))
    if made.counts:
        found.append((COUNTS, dump(made.counts)))
    return found


def stored(topic: Topic, message: Message, foreign: Foreign) -> StoredFrame:
    """A message as read; what others have written is decoded by ``foreign``, and there once that is sealed.

    Raises ``FrameError`` when Eventmill did not write it, but to raw.
    """
    given = {name: bytes(value or b"").decode("utf-8", "replace") for name, value in message.headers() or ()}
    partition, offset, payload, key = message.partition(), message.offset(), message.value(), message.key()
    of_others = EVENTS not in given and topic is Topic.RAW
    if partition is None or offset is None or (payload is None and not of_others):
        raise FrameError(f"message {topic}/{partition}@{offset} is empty")
    _, appended_at = message.timestamp()
    place = Place(topic, partition, offset, appended_at, key if isinstance(key, bytes) else None)
    if of_others:
        return foreign.take(place, given, None if payload is None else bytes(payload))
    try:
        events = int(given[EVENTS])
    except (KeyError, ValueError):
        raise FrameError(
            f"message {topic}/{partition}@{offset} has no header {EVENTS!r}: something else than Eventmill has written to "
            "the topic; only raw takes the messages of others"
        ) from None
    return StoredFrame(topic, partition, offset, appended_at, events, place.key, given, bytes(payload or b""))


def dump(counts: Iterable[Count]) -> bytes:
    """Counts as JSON."""
    return orjson.dumps([[count.hop, count.hour, count.events, count.reason] for count in counts])


def load(text: str | bytes) -> list[Count]:
    """What ``dump`` wrote."""
    return [Count(Hop(hop), hour, events, reason) for hop, hour, events, reason in orjson.loads(text)]


def carried(frames: Sequence[StoredFrame]) -> list[Count]:
    """What the frames add to the ledger: their headers say so, but for those of others, which are counted here."""
    counts = [
        count for each in frames if COUNTS in each.headers and not each.foreign for count in load(each.headers[COUNTS])
    ]
    received: Counter[int] = Counter()
    accepted: Counter[int] = Counter()
    for each in frames:
        if each.foreign:
            hour = each.appended_at // ledger.HOUR_MS * ledger.HOUR_MS
            accepted[hour] += each.events
            received[hour] += each.events + (each.rejects.size if each.rejects else 0)
    rejects = frame.gather((each.rejects for each in frames if each.rejects), REJECT)
    for hop, hours in ((Hop.RECEIVED, received), (Hop.ACCEPTED, accepted)):
        counts += [Count(hop, hour, events) for hour, events in hours.items() if events]
    return counts + ledger.counts(Hop.REJECTED, rejects)
