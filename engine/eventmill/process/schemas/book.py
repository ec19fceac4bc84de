"""Which schemas are in force at which offset of raw: recorded on the log, so that a fold judges as the first run did.

A thread asks the source and compiles what is new. The processor adopts it between two batches: in the transaction of the first
batch that is judged by it, a record of the whole set and of the offset becomes durable. Until that commit nothing of it
counts; ``recover`` reads the records again.
"""

from __future__ import annotations

import bisect
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from eventmill.core import frame
from eventmill.core.errors import SchemaError
from eventmill.core.log import Frame, Log
from eventmill.core.schema import SCHEMAS, Topic
from eventmill.core.threads import name_thread
from eventmill.process.schemas.ruling import Ruling
from eventmill.process.schemas.sets import NO_SCHEMAS, UNAVAILABLE, SchemaSet, load_set
from eventmill.process.schemas.sources import Source

logger = logging.getLogger(__name__)

_READ_EVENTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Epoch:
    """From raw offset ``from_offset`` on, these schemas are in force."""

    from_offset: int
    schemas: SchemaSet


def epochs(log: Log, partition: int = 0) -> list[Epoch]:
    """All that is recorded, in order."""
    found: list[Epoch] = []
    position, end = log.start_offset(Topic.SCHEMAS, partition), log.end_offset(Topic.SCHEMAS, partition)
    while position < end:
        frames = log.read(Topic.SCHEMAS, partition, position, events_max=_READ_EVENTS, to_offset=end)
        if not frames:
            break
        rows = frame.decode_all(frames, SCHEMAS).to_pylist()
        found += [Epoch(row["from_offset"], load_set(row["content"])) for row in rows]
        position = frames[-1].offset + 1
    return found


def record(epoch: Epoch, partition: int = 0) -> Frame:
    """The epoch as a frame for the log."""
    row = {"from_offset": epoch.from_offset, "digest": epoch.schemas.digest, "content": epoch.schemas.dump()}
    return frame.encode(Topic.SCHEMAS, pa.RecordBatch.from_pylist([row], SCHEMAS), partition=partition)


class SchemaBook:
    """``recover``, ``turn_to``, ``adopt`` and ``current`` belong to the processor's thread."""

    def __init__(
        self,
        log: Log,
        source: Source,
        *,
        refresh_s: float,
        reached: Callable[[bool], None] = lambda _: None,
        partition: int = 0,
        shared: SchemaBook | None = None,
    ) -> None:
        self._log = log
        self._partition = partition
        #: The book that asks the source; all partitions share it.
        self._root = shared or self
        self._source = source
        self._refresh_s = refresh_s
        self._reached = reached
        self._epochs: list[Epoch] = []
        self._offsets: list[int] = []
        self._lock = threading.Lock()
        self._newest: Ruling | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        #: Whether the source answered when it was asked last.
        self.reachable = False
        #: Events that were accepted and flagged since the start because nobody knows their schema.
        self.unjudged = 0
        #: What is in force now; ``None``: no schemas.
        self.current: Ruling | None = None

    def of(self, partition: int) -> SchemaBook:
        """The book of another partition of raw: offsets of its own, the same source."""
        return SchemaBook(self._log, self._source, refresh_s=self._refresh_s, partition=partition, shared=self._root)

    def count_unjudged(self, events: int) -> None:
        """So many more events were accepted although nobody knows their schema."""
        self._root.unjudged += events

    def start(self) -> None:
        """Ask the source once, then now and then beside the processor."""
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="schemas", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        name_thread("schemas")
        while not self._stop.wait(self._refresh_s):
            self.refresh()

    def refresh(self) -> bool:
        """Ask the source now; false when it cannot say."""
        try:
            schemas = self._source.fetch()
            with self._lock:
                known = self._newest
            if known is None or known.schemas.digest != schemas.digest:
                ruling = Ruling(schemas)
                with self._lock:
                    self._newest = ruling
        except SchemaError as error:
            logger.warning("schemas are as before: %s", error)
            self._say(False)
            return False
        self._say(True)
        return True

    def _say(self, reachable: bool) -> None:
        self.reachable = reachable
        self._reached(reachable)

    def newest(self) -> Ruling | None:
        """What the source had last, compiled anew for another thread; ``None`` while it is out of reach."""
        with self._lock:
            newest = self._newest if self.reachable else None
        return None if newest is None else Ruling(newest.schemas)

    def latest(self) -> Ruling | None:
        """What the source had last, compiled for the processor's thread."""
        with self._lock:
            return self._newest

    def recover(self) -> None:
        """Read the records; to be called before a fold."""
        self._epochs = epochs(self._log, self._partition)
        self._offsets = [epoch.from_offset for epoch in self._epochs]
        self.current = None

    def number(self, offset: int) -> int:
        """Which epoch a raw offset belongs to; offsets of one number are judged alike."""
        return bisect.bisect_right(self._offsets, offset)

    def turn_to(self, offset: int) -> None:
        """Make ``current`` what was in force at a raw offset."""
        number = self.number(offset)
        self._use(self._epochs[number - 1].schemas if number else NO_SCHEMAS)

    def _use(self, schemas: SchemaSet) -> None:
        if schemas.available and not schemas.schemas:
            self.current = None
        elif self.current is None or self.current.schemas.digest != schemas.digest:
            newest = self._root.latest()
            same = newest is not None and newest.schemas.digest == schemas.digest
            self.current = newest if same else Ruling(schemas)

    def adopt(self, offset: int) -> list[Frame]:
        """Put the newest schemas in force from ``offset`` on; gives the record for the transaction, if there is a change."""
        last = self._epochs[-1].schemas if self._epochs else None
        latest = self._root.latest()
        newest = None if latest is None else latest.schemas
        if newest is None:
            newest = last if last is not None else UNAVAILABLE
        if newest.digest == (last or NO_SCHEMAS).digest:
            self._use(newest)
            return []
        epoch = Epoch(offset, newest)
        self._epochs.append(epoch)
        self._offsets.append(offset)
        self._use(newest)
        return [record(epoch, self._partition)]
