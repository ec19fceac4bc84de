"""The processor as a member of a consumer group: any number of processes share the partitions of raw.

Each partition has its own state. A partition that comes is built (snapshot and fold) beside the processing of those that are
here; one that goes leaves a snapshot for whoever gets it. One transaction makes the outputs, offsets and counts of one batch
over all partitions durable. After any error all state is dropped and built anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa

from eventmill.core import frame, groups
from eventmill.core.errors import LogUnavailable
from eventmill.core.log import Count, StoredFrame
from eventmill.core.schema import Topic
from eventmill.core.threads import name_thread
from eventmill.process.checkpoint import Snapshot
from eventmill.process.partition import PartitionState

logger = logging.getLogger(__name__)

#: How long a step may sleep while a partition is being built.
_BUILDING_S: Final = 0.05
#: Partitions that are built at once, and snapshots that are written at once.
_BUILDERS: Final = 4
_SAVERS: Final = 4


class _Coming(NamedTuple):
    future: Future[PartitionState]
    unwanted: threading.Event


class Member(Protocol):
    """A place in the consumer group of raw; see ``log.kafka.member``."""

    @property
    def held(self) -> set[int]:
        """The partitions it has now."""
        ...

    def start(self, assigned: Callable[[list[int]], None], revoked: Callable[[list[int], bool], None]) -> None:
        """Join."""
        ...

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing of these until ``resume``."""
        ...

    def resume(self, partition: int, offset: int) -> None:
        """Fetch from there on."""
        ...

    def poll(self, timeout_s: float, *, events_max: int, linger_s: float) -> Mapping[int, list[StoredFrame]]:
        """Frames by partition."""
        ...

    def transaction(self) -> AbstractContextManager[Any]:
        """All or nothing, and only while the group knows this member; a ``core.log.Transaction``."""
        ...

    def mirror(self, transaction: Any, events: pa.RecordBatch) -> None:
        """Give processed events to others too, in the same transaction, where that is wanted."""
        ...

    def carried(self, frames: Sequence[StoredFrame]) -> list[Count]:
        """What the frames add to the ledger."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class GroupProcessor:
    """One thread calls ``recover``, then ``step`` again and again.

    ``build`` makes the empty state of a partition; ``committed`` gives the offset from which the group goes on, which no open
    transaction can change any more.
    """

    def __init__(
        self,
        member: Member,
        build: Callable[[int], PartitionState],
        committed: Callable[[int], int],
        *,
        batch_events_max: int,
        batch_interval_ms: int,
        snapshot_interval_events: int,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._member = member
        self._build = build
        self._committed = committed
        self._batch_events_max = batch_events_max
        self._interval_s = batch_interval_ms / 1000
        self._snapshot_interval_events = snapshot_interval_events
        self._checkpoint = checkpoint
        self._joined = False
        self._live: dict[int, PartitionState] = {}
        self._coming: dict[int, _Coming] = {}
        self._builder = ThreadPoolExecutor(_BUILDERS, "recover", name_thread, ("recover",))
        self._saver = ThreadPoolExecutor(_SAVERS, "snapshot", name_thread, ("snapshot",))
        self._saving: dict[int, Future[int | None]] = {}
        self._syncing: list[Future[None]] = []

    @property
    def partitions(self) -> dict[int, int]:
        """The partitions that are live, and their positions."""
        return {partition: state.position for partition, state in self._live.items()}

    @property
    def settled(self) -> bool:
        """Whether all partitions it has are live."""
        return self._joined and not self._coming

    def recover(self) -> None:
        """Join the group; later: drop all state and build it anew."""
        if not self._joined:
            self._member.start(self._came, self._went)
            self._joined = True
            return
        self._finish_saving()
        self._drop_coming(self._coming)
        self._live.clear()
        held = sorted(self._member.held)
        self._member.pause(held)
        self._came(held)

    def _came(self, partitions: list[int]) -> None:
        for partition in partitions:
            unwanted = threading.Event()
            self._coming[partition] = _Coming(self._builder.submit(self._built, partition, unwanted), unwanted)

    def _built(self, partition: int, unwanted: threading.Event) -> PartitionState:
        """The state; tried again as long as the log cannot give it, so that one partition out of reach holds up no other."""
        state = self._build(partition)
        while True:
            try:
                recovery = state.recover(self._committed(partition))
                break
            except LogUnavailable as error:
                if unwanted.is_set():
                    raise
                logger.warning("partition %d waits: %s", partition, error)
                unwanted.wait(error.retry_after_s)
        logger.info(
            "partition %d at offset %d: snapshot at %d, %d events folded in %.2f s",
            partition, recovery.committed_offset, recovery.snapshot_offset, recovery.events_folded, recovery.seconds,
        )  # fmt: skip
        return state

    def _drop_coming(self, partitions: Iterable[int]) -> None:
        for partition in list(partitions):
            coming = self._coming.pop(partition, None)
            if coming is not None:
                coming.unwanted.set()
                coming.future.cancel()

    def _went(self, partitions: list[int], lost: bool) -> None:
        self._drop_coming(partitions)
        handed: list[tuple[PartitionState, Snapshot]] = []
        for partition in partitions:
            state = self._live.pop(partition, None)
            # A snapshot of what is committed is right whoever has the partition; it spares the next one the fold.
            if state is not None and not lost and state.events_since_snapshot:
                self._finish_saving(partition)
                handed.append((state, state.taken()))
        # The partitions that stay wait for it: all are written at once, and synced afterwards. Should the power go in between,
        # a damaged snapshot is passed over.
        written = [self._saver.submit(state.save, snapshot, durable=False) for state, snapshot in handed]
        for each in written:
            each.result()
        for state, snapshot in handed:
            self._syncing = [each for each in self._syncing if not each.done()]
            self._syncing.append(self._saver.submit(state.sync, snapshot))
        logger.info("partitions %s %s", partitions, "lost" if lost else "handed over")

    def _go_live(self) -> None:
        for partition in [each for each, coming in self._coming.items() if coming.future.done()]:
            state = self._coming.pop(partition).future.result()
            self._live[partition] = state
            self._member.resume(partition, state.position)

    def step(self, timeout_s: float) -> int:
        """Process one batch, waiting up to ``timeout_s`` for input; gives the number of raw events consumed."""
        self._go_live()
        gathered = self._member.poll(
            _BUILDING_S if self._coming else timeout_s, events_max=self._batch_events_max, linger_s=self._interval_s
        )
        taken = {partition: frames for partition, frames in gathered.items() if partition in self._live}
        if not taken:
            return 0
        done = {partition: self._live[partition].process(frames) for partition, frames in taken.items()}
        self._checkpoint("processed")
        with self._member.transaction() as transaction:
            for partition, made in done.items():
                transaction.append(
                    [frame.encode(Topic.ENRICHED, batch, partition=partition) for batch in made.enriched] + made.others
                )
                for batch in made.enriched:
                    self._member.mirror(transaction, batch)
                transaction.commit_offset(groups.PROCESS, Topic.RAW, partition, made.following)
                transaction.count(made.counts + self._member.carried(taken[partition]))
        for partition, made in done.items():
            state = self._live[partition]
            state.advance(made)
            saving = self._saving.get(partition)
            if state.events_since_snapshot >= self._snapshot_interval_events and (saving is None or saving.done()):
                self._save(state)
        return sum(made.consumed for made in done.values())

    def _save(self, state: PartitionState) -> None:
        self._finish_saving(state.partition)
        snapshot: Snapshot = state.taken()
        self._saving[state.partition] = self._saver.submit(state.save, snapshot)

    def _finish_saving(self, partition: int | None = None) -> None:
        for each in [partition] if partition is not None else list(self._saving):
            saving = self._saving.pop(each, None)
            if saving is not None:
                saving.result()

    def close(self, *, snapshot: bool = False) -> None:
        """Leave the group; partitions are handed over with a last snapshot when the state is whole."""
        if not snapshot:
            self._live.clear()
        self._drop_coming(self._coming)
        kept = dict(self._live)
        self._member.close()
        for state in kept.values():  # a member with a name of its own keeps its place, and nobody asked it to hand over
            if state.events_since_snapshot:
                self._finish_saving(state.partition)
                state.save(state.taken())
        self._finish_saving()
        self._builder.shutdown(cancel_futures=True)
        self._saver.shutdown()
