"""Negative controls: each breaks one promise on purpose, and the oracle must see it; whole, it must see nothing.

A control runs the same work twice, ``broken`` or not, and gives the oracle's verdict on what came of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pyarrow as pa

from eventmill.core import frame, groups
from eventmill.core.config import Config, DedupConfig
from eventmill.core.schema import EVENT, Topic
from eventmill.core.tail import StoredBatch
from eventmill.generate.oracle import Verdict, judge, stored_rows
from eventmill.generate.stream import Spec, stream
from eventmill.kernels.decode import decode
from eventmill.lake import offsets
from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from eventmill.log.local import LocalLog
from eventmill.process.pipeline import Processor, build_stages
from eventmill.sinks.realtime.store import RealtimeStore
from eventmill.sinks.runner import LakeRunner, with_log_offset

SPEC: Final = Spec(events=6_000, seed=7, start_ms=1_795_000_000_000, span_ms=3_600_000, bad=0.0)
#: So large that no new id looks seen: a false positive would need the rescue, which is not at trial here.
_CONFIG: Final = Config(dedup=DedupConfig(capacity=4_000_000))
_ALL: Final = 1 << 40


class _Killed(Exception):
    """Stands for the end of the process."""


def traffic() -> tuple[list[pa.RecordBatch], pa.Table]:
    """Raw batches as ingest would have put them on the log, and the truth: all of it was acknowledged."""
    blocks = list(stream(SPEC))
    bodies = [body for block in blocks for body in block.bodies]
    truth = pa.concat_tables(block.truth for block in blocks)
    raw = [decode(body, received_at=SPEC.end_ms + at * 1_000).events for at, body in enumerate(bodies)]
    return raw, truth.append_column("outcome", pa.array(["acked"] * truth.num_rows))


@contextlib.contextmanager
def filled_log(folder: Path, raw: list[pa.RecordBatch]) -> Iterator[LocalLog]:
    """A log whose raw topic has the batches."""
    log = LocalLog(folder / "log")
    try:
        with log.transaction() as transaction:
            transaction.append(frame.encode(Topic.RAW, batch) for batch in raw)
        yield log
    finally:
        log.close()


def _processor(log: LocalLog, folder: Path, checkpoint: Callable[[str], None] = lambda _: None) -> Processor:
    one = Processor(
        log,
        lambda: build_stages(_CONFIG),
        folder / "state",
        batch_events_max=900,
        snapshot_interval_events=2_000,
        checkpoint=checkpoint,
    )
    one.recover()
    return one


def _finish(processor: Processor) -> None:
    while processor.step(0):
        pass
    processor.close()


def _enriched(log: LocalLog) -> pa.Table:
    frames = log.read(Topic.ENRICHED, 0, 0, events_max=_ALL)
    return pa.Table.from_batches([frame.decode_all(frames, EVENT)])


def enriched(folder: Path) -> tuple[list[StoredBatch], pa.Table]:
    """What the processor makes of the traffic, by offset, and the truth."""
    raw, truth = traffic()
    with filled_log(folder, raw) as log:
        _finish(_processor(log, folder))
        frames = log.read(Topic.ENRICHED, 0, 0, events_max=_ALL)
        return [StoredBatch(one.offset, frame.conform(frame.decode(one), EVENT)) for one in frames], truth


def commit_before_produce(folder: Path, broken: bool) -> Verdict:
    """The input counts as consumed before its output is there; then the process ends."""
    raw, truth = traffic()
    with filled_log(folder, raw) as log:

        def checkpoint(point: str) -> None:
            if point != "processed":
                return
            if broken:
                consumed = log.read(Topic.RAW, 0, one.position, events_max=900)[-1].offset + 1
                with log.transaction() as transaction:
                    transaction.commit_offset(groups.PROCESS, Topic.RAW, 0, consumed)
            raise _Killed

        one = _processor(log, folder, checkpoint)
        with contextlib.suppress(_Killed):
            one.step(0)
        one.close()
        _finish(_processor(log, folder))
        return judge(truth, stored_rows(_enriched(log)))


def remember_before_commit(folder: Path, broken: bool) -> Verdict:
    """After a failed commit the processor goes on with the state that it has, ahead of its output."""
    raw, truth = traffic()
    with filled_log(folder, raw) as log:
        fail = [True]

        def checkpoint(point: str) -> None:
            if point == "offsets sent" and fail.pop():
                fail.append(False)
                raise _Killed

        one = _processor(log, folder, lambda point: checkpoint(point) if fail[0] else None)
        with contextlib.suppress(_Killed):
            one.step(0)
        if not broken:
            one.recover()
        _finish(one)
        return judge(truth, stored_rows(_enriched(log)))


def window_zero(folder: Path, broken: bool) -> Verdict:
    """An insert comes again under its token, and the store's duplicate check is off, as it is by default."""
    batches, truth = enriched(folder)
    store = RealtimeStore(folder / "realtime", window=0 if broken else 1_000)
    try:
        half = len(batches) // 2
        for name, part in (("first", batches[:half]), ("second", batches[half:]), ("second", batches[half:])):
            # The sink believes each time that the store has nothing of these offsets: the token alone protects.
            store._stored_through = -1
            store.insert(with_log_offset(part), name)
        columns = "event_id, event::String AS event, device_id, properties, original_timestamp"
        return judge(truth, stored_rows(store.query_arrow(f"SELECT {columns} FROM eventmill.events")))
    finally:
        store.close()


def drop_offsets_in_compaction(folder: Path, broken: bool) -> Verdict:
    """Compaction does not carry the offsets into its snapshot, nothing guards against that, and the sink starts anew."""
    raw, truth = traffic()
    with filled_log(folder, raw) as log:
        _finish(_processor(log, folder))
        _store_all(log, folder)
        lake = Lake(folder / "lake")
        try:
            with mock.patch.object(offsets, "carried", return_value={}) if broken else contextlib.nullcontext():
                compact(lake, gap_ms=1_800_000, now_ms=SPEC.end_ms)
            with mock.patch.object(offsets, "has_offsets", return_value=True) if broken else contextlib.nullcontext():
                _store_all(log, folder)
            columns = ("event_id", "event", "device_id", "properties", "original_timestamp")
            rows = lake.load().scan(selected_fields=columns).to_arrow()
        finally:
            lake.close()
        return judge(truth, stored_rows(rows))


def _store_all(log: LocalLog, folder: Path) -> None:
    lake = Lake(folder / "lake")
    try:
        runner = LakeRunner(log, lake, events_max=2_000, interval_ms=0)
        runner.recover()
        while runner.step(0):
            pass
    finally:
        lake.close()


#: By the names under which the report has them.
CONTROLS: Final[dict[str, Callable[[Path, bool], Verdict]]] = {
    "commit before produce": commit_before_produce,
    "remember ids before the commit": remember_before_commit,
    "duplicate check with window 0": window_zero,
    "drop offsets in compaction": drop_offsets_in_compaction,
}


def faults_of(verdict: Verdict) -> dict[str, Any]:
    """The counts that are not zero."""
    counts = {name: getattr(verdict, name) for name in ("lost", "doubled", "phantom", "corrupt")}
    return {name: count for name, count in counts.items() if count}
