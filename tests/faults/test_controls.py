"""The oracle sees every promise that is broken on purpose, and nothing where none is."""

from __future__ import annotations

import pytest

from faults.controls import CONTROLS, faults_of
from faults.unclear import reuse_timed_out_producer
from testbed.faults import FaultProxy

EXPECTED = {
    "commit before produce": "lost",
    "remember ids before the commit": "lost",
    "duplicate check with window 0": "doubled",
    "drop offsets in compaction": "doubled",
}


@pytest.mark.parametrize("name", CONTROLS)
def test_the_oracle_sees_what_is_broken_on_purpose(name, tmp_path):
    assert list(faults_of(CONTROLS[name](tmp_path / "broken", True))) == [EXPECTED[name]]


@pytest.mark.parametrize("name", CONTROLS)
def test_the_oracle_sees_nothing_where_nothing_is_broken(name, tmp_path):
    verdict = CONTROLS[name](tmp_path / "whole", False)
    assert verdict.good, verdict
    assert verdict.stored == verdict.unique == verdict.acked


def test_a_reused_producer_doubles_and_a_replaced_one_does_not(kafka, tmp_path):
    with FaultProxy.before(kafka.nodes) as proxy:
        broken = reuse_timed_out_producer(kafka, proxy, tmp_path / "broken", True)
        whole = reuse_timed_out_producer(kafka, proxy, tmp_path / "whole", False)
    assert list(faults_of(broken)) == ["doubled"]
    assert whole.good, whole
    assert whole.stored == whole.unique
