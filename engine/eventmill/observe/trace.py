"""One event's fate: every hop with time, offset and verdict."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core import frame, groups
from eventmill.core.ids import format_event_id, parse_event_id
from eventmill.core.log import Log, StoredFrame
from eventmill.core.schema import Flag, Topic

#: A frame is appended soon after its events were received; the first look goes there, a second one everywhere.
_NEAR_MS: Final = 120_000
_READ_EVENTS: Final = 100_000

#: A partition and its offsets, from inclusive to exclusive.
Range = tuple[int, int, int]
Find = Callable[[bytes], list[dict[str, Any]]]


def trace(text: str, log: Log, find_realtime: Find, find_lake: Find) -> dict[str, Any]:
    """The hops of one event, in order, and what became of it. ``text``: its message id, or its event id in any spelling.

    ``fate`` is one of ``stored``, ``in flight``, ``dead``, ``unknown``. A suspect's verdict is ``duplicate`` once its twin has
    been found, ``rescued`` when there was none.
    """
    event_id = parse_event_id(text)
    realtime, lake = find_realtime(event_id), find_lake(event_id)
    dead = _dead(log, text, event_id)
    hops = _in_log(log, Topic.RAW, event_id, _raw_ranges(log, realtime + lake), "accepted")
    hops += _judged(log, _in_log(log, Topic.SUSPECTS, event_id, _whole(log, Topic.SUSPECTS), "suspect"), hops)
    hops += _in_log(log, Topic.ENRICHED, event_id, _enriched_ranges(log, realtime), "enriched")
    pending = _pending(log, hops)
    hops += dead
    hops += [{"hop": "realtime", "verdict": "stored", **row} for row in realtime]
    hops += [{"hop": "lake", "verdict": "stored", **row} for row in lake]
    if realtime and lake:
        fate = "stored"
    elif pending or realtime or lake:
        fate = "in flight"
    else:
        fate = "dead" if dead else "unknown"
    return {"event_id": format_event_id(event_id), "fate": fate, "hops": hops}


def _pending(log: Log, hops: list[dict[str, Any]]) -> bool:
    consumers = {
        str(Topic.RAW): groups.PROCESS,
        str(Topic.SUSPECTS): groups.RESCUE,
        str(Topic.ENRICHED): groups.REALTIME,
    }
    return any(
        hop["offset"] >= log.committed(consumers[hop["hop"]], Topic(hop["hop"]), hop["partition"]) for hop in hops
    )


def _judged(log: Log, suspects: list[dict[str, Any]], raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The suspects with the rescue lane's verdict on those that it has looked up; ``raw`` has what it put back."""
    through = log.committed(groups.RESCUE, Topic.SUSPECTS, 0)
    put_back = {hop["received_at_ms"] for hop in raw if hop["verdict"] == "rescued"}
    for hop in suspects:
        if hop["offset"] < through:
            rescued = hop["received_at_ms"] in put_back
            hop["verdict"] = "rescued" if rescued else "duplicate"
            hop["reason"] = "no twin in the store, so put back" if rescued else "its twin is in the store"
    return suspects


def _whole(log: Log, topic: Topic) -> list[Range]:
    return [(each, log.start_offset(topic, each), log.end_offset(topic, each)) for each in log.partitions(topic)]


def _near(log: Log, topic: Topic, received: list[int]) -> list[Range]:
    """Where frames of about these times (ms since the epoch) are."""
    found = []
    for partition in log.partitions(topic):
        near = log.offsets_between(topic, partition, min(received) - _NEAR_MS, max(received) + _NEAR_MS)
        found += [(partition, near[0], near[-1] + 1)] if near else []
    return found


def _raw_ranges(log: Log, stored: list[dict[str, Any]]) -> list[Range]:
    received = [row["received_at_ms"] for row in stored if row.get("received_at_ms") is not None]
    return _near(log, Topic.RAW, received) if received else _whole(log, Topic.RAW)


def _enriched_ranges(log: Log, realtime: list[dict[str, Any]]) -> list[Range]:
    """The real-time store knows each row's offset where there is one partition, else about when it was received."""
    whole = _whole(log, Topic.ENRICHED)
    if not realtime:
        return whole
    if len(whole) > 1:
        return _near(log, Topic.ENRICHED, [row["received_at_ms"] for row in realtime])
    ((partition, start, end),) = whole
    offsets = sorted({row["offset"] for row in realtime})
    return [(partition, offset, offset + 1) for offset in offsets if start <= offset < end]


def _frames(log: Log, topic: Topic, ranges: list[Range]) -> Iterator[StoredFrame]:
    for partition, begin, end in ranges:
        position = begin
        while position < end:
            frames = log.read(topic, partition, position, events_max=_READ_EVENTS, to_offset=end)
            if not frames:
                break
            yield from frames
            position = frames[-1].offset + 1


def _in_log(log: Log, topic: Topic, event_id: bytes, ranges: list[Range], verdict: str) -> list[dict[str, Any]]:
    found = []
    for frames, batch in frame.batches(_frames(log, topic, ranges)):
        at = np.flatnonzero(pc.equal(batch.column("event_id"), pa.scalar(event_id, pa.binary(16))))
        rows = batch.select(["received_at", "flags"]).take(pa.array(at)).to_pylist()
        for stored, row in zip(frame.owners(frames, at), rows, strict=True):
            hop = _hop(stored, "rescued" if row["flags"] & Flag.RESCUED else verdict, row["received_at"])
            found.append(hop | {"flags": [flag.name for flag in Flag(row["flags"])]})
    return found


def _dead(log: Log, text: str, event_id: bytes) -> list[dict[str, Any]]:
    """Dead letters that name the id anywhere: an event too bad to be decoded has no column for it."""
    found = []
    for stored in _frames(log, Topic.DEAD, _whole(log, Topic.DEAD)):
        batch = frame.decode(stored)
        payloads = batch.column("payload")
        names = [pc.match_substring(payloads, f'"{spelling}"') for spelling in {text, format_event_id(event_id)}]
        for row in batch.filter(functools.reduce(pc.or_, names)).to_pylist():
            hop = _hop(stored, "dead", row["received_at"])
            found.append(hop | {"reason": row["reason"], "detail": row["detail"]})
    return found


def _hop(stored: StoredFrame, verdict: str, received_at: datetime) -> dict[str, Any]:
    return {
        "hop": str(stored.topic),
        "verdict": verdict,
        "at_ms": stored.appended_at,
        "partition": stored.partition,
        "offset": stored.offset,
        "received_at_ms": int(received_at.timestamp() * 1000),
    }
