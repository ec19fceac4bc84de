"""Ids chosen by someone who knows all but the secret: what collides in one filter is nothing special in another."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from eventmill import RotatingBloom

ATTACKERS, OURS = b"the attacker's o", b"our own, unknown"
FPR = 0.01
LOAD = 200_000
PROBES = 1_000_000
NOW_MS = 86_400_000 - 1


def ids(count, seed):
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), count, [None, pa.py_buffer(np.random.default_rng(seed).bytes(16 * count))]
    )


def filled(secret):
    """A filter at its full load, which came evenly over the window."""
    bloom = RotatingBloom(LOAD, FPR, secret=secret)
    known = ids(LOAD, 1)
    for begin in range(0, LOAD, LOAD // 100):
        bloom.observe(known.slice(begin, LOAD // 100), at=NOW_MS * begin // LOAD)
    return bloom


def seen_share(bloom, chosen):
    return 1 - np.count_nonzero(bloom.observe(chosen, at=NOW_MS).to_numpy(zero_copy_only=False)) / len(chosen)


@pytest.fixture(scope="module")
def chosen():
    """New ids that a filter with the attacker's own secret takes for seen ones, asked a few at a time at full load."""
    snapshot = filled(ATTACKERS).snapshot()
    probes, found = ids(PROBES, 2), []
    for begin in range(0, PROBES, 1_000):
        part = probes.slice(begin, 1_000)
        bloom = RotatingBloom(LOAD, FPR)
        bloom.restore(snapshot)
        found.append(part.filter(pc.invert(bloom.observe(part, at=NOW_MS))))
    return pa.concat_arrays(found)


def test_chosen_ids_meet_another_filter_as_any_ids_do(chosen):
    assert len(chosen) > PROBES * FPR / 4
    ours = seen_share(filled(OURS), chosen)
    assert ours < 2 * FPR


def test_with_the_secret_known_every_chosen_id_would_be_a_suspect(chosen):
    """Negative control: that is what the secret is for."""
    known = filled(ATTACKERS)
    assert seen_share(known, chosen) > 0.98  # all but those that collided with an id asked just before
