"""How final an answer is: what share of a stretch of event time is still to come, from how late events have been.

An event is late by ``received_at - timestamp`` (less than nothing counts as nothing). Over the events received in the last week
F(x) is the share that was late by at most x. Of the events of a stretch of time from a to b (those after now have not
happened) the share still to come is 1 minus the mean of F(now - t) over the t between a and b; F is 0 below 0.

Of more than a few million events it is counted from some, beside the questions; none waits for it.

Lateness is counted by platform and app version: phones of one kind that stay offline do not make all others' numbers look
unfinished. A question that chooses platforms or versions is judged by those alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eventmill.core.errors import StoreError
from eventmill.query.asker import Asker
from eventmill.query.conditions import Condition
from eventmill.query.fields import Filter, Parameters
from eventmill.query.render import iso
from eventmill.query.routing import Span
from eventmill.query.scan import EVENTS

#: Over which time's receipts lateness is counted, and how long a count is good for.
OVER_MS: Final = 7 * 86_400_000
GOOD_FOR_MS: Final = 600_000
#: A stretch of time is provisional as long as a larger share of it is still to come.
SHARE: Final = 0.001
#: With fewer events than this of the platforms and versions asked for, all of them are judged by.
_EVENTS_MIN: Final = 1_000
#: So many events are counted while a question waits; of more, about as many are looked at, beside it.
AT_ONCE_ROWS: Final = 5_000_000
_ROWS: Final = (
    "SELECT sum(rows) FROM system.parts WHERE active AND database = 'eventmill' AND table IN ('events', 'events_local')"
)
#: Edges of the bins in ms: from one second on, each a tenth more than the one before, up to about a year.
_FIRST_MS: Final = 1_000
_STEP: Final = 1.1
_BINS: Final = 181
EDGES: Final[npt.NDArray[np.float64]] = np.concatenate([[0.0], _FIRST_MS * _STEP ** np.arange(_BINS)])
#: Bin i > 0 holds what is late by more than EDGES[i - 1] up to EDGES[i]; bin 0 what is not late at all.
_BIN: Final = (
    f"if(late <= 0, 0, least({_BINS}, 1 + greatest(0, toInt64(ceil(log(late / {_FIRST_MS}) / log({_STEP}) - 1e-9)))))"
)
_GROUPS: Final = ("platform", "app_version")

Group = tuple[str | None, str | None]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curve:
    """F over the edges, straight in between, and its integral from 0 up to each edge (in ms)."""

    shares: npt.NDArray[np.float64]
    integral: npt.NDArray[np.float64]

    @classmethod
    def of(cls, counts: Counts) -> Curve | None:
        """From the events in each bin; null where there are none."""
        total = counts.sum()
        if not total:
            return None
        shares = np.cumsum(counts) / total
        steps = np.diff(EDGES) * (shares[1:] + shares[:-1]) / 2
        return cls(shares, np.concatenate([[0.0], np.cumsum(steps)]))

    def _mean_until(self, late_ms: float) -> float:
        """The integral of F from 0 to ``late_ms``."""
        if late_ms <= 0:
            return 0.0
        at = min(int(np.searchsorted(EDGES, late_ms, "right")) - 1, len(EDGES) - 1)
        into = late_ms - EDGES[at]
        slope = 0.0
        if at + 1 < len(EDGES):
            slope = (self.shares[at + 1] - self.shares[at]) / (EDGES[at + 1] - EDGES[at])
        return float(self.integral[at] + self.shares[at] * into + slope * into * into / 2)

    def to_come(self, start: int, end: int, now: int) -> float:
        """The share still to come of the events from ``start`` to ``end`` (ms since the epoch)."""
        there = self._mean_until(now - start) - self._mean_until(now - end)
        return min(max(1.0 - there / (end - start), 0.0), 1.0)

    def settled_ms(self, share: float = SHARE) -> int:
        """After how long at most this share of what happened at a moment is still to come."""
        return int(np.ceil(np.interp(1.0 - share, self.shares, EDGES)))


class Lateness:
    """Counted from a store when it is asked for, at most every ten minutes. Safe to share between threads."""

    def __init__(self, asker: Asker, clock: Callable[[], int]) -> None:
        self._asker = asker
        self._clock = clock
        self._lock = threading.Lock()
        self._counted_at: int | None = None
        self._groups: dict[Group, Counts] = {}

    def curve(self, filters: Sequence[Condition] = ()) -> Curve | None:
        """F of the platforms and versions that pass the filters; null while nothing is known."""
        groups = self._counted()
        chosen = [counts for group, counts in groups.items() if _passes(group, filters)]
        if sum(int(counts.sum()) for counts in chosen) < _EVENTS_MIN:
            chosen = list(groups.values())
        return Curve.of(np.sum(chosen, axis=0)) if chosen else None

    def close(self) -> None:
        """Wait for a count that is under way."""
        with self._lock:
            pass

    def _counted(self) -> dict[Group, Counts]:
        """Whoever finds the count too old counts anew; the others meanwhile take the old one."""
        now = self._clock()
        known = self._counted_at
        if known is not None and 0 <= now - known < GOOD_FOR_MS:
            return self._groups
        one_in = self._rows() // AT_ONCE_ROWS + 1
        if self._lock.acquire(blocking=known is None and one_in == 1):
            if one_in == 1:
                self._count_anew(known, now, one_in)
            else:
                threading.Thread(target=self._count_anew, args=(known, now, one_in), name="lateness").start()
        return self._groups

    def _rows(self) -> int:
        try:
            return int(self._asker.store.query_arrow(_ROWS).column(0)[0].as_py() or 0)
        except StoreError:
            return 0

    def _count_anew(self, known: int | None, now: int, one_in: int) -> None:
        """Called with the lock held, which it releases."""
        try:
            if self._counted_at == known:
                self._groups, self._counted_at = self._count(now, one_in), now
        finally:
            self._lock.release()

    def _count(self, now: int, one_in: int) -> dict[Group, Counts]:
        parameters = Parameters()
        # All events of a frame have its offset: every so many frames are looked at.
        some = f" PREWHERE log_offset % {one_in} = 0" if one_in > 1 else ""
        sql = (
            "SELECT platform, app_version, toInt64(bin) AS bin, count() AS n FROM (SELECT "
            "CAST(platform, 'Nullable(String)') AS platform, CAST(app_version, 'Nullable(String)') AS app_version, "
            "toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(timestamp) AS late, "
            f"{_BIN} AS bin FROM {EVENTS}{some} WHERE received_at > {parameters.time(max(now - OVER_MS, 0))} "
            f"AND received_at <= {parameters.time(now)}) GROUP BY platform, app_version, bin"
        )
        try:
            found = self._asker.store.query_arrow(sql, parameters.values, self._asker.about)
        except StoreError:
            return self._groups  # an answer is worth more than how final it is
        groups: dict[Group, Counts] = {}
        for row in found.to_pylist() if found.num_rows else []:
            counts = groups.setdefault((row["platform"], row["app_version"]), np.zeros(len(EDGES), np.int64))
            counts[row["bin"]] += row["n"]
        return groups


def _passes(group: Group, filters: Sequence[Condition]) -> bool:
    return all(_meets(dict(zip(_GROUPS, group, strict=True)), each) for each in filters)


def _meets(values: Mapping[str, str | None], condition: Condition) -> bool:
    """Whether events with these values may meet a condition; one that looks at something else may always be met."""
    if not isinstance(condition, Filter) or condition.field.name not in values:
        return True
    value: Any = values[condition.field.name]
    known = value is not None
    match condition.op:
        case "eq":
            return bool(value == condition.value)
        case "in":
            return value in condition.value
        case "ne":
            return bool(value != condition.value)
        case "not_in":
            return value not in condition.value
        case "contains":
            return known and condition.value in value
        case "is_set":
            return known
        case "is_not_set":
            return not known
    return known


def finality(curve: Curve | None, buckets: range, span: Span, now: int) -> dict[str, Any]:
    """What ``meta`` tells: ``complete_until``, and the buckets of ``span`` that have begun and are ``provisional``, the oldest
    first, each with the share of it that is still to come. Null and none while nothing is known."""
    if curve is None:
        return {"complete_until": None, "provisional": []}
    settled = max(now - curve.settled_ms(), 0)
    found = []
    for at in reversed(buckets):
        start, end = max(at, span.start), min(at + buckets.step, span.end)
        if end <= settled:
            break
        share = curve.to_come(start, end, now)
        if start <= now and share > SHARE:
            found.append({"time": iso(at), "expected_share": round(share, 4)})
    return {"complete_until": iso(settled), "provisional": found[::-1]}
