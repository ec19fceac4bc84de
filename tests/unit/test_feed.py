"""Reading a topic: what a consumer says between the messages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import ClassVar

import pytest
from confluent_kafka import KafkaError

from eventmill.core.log import StoredFrame
from eventmill.core.schema import Topic
from eventmill.log.kafka import feed as module
from eventmill.log.kafka.feed import Feed
from eventmill.log.kafka.scans import RANGES, Scans

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


class Partitions:
    """A consumer of partitions that hold ``LONG`` messages each; ``turns`` are the places to which one was sent."""

    turns: ClassVar[list] = []

    def __init__(self, _settings):
        self.places = {}

    def assign(self, partitions):
        self.places = {each.partition: each.offset for each in partitions}
        self.turns.append(dict(self.places))

    def unassign(self):
        self.places = {}

    def poll(self, _timeout_s):
        for partition, offset in self.places.items():
            self.places[partition] += 1
            if offset < LONG:
                return message(offset, None, partition)
            if offset == LONG:
                return message(offset, KafkaError(KafkaError._PARTITION_EOF), partition)
        return None


LONG = 40


def message(offset, error, partition=0):
    return SimpleNamespace(partition=lambda: partition, offset=lambda: offset, error=lambda: error)


def stored(topic, found, _foreign):
    return StoredFrame(topic, found.partition(), found.offset(), 0, 1, None, {}, b"")


@pytest.fixture
def scans(monkeypatch):
    monkeypatch.setattr(module, "Consumer", Partitions)
    monkeypatch.setattr(module.messages, "stored", stored)
    monkeypatch.setattr(Partitions, "turns", [])
    return Scans(lambda topic, settings: Feed(settings, topic, "raw"))


def pieces(scans, partition, size=8):
    """Read a partition to its end, piece by piece."""
    found = []
    while len(found) < LONG:
        piece = scans.read(Topic.RAW, partition, len(found), events_max=size, to_offset=LONG)
        assert {each.partition for each in piece} == {partition}
        found += [each.offset for each in piece]
        yield found


def test_ranges_that_are_read_side_by_side_do_not_send_each_other_back(scans):
    readers = [pieces(scans, partition) for partition in range(RANGES)]
    for found in zip(*readers, strict=True):
        assert len({tuple(each) for each in found}) == 1
    assert found == (list(range(LONG)),) * RANGES
    assert sorted(Partitions.turns, key=str) == [{partition: 0} for partition in range(RANGES)]


def test_what_has_come_to_its_end_serves_the_next_range(scans):
    for partition in range(2 * RANGES):
        *_, found = pieces(scans, partition)
        assert found == list(range(LONG))
    assert len(Partitions.turns) == 2 * RANGES
    assert scans._feeds[Topic.RAW, False].made == 1


def test_a_range_without_offsets_sends_nobody_anywhere(scans):
    assert scans.read(Topic.RAW, 0, LONG, events_max=8, to_offset=LONG) == []
    assert Partitions.turns == []


def test_looks_at_single_frames_leave_ranges_alone(scans):
    for found in pieces(scans, 0):
        (seen,) = scans.read(Topic.RAW, 1, len(found) - 1, events_max=1, to_offset=LONG)
        assert (seen.partition, seen.offset) == (1, len(found) - 1)
    assert Partitions.turns.count({0: 0}) == 1
    assert not [turn for turn in Partitions.turns if 0 in turn and turn != {0: 0}]


def test_more_threads_than_feeds_get_what_they_ask_for(scans):
    with ThreadPoolExecutor(3 * RANGES) as pool:
        found = list(pool.map(lambda partition: list(pieces(scans, partition, 3))[-1], range(3 * RANGES)))
    assert found == [list(range(LONG))] * (3 * RANGES)
    assert scans._feeds[Topic.RAW, False].made <= RANGES


def test_all_that_lies_there_is_taken_though_the_partition_had_ended_in_between(monkeypatch):
    monkeypatch.setattr(module, "Consumer", lambda _settings: Scripted())
    monkeypatch.setattr(module.messages, "stored", stored)
    feed = Feed({}, Topic.SUSPECTS, "suspects")
    assert feed.wait({0: 0}, 0.5, events_max=FRAMES, linger_s=0.0, enough=lambda: False)
    assert len(feed.read(0, 0, events_max=FRAMES, to_offset=None)) == FRAMES
