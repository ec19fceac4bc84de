"""The fair pool: lanes take turns, none has more than its share, and what waits at the end is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from eventmill.query.lanes import FairPool


@pytest.fixture
def pool() -> Iterator[FairPool]:
    made = FairPool(1)
    yield made
    made.close()


def test_one_question_does_not_wait_behind_another_keys_crowd(pool: FairPool) -> None:
    done: list[str] = []
    gate = threading.Event()
    crowd, single = pool.lane(1), pool.lane(1)
    first = crowd.submit(gate.wait)
    many = [crowd.submit(done.append, f"crowd {number}") for number in range(20)]
    one = single.submit(done.append, "single")
    gate.set()
    for each in (first, *many, one):
        each.result()
    assert done.index("single") <= 1
    assert [each for each in done if each != "single"] == [f"crowd {number}" for number in range(20)]


def test_a_lane_has_no_more_than_its_share() -> None:
    pool = FairPool(4)
    narrow, wide = pool.lane(1), pool.lane(4)
    gate, running, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def count() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait()
        with lock:
            running[0] -= 1

    tasks = [narrow.submit(count) for _ in range(8)]
    # Others' questions go past those of the narrow lane while one of it runs.
    assert [wide.submit(lambda number=number: number).result() for number in range(8)] == list(range(8))
    gate.set()
    for task in tasks:
        task.result()
    assert most == [1]
    pool.close()


def test_an_error_is_the_askers_alone(pool: FairPool) -> None:
    lane = pool.lane(1)
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 // 0).result()
    assert lane.submit(lambda: 1).result() == 1


def test_what_waits_at_the_end_is_cancelled_and_what_runs_is_awaited() -> None:
    pool = FairPool(1)
    lane, gate, begun = pool.lane(1), threading.Event(), threading.Event()

    def run() -> str:
        begun.set()
        gate.wait()
        return "ran"

    runs, waits = lane.submit(run), lane.submit(lambda: "never")
    begun.wait()
    closing = threading.Thread(target=pool.close)
    closing.start()
    with pytest.raises(CancelledError):
        waits.result()
    gate.set()
    closing.join()
    assert runs.result() == "ran"
    with pytest.raises(RuntimeError):
        lane.submit(lambda: 1)
