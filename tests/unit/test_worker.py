"""The thread under every stage: what it waits out, and what ends it."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from eventmill.core.errors import LogUnavailable, StateError, StoreError, disk_full
from eventmill.serve import worker as module
from eventmill.serve.worker import Worker

WAIT_S = 60


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrapped():
    try:
        raise full()
    except OSError as error:
        raise StoreError("the lake cannot write") from error


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_S", (0.0,) * len(module._RETRY_S))
    monkeypatch.setattr(module, "_FULL_RETRY_S", 0.0)


def run(errors):
    """What became of a worker whose first steps raise these: how often it recovered, and the error that ended it."""
    ended, through = threading.Event(), threading.Event()
    left, recovered, fatal = list(errors), [], []

    def step(_timeout_s):
        if left:
            raise left.pop(0)
        through.set()
        ended.set()
        return 0

    def failed(_name, error):
        fatal.append(error)
        ended.set()

    one = Worker("test", lambda: recovered.append(1), step, failed)
    one.start()
    assert ended.wait(WAIT_S)
    one.stop()
    one.join()
    return len(recovered), fatal, through.is_set()


TEN = 10


@pytest.mark.parametrize("make", [full, lambda: StoreError("no room", 243), lambda: LogUnavailable("full", 0)])
def test_a_full_disk_is_waited_out_for_as_long_as_it_takes(make):
    assert run([make() for _ in range(TEN)]) == (TEN + 1, [], True)


def test_other_errors_end_it_after_some_tries_and_wrong_state_at_once():
    recovered, fatal, through = run([ValueError(str(number)) for number in range(TEN)])
    assert (recovered, [str(error) for error in fatal], through) == (len(module._RETRY_S) + 1, ["4"], False)
    assert run([StateError("foreign")])[0] == 1


def test_a_full_disk_is_known_by_its_cause():
    with pytest.raises(StoreError) as caught:
        wrapped()
    assert disk_full(caught.value)
    assert disk_full(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert not disk_full(StoreError("syntax error", 62))
    assert not disk_full(OSError(errno.EACCES, "Permission denied"))
