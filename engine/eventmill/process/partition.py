"""The state of one partition of raw: its stages, its position, its snapshots.

State is a fold over the partition's log prefix. ``recover`` loads the newest good snapshot and folds from there to the
committed offset; ``process`` takes frames beyond it, and ``advance`` says that what came of them is committed. After any error
in between the state is ahead of the output: only ``recover`` makes it right again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from eventmill.core import frame, ledger
from eventmill.core.errors import StateError
from eventmill.core.log import Count, Frame, Log, StoredFrame
from eventmill.core.redact import NOTHING, Redaction
from eventmill.core.schema import DEAD, EVENT, LOGGED, Hop, Topic
from eventmill.core.stage import Outcome, Stage, StatefulStage, in_folds
from eventmill.process.checkpoint import Checkpoints, Snapshot
from eventmill.process.letters import of_foreign, with_offsets
from eventmill.process.origin import require_no_inheritance
from eventmill.process.placing import placed
from eventmill.process.schemas.book import SchemaBook

logger = logging.getLogger(__name__)

#: Events that go through the stages together: so few that their memory is still in the cache for the next stage, and is
#: used again at once for the next ones.
FOLD_EVENTS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a partition came to its state."""

    snapshot_offset: int
    committed_offset: int
    events_folded: int
    seconds: float


@dataclass(slots=True)
class Processed:
    """What came of some frames: ``enriched`` batches (EVENT), frames for the other topics, the ledger's counts."""

    following: int
    consumed: int
    enriched: list[pa.RecordBatch] = field(default_factory=list)
    others: list[Frame] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)


class PartitionState:
    """Not thread-safe, but it may be handed from thread to thread."""

    def __init__(
        self,
        log: Log,
        partition: int,
        stages: Callable[[], Sequence[Stage | StatefulStage]],
        snapshots: Path | str,
        *,
        batch_events_max: int,
        book: SchemaBook | None = None,
        redaction: Redaction = NOTHING,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.partition = partition
        self._redaction = redaction
        self.position = 0
        self.events_since_snapshot = 0
        self._log = log
        self._book = book
        self._build = stages
        self._stages: Sequence[Stage | StatefulStage] = ()
        self._checkpoints = Checkpoints(snapshots, checkpoint=checkpoint)
        self._batch_events_max = batch_events_max

    def recover(self, committed: int) -> Recovery:
        """Drop all state and build it anew: the newest good snapshot, then a fold up to the ``committed`` offset.

        Raises ``StateError`` when the log no longer holds what the fold needs.
        """
        started = time.perf_counter()
        if self._book is not None:
            self._book.recover()
        self._stages = self._build()
        snapshot = self._checkpoints.newest(
            committed, lambda name, why: logger.warning("snapshot %s passed over: %s", name, why)
        )
        begin = 0
        if snapshot is None:
            require_no_inheritance(self._log, self.partition)
        else:
            begin = snapshot.offset
            for stage in self._stateful():
                stage.restore(snapshot.states[stage.name])
        start = self._log.start_offset(Topic.RAW, self.partition)
        if begin < start and committed > start:
            raise StateError(
                f"state can be folded from offset {begin} on, but the log begins at {start}: the snapshots in the "
                "state folder are lost or damaged; restore them from a backup, or start with an empty --data folder"
            )
        folded, position = 0, begin
        while position < committed:
            frames = self._log.read(
                Topic.RAW, self.partition, position, events_max=self._batch_events_max, to_offset=committed
            )
            if not frames:
                break  # what is left below the committed offset are the marks of transactions
            here, _ = self._placed(frames)
            for together in _by_events(here, self._epoch):
                if self._book is not None:
                    self._book.turn_to(together[0].offset)
                self._fold(together, [stage for stage in self._stages if in_folds(stage)])
            folded += sum(stored.events for stored in frames)
            position = frames[-1].offset + 1
        self.position = committed
        self.events_since_snapshot = folded
        return Recovery(begin, committed, folded, time.perf_counter() - started)

    def _placed(self, frames: Sequence[StoredFrame]) -> tuple[Sequence[StoredFrame], list[Frame]]:
        if not any(stored.foreign for stored in frames):
            return frames, []
        return placed(frames, len(self._log.partitions(Topic.RAW)))

    def _epoch(self, offset: int) -> int:
        return 0 if self._book is None else self._book.number(offset)

    def _stateful(self) -> list[StatefulStage]:
        return [stage for stage in self._stages if hasattr(stage, "snapshot")]  # type: ignore[misc]

    def _fold(
        self, frames: Sequence[StoredFrame], stages: Sequence[Stage | StatefulStage]
    ) -> tuple[pa.RecordBatch, list[pa.RecordBatch], list[pa.RecordBatch]]:
        raw = events = frame.decode_all(frames, LOGGED)
        suspects: list[pa.RecordBatch] = []
        rejects: list[pa.RecordBatch] = []
        for stage in stages:
            outcome: Outcome = stage.apply(events)
            events = outcome.events
            suspects += [outcome.suspects] if outcome.suspects is not None else []
            if outcome.rejects is not None:
                letters = with_offsets(frame.conform(outcome.rejects, DEAD), raw.column("event_id"), frames)
                rejects.append(self._redaction.letters(letters))
        return events, suspects, rejects

    def process(self, frames: Sequence[StoredFrame]) -> Processed:
        """Take the frames at the position through the stages."""
        done = Processed(frames[-1].offset + 1, sum(stored.events for stored in frames))
        done.others += [] if self._book is None else self._book.adopt(frames[0].offset)
        done.others += [frame.encode(Topic.DEAD, self._redaction.letters(letters)) for letters in of_foreign(frames)]
        here, elsewhere = self._placed(frames)
        done.others += elsewhere
        for together in _by_events(here):
            events, suspects, rejects = self._fold(together, self._stages)
            done.counts += ledger.counts(Hop.ENRICHED, events)
            if events.num_rows:
                done.enriched.append(frame.conform(events, EVENT))
            for batch in suspects:
                done.others.append(frame.encode(Topic.SUSPECTS, batch))
                done.counts += ledger.counts(Hop.SUSPECT, batch)
            for batch in rejects:
                done.others.append(frame.encode(Topic.DEAD, batch))
                done.counts += ledger.counts(Hop.INVALID, batch)
        return done

    def advance(self, done: Processed) -> None:
        """What came of the frames is committed together with their offsets."""
        self.position = done.following
        self.events_since_snapshot += done.consumed

    def taken(self) -> Snapshot:
        """A snapshot of the state at the position."""
        self.events_since_snapshot = 0
        return Snapshot(self.position, {stage.name: stage.snapshot() for stage in self._stateful()})

    def save(self, snapshot: Snapshot, *, durable: bool = True) -> int | None:
        """Write it; gives the offset of the oldest snapshot that is kept. ``sync`` is due unless ``durable``.

        None when it cannot be written now: nothing is lost by that, the next fold only takes longer.
        """
        try:
            return self._checkpoints.save(snapshot, durable=durable)
        except OSError as error:
            logger.warning(
                "no snapshot was written, those before it are kept; the next one comes in its time: %s", error
            )
            return None

    def sync(self, snapshot: Snapshot) -> None:
        """Make a snapshot durable that was not written so."""
        self._checkpoints.sync(snapshot.offset)


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
