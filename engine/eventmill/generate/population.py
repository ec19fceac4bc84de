"""The phones: who they are, what they run, how often they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill.generate.text import hex_uuids

_PLATFORMS: Final = (
    ("iOS", ("17.6", "18.1", "18.2", "26.0"), ("iPhone14,5", "iPhone15,2", "iPhone16,1", "iPad13,4"), "analytics-ios"),
    ("Android", ("13", "14", "15"), ("Pixel 8", "SM-S918B", "SM-A546B", "Redmi Note 12"), "analytics-android"),
)
_PLACES: Final = (
    ("de-DE", "Europe/Berlin"),
    ("fr-FR", "Europe/Paris"),
    ("en-US", "America/New_York"),
    ("en-GB", "Europe/London"),
    ("ja-JP", "Asia/Tokyo"),
    ("pt-BR", "America/Sao_Paulo"),
)
#: Newest first; a version's share halves with its age.
_APP_VERSIONS: Final = ("5.3.0", "5.2.1", "5.2.0", "5.1.4", "4.9.9")
_LOGGED_IN: Final = 0.6
_EVENTS_PER_DEVICE: Final = 40


@dataclass(frozen=True, slots=True)
class Population:
    """All phones of a run. ``fragments``: the JSON members that each of a phone's events carries."""

    device_ids: pa.Array
    fragments: pa.Array
    weights: npt.NDArray[np.float64]


def population(seed: int, events: int) -> Population:
    """Phones for a run of ``events`` events."""
    rng = np.random.default_rng([seed, 2])
    count = max(20, min(events // _EVENTS_PER_DEVICE, 1_000_000))
    ids = hex_uuids(rng.bytes(16 * count)).to_pylist()
    anonymous = hex_uuids(rng.bytes(16 * count)).to_pylist()
    platform = (rng.random(count) < 0.55).astype(int)
    picks = rng.integers(0, 1 << 30, (count, 4))
    versions = np.minimum(rng.geometric(0.5, count) - 1, len(_APP_VERSIONS) - 1)
    logged_in = rng.random(count) < _LOGGED_IN
    fragments = []
    for i in range(count):
        os, os_versions, models, library = _PLATFORMS[platform[i]]
        locale, zone = _PLACES[picks[i, 2] % len(_PLACES)]
        user = f'"userId":"user-{i}",' if logged_in[i] else ""
        fragments.append(
            f'"anonymousId":"{anonymous[i]}",{user}"context":{{"app":{{"name":"Shop","version":"{_APP_VERSIONS[versions[i]]}"}},'
            f'"device":{{"id":"{ids[i]}","model":"{models[picks[i, 0] % len(models)]}"}},'
            f'"os":{{"name":"{os}","version":"{os_versions[picks[i, 1] % len(os_versions)]}"}},'
            f'"locale":"{locale}","timezone":"{zone}","library":{{"name":"{library}","version":"4.1.8"}}}}'
        )
    weights = rng.pareto(1.5, count) + 0.2
    return Population(pa.array(ids), pa.array(fragments), weights / weights.sum())
