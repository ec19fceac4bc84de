"""One event's fate: every hop with time, offset and verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core import frame, groups
from eventmill.core.ids import format_event_id
from eventmill.core.log import Log, StoredFrame
from eventmill.core.schema import Flag, Topic

#: A frame is appended soon after its events were received; the first look goes there, a second one everywhere.
_NEAR_MS: Final = 120_000
_READ_EVENTS: Final = 100_000

Find = Callable[[bytes], list[dict[str, Any]]]


class SearchableLog(Log, Protocol):
    """A log that finds frames by time."""

    def offsets_between(self, topic: Topic, partition: int, from_ms: int, to_ms: int) -> list[int]:
        """Offsets of the frames appended within a time range."""
        ...


def trace(event_id: bytes, log: SearchableLog, find_realtime: Find, find_lake: Find) -> dict[str, Any]:
    """The hops of one event, in order, and what became of it.

    ``fate`` is one of ``stored``, ``in flight``, ``duplicate`` (only copies of it are suspects), ``unknown``.
    """
    realtime, lake = find_realtime(event_id), find_lake(event_id)
    received = [row["received_at_ms"] for row in realtime + lake if row.get("received_at_ms") is not None]
    window = (min(received) - _NEAR_MS, max(received) + _NEAR_MS) if received else None
    hops: list[dict[str, Any]] = []
    for topic, verdict in ((Topic.RAW, "accepted"), (Topic.SUSPECTS, "suspect"), (Topic.ENRICHED, "enriched")):
        hops += _in_log(log, topic, event_id, window, verdict)
    hops += [{"hop": "realtime", "verdict": "stored", **row} for row in realtime]
    hops += [{"hop": "lake", "verdict": "stored", **row} for row in lake]
    pending = _pending(log, hops)
    fate = "stored" if realtime and lake else "in flight" if pending or realtime or lake else "unknown"
    return {"event_id": format_event_id(event_id), "fate": fate, "hops": hops}


def _pending(log: Log, hops: list[dict[str, Any]]) -> bool:
    consumers = {
        str(Topic.RAW): groups.PROCESS,
        str(Topic.SUSPECTS): groups.RESCUE,
        str(Topic.ENRICHED): groups.REALTIME,
    }
    return any(
        hop["hop"] in consumers and hop["offset"] >= log.committed(consumers[hop["hop"]], Topic(hop["hop"]), 0)
        for hop in hops
    )


def _in_log(
    log: SearchableLog, topic: Topic, event_id: bytes, window: tuple[int, int] | None, verdict: str
) -> list[dict[str, Any]]:
    start, end = log.start_offset(topic, 0), log.end_offset(topic, 0)
    if window is not None and topic is Topic.RAW:
        near = log.offsets_between(topic, 0, *window)
        start, end = (near[0], near[-1] + 1) if near else (end, end)
    found: list[dict[str, Any]] = []
    position = start
    while position < end:
        frames = log.read(topic, 0, position, events_max=_READ_EVENTS, to_offset=end)
        for stored in frames:
            found += _rows(stored, event_id, verdict)
        position = frames[-1].offset + 1
    return found


def _rows(stored: StoredFrame, event_id: bytes, verdict: str) -> list[dict[str, Any]]:
    batch = frame.decode(stored)
    rows = batch.filter(pc.equal(batch.column("event_id"), pa.scalar(event_id, pa.binary(16))))
    return [
        {
            "hop": str(stored.topic),
            "verdict": "rescued" if row["flags"] & Flag.RESCUED else verdict,
            "at_ms": stored.appended_at,
            "offset": stored.offset,
            "received_at_ms": int(row["received_at"].timestamp() * 1000),
            "flags": [flag.name for flag in Flag(row["flags"])],
        }
        for row in rows.select(["received_at", "flags"]).to_pylist()
    ]
