"""The way of an event through the processor, on one page.

raw → dedup → validate → enrich → sessionize → enriched; suspects and rejects leave on the side. One transaction makes
the outputs, the input offset and the ledger's counts durable together. After any error all state is dropped and built
anew from the newest good snapshot and the log (``recover``), so state never gets ahead of output.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from eventmill.core import frame, groups, ledger
from eventmill.core.config import Config
from eventmill.core.errors import StateError
from eventmill.core.linger import linger
from eventmill.core.log import Count, Frame, Log, StoredFrame
from eventmill.core.schema import DEAD, EVENT, RAW, Hop, Topic
from eventmill.core.stage import Outcome, Stage, StatefulStage, in_folds
from eventmill.core.tail import StoredBatch, Tail
from eventmill.core.threads import name_thread
from eventmill.kernels.sessionize import Sessionizer
from eventmill.process.checkpoint import Checkpoints, Snapshot
from eventmill.process.dedup import Dedup, build_filter
from eventmill.process.dimensions.source import Dimensions, open_dimensions
from eventmill.process.enrich import Enrich
from eventmill.process.letters import with_offsets
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.sessionize import Sessionize
from eventmill.process.validate import Validate

logger = logging.getLogger(__name__)

PARTITION = 0
#: Events that go through the stages together: so few that their memory is still in the cache for the next stage, and is
#: used again at once for the next ones.
FOLD_EVENTS: Final = 16_384


def build_stages(
    config: Config, book: SchemaBook | None = None, dimensions: Dimensions | None = None
) -> list[Stage | StatefulStage]:
    """The stages, in order; ``book`` knows the schemas in force, ``dimensions`` the users (opened here if not given)."""
    process = config.process
    return [
        Dedup(build_filter(config.dedup, populate=True)),
        Validate(process.blocked_events, book),
        Enrich(open_dimensions(config.dimensions) if dimensions is None else dimensions),
        Sessionize(Sessionizer(process.session_gap, process.lateness)),
    ]


@dataclass(frozen=True, slots=True)
class Recovery:
    """How the processor came to its state."""

    snapshot_offset: int
    committed_offset: int
    events_folded: int
    seconds: float


class Processor:
    """Not thread-safe: one thread calls ``recover``, then ``step`` again and again."""

    def __init__(
        self,
        log: Log,
        stages: Callable[[], Sequence[Stage | StatefulStage]],
        state_dir: Path,
        *,
        batch_events_max: int,
        batch_interval_ms: int = 0,
        snapshot_interval_events: int,
        tail: Tail | None = None,
        book: SchemaBook | None = None,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._tail = tail
        self._book = book
        self._build = stages
        self._stages: Sequence[Stage | StatefulStage] = ()
        self._checkpoints = Checkpoints(state_dir, checkpoint=checkpoint)
        self._batch_events_max = batch_events_max
        self._interval_s = batch_interval_ms / 1000
        self._snapshot_interval_events = snapshot_interval_events
        self._checkpoint = checkpoint
        self._position = 0
        self._events_since_snapshot = 0
        self._saver = ThreadPoolExecutor(1, "snapshot", name_thread, ("snapshot",))
        self._saving: Future[None] | None = None

    @property
    def position(self) -> int:
        """The next raw offset to read."""
        return self._position

    def recover(self) -> Recovery:
        """Drop all state and build it anew: the newest good snapshot, then a fold up to the committed offset.

        Raises ``StateError`` when the log no longer holds what the fold needs.
        """
        started = time.perf_counter()
        self._finish_saving()
        committed = self._log.committed(groups.PROCESS, Topic.RAW, PARTITION)
        if self._book is not None:
            self._book.recover()
        self._stages = self._build()
        snapshot = self._checkpoints.newest(
            committed, lambda path, why: logger.warning("snapshot %s passed over: %s", path.name, why)
        )
        begin = 0
        if snapshot is not None:
            begin = snapshot.offset
            for stage in self._stateful():
                stage.restore(snapshot.states[stage.name])
        start = self._log.start_offset(Topic.RAW, PARTITION)
        if begin < start and committed > 0:
            raise StateError(
                f"state can be folded from offset {begin} on, but the log begins at {start}: the snapshots in the "
                "state folder are lost or damaged; restore them from a backup, or start with an empty --data folder"
            )
        folded, position = 0, begin
        while position < committed:
            frames = self._log.read(
                Topic.RAW, PARTITION, position, events_max=self._batch_events_max, to_offset=committed
            )
            for together in _by_events(frames, self._epoch):
                if self._book is not None:
                    self._book.turn_to(together[0].offset)
                self._fold(together, [stage for stage in self._stages if in_folds(stage)])
            folded += sum(stored.events for stored in frames)
            position = frames[-1].offset + 1
        self._position = committed
        self._events_since_snapshot = folded
        return Recovery(begin, committed, folded, time.perf_counter() - started)

    def _epoch(self, offset: int) -> int:
        return 0 if self._book is None else self._book.number(offset)

    def _stateful(self) -> list[StatefulStage]:
        return [stage for stage in self._stages if hasattr(stage, "snapshot")]  # type: ignore[misc]

    def _fold(
        self, frames: Sequence[StoredFrame], stages: Sequence[Stage | StatefulStage]
    ) -> tuple[pa.RecordBatch, list[pa.RecordBatch], list[pa.RecordBatch]]:
        raw = events = frame.decode_all(frames, RAW)
        suspects: list[pa.RecordBatch] = []
        rejects: list[pa.RecordBatch] = []
        for stage in stages:
            outcome: Outcome = stage.apply(events)
            events = outcome.events
            suspects += [outcome.suspects] if outcome.suspects is not None else []
            if outcome.rejects is not None:
                rejects.append(with_offsets(frame.conform(outcome.rejects, DEAD), raw.column("event_id"), frames))
        return events, suspects, rejects

    def step(self, timeout_s: float) -> int:
        """Process one batch, waiting up to ``timeout_s`` for input; gives the number of raw events consumed."""
        if not self._log.wait(Topic.RAW, PARTITION, self._position, timeout_s):
            return 0
        linger(
            self._log,
            groups.PROCESS,
            Topic.RAW,
            PARTITION,
            events_max=self._batch_events_max,
            seconds=self._interval_s,
        )
        frames = self._log.read(Topic.RAW, PARTITION, self._position, events_max=self._batch_events_max)
        if not frames:
            return 0
        enriched: list[pa.RecordBatch] = []
        others: list[Frame] = [] if self._book is None else self._book.adopt(frames[0].offset)
        counts: list[Count] = []
        for together in _by_events(frames):
            events, suspects, rejects = self._fold(together, self._stages)
            counts += ledger.counts(Hop.ENRICHED, events)
            if events.num_rows:
                enriched.append(frame.conform(events, EVENT))
            for batch in suspects:
                others.append(frame.encode(Topic.SUSPECTS, batch))
                counts += ledger.counts(Hop.SUSPECT, batch)
            for batch in rejects:
                others.append(frame.encode(Topic.DEAD, batch))
                counts += ledger.counts(Hop.INVALID, batch)
        outputs = [frame.encode(Topic.ENRICHED, batch) for batch in enriched]
        self._checkpoint("processed")
        following = frames[-1].offset + 1
        with self._log.transaction() as transaction:
            offsets = transaction.append(outputs)
            transaction.append(others)
            self._checkpoint("produced")
            transaction.commit_offset(groups.PROCESS, Topic.RAW, PARTITION, following)
            transaction.count(counts)
            self._checkpoint("offsets sent")
        if self._tail is not None:
            self._tail.append(map(StoredBatch, offsets, enriched))
        self._checkpoint("committed")
        self._position = following
        consumed = sum(stored.events for stored in frames)
        self._events_since_snapshot += consumed
        if self._events_since_snapshot >= self._snapshot_interval_events and (
            self._saving is None or self._saving.done()
        ):
            self.snapshot()
        return consumed

    def snapshot(self, *, wait: bool = False) -> None:
        """Take a snapshot at the current position; it is written beside the processing, or awaited with ``wait``."""
        self._finish_saving()
        taken = Snapshot(self._position, {stage.name: stage.snapshot() for stage in self._stateful()})
        self._events_since_snapshot = 0
        self._saving = self._saver.submit(self._save, taken)
        if wait:
            self._finish_saving()

    def _save(self, snapshot: Snapshot) -> None:
        oldest = self._checkpoints.save(snapshot)
        with self._log.transaction() as transaction:
            transaction.commit_offset(groups.SNAPSHOT, Topic.RAW, PARTITION, oldest)

    def _finish_saving(self) -> None:
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def close(self) -> None:
        """Waits for a snapshot that is being written."""
        try:
            self._finish_saving()
        finally:
            self._saver.shutdown()


def _by_events(frames: Sequence[StoredFrame], epoch: Callable[[int], int] = lambda _: 0) -> Iterator[list[StoredFrame]]:
    """The frames in groups of about ``FOLD_EVENTS`` events, each of whole frames of one epoch."""
    together: list[StoredFrame] = []
    events = 0
    for stored in frames:
        if together and (events + stored.events > FOLD_EVENTS or epoch(stored.offset) != epoch(together[0].offset)):
            yield together
            together, events = [], 0
        together.append(stored)
        events += stored.events
    if together:
        yield together
