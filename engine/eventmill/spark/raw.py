"""Raw events for Spark: executors read ranges of the log, and decode and judge by the kernels what stands there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core import frame
from eventmill.core.config import Config
from eventmill.core.errors import FrameError
from eventmill.core.log import Log, StoredFrame
from eventmill.core.redact import Redaction
from eventmill.core.schema import DEAD, EVENT_ID, LOGGED, TIME, WORD, Flag, Topic
from eventmill.core.tombstones import Tombstone, Tombstones
from eventmill.process.letters import with_offsets
from eventmill.process.schemas.ruling import Ruling
from eventmill.process.schemas.sets import load_set
from eventmill.process.validate import judged
from eventmill.serve.engine_log import open_existing

_READ_EVENTS: Final = 50_000
#: Rows that a frame may have: of what its offset is multiplied by in ``row``.
_FRAME_ROWS: Final = 1 << 20
#: What Spark has no type for.
_PLAIN: Final[Mapping[pa.DataType, pa.DataType]] = {
    WORD: pa.string(), TIME: pa.timestamp("us", tz="UTC"), EVENT_ID: pa.binary()
}  # fmt: skip


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema in types that Spark has; every column may be null."""
    return pa.schema([pa.field(field.name, _PLAIN.get(field.type, field.type)) for field in schema])


_LETTER: Final = plain(DEAD)
#: A raw event that is good, or the letter (DEAD) that became of one and nothing else. ``appended_at`` in ms since the epoch;
#: ``partition`` and ``row`` are its place, in the order of the partition; ``forgotten``: a tombstone covers it.
ROWS: Final = pa.schema(
    [
        *plain(LOGGED),
        pa.field("appended_at", pa.int64()),
        pa.field("partition", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("forgotten", pa.bool_()),
        pa.field("letter", pa.struct(list(_LETTER))),
    ]
)
_ADDED: Final = ("appended_at", "partition", "row")


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition, from inclusive to exclusive."""

    partition: int
    begin: int
    end: int


def ranges(log: Log, tasks: int) -> list[Range]:
    """All that raw holds, in at least so many ranges where there are frames enough."""
    found = []
    partitions = list(log.partitions(Topic.RAW))
    for each in partitions:
        begin, end = log.start_offset(Topic.RAW, each), log.end_offset(Topic.RAW, each)
        step = max(-(-(end - begin) * len(partitions) // max(tasks, 1)), 1)
        found += [Range(each, first, min(first + step, end)) for first in range(begin, end, step)]
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """For ``mapInArrow``: ``ROWS`` of ranges, of events received from ``since_ms`` inclusive to ``until_ms`` exclusive.

    ``schemas`` are a ``SchemaSet``'s ``dump``. It travels to the executors, and opens the log there.
    """

    config: Config
    schemas: bytes
    tombstones: Sequence[Tombstone]
    since_ms: int
    until_ms: int

    def __call__(self, given: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Each batch has the columns of ``Range``."""
        judge = _Judge(self)
        with closing(open_existing(self.config)) as log:
            for batch in given:
                for each in batch.to_pylist():
                    for frames in _frames(log, Range(each["partition"], each["begin"], each["end"])):
                        yield from judge.rows(frames)


def _frames(log: Log, within: Range) -> Iterator[list[StoredFrame]]:
    position = within.begin
    while position < within.end:
        frames = log.read(Topic.RAW, within.partition, position, events_max=_READ_EVENTS, to_offset=within.end)
        if not frames:
            break  # what is left are the marks of transactions
        yield frames
        position = frames[-1].offset + 1


class _Judge:
    """What becomes of raw frames."""

    def __init__(self, reader: Reader) -> None:
        self._ruling = Ruling(load_set(reader.schemas))
        self._tombstones = Tombstones(reader.tombstones)
        self._blocked = reader.config.process.blocked_events
        self._redaction = Redaction(reader.config.dead.redact)
        self._since, self._until = reader.since_ms, reader.until_ms

    def rows(self, frames: Sequence[StoredFrame]) -> Iterator[pa.RecordBatch]:
        """``ROWS`` of the frames."""
        raw = frame.decode_all(frames, LOGGED)
        received = raw.column("received_at").cast(pa.int64())
        asked = pc.and_(pc.greater_equal(received, self._since), pc.less(received, self._until))
        # What was put back after a look-up stands in raw twice, and is compared again.
        flags = pc.bit_wise_and(raw.column("flags"), pa.scalar(~int(Flag.RESCUED), pa.int32()))
        at = LOGGED.get_field_index("flags")
        events = _located(raw.set_column(at, LOGGED.field(at), flags), frames).filter(asked)
        outcome, _ = judged(events, self._blocked, self._ruling)
        if outcome.events.num_rows:
            yield self._good(outcome.events)
        if outcome.rejects is not None:
            letters = with_offsets(frame.conform(outcome.rejects, DEAD), raw.column("event_id"), frames)
            yield _dead(self._redaction.letters(letters))

    def _good(self, events: pa.RecordBatch) -> pa.RecordBatch:
        forgotten = self._tombstones.mask(events)
        mask = np.zeros(events.num_rows, np.bool_) if forgotten is None else forgotten
        columns = [events.column(name).cast(ROWS.field(name).type) for name in (*LOGGED.names, *_ADDED)]
        nothing = pa.nulls(events.num_rows, ROWS.field("letter").type)
        return pa.RecordBatch.from_arrays([*columns, pa.array(mask), nothing], schema=ROWS)


def _located(events: pa.RecordBatch, frames: Sequence[StoredFrame]) -> pa.RecordBatch:
    """The events with when, and where, they stand on the log."""
    counts = [stored.events for stored in frames]
    if max(counts, default=0) > _FRAME_ROWS:
        raise FrameError(f"a frame of raw has {max(counts):,} events; more than {_FRAME_ROWS:,} cannot be told apart")
    begins = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    offsets = np.repeat(np.array([stored.offset for stored in frames], np.int64), counts)
    added = {
        "appended_at": np.repeat(np.array([stored.appended_at for stored in frames], np.int64), counts),
        "partition": np.full(len(offsets), frames[0].partition, np.int32),
        "row": offsets * _FRAME_ROWS + np.arange(len(offsets)) - begins,
    }
    columns = [*events.columns, *(pa.array(values) for values in added.values())]
    return pa.RecordBatch.from_arrays(columns, names=[*events.schema.names, *added])


def _dead(letters: pa.RecordBatch) -> pa.RecordBatch:
    columns = [letters.column(field.name).cast(field.type) for field in _LETTER]
    structs = pa.StructArray.from_arrays(columns, fields=list(_LETTER))
    nothing = [pa.nulls(len(letters), field.type) for field in list(ROWS)[:-1]]
    return pa.RecordBatch.from_arrays([*nothing, structs], schema=ROWS)


@dataclass(frozen=True, slots=True)
class Framer:
    """For ``mapInArrow``: frames (``FRAMES``) of rows that have the schema's columns, a frame for each batch."""

    topic: Topic
    schema: pa.Schema

    def __call__(self, given: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The columns as they are stored on the log."""
        for batch in given:
            if batch.num_rows:
                rows = logged(batch, self.schema)
                made = frame.encode(self.topic, rows)
                yield pa.record_batch({"payload": [bytes(made.payload)], "events": [rows.num_rows]})


#: What ``Framer`` gives, as Spark's DDL.
FRAMES: Final = "payload binary, events long"


def logged(rows: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """Spark's columns as the log has them; times of whole milliseconds."""
    columns: list[Any] = [rows.column(field.name).cast(field.type) for field in schema]
    return frame.to_batch(pa.Table.from_arrays(columns, schema=schema).unify_dictionaries())
