"""Row 22: ids and devices chosen to meet in a filter or a hash table. None may be lost, nor cost more than any other.

The filter is made for as many as come, to one partition too, so it must err as seldom as it is configured to, whoever chose
the ids.
"""

from __future__ import annotations

import functools
import itertools
import math
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from eventmill.core.clock import now_ms
from eventmill.core.config import DedupConfig
from eventmill.kernels.partition import murmur2
from faults.alone import Alone
from faults.scene import Scene
from faults.sending import Sent, send
from faults.sinks import judged, settle
from faults.spread import Spread

_EVENTS: Final = 50_000
_MASK: Final = (1 << 128) - 1


@functools.cache
def _few_bits() -> list[int]:
    """Numbers of 128 bits of which one is set, or two, or three."""
    places = itertools.chain.from_iterable(itertools.combinations(range(128), bits) for bits in (1, 2, 3))
    return [sum(1 << place for place in each) for each in itertools.islice(places, _EVENTS)]


#: Patterns by which a hash that is not keyed, or looks at half of an id, would put all in few places.
IDS: Final[dict[str, Callable[[int, int], int]]] = {
    "counted up": lambda base, n: base + n,
    "differ in their first bytes": lambda base, n: (n << 96) | (base >> 32),
    "halves alike": lambda base, n: (((base >> 64) ^ n) << 64) | ((base >> 64) ^ n),
    "halves that cancel": lambda base, n: (((base + n) % (1 << 64)) << 64) | (~(base + n) % (1 << 64)),
    "a power of two apart": lambda base, n: base + (n << 40),
    "a few bits apart": lambda base, n: base ^ _few_bits()[n],
}
_TOGETHER: Final = 2_000
_DEVICES: Final = 500
#: The devices' keys fall on one partition of this many, or of a divisor of it.
_PARTITIONS: Final = 48
#: Beside the load, one partition gets all ids of all runs. A snapshot of such a filter takes longer, so there are fewer.
_ROOM: Final = {"EVENTMILL_DEDUP__CAPACITY": "10000000", "EVENTMILL_PROCESS__SNAPSHOT_INTERVAL_EVENTS": "50000"}
_RATE: Final = DedupConfig().fpr


class Roomy(Alone):
    """One machine whose filter has room for them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, **_ROOM)


class SpreadRoomy(Spread):
    """Processors whose filters have room for them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, environ=_ROOM)


def devices() -> Iterator[str]:
    """Names whose keys Kafka's hash puts in one place."""
    return (
        name
        for name in (f"device-{n}" for n in itertools.count())
        if (murmur2(name.encode()) & 0x7FFFFFFF) % _PARTITIONS == 0
    )


def ids(kind: str, base: int) -> list[uuid.UUID]:
    """All of a kind, each another one."""
    return [uuid.UUID(int=IDS[kind](base, n) & _MASK) for n in range(_EVENTS)]


def adversarial_ids(scene: Scene) -> None:
    """One pattern after the other; how many of them the filter took for seen is told."""
    kind = list(IDS)[len(scene.recoveries) % len(IDS)]
    names = list(itertools.islice(devices(), _DEVICES))
    base = scene.rng.getrandbits(128)
    identities = ids(kind, base)
    before = rescued(scene), enriched(scene)

    def act() -> None:
        for begin in range(0, _EVENTS, _TOGETHER):
            at = now_ms()
            rows = enumerate(identities[begin : begin + _TOGETHER])
            send(scene, "Adversary", [Sent(each, names[n % _DEVICES], at + n) for n, each in rows])

    scene.strike(act)
    settle(scene.system)
    judged(scene.system)
    scene.notes["ids sent"] += _EVENTS
    wrong, new = rescued(scene) - before[0], enriched(scene) - before[1]
    scene.notes["new ids, the load's included"] += new
    scene.notes["taken for seen, and rescued"] += wrong
    assert wrong <= allowed(new), f"{kind}: of {new} new ids {wrong} were taken for seen, by design {_RATE * new:.0f}"


def allowed(new: int, rate: float = _RATE) -> float:
    """The errors that so many new ids may meet at that rate: five standard deviations above the mean."""
    return rate * new + 5 * math.sqrt(rate * new)


def enriched(scene: Scene) -> int:
    """Events that have passed the filter, as the ledger has it."""
    return int(scene.system.ask("GET", "/v1/status")["ledger"]["enriched"])


def rescued(scene: Scene) -> int:
    """Events that the filter had taken for seen and that were put back, as the ledger has it."""
    return int(scene.system.ask("GET", "/v1/status")["ledger"]["rescued"])
