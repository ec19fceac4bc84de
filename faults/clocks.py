"""Row 18: phones whose clocks are wrong, events that come days late or from the future; sessions must be exact all the same."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.clock import now_ms
from eventmill.core.schema import TIME
from eventmill.lake.table import Lake
from faults.scene import Scene, System
from faults.sending import Sent, send
from testbed.process import eventually

_HOUR_MS: Final = 3_600_000
_GAP_MS: Final = 1_800_000
_EVENTS: Final = 400
_DEVICES: Final = 80
_TOGETHER: Final = 20
#: What is wrong: (the phone's clock is ahead by, the events happened before now by), in hours.
WRONGS: Final = {
    "a clock a day ahead": (24, 0),
    "a clock a day behind": (-24, 0),
    "71 h late": (0, 71),
    "73 h late": (0, 73),
    "an hour in the future": (0, -1),
}


def wrong_clocks(scene: Scene) -> None:
    """Events of every kind for the same devices, shuffled; then compaction, and every session compared."""
    system = scene.system
    rng, tag = scene.rng, uuid.UUID(int=scene.rng.getrandbits(128)).hex[:8]

    def act() -> None:
        for name, (ahead, ago) in rng.sample(list(WRONGS.items()), len(WRONGS)):
            times = [_moment(rng, ago) for _ in range(_EVENTS)]
            for begin in range(0, _EVENTS, _TOGETHER):
                _send(scene, tag, times[begin : begin + _TOGETHER], ahead * _HOUR_MS)
            scene.notes[name] += 1

    scene.strike(act)
    eventually(lambda: _stored(system, tag).num_rows == len(WRONGS) * _EVENTS, lambda: "all of them are in the lake")
    system.compact()
    stored = _stored(system, tag)
    assert stored.num_rows == len(WRONGS) * _EVENTS
    wrong = mismatches(stored)
    scene.notes["events compared"] += len(WRONGS) * _EVENTS
    scene.notes["session mismatches"] += wrong
    assert wrong == 0, f"{wrong} events stand in another session than an exact computation puts them in"


def _moment(rng: random.Random, ago: float) -> int:
    """When an event happened, ms: within two hours around ``ago`` hours before now."""
    return now_ms() - int((ago + rng.uniform(-1, 1)) * _HOUR_MS)


def _send(scene: Scene, tag: str, times: list[int], ahead_ms: int) -> None:
    rng = scene.rng
    rows = [Sent(uuid.UUID(int=rng.getrandbits(128)), f"{tag}-{rng.randrange(_DEVICES)}", at) for at in times]
    send(scene, "Tick", rows, ahead_ms=ahead_ms)


def _stored(system: System, tag: str) -> pa.Table:
    table = in_lake(system, "event = 'Tick'")
    return table.filter(pc.starts_with(table.column("device_id").cast(pa.string()), tag))


def in_lake(system: System, condition: str = "true") -> pa.Table:
    """Device, time and session of the lake's events."""
    lake = Lake(system.lake_dir)
    try:
        return lake.load().scan(condition, selected_fields=("device_id", "timestamp", "session_id")).to_arrow()
    finally:
        lake.close()


def mismatches(events: pa.Table) -> int:
    """Events whose session is not that of an exact computation: cut where a device is silent for more than the gap."""
    device = events.column("device_id").cast(pa.string())
    rows = pa.table(
        {"device": device, "at": events.column("timestamp").cast(TIME).cast(pa.int64()), "is": events["session_id"]}
    )
    rows = rows.sort_by([("device", "ascending"), ("at", "ascending")])
    at = rows.column("at").to_numpy()
    other = np.ones(len(at), bool)
    names = rows.column("device").to_numpy()
    other[1:] = (names[1:] != names[:-1]) | (np.diff(at) > _GAP_MS)
    exact, given = np.cumsum(other), rows.column("is").to_numpy()
    pairs = set(zip(exact.tolist(), given.tolist(), strict=True))
    exact_of, given_of = Counter(mine for mine, _ in pairs), Counter(theirs for _, theirs in pairs)
    wrong = [mine for mine, theirs in pairs if exact_of[mine] > 1 or given_of[theirs] > 1]
    return int(np.isin(exact, wrong).sum())
