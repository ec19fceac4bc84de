"""What a redacted dead letter said before: its event still stands on raw, for as long as raw is kept."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import pyarrow as pa

from eventmill.core import frame
from eventmill.core.log import Log
from eventmill.core.schema import LOGGED, Topic
from eventmill.process.validate import client_event

#: Letters of one frame come one after the other.
_FRAMES: Final = 16


class Originals:
    """Not thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._frame = lru_cache(_FRAMES)(self._read)

    def payload(self, letter: dict[str, Any]) -> bytes:
        """The letter's event as the client sent it; the letter's own bytes where they are all that is left."""
        own: bytes = letter["payload"]
        if not letter["redacted"] or letter["raw_offset"] is None or letter["event_id"] is None:
            return own
        events, rows = self._frame(letter["raw_partition"] or 0, letter["raw_offset"])
        row = rows.get(letter["event_id"])
        return own if row is None else client_event(events.slice(row, 1).to_pylist()[0])

    def _read(self, partition: int, offset: int) -> tuple[pa.RecordBatch, dict[bytes, int]]:
        kept = self._log.start_offset(Topic.RAW, partition) <= offset < self._log.end_offset(Topic.RAW, partition)
        frames = self._log.read(Topic.RAW, partition, offset, events_max=1, to_offset=offset + 1) if kept else []
        events = frame.decode_all(frames, LOGGED)
        return events, {identity: row for row, identity in enumerate(events.column("event_id").to_pylist())}
