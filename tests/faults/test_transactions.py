"""Kafka's own system test for transactions, with our processor in the place of its message copier (``bench.transactions``)."""

from __future__ import annotations

import pytest

from bench import transactions


@pytest.mark.soak
@pytest.mark.parametrize(("target", "how"), transactions.WAYS)
def test_each_message_is_copied_once_whatever_is_bounced(kafka, tmp_path, target, how):
    row = transactions.copied(kafka, tmp_path, target, how, transactions.MESSAGES)
    assert transactions.failures(row) == {}
    assert row["suspects"] < row["messages"] / 1_000


@pytest.mark.parametrize(
    ("concurrent", "afterwards", "wrong"),
    [
        ({0: [1, 3], 1: [2]}, {0: [1, 3], 1: [2]}, {}),
        ({0: [1, 1, 3], 1: [2]}, {0: [1, 1, 3], 1: [2]}, {"doubled": 1}),
        ({0: [3, 1], 1: [2]}, {0: [3, 1], 1: [2]}, {"partitions_out_of_order": 1}),
        ({0: [1], 1: [2]}, {0: [1], 1: [2]}, {"lost": 1}),
        ({0: [1, 3], 1: [2, 2]}, {0: [1, 3], 1: [2]}, {"doubled": 1, "readers_disagree": 1}),
    ],
)
def test_the_judge_sees_what_is_lost_doubled_or_out_of_order(concurrent, afterwards, wrong):
    """Negative control."""
    row = {"bounced": "brokers", "how": "hard", "bounces": 3, "torn": 0}
    assert transactions.failures(row | transactions._judged(concurrent, afterwards, 3)) == wrong


@pytest.mark.parametrize(("torn", "wrong"), [(3, {}), (2, {"untorn": 1}), (0, {"untorn": 3})])
def test_a_run_that_tore_nothing_has_shown_nothing(torn, wrong):
    """Negative control."""
    row = {"bounced": "processors", "how": "hard", "bounces": 3, "torn": torn}
    assert transactions.failures(row | transactions._judged({0: [1]}, {0: [1]}, 1)) == wrong
