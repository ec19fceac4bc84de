"""Random questions while events are stored, compacted, merged and rolled up beneath them: none may be answered wrongly, be it
from the cache or not.

One project asks. Another's events, of the same users, names and times, flow into both stores all the while, so
that every partition, file and roll-up that a question reads is about to change, and what is right is known nevertheless. Now
and then the asking project's own events are stored, late ones among them, and become a part of what is right.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, seed, settings
from query_duck import Duck
from query_questions import DAYS, NOW, WINDOW_MS
from query_twin import rows_of
from test_query_random import HOW, QUESTIONS, check

from eventmill.core.config import QueryConfig
from eventmill.core.schema import EVENT
from eventmill.kernels.sessionize import sessions_exact
from eventmill.lake.compact import compact
from eventmill.lake.maintain import maintain
from eventmill.lake.table import Lake
from eventmill.query.cache import AnswerCache
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.lake_rollups import LakeRollUps
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS, events

#: Longer than all events last, so that nothing of what is right depends on the order in which they come.
GAP_MS = 400 * DAY_MS
#: All parts together ask two thousand questions, each twice.
PARTS, QUESTIONS_OF_PART, GROWS_EVERY = 20, 100, 20


def with_sessions(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A session for each device, under the id that compaction computes for it."""
    found = sessions_exact(batch.column("device_id"), batch.column("timestamp"), GAP_MS)
    return batch.set_column(batch.schema.get_field_index("session_id"), EVENT.field("session_id"), found)


def of_others(number: int) -> pa.RecordBatch:
    """Another project's events, of phones of its own."""
    batch = events(300, seed=number, days=DAYS, devices=300, project="bank")
    devices = pa.array([f"their {device}" for device in batch.column("device_id").to_pylist()])
    return batch.set_column(batch.schema.get_field_index("device_id"), EVENT.field("device_id"), devices)


class Churn:
    """Both stores, fed and tidied by a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.store, self.lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        self.roll_ups = LakeRollUps(self.store)
        self.between = threading.Lock()
        self.stop = threading.Event()
        self.rounds, self.asked = 0, 0
        self.failed: list[BaseException] = []
        self.offset = 0
        mine = with_sessions(events(8_000, seed=1, days=DAYS, devices=300, coarse_ms=3_600_000, project="shop"))
        self.mine, self.there = mine.take(self._order(mine)), 0
        self.grow(6_000)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def store_both(self, batch: pa.RecordBatch) -> None:
        offsets = pa.array([self.offset] * len(batch), pa.uint64())
        batch = batch.set_column(batch.schema.get_field_index("log_offset"), "log_offset", offsets)
        self.store.insert(batch, f"batch {self.offset}")
        self.lake.append(batch.select(EVENT.names), group="lake", ranges={0: (self.offset, self.offset + 1)})
        self.offset += 1

    @staticmethod
    def _order(mine: pa.RecordBatch) -> Any:
        """At random, but the first event of each device before all others: then no late one begins its session anew."""
        at = mine.column("timestamp").cast(pa.int64()).to_numpy()
        devices = mine.column("device_id").to_numpy(zero_copy_only=False)
        by_time = np.argsort(at, kind="stable")
        first = by_time[np.unique(devices[by_time], return_index=True)[1]]
        rest = np.setdiff1d(np.arange(len(at)), first)
        return pa.array(np.concatenate([first, np.random.default_rng(1).permutation(rest)]))

    def grow(self, count: int) -> None:
        """The next events of whoever asks; they count from now on."""
        with self.between:
            self.store_both(self.mine.slice(self.there, count))
            self.there += count
            self.duck = Duck(rows_of(self.mine.slice(0, self.there)))

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                with self.between:
                    self.store_both(of_others(self.offset + 1))
                    if self.rounds % 3 == 2:
                        compact(self.lake, gap_ms=GAP_MS, now_ms=NOW)
                        maintain(self.lake, now_ms=NOW)
                        source = str(self.lake.source_sql())
                        self.roll_ups.keep_up(source, self.lake.files_of(source) or (), self.stop.is_set)
                    if self.rounds % 5 == 4:
                        self.store.command("OPTIMIZE TABLE eventmill.events FINAL")
                self.rounds += 1
        except BaseException as error:
            self.failed.append(error)


@pytest.fixture
def churn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Churn]:
    monkeypatch.chdir(tmp_path)
    churn = Churn(tmp_path)
    churn.thread.start()
    yield churn
    churn.stop.set()
    churn.thread.join()
    churn.store.close()


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
def test_not_one_answer_is_wrong_while_the_stores_change(churn: Churn, part: int) -> None:
    whole = QueryService(
        churn.store, churn.lake.source_sql, QueryConfig(), window_ms=WINDOW_MS, watermark=lambda: NOW, clock=lambda: NOW,
        lake_version=churn.lake.version, files_of=churn.lake.files_of, is_rolled_up=churn.roll_ups.has,
        cache=AnswerCache(50_000_000),
    )  # fmt: skip
    shop = whole.narrowed(QueryConfig(), project="shop", caller="shop")

    @seed(part)
    @settings(max_examples=QUESTIONS_OF_PART, phases=[Phase.generate], database=None, **HOW)
    @given(question=QUESTIONS)
    def ask(question: tuple[str, dict[str, Any]]) -> None:
        if churn.asked % GROWS_EVERY == GROWS_EVERY - 1:
            churn.grow(100)
        for _ in range(2):
            check(shop, churn.duck, *question)
        churn.asked += 1

    ask()
    assert churn.failed == []
    assert churn.asked >= QUESTIONS_OF_PART
    assert churn.rounds > 20
    print(f"part {part}: {churn.asked} questions, {churn.rounds} rounds of change, {len(whole.cache)} answers kept")
    whole.close()
