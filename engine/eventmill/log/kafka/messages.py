"""Frames as Kafka messages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson
from confluent_kafka import Message

from eventmill.core.errors import FrameError
from eventmill.core.log import Count, Frame, StoredFrame
from eventmill.core.schema import Hop, Topic

EVENTS: Final = "events"
COUNTS: Final = "counts"


def headers(frame: Frame) -> list[tuple[str, bytes]]:
    """The frame's own headers, how many events it has, and what it adds to the ledger."""
    found = [(name, value.encode()) for name, value in frame.headers.items()]
    found.append((EVENTS, str(frame.events).encode()))
    if frame.counts:
        found.append((COUNTS, dump(frame.counts)))
    return found


def stored(topic: Topic, message: Message) -> StoredFrame:
    """A message as read. Raises ``FrameError`` when Eventmill did not write it."""
    given = {name: bytes(value or b"").decode("utf-8", "replace") for name, value in message.headers() or []}
    partition, offset, payload = message.partition(), message.offset(), message.value()
    try:
        events = int(given[EVENTS])
    except (KeyError, ValueError):
        raise FrameError(
            f"message {topic}/{partition}@{offset} has no header {EVENTS!r}: something else than Eventmill has written to "
            "the topic; let it post its events to Eventmill's HTTP API instead"
        ) from None
    if partition is None or offset is None or payload is None:
        raise FrameError(f"message {topic}/{partition}@{offset} is empty")
    key = message.key()
    _, appended_at = message.timestamp()
    return StoredFrame(
        topic, partition, offset, appended_at, events, key if isinstance(key, bytes) else None, given, bytes(payload)
    )


def dump(counts: Iterable[Count]) -> bytes:
    """Counts as JSON."""
    return orjson.dumps([[count.hop, count.hour, count.events, count.reason] for count in counts])


def load(text: str | bytes) -> list[Count]:
    """What ``dump`` wrote."""
    return [Count(Hop(hop), hour, events, reason) for hop, hour, events, reason in orjson.loads(text)]


def carried(frames: Sequence[StoredFrame]) -> list[Count]:
    """What the frames add to the ledger."""
    return [count for each in frames if COUNTS in each.headers for count in load(each.headers[COUNTS])]
