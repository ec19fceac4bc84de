"""Questions to brokers: none waits behind another, and a client whose question failed is not asked again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from eventmill.core.errors import LogUnavailable
from eventmill.log.kafka import clients
from eventmill.log.kafka.clients import REQUEST_S, Asked

WAIT_S = 30


@pytest.fixture
def asked():
    numbers = count(1)
    return Asked(lambda: next(numbers))


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping, and whoever is asked, moves on."""
    now = [100.0]
    monkeypatch.setattr(clients.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clients.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_a_question_to_a_dead_leader_holds_up_no_other(asked):
    silent, over = threading.Event(), threading.Event()

    def unanswered(client, _patience_s):
        silent.set()
        assert over.wait(WAIT_S)
        return client

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asked.ask, "x", unanswered)
        assert silent.wait(WAIT_S)
        assert asked.ask("y", lambda client, _patience_s: client) == 2
        over.set()
        assert waiting.result() == 1
    # Both serve again, and no third one is made.
    assert {asked.ask("x", lambda client, _patience_s: client) for _ in range(4)} <= {1, 2}


def test_after_a_question_that_failed_nobody_asks_the_clients_from_before(asked):
    both = threading.Barrier(2)

    def together(client, _patience_s):
        both.wait(WAIT_S)
        return client

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda _: asked.ask("x", together), range(2))) == {1, 2}
    tried = []

    def moved(client, _patience_s):
        tried.append(client)
        if client <= 2:
            raise TimeoutError
        return "the new leader"

    assert asked.ask("x", moved) == "the new leader"
    assert len(tried) == 2  # one of the two, and a new one
    assert tried[1] == 3


def test_the_first_try_is_short_and_all_end_in_time(asked, clock):
    patience, began = [], clock[0]

    def silent(client, patience_s):
        patience.append((client, patience_s))
        clock[0] += patience_s
        raise TimeoutError

    with pytest.raises(LogUnavailable, match="asking failed"):
        asked.ask("asking", silent)
    assert patience == [(1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0)]
    assert clock[0] - began <= REQUEST_S


def test_what_fails_at_once_is_asked_until_the_time_is_over(asked, clock):
    began = clock[0]

    def leaderless(_client, _patience_s):
        if clock[0] - began < REQUEST_S / 2:
            raise TimeoutError
        return "elected"

    assert asked.ask("x", leaderless) == "elected"
