"""The share of a bucket that is said to be still to come is the share that comes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from query_twin import iso, ms

from eventmill.core.config import QueryConfig
from eventmill.core.schema import EVENT, TIME
from eventmill.query import lateness
from eventmill.query.conditions import read_filters
from eventmill.query.lateness import EDGES, Curve, finality
from eventmill.query.routing import Span
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, START_MS, events

HOUR_MS = 3_600_000
#: The mean lateness of those that are late, and how many are.
MIXES = st.lists(st.tuples(st.floats(2_000, 2e8), st.floats(0.01, 1)), min_size=1, max_size=3)


def drawn(rng: np.random.Generator, mix: list[tuple[float, float]], count: int) -> Any:
    """Lateness of so many events, of several exponential distributions."""
    weights = np.array([weight for _, weight in mix])
    which = rng.choice(len(mix), count, p=weights / weights.sum())
    return rng.exponential(np.array([mean for mean, _ in mix])[which])


def binned(late: Any) -> Any:
    """As the store counts it."""
    return np.bincount(np.searchsorted(EDGES, late, "left").clip(max=len(EDGES) - 1), minlength=len(EDGES))


@given(MIXES, st.integers(0, 1 << 30), st.integers(1, 5 * DAY_MS), st.sampled_from([60_000, HOUR_MS, DAY_MS]))
def test_the_share_to_come_is_that_of_the_distribution(mix: Any, seed: int, age: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    curve = Curve.of(binned(drawn(rng, mix, 40_000)))
    now = 100 * DAY_MS
    start = now - age
    happened = start + np.arange(4_000) * (length / 4_000)
    truth = np.mean([np.exp(-np.maximum(now - happened, 0) / mean) for mean, _ in mix], axis=1)
    weights = np.array([weight for _, weight in mix])
    share = float((truth * weights).sum() / weights.sum())
    # 40,000 events tell a share to within about a hundredth, a bin is a tenth of the lateness wide.
    assert curve.to_come(start, start + length, now) == pytest.approx(share, abs=0.03)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50), st.integers(0, 10**9), st.integers(1, 10**8))
def test_time_only_makes_it_more_final(late: list[float], age: int, length: int) -> None:
    curve, start = Curve.of(binned(np.array(late))), 10**12
    shares = [curve.to_come(start, start + length, start + age + step) for step in (0, 1, 1_000, 10**7, 10**9, 10**12)]
    assert all(0 <= share <= 1 for share in shares)
    assert all(later <= earlier + 1e-4 for earlier, later in itertools.pairwise(shares))
    assert shares[-1] == pytest.approx(0, abs=1e-4)
    settled = start + length + curve.settled_ms()
    assert curve.to_come(start, start + length, settled + 1) <= lateness.SHARE + 1e-4


def test_more_events_bring_it_closer() -> None:
    mix, now = [(5_000.0, 0.9), (2 * HOUR_MS, 0.1)], 10**12
    errors = []
    for count in (100, 10_000, 1_000_000):
        error = 0.0
        for seed in range(10):
            curve = Curve.of(binned(drawn(np.random.default_rng(seed), mix, count)))
            error += abs(curve.to_come(now - HOUR_MS, now - HOUR_MS + 1, now) - 0.1 * np.exp(-0.5))
        errors.append(error / 10)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.002


def test_nothing_known() -> None:
    assert Curve.of(np.zeros(len(EDGES), np.int64)) is None
    assert finality(None, range(10), Span(0, 10), 5) == {"complete_until": None, "provisional": []}


def test_filters_choose_whom_to_judge_by() -> None:
    def passes(group: Any, *filters: Any) -> bool:
        return lateness._passes(group, read_filters(list(filters)))

    ios = {"field": "platform", "op": "eq", "value": "ios"}
    assert passes(("ios", "1.0"), ios)
    assert not passes((None, "1.0"), ios)
    assert passes((None, "1.0"), {**ios, "op": "ne"})
    assert not passes(("ios", "1.0"), ios, {"field": "app_version", "op": "in", "value": ["2.0"]})
    assert passes(
        ("ios", "2.0"), {"field": "app_version", "op": "contains", "value": "2"}, {"field": "platform", "op": "is_set"}
    )
    assert not passes(
        ("ios", None),
        {"field": "app_version", "op": "not_in", "value": [""]},
        {"field": "platform", "op": "is_not_set"},
    )
    assert passes(("web", "1.0"), {"any": [ios]}, {"field": "country", "op": "eq", "value": "DE"})


def test_an_answer_tells_what_share_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Android phones are hours late; what has been received by now is stored, and then all of it."""
    monkeypatch.chdir(tmp_path)
    batch = events(40_000, seed=3, days=3)
    rng = np.random.default_rng(4)
    at = batch.column("timestamp").cast(pa.int64()).to_numpy()
    slow = np.asarray(pc.fill_null(pc.equal(batch.column("platform").cast(pa.string()), "android"), False))
    received = at + np.where(slow, drawn(rng, [(5 * HOUR_MS, 1)], len(at)), drawn(rng, [(5_000, 1)], len(at))).astype(
        int
    )
    place = batch.schema.get_field_index("received_at")
    batch = batch.set_column(place, EVENT.field("received_at"), pa.array(received, TIME))
    now = START_MS + 2 * DAY_MS + 12 * HOUR_MS
    here = batch.filter(pa.array(received <= now))
    store = RealtimeStore(tmp_path / "realtime")
    store.insert(here, "token")
    service = QueryService(store, lambda: None, QueryConfig(), window_ms=DAY_MS, clock=lambda: now)
    body: dict[str, Any] = {"from": iso(START_MS), "to": iso(START_MS + 3 * DAY_MS), "interval": "hour"}
    complete: dict[str, int] = {}
    for platform in ("android", "ios"):
        asked = body | {"filters": [{"field": "platform", "op": "eq", "value": platform}]}
        meta = service.ask("trends", asked)["meta"]
        shares = {ms(each["time"]): each["expected_share"] for each in meta["provisional"]}
        mine = np.asarray(pc.fill_null(pc.equal(batch.column("platform").cast(pa.string()), platform), False))
        complete[platform] = ms(meta["complete_until"])
        errors = []
        for bucket in range(START_MS + DAY_MS, now, HOUR_MS):
            of_bucket = mine & (at >= bucket) & (at < bucket + HOUR_MS)
            truth = float((received[of_bucket] > now).mean())
            errors.append(abs(shares.get(bucket, 0.0) - truth))
        assert np.mean(errors) < 0.03
        late = mine & (at < complete[platform]) & (at > now - 2 * DAY_MS)
        assert (received[late] > now).mean() < 0.01
    assert complete["ios"] > now - 60_000
    assert complete["android"] < now - 20 * HOUR_MS
    service.close()
    store.close()
