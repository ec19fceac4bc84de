"""The embedded log: durable, atomic, shared between processes, awake without polling."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from eventmill.core.errors import FrameError, LogUnavailable, StateError
from eventmill.core.log import Count, Frame, Intent
from eventmill.core.schema import Hop, Topic
from eventmill.log.local import LocalLog


@pytest.fixture
def log(tmp_path):
    opened = LocalLog(tmp_path / "log")
    yield opened
    opened.close()


def put(log, *payloads, topic=Topic.RAW, events=1):
    with log.transaction() as transaction:
        return transaction.append([Frame(topic, payload, events, b"key", {"schema": "1"}) for payload in payloads])


def test_frames_come_back_in_order_with_key_headers_and_offsets(log):
    assert put(log, b"a", b"b") == [0, 1]
    assert put(log, b"c") == [2]
    frames = log.read(Topic.RAW, 0, 1, events_max=100)
    assert [(f.offset, f.payload, f.key, f.headers) for f in frames] == [
        (1, b"b", b"key", {"schema": "1"}),
        (2, b"c", b"key", {"schema": "1"}),
    ]
    assert log.end_offset(Topic.RAW, 0) == 3
    assert log.end_offset(Topic.DEAD, 0) == 0


def test_reading_stops_at_the_event_limit_but_never_at_nothing(log):
    put(log, b"a", b"b", b"c", events=10)
    assert [f.offset for f in log.read(Topic.RAW, 0, 0, events_max=1)] == [0]
    assert [f.offset for f in log.read(Topic.RAW, 0, 0, events_max=11)] == [0, 1]
    assert [f.offset for f in log.read(Topic.RAW, 0, 0, events_max=100, to_offset=2)] == [0, 1]


def test_lag_in_seconds_is_the_age_of_the_oldest_frame_not_consumed(log, monkeypatch):
    def at(ms):
        for module in ("local", "local_transaction"):
            monkeypatch.setattr(f"eventmill.log.{module}.now_ms", lambda: ms)

    at(1_000_000)
    assert log.lag_seconds("g", Topic.RAW, 0) == 0.0
    put(log, b"a")
    at(1_090_000)
    put(log, b"b")
    put(log, b"elsewhere", topic=Topic.SUSPECTS)
    at(1_100_500)
    assert log.lag_seconds("g", Topic.RAW, 0) == 100.5
    for offset, seconds in ((1, 10.5), (2, 0.0)):
        with log.transaction() as transaction:
            transaction.commit_offset("g", Topic.RAW, 0, offset)
        assert log.lag_seconds("g", Topic.RAW, 0) == seconds


def test_a_failed_transaction_leaves_nothing(log):
    def fail():
        with log.transaction() as transaction:
            transaction.append([Frame(Topic.ENRICHED, b"x", 1)])
            transaction.commit_offset("g", Topic.RAW, 0, 5)
            transaction.count([Count(Hop.ENRICHED, 0, 1)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert log.end_offset(Topic.ENRICHED, 0) == 0
    assert log.committed("g", Topic.RAW, 0) == 0
    assert log.ledger() == []


def test_offsets_intents_and_counts_are_kept(tmp_path):
    first = LocalLog(tmp_path)
    with first.transaction() as transaction:
        transaction.commit_offset("g", Topic.RAW, 0, 7)
        transaction.put_intent(Intent("g", Topic.RAW, 0, 3, 7))
        transaction.count([Count(Hop.RECEIVED, 3_600_000, 2), Count(Hop.RECEIVED, 3_600_000, 3)])
    first.close()
    second = LocalLog(tmp_path)
    assert second.committed("g", Topic.RAW, 0) == 7
    assert second.intent("g", Topic.RAW, 0) == Intent("g", Topic.RAW, 0, 3, 7)
    assert second.ledger() == [Count(Hop.RECEIVED, 3_600_000, 5)]
    second.close()


def test_lag_counts_events_also_after_trimming(log):
    put(log, b"a", b"b", b"c", b"d", events=10)
    assert log.lag("g", Topic.RAW, 0) == 40
    with log.transaction() as transaction:
        transaction.commit_offset("g", Topic.RAW, 0, 3)
    assert log.lag("g", Topic.RAW, 0) == 10
    assert log.trim(Topic.RAW, 0, 1 << 60) == 3
    assert log.lag("g", Topic.RAW, 0) == 10
    assert log.start_offset(Topic.RAW, 0) == 3


def test_trimming_keeps_what_a_group_has_not_consumed_and_what_is_young(log):
    put(log, b"a", b"b")
    with log.transaction() as transaction:
        transaction.commit_offset("fast", Topic.RAW, 0, 2)
        transaction.commit_offset("slow", Topic.RAW, 0, 1)
    assert log.trim(Topic.RAW, 0, 0) == 0
    assert log.trim(Topic.RAW, 0, 1 << 60) == 1


def test_reading_outside_the_log_is_an_error(log):
    put(log, b"a")
    with pytest.raises(StateError, match="outside"):
        log.read(Topic.RAW, 0, 2, events_max=1)


def test_a_damaged_frame_is_found(log):
    put(log, b"payload")
    with log._exclusive():
        log._writer.execute("UPDATE frames SET payload = x'00'")
    with pytest.raises(FrameError, match="checksum"):
        log.read(Topic.RAW, 0, 0, events_max=1)


def test_a_full_log_says_so(tmp_path):
    log = LocalLog(tmp_path, size_bytes_max=1, backlog_events_max=10)
    assert "size_bytes_max" in log.pressure()
    log.close()
    log = LocalLog(tmp_path, backlog_events_max=10)
    assert log.pressure() is None
    put(log, b"a", events=11)
    assert "backlog_events_max" in log.pressure()
    log.close()


def test_a_waiter_wakes_for_a_writer_in_another_process(log, tmp_path):
    woke = threading.Event()

    def wait():
        if log.wait(Topic.RAW, {0: 0}, 60):
            woke.set()

    thread = threading.Thread(target=wait)
    thread.start()
    script = (
        "from pathlib import Path; from eventmill.log.local import LocalLog; from eventmill.core.log import Frame\n"
        "from eventmill.core.schema import Topic; import sys\n"
        "log = LocalLog(Path(sys.argv[1]))\n"
        "with log.transaction() as t: t.append([Frame(Topic.RAW, b'x', 1)])\n"
        "log.close()"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "log")], check=True)
    thread.join(60)
    assert woke.is_set()


def test_closing_wakes_waiters(tmp_path):
    log = LocalLog(tmp_path)
    results = []
    thread = threading.Thread(target=lambda: results.append(log.wait(Topic.RAW, {0: 0}, 60)))
    thread.start()
    log.close()
    thread.join(60)
    assert results == [False]
    with pytest.raises(LogUnavailable), log.transaction():
        pass


def test_a_killed_writer_leaves_whole_transactions_and_no_lock(tmp_path):
    script = (
        "from pathlib import Path; from eventmill.log.local import LocalLog; from eventmill.core.log import Frame, Count\n"
        "from eventmill.core.schema import Topic, Hop; import sys\n"
        "log = LocalLog(Path(sys.argv[1]))\n"
        "while True:\n"
        "    with log.transaction() as t:\n"
        "        t.append([Frame(Topic.RAW, b'x' * 1000, 1)] * 3)\n"
        "        t.count([Count(Hop.RECEIVED, 0, 3)])\n"
        "    print('.', flush=True)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        log = LocalLog(tmp_path)
        end = log.end_offset(Topic.RAW, 0)
        assert end >= 6
        assert end % 3 == 0
        assert log.ledger() == [Count(Hop.RECEIVED, 0, end)]
        assert len(log.read(Topic.RAW, 0, 0, events_max=1 << 40)) == end
        log.close()


def test_many_writers_get_distinct_offsets(tmp_path):
    logs = [LocalLog(tmp_path) for _ in range(3)]
    offsets = [[] for _ in logs]

    def write(number):
        for _ in range(30):
            offsets[number] += put(logs[number], b"x")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(offset for each in offsets for offset in each) == list(range(90))
    for log in logs:
        log.close()
