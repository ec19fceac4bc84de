"""Reading ranges that end: folds, ledgers, replays, and looks at single frames.

A consumer that goes from one place to another drops all that it has fetched, and waits for an answer that it no longer
wants. So each range is read by a feed of its own, which the next piece of the range finds where the last one ended, whatever
other threads read meanwhile. Looks at single frames share one that fetches little.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from eventmill.core.log import StoredFrame
from eventmill.core.schema import Topic
from eventmill.log.kafka.feed import Feed

#: Ranges of a topic that are read side by side: a processor folds so many partitions at once.
RANGES: Final = 4
#: What a feed fetches at once, and ahead.
_RANGE: Final = {"fetch.message.max.bytes": 1 << 22, "queued.max.messages.kbytes": 1 << 14}
#: A reader that looks at a few frames here and there fetches little: all of it is dropped when it goes elsewhere.
_GLANCE: Final = {"fetch.message.max.bytes": 1 << 18, "queued.max.messages.kbytes": 1 << 11}


@dataclass
class _Feeds:
    """Of one topic and one kind; ``idle`` in the order in which they were given back."""

    made: int = 0
    idle: list[Feed] = field(default_factory=list)


class Scans:
    """Safe to share between threads. ``make`` gives a feed of a topic with these settings beside a consumer's."""

    def __init__(self, make: Callable[[Topic, Mapping[str, int]], Feed]) -> None:
        self._make = make
        self._changed = threading.Condition()
        self._feeds: dict[tuple[Topic, bool], _Feeds] = {}

    def read(
        self, topic: Topic, partition: int, from_offset: int, *, events_max: int, to_offset: int
    ) -> list[StoredFrame]:
        """See ``core.log.Log.read``."""
        if from_offset >= to_offset:
            return []
        with self._borrowed(topic, partition, from_offset, glance=events_max == 1) as feed:
            frames = feed.read(partition, from_offset, events_max=events_max, to_offset=to_offset)
            if events_max > 1 and (not frames or frames[-1].offset + 1 >= to_offset):
                feed.rest()
            return frames

    @contextmanager
    def _borrowed(self, topic: Topic, partition: int, from_offset: int, *, glance: bool) -> Iterator[Feed]:
        with self._changed:
            feeds = self._feeds.setdefault((topic, glance), _Feeds())
            most = 1 if glance else RANGES
            self._changed.wait_for(lambda: bool(feeds.idle) or feeds.made < most)
            feed = _best(feeds.idle, partition, from_offset, may_make=feeds.made < most)
            if feed is None:
                feed = self._make(topic, _GLANCE if glance else _RANGE)
                feeds.made += 1
            else:
                feeds.idle.remove(feed)
        try:
            yield feed
        finally:
            with self._changed:
                feeds.idle.append(feed)
                self._changed.notify()

    def close(self) -> None:
        """Let go of all; to be called when no thread reads any more."""
        with self._changed:
            for feeds in self._feeds.values():
                for feed in feeds.idle:
                    feed.close()


def _best(idle: list[Feed], partition: int, from_offset: int, *, may_make: bool) -> Feed | None:
    """That which is there; else one that rests; else a new one (None) if there may be; else that which was left longest ago."""
    there = (feed for feed in idle if feed.is_at(partition, from_offset))
    resting = (feed for feed in idle if feed.resting)
    others = iter(idle if not may_make else ())
    return next(there, None) or next(resting, None) or next(others, None)
