"""The way of an event through the processor, on one page.

raw → dedup → validate → enrich → sessionize → enriched; suspects and rejects leave on the side. One transaction makes
the outputs, the input offset and the ledger's counts durable together. After any error all state is dropped and built
anew from the newest good snapshot and the log (``recover``), so state never gets ahead of output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from eventmill.core import frame, groups
from eventmill.core.config import Config
from eventmill.core.log import Log
from eventmill.core.redact import NOTHING, Redaction
from eventmill.core.schema import Topic
from eventmill.core.stage import Stage, StatefulStage
from eventmill.core.tail import StoredBatch, Tail
from eventmill.core.threads import name_thread
from eventmill.kernels.sessionize import Sessionizer
from eventmill.process.checkpoint import Snapshot
from eventmill.process.dedup import Dedup, build_filter
from eventmill.process.dimensions.source import Dimensions, open_dimensions
from eventmill.process.enrich import Enrich
from eventmill.process.partition import PartitionState, Recovery
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.sessionize import Sessionize
from eventmill.process.validate import Validate

PARTITION = 0


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


class Processor:
    """For a log with one partition. Not thread-safe: one thread calls ``recover``, then ``step`` again and again."""

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
        redaction: Redaction = NOTHING,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._tail = tail
        self._state = PartitionState(
            log, PARTITION, stages, state_dir, batch_events_max=batch_events_max, book=book, redaction=redaction,
            checkpoint=checkpoint,
        )  # fmt: skip
        self._batch_events_max = batch_events_max
        self._interval_s = batch_interval_ms / 1000
        self._snapshot_interval_events = snapshot_interval_events
        self._checkpoint = checkpoint
        self._saver = ThreadPoolExecutor(1, "snapshot", name_thread, ("snapshot",))
        self._saving: Future[None] | None = None

    @property
    def position(self) -> int:
        """The next raw offset to read."""
        return self._state.position

    def recover(self) -> Recovery:
        """Drop all state and build it anew: the newest good snapshot, then a fold up to the committed offset.

        Raises ``StateError`` when the log no longer holds what the fold needs.
        """
        self._finish_saving()
        return self._state.recover(self._log.committed(groups.PROCESS, Topic.RAW, PARTITION))

    def step(self, timeout_s: float) -> int:
        """Process one batch, waiting up to ``timeout_s`` for input; gives the number of raw events consumed."""
        if not self._log.wait(
            Topic.RAW,
            {PARTITION: self.position},
            timeout_s,
            events_max=self._batch_events_max,
            linger_s=self._interval_s,
        ):
            return 0
        frames = self._log.read(Topic.RAW, PARTITION, self.position, events_max=self._batch_events_max)
        if not frames:
            return 0
        done = self._state.process(frames)
        outputs = [frame.encode(Topic.ENRICHED, batch) for batch in done.enriched]
        self._checkpoint("processed")
        with self._log.transaction() as transaction:
            offsets = transaction.append(outputs)
            transaction.append(done.others)
            self._checkpoint("produced")
            transaction.commit_offset(groups.PROCESS, Topic.RAW, PARTITION, done.following)
            transaction.count(done.counts)
            self._checkpoint("offsets sent")
        if self._tail is not None:
            self._tail.append(map(StoredBatch, offsets, done.enriched))
        self._checkpoint("committed")
        self._state.advance(done)
        if self._state.events_since_snapshot >= self._snapshot_interval_events and (
            self._saving is None or self._saving.done()
        ):
            self.snapshot()
        return done.consumed

    def snapshot(self, *, wait: bool = False) -> None:
        """Take a snapshot at the current position; it is written beside the processing, or awaited with ``wait``."""
        self._finish_saving()
        self._saving = self._saver.submit(self._save, self._state.taken())
        if wait:
            self._finish_saving()

    def _save(self, snapshot: Snapshot) -> None:
        oldest = self._state.save(snapshot)
        if oldest is None:
            return
        with self._log.transaction() as transaction:
            transaction.commit_offset(groups.SNAPSHOT, Topic.RAW, PARTITION, oldest)

    def _finish_saving(self) -> None:
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def close(self, *, snapshot: bool = False) -> None:
        """Waits for a snapshot that is being written; with a last one when the state is whole."""
        try:
            if snapshot:
                self.snapshot(wait=True)
            self._finish_saving()
        finally:
            self._saver.shutdown()
