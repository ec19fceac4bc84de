"""Dead letters' second chance: decoded again from their original bytes, and put back where they are good by now.

Each dead letter is judged at most once per mended cause: a letter that is put back, and the group's offset, are committed in
one transaction; letters that are still bad, or of a reason not asked for, are written back as dead letters, so that a later
replay finds them again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native.decode import Decoder
from eventmill.core import frame, groups, ledger
from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import HttpConfig, IngestConfig
from eventmill.core.errors import BodyError
from eventmill.core.log import Log
from eventmill.core.schema import REJECT, Flag, Hop, Topic

PARTITION: Final = 0
_READ_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Replay:
    """How many dead letters were read, and what became of them."""

    read: int = 0
    replayed: int = 0
    still_dead: int = 0
    skipped: int = 0

    def as_dict(self) -> dict[str, int]:
        """For machines."""
        return asdict(self)


def replay_dead(log: Log, ingest: IngestConfig, http: HttpConfig, *, reasons: frozenset[str] = frozenset()) -> Replay:
    """Replay all dead letters that the log holds now (of ``reasons``, if any are given)."""
    decoder = Decoder(
        event_bytes_max=http.event_bytes_max,
        event_name_bytes_max=ingest.event_name_bytes_max,
        depth_max=ingest.depth_max,
        age_max_ms=parse_duration_ms(ingest.age_max),
    )
    position = max(log.committed(groups.REPLAY, Topic.DEAD, PARTITION), log.start_offset(Topic.DEAD, PARTITION))
    end = log.end_offset(Topic.DEAD, PARTITION)
    total = Replay()
    while position < end:
        frames = log.read(Topic.DEAD, PARTITION, position, events_max=_READ_EVENTS, to_offset=end)
        letters = frame.decode_all(frames, REJECT)
        asked = pc.is_in(letters.column("reason"), value_set=pa.array(sorted(reasons), pa.string()))
        wanted = letters.filter(asked) if reasons else letters
        skipped = letters.filter(pc.invert(asked)) if reasons else letters.slice(0, 0)
        good, bad = _decode(decoder, wanted)
        position = frames[-1].offset + 1
        with log.transaction() as transaction:
            outputs = [frame.encode(Topic.RAW, good)] if good.num_rows else []
            outputs += [frame.encode(Topic.DEAD, batch) for batch in (bad, skipped) if batch.num_rows]
            transaction.append(outputs)
            transaction.commit_offset(groups.REPLAY, Topic.DEAD, PARTITION, position)
            transaction.count(ledger.counts(Hop.REPLAYED, good))
        total = Replay(
            total.read + letters.num_rows,
            total.replayed + good.num_rows,
            total.still_dead + bad.num_rows,
            total.skipped + skipped.num_rows,
        )
    return total


def _decode(decoder: Decoder, letters: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """The letters as events where they decode, and those that do not, with today's reason."""
    times = letters.column("received_at").cast(pa.int64()).to_pylist()
    readable = []
    for payload, received_at in zip(letters.column("payload").to_pylist(), times, strict=True):
        try:
            decoder.append(b'{"batch":[' + payload + b"]}", received_at)
            readable.append(True)
        except BodyError:  # bytes that are no JSON by themselves stay dead under their old reason
            readable.append(False)
    events, rejects = decoder.finish()
    unreadable = letters.filter(pc.invert(pa.array(readable, pa.bool_())))
    flags = pc.bit_wise_or(events.column("flags"), pa.scalar(int(Flag.REPLAYED), pa.int32()))
    place = events.schema.get_field_index("flags")
    return (
        events.set_column(place, events.schema.field("flags"), flags),
        frame.to_batch(pa.Table.from_batches([rejects, frame.conform(unreadable, REJECT)])),
    )
