"""The ledger's proof: per hour of ``received_at``, received = stored + duplicate + dead + forgotten + retired + in flight, in
each store.

``stored`` is counted in the stores themselves, ``in flight`` in the log's frames beyond each consumer's offset; the other
counts were made durable in the same transactions as the rows that they count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from eventmill.core import frame, groups, ledger
from eventmill.core.log import Count, Log
from eventmill.core.schema import LOGGED, Hop, Topic

STORES: Final = ("realtime", "lake")
_TOTALS: Final = ("stored", "doubled", "in_flight", "missing", "forgotten", "retired")
_READ_EVENTS: Final = 200_000
#: All that is read of frames to count them.
_RECEIVED: Final = pa.schema([LOGGED.field("received_at")])


@dataclass(frozen=True, slots=True)
class Stored:
    """What one store holds of one hour: rows, distinct event ids; exact duplicates that compaction removed, and what was
    forgotten and retired, as far as the store itself tells."""

    hour: int
    rows: int
    distinct: int
    removed: int = 0
    forgotten: int = 0
    retired: int = 0


@dataclass(frozen=True, slots=True)
class StoreBalance:
    """One store's side of the equation. ``missing`` > 0: events are unaccounted for; < 0: there are too many."""

    stored: int
    doubled: int
    in_flight: int
    missing: int
    forgotten: int = 0
    retired: int = 0


@dataclass(frozen=True, slots=True)
class HourBalance:
    """The equation of one hour (``hour`` in ms since the epoch)."""

    hour: int
    received: int
    accepted: int
    duplicates: int
    dead: int
    stores: Mapping[str, StoreBalance]

    @property
    def balanced(self) -> bool:
        """Nothing missing, nothing too many, nothing twice."""
        return all(store.missing == 0 and store.doubled == 0 for store in self.stores.values())


@dataclass(frozen=True, slots=True)
class Audit:
    """The whole proof."""

    hours: tuple[HourBalance, ...]
    dead_reasons: Mapping[str, int]
    rescued: int
    replayed: int

    @property
    def balanced(self) -> bool:
        """Every hour balances."""
        return all(hour.balanced for hour in self.hours)

    def total(self, name: str) -> int:
        """The sum of ``received``, ``accepted``, ``duplicates`` or ``dead`` over all hours."""
        return sum(getattr(hour, name) for hour in self.hours)

    def store_total(self, store: str, name: str) -> int:
        """The sum of one store's ``stored``, ``doubled``, ``in_flight``, ``missing``, ``forgotten`` or ``retired`` over all
        hours."""
        return sum(getattr(hour.stores[store], name) for hour in self.hours)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "balanced": self.balanced,
            **{name: self.total(name) for name in ("received", "accepted", "duplicates", "dead")},
            "rescued": self.rescued,
            "replayed": self.replayed,
            "dead_reasons": dict(self.dead_reasons),
            "stores": {store: {name: self.store_total(store, name) for name in _TOTALS} for store in STORES},
            "hours": [{**asdict(hour), "balanced": hour.balanced} for hour in self.hours],
        }


def in_flight(log: Log, topic: Topic, group: str) -> Counter[int]:
    """Events of a topic that the group has not consumed, per hour, counted in the frames themselves."""
    found: Counter[int] = Counter()
    for partition in log.partitions(topic):
        position, end = log.committed(group, topic, partition), log.end_offset(topic, partition)
        while position < end:
            frames = log.read(topic, partition, position, events_max=_READ_EVENTS, to_offset=end)
            if not frames:
                break
            found.update(dict(ledger.hours(frame.decode_all(frames, _RECEIVED))))
            position = frames[-1].offset + 1
    return found


def balance(
    counts: Iterable[Count], stores: Mapping[str, Iterable[Stored]], flights: Mapping[str, Mapping[int, int]]
) -> Audit:
    """The equation per hour, from the ledger, the stores' own counts, and the events in flight to each store."""
    hops: dict[int, Counter[Hop]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    for count in counts:
        hops[count.hour][count.hop] += count.events
        if count.hop in (Hop.REJECTED, Hop.INVALID):
            reasons[count.reason] += count.events
    held = {store: {entry.hour: entry for entry in entries} for store, entries in stores.items()}
    every_hour = set(hops).union(*held.values(), *flights.values())
    return Audit(
        hours=tuple(_hour(hour, hops[hour], held, flights) for hour in sorted(every_hour)),
        dead_reasons=dict(reasons),
        rescued=sum(hop[Hop.RESCUED] for hop in hops.values()),
        replayed=sum(hop[Hop.REPLAYED] for hop in hops.values()),
    )


def _hour(
    hour: int, hops: Counter[Hop], held: Mapping[str, Mapping[int, Stored]], flights: Mapping[str, Mapping[int, int]]
) -> HourBalance:
    dead = hops[Hop.REJECTED] + hops[Hop.INVALID] - hops[Hop.REPLAYED]
    stores = {}
    for name, entries in held.items():
        entry = entries.get(hour, Stored(hour, 0, 0))
        flying = flights[name].get(hour, 0)
        # The lake's own tables say what it has forgotten and retired, the ledger what the real-time store has.
        forgotten, retired = entry.forgotten, entry.retired
        if name == "realtime":
            forgotten, retired = hops[Hop.FORGOTTEN], hops[Hop.RETIRED]
        accounted = entry.rows + entry.removed + hops[Hop.DUPLICATE] + dead + flying + forgotten + retired
        missing = hops[Hop.RECEIVED] - accounted
        stores[name] = StoreBalance(entry.rows, entry.rows - entry.distinct, flying, missing, forgotten, retired)
    return HourBalance(hour, hops[Hop.RECEIVED], hops[Hop.ACCEPTED], hops[Hop.DUPLICATE], dead, stores)


def flights(log: Log) -> dict[str, Counter[int]]:
    """Events on their way to each store, per hour. Call it while nothing is consumed."""
    shared = in_flight(log, Topic.RAW, groups.PROCESS) + in_flight(log, Topic.SUSPECTS, groups.RESCUE)
    return {
        "realtime": shared + in_flight(log, Topic.ENRICHED, groups.REALTIME),
        "lake": shared + in_flight(log, Topic.ENRICHED, groups.LAKE),
    }
