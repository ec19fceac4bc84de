"""What the pipeline is doing: the ledger per hour, lags, and samples of what was refused. Cheap; nothing is paused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from eventmill.core import frame, groups
from eventmill.core.log import Count, Log
from eventmill.core.redact import NOTHING, Redaction
from eventmill.core.schema import Hop, Reason, Topic

#: Of the ledger, and of dead letters, unless asked otherwise; and the most.
HOURS: Final = 48
HOURS_MAX: Final = 24 * 90
SAMPLES: Final = 20
SAMPLES_MAX: Final = 200
#: Frames of dead letters that are looked through for samples, newest first.
FRAMES_MAX: Final = 20_000
PAYLOAD_CHARS_MAX: Final = 2_000
_FRAMES: Final = 256
_READ_EVENTS: Final = 50_000


def hours(counts: Iterable[Count], last: int) -> dict[str, Any]:
    """The ledger's newest ``last`` hours that have anything (each hop's events, dead letters by reason), oldest first."""
    hops: dict[int, Counter[Hop]] = defaultdict(Counter)
    reasons: dict[int, Counter[str]] = defaultdict(Counter)
    for count in counts:
        hops[count.hour][count.hop] += count.events
        if count.hop in (Hop.REJECTED, Hop.INVALID):
            reasons[count.hour][count.reason] += count.events
    shown = sorted(hops)[-last:]
    dead = sum((reasons[hour] for hour in shown), Counter[str]())
    return {
        "hours": [{"hour": hour, **{str(hop): hops[hour][hop] for hop in Hop}} for hour in shown],
        "dead_reasons": dict(dead.most_common()),
    }


def dead_letters(
    log: Log, *, limit: int, reason: Reason | None = None, project: str | None = None, hide: Redaction = NOTHING
) -> dict[str, Any]:
    """The newest dead letters that wait for a replay, newest first, and how many wait in all (null of one project alone).

    ``payload`` is the client's text, cut at ``PAYLOAD_CHARS_MAX`` characters; bytes that are no UTF-8 show as U+FFFD.
    """
    start = max(log.start_offset(Topic.DEAD, 0), log.committed(groups.REPLAY, Topic.DEAD, 0))
    end = log.end_offset(Topic.DEAD, 0)
    floor = max(start, end - FRAMES_MAX)
    found: list[Mapping[str, Any]] = []
    while end > floor and len(found) < limit:
        position = max(floor, end - _FRAMES)
        found += reversed(_between(log, position, end, reason, project))
        end = position
    return {
        "waiting": log.lag(groups.REPLAY, Topic.DEAD, 0) if project is None else None,
        "letters": [
            {
                "received_at": int(letter["received_at"].timestamp() * 1_000),
                "reason": letter["reason"],
                "detail": letter["detail"],
                # Those from before something was to be redacted are there whole.
                "payload": hide.payload(letter["payload"]).decode("utf-8", "replace")[:PAYLOAD_CHARS_MAX],
                "bytes": len(letter["payload"]),
            }
            for letter in found[:limit]
        ],
    }


def _between(log: Log, position: int, end: int, reason: Reason | None, project: str | None) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    while position < end:
        frames = log.read(Topic.DEAD, 0, position, events_max=_READ_EVENTS, to_offset=end)
        if not frames:
            break
        for stored in frames:
            rows = frame.decode(stored).to_pylist()
            found += [
                row
                for row in rows
                if (reason is None or row["reason"] == reason) and (project is None or row.get("project") == project)
            ]
        position = frames[-1].offset + 1
    return found
