"""Row 24: more ids than the filter is made for. It takes more new ids for seen; the exact look-up brings each of them back."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from faults.adversary import rescued
from faults.alone import Alone
from faults.scene import Scene
from faults.sinks import settle
from testbed.process import eventually

_CAPACITY: Final = 50_000


class SmallFilter(Alone):
    """One machine whose filter is soon full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, EVENTMILL_DEDUP__CAPACITY=str(_CAPACITY))


def overfill(scene: Scene) -> None:
    """The load goes on until the filter has had once, twice, … as many ids as it is made for."""
    times = len(scene.recoveries) + 1
    system = scene.system

    def ids() -> int:
        return int(system.ask("GET", "/v1/status")["ledger"]["enriched"])

    eventually(lambda: ids() >= times * _CAPACITY, lambda: f"the filter has had {times * _CAPACITY} ids")
    scene.strike(lambda: None)
    settle(system)
    scene.notes["ids that it is made for"] = _CAPACITY
    scene.notes["ids that it had"] = ids()
    scene.notes["taken for seen, and rescued"] = rescued(scene)
