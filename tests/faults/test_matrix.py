"""The fault matrix in its small size, and its report."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pytest

from faults import adversary, report, scene
from faults.brokers import SMALL as BROKERS
from faults.clocks import mismatches
from faults.disk import SmallDisks
from faults.overfull import SmallFilter
from faults.registry import WithRegistry
from faults.report import Control, page, save
from faults.rows import MATRIX
from faults.scene import Result, Row, run
from faults.sinks import kill_sink

SMALL = [*(row for row in MATRIX if row.small), BROKERS]


@pytest.mark.parametrize("row", SMALL, ids=lambda row: f"{row.number}-{row.build.__name__}")
def test_nothing_is_lost_or_doubled(row):
    result = run(row, row.small)
    assert result.good, result
    assert result.acked > 1_000
    assert len(result.recoveries) == row.small


class Nothing:
    """A system that is always well, and its load, which lasts for so many runs."""

    name, url, lasts = "nothing", "", 3

    def __init__(self, *_, **__):
        self.truth = None

    def left(self):
        Nothing.lasts -= 1
        return 1_000_000 * Nothing.lasts

    def start(self, *_):
        pass

    stop = close = await_more = start

    def verdicts(self, _truth):
        return {"a store": {"acked": 1, "lost": 0, "doubled": 0, "phantom": 0, "corrupt": 0}}


def test_a_row_ends_with_its_load_and_says_how_many_runs_there_were(monkeypatch):
    monkeypatch.setattr(scene, "Load", Nothing)
    ran = []
    result = run(Row(1, "nothing", ran.append, Nothing, runs=9), 9)
    assert result.runs == len(ran) == 3


LONG = [row for row in MATRIX if row.build in (WithRegistry, SmallDisks, SmallFilter) or row.act is kill_sink]


@pytest.mark.soak
@pytest.mark.parametrize("row", LONG, ids=lambda row: f"{row.number}-{row.build.__name__}")
def test_nothing_is_lost_or_doubled_at_length(row):
    if why := row.why_not():
        pytest.skip(why)
    result = run(row, 4)
    assert result.good, result
    assert len(result.recoveries) == 4


RESULT = Result(1, "kill -9", "one machine", 2, 1_000, 0, 0, 0, 0, True, [1.0, 3.0], {"fell back": 2})


def test_the_page_counts_and_keeps_the_newest_of_each_row(tmp_path):
    path = tmp_path / "results.json"
    controls = [Control("window 0", {"doubled": 5}, {})]
    save([RESULT, dataclasses.replace(RESULT, number=4, lost=7)], controls, "a", path=path)
    text = page(save([dataclasses.replace(RESULT, runs=3)], (), "b", path=path))
    assert "| 1 | kill -9 | one machine | 3 | 1,000 | 0 | 0 | 2.0 s | 3.0 s |" in text
    assert "| 4 | kill -9 | one machine | 2 | 1,000 | 7 | 0 |" in text
    assert "7 of them lost" in text
    assert "rule of three" not in text
    assert "| window 0 | 5 doubled | nothing |" in text
    assert "a; b" in text


def test_runs_of_the_same_code_add_up_and_others_take_their_place(tmp_path):
    path = tmp_path / "results.json"
    longest = dataclasses.replace(RESULT, notes={"fell back": 1, "longest refusal, ms": 7}, planned=9)
    for _ in range(2):
        kept = save([longest], (), "a", "one", path)
    (row,) = kept["rows"].values()
    assert (row["runs"], row["acked"], len(row["recoveries"])) == (4, 2_000, 4)
    assert row["notes"] == {"fell back": 2, "longest refusal, ms": 7}
    assert "| 4 of 9 |" in page(kept)
    for machine, code in (("a", "two"), ("b", "two"), ("b", ""), ("b", "")):
        (row,) = save([longest], (), machine, code, path)["rows"].values()
        assert row["runs"] == 2


def test_the_rest_of_the_matrix_is_where_the_page_says():
    paths = [path for *_, paths in report.ELSEWHERE for path in paths]
    assert paths
    assert not [path for path in paths if not (report.ROOT / path).exists()]


def test_a_fault_shows_in_a_result():
    assert RESULT.good
    for name in ("lost", "doubled", "phantom", "corrupt"):
        assert not dataclasses.replace(RESULT, **{name: 1}).good
    assert not dataclasses.replace(RESULT, balanced=False).good


def test_the_page_is_that_of_the_kept_results():
    assert report.PAGE.read_text() == page(json.loads(report.RESULTS.read_text()))


@pytest.mark.parametrize("kind", adversary.IDS)
def test_chosen_ids_are_unique(kind):
    for base in (0, (1 << 128) - 1, 0x0123456789ABCDEF_FEDCBA9876543210):
        chosen = adversary.ids(kind, base)
        assert len(set(chosen)) == len(chosen) == 50_000


def test_mismatches_are_counted():
    """Control of row 18: sessions cut or joined where an exact computation does not."""
    minute = 60_000

    def events(*sessions):
        at = [0, 10 * minute, 40 * minute, 71 * minute]  # 30 minutes are no break, 31 are one
        times = pa.array(at, pa.timestamp("ms", "UTC"))
        return pa.table({"device_id": ["d"] * 4, "timestamp": times, "session_id": list(sessions)})

    assert mismatches(events(5, 5, 5, 6)) == 0
    assert mismatches(events(5, 5, 5, 5)) == 4
    assert mismatches(events(5, 4, 4, 6)) == 3
