"""Reading a topic: what a consumer says between the messages."""

from __future__ import annotations

from types import SimpleNamespace

from confluent_kafka import KafkaError

from eventmill.core.log import StoredFrame
from eventmill.core.schema import Topic
from eventmill.log.kafka import feed as module
from eventmill.log.kafka.feed import Feed

FRAMES = 5


class Scripted:
    """A consumer that has been fetching while nobody read: after each message it was at the end of the partition."""

    def __init__(self):
        self.said = []
        for offset in range(FRAMES):
            self.said += [message(offset, None), message(offset + 1, KafkaError(KafkaError._PARTITION_EOF))]

    def assign(self, partitions):
        pass

    def poll(self, _timeout_s):
        return self.said.pop(0) if self.said else None


def message(offset, error):
    return SimpleNamespace(partition=lambda: 0, offset=lambda: offset, error=lambda: error)


def stored(topic, found):
    return StoredFrame(topic, 0, found.offset(), 0, 1, None, {}, b"")


def test_all_that_lies_there_is_taken_though_the_partition_had_ended_in_between(monkeypatch):
    monkeypatch.setattr(module, "Consumer", lambda _settings: Scripted())
    monkeypatch.setattr(module.messages, "stored", stored)
    feed = Feed({}, Topic.SUSPECTS, "suspects")
    assert feed.wait({0: 0}, 0.5, events_max=FRAMES, linger_s=0.0, enough=lambda: False)
    assert len(feed.read(0, 0, events_max=FRAMES, to_offset=None)) == FRAMES
