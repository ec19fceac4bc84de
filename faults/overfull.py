"""Row 24: as many ids as the filter is made for, then twice as many. It errs as designed, and the exact look-up brings back
whatever it takes for seen."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from eventmill.core.config import DedupConfig
from eventmill.kernels.event_bloom import slice_rates
from eventmill.process.dedup import build_filter
from faults.adversary import allowed, enriched, rescued
from faults.alone import Alone
from faults.scene import Scene
from faults.sinks import judged, settle
from testbed.process import eventually

#: All ids have times within a slice, or two.
_DEDUP: Final = DedupConfig(capacity=50_000, slice="24h")
#: What the load goes on by until a run is over, and how much of it is late.
_FULL: Final = 1.25
_LATE: Final = 0.02


class SmallFilter(Alone):
    """One machine whose filter is soon full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, EVENTMILL_DEDUP__CAPACITY=str(_DEDUP.capacity), EVENTMILL_DEDUP__SLICE=_DEDUP.slice)


def overfill(scene: Scene) -> None:
    """The load goes on until the filter has had once, twice, … as many ids as it is made for."""
    times = len(scene.recoveries) + 1
    system = scene.system
    eventually(
        lambda: enriched(scene) >= times * _DEDUP.capacity, lambda: f"the filter has had {times * _DEDUP.capacity} ids"
    )
    scene.strike(lambda: None)
    settle(system)
    judged(system)
    ids, wrong = enriched(scene), rescued(scene)
    scene.notes["ids that it is made for"] = _DEDUP.capacity
    scene.notes[f"ids that it had, {times} x"] = ids
    scene.notes[f"taken for seen, and rescued, {times} x"] = wrong
    assert wrong <= allowed(ids, rate(ids)), (
        f"of {ids} ids {wrong} were taken for seen, by design {rate(ids) * ids:.0f}"
    )


def rate(ids: int) -> float:
    """What share of so many new ids is taken for seen at most, by the formula; all that are late where it is overfull."""
    filling = slice_rates(ids, build_filter(_DEDUP).shape.blocks)[1]
    return filling + (_LATE if ids > _FULL * _DEDUP.capacity else _DEDUP.fpr)
