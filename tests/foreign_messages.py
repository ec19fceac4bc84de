"""Messages of others, as a consumer of Kafka gives them, and their frames message by message and all together."""

from __future__ import annotations

from eventmill.core.log import StoredFrame
from eventmill.core.schema import Topic
from eventmill.log.kafka.foreign import Foreign, Place

AT = 1_795_000_000_000


def places(count, partition=0, first=0, step_ms=7):
    """Of so many messages, one after the other in offset and time."""
    return [Place(Topic.RAW, partition, first + n, AT + n * step_ms, b"k%d" % n) for n in range(count)]


def together(payloads, of=None):
    """Frames of messages that are decoded together."""
    foreign = Foreign()
    taken = [
        foreign.take(place, {}, payload) for place, payload in zip(of or places(len(payloads)), payloads, strict=True)
    ]
    foreign.seal()
    return taken


def one_by_one(payloads, of=None):
    """Frames of the same messages, each decoded alone."""
    return [
        together([payload], [place])[0] for place, payload in zip(of or places(len(payloads)), payloads, strict=True)
    ]


def reread(made, offset=0):
    """A frame as it is read back once it is on the log."""
    return StoredFrame(made.topic, made.partition, offset, AT, made.events, made.key, made.headers, bytes(made.payload))
