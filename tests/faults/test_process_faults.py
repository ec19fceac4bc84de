"""The processor broken off at every step: what it had committed, and only that, counts."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import replace

import pytest

from eventmill._native.decode import Decoder
from eventmill.core import frame, groups, ledger
from eventmill.core.config import Config, DedupConfig
from eventmill.core.errors import StateError
from eventmill.core.schema import EVENT, RAW, Flag, Hop, Topic
from eventmill.generate.stream import Spec, stream
from eventmill.log.local import LocalLog
from eventmill.process.dedup import Dedup, build_filter
from eventmill.process.pipeline import Processor, build_stages
from eventmill.process.rescue import Rescue

CONFIG = Config(dedup=DedupConfig(capacity=100_000))
SPEC = Spec(events=12_000, seed=7, start_ms=1_795_000_000_000, span_ms=3_600_000)


class Broken(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def traffic():
    """Raw batches of 500 events with retries, as ingest would have received them second by second."""
    batches = []
    for block in stream(SPEC):
        for begin in range(0, len(block.bodies), 5):
            decoder = Decoder()
            for body in block.bodies[begin : begin + 5]:
                decoder.append(body, SPEC.end_ms + begin * 1_000)
            batches.append(decoder.finish()[0])
    return batches


def fill(log, traffic):
    for batch in traffic:
        with log.transaction() as transaction:
            transaction.append([frame.encode(Topic.RAW, batch)])
            transaction.count(ledger.counts(Hop.ACCEPTED, batch))


def stages(config):
    """The real ones, with the filter keyed the same each time: which new id it mistakes for a seen one hangs on the key."""
    return [Dedup(build_filter(config.dedup, secret=b"the same in each")), *build_stages(config)[1:]]


def processor(log, folder, checkpoint=lambda _: None, config=CONFIG):
    return Processor(
        log,
        lambda: stages(config),
        folder,
        batch_events_max=900,
        snapshot_interval_events=2_000,
        checkpoint=checkpoint,
    )


def run_to_end(one):
    while one.step(0):
        pass
    one.close()


def outcome(log):
    frames = log.read(Topic.ENRICHED, 0, 0, events_max=1 << 40)
    events = frame.decode_all(frames, EVENT).select(["event_id", "session_id", "timestamp"]).to_pylist()
    suspects = frame.decode_all(log.read(Topic.SUSPECTS, 0, 0, events_max=1 << 40), RAW)
    counts = Counter()
    for count in log.ledger():
        counts[count.hop] += count.events
    return events, suspects.column("event_id").to_pylist(), counts


@pytest.fixture(scope="module")
def expected(traffic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    log = LocalLog(folder / "log")
    fill(log, traffic)
    one = processor(log, folder / "state")
    one.recover()
    run_to_end(one)
    found = outcome(log)
    log.close()
    return found


POINTS = ["processed", "produced", "offsets sent", "committed", "snapshot written", "snapshot renamed"]


@pytest.mark.parametrize("point", POINTS)
def test_broken_off_at_any_point_and_started_again_nothing_changes(traffic, expected, tmp_path, point):
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    breaks = left = 0

    def checkpoint(name):
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                raise Broken(name)

    for nth in (1, 2, 3, 1, 4):
        left = nth
        one = processor(log, tmp_path / "state", checkpoint)
        one.recover()
        try:
            run_to_end(one)
        except Broken:
            breaks += 1
            one._saver.shutdown()
    one = processor(log, tmp_path / "state")
    one.recover()
    run_to_end(one)
    assert breaks >= 2
    assert outcome(log) == expected
    log.close()


def test_ids_remembered_before_the_commit_would_lose_events_and_this_test_would_see_it(traffic, expected, tmp_path):
    """Negative control: state that is ahead of output makes the replayed batch look like duplicates."""
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    broken = [True]

    def checkpoint(name):
        if name == "offsets sent" and broken.pop():
            raise Broken(name)

    one = processor(log, tmp_path / "state", lambda name: checkpoint(name) if broken else None)
    one.recover()
    with pytest.raises(Broken):
        one.step(0)
    run_to_end(one)  # goes on without recover(), its state ahead of the log
    events, suspects, _ = outcome(log)
    assert len(events) < len(expected[0])
    assert len(suspects) > len(expected[1])
    log.close()


def test_an_offset_committed_before_its_output_would_lose_events_and_this_test_would_see_it(
    traffic, expected, tmp_path
):
    """Negative control: the input counts as consumed, then the process ends before the output is there."""
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)

    def checkpoint(name):
        if name == "processed":
            frames = log.read(Topic.RAW, 0, one.position, events_max=900)
            with log.transaction() as transaction:
                transaction.commit_offset(groups.PROCESS, Topic.RAW, 0, frames[-1].offset + 1)
            raise Broken(name)

    one = processor(log, tmp_path / "state", checkpoint)
    one.recover()
    with pytest.raises(Broken):
        one.step(0)
    one.close()
    one = processor(log, tmp_path / "state")
    one.recover()
    run_to_end(one)
    events, _, counts = outcome(log)
    assert 0 < len(events) < len(expected[0])
    assert counts[Hop.ENRICHED] < expected[2][Hop.ENRICHED]
    log.close()


@pytest.mark.parametrize("point", ["snapshot written", "snapshot renamed"])
def test_no_room_for_snapshots_holds_up_nothing(traffic, expected, tmp_path, caplog, point):
    """The disk is full but for the first and the last one."""
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    met = 0

    def checkpoint(name):
        nonlocal met
        met += name == point
        if name == point and met > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    one = processor(log, tmp_path / "state", checkpoint)
    one.recover()
    run_to_end(one)
    assert met > 2
    assert "no snapshot was written" in caplog.text
    assert not list((tmp_path / "state").glob("*.tmp"))
    assert outcome(log) == expected
    again = processor(log, tmp_path / "state")
    assert again.recover().snapshot_offset > 0
    again.close()
    log.close()


def test_a_damaged_snapshot_is_passed_over_for_an_older_one(traffic, expected, tmp_path):
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    one = processor(log, tmp_path / "state")
    one.recover()
    for _ in range(8):
        one.step(0)
    one.close()
    newest = max((tmp_path / "state").glob("snapshot-*.bin"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    one = processor(log, tmp_path / "state")
    recovery = one.recover()
    assert 0 < recovery.snapshot_offset < int(newest.stem.split("-")[1])
    assert recovery.events_folded > 0
    run_to_end(one)
    assert outcome(log) == expected
    log.close()


def test_without_any_snapshot_the_whole_log_is_folded(traffic, expected, tmp_path):
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    one = processor(log, tmp_path / "state")
    one.recover()
    for _ in range(8):
        one.step(0)
    one.close()
    for file in (tmp_path / "state").iterdir():
        file.unlink()
    one = processor(log, tmp_path / "state")
    assert one.recover().snapshot_offset == 0
    run_to_end(one)
    assert outcome(log) == expected
    log.close()


def test_state_that_cannot_be_rebuilt_stops_everything(traffic, tmp_path):
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    one = processor(log, tmp_path / "state")
    one.recover()
    run_to_end(one)
    for file in (tmp_path / "state").iterdir():
        file.unlink()
    with log.transaction() as transaction:
        transaction.commit_offset(groups.SNAPSHOT, Topic.RAW, 0, 10)
    assert log.trim(Topic.RAW, 0, 1 << 60) == 10
    with pytest.raises(StateError, match="snapshots"):
        processor(log, tmp_path / "state").recover()
    log.close()


def test_another_configuration_stops_instead_of_starting_afresh(traffic, tmp_path):
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    one = processor(log, tmp_path / "state")
    one.recover()
    run_to_end(one)
    other = replace(CONFIG, dedup=DedupConfig(capacity=50_000))
    with pytest.raises(StateError, match="configuration"):
        processor(log, tmp_path / "state", config=other).recover()
    log.close()


class Stored:
    """The store's look-up, answered from what the processor has put out and the store has taken."""

    def __init__(self, log):
        self.log = log

    def contains(self, ids, events, timestamps):
        import pyarrow as pa
        import pyarrow.compute as pc

        taken = self.log.committed(groups.REALTIME, Topic.ENRICHED, 0)
        events = frame.decode_all(self.log.read(Topic.ENRICHED, 0, 0, events_max=1 << 40, to_offset=taken), EVENT)
        return pc.is_in(ids, value_set=pa.array(events.column("event_id")))


def drive(log, one, rescue):
    """Processor, sink and rescue in turn until nothing is left."""
    while True:
        moved = one.step(0)
        with log.transaction() as transaction:
            transaction.commit_offset(groups.REALTIME, Topic.ENRICHED, 0, log.end_offset(Topic.ENRICHED, 0))
        moved += rescue.step(0.001)
        if not moved:
            return


@pytest.mark.parametrize("capacity", [100_000, 6_000, 600])
def test_no_unique_event_is_dropped_however_full_the_filter_is(traffic, tmp_path, capacity):
    """At many times its load most new ids look seen; every one of them comes back."""
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    config = replace(CONFIG, dedup=DedupConfig(capacity=capacity))
    one = processor(log, tmp_path / "state", config=config)
    one.recover()
    drive(log, one, Rescue(log, Stored(log), batch_events_max=700))
    one.close()
    sent = Counter(identity for batch in traffic for identity in batch.column("event_id").to_pylist())
    events = frame.decode_all(log.read(Topic.ENRICHED, 0, 0, events_max=1 << 40), EVENT)
    assert Counter(events.column("event_id").to_pylist()) == Counter(dict.fromkeys(sent, 1))
    counts = Counter()
    for count in log.ledger():
        counts[count.hop] += count.events
    assert counts[Hop.DUPLICATE] == sum(sent.values()) - len(sent)
    assert counts[Hop.SUSPECT] == counts[Hop.DUPLICATE] + counts[Hop.RESCUED]
    rescued = sum(1 for flags in events.column("flags").to_pylist() if flags & Flag.RESCUED)
    assert rescued == counts[Hop.RESCUED]
    if capacity == 600:
        assert rescued > len(sent) // 2
    log.close()


def test_a_store_that_is_always_a_little_behind_holds_up_no_suspect(traffic, tmp_path):
    """It gets what the processor had made a step ago, and so never has everything before the load ends."""
    log, some = LocalLog(tmp_path / "log"), traffic[:8]
    one = processor(log, tmp_path / "state", config=replace(CONFIG, dedup=DedupConfig(capacity=600)))
    one.recover()
    rescue, judged, end = Rescue(log, Stored(log), batch_events_max=700), 0, 0
    for batch in some:
        fill(log, [batch])
        assert one.step(0)
        with log.transaction() as transaction:
            transaction.commit_offset(groups.REALTIME, Topic.ENRICHED, 0, end)
        end = log.end_offset(Topic.ENRICHED, 0)
        assert log.lag(groups.REALTIME, Topic.ENRICHED, 0)
        judged += rescue.step(0)
    assert judged
    drive(log, one, rescue)
    one.close()
    sent = {identity for batch in some for identity in batch.column("event_id").to_pylist()}
    events = frame.decode_all(log.read(Topic.ENRICHED, 0, 0, events_max=1 << 40), EVENT)
    assert Counter(events.column("event_id").to_pylist()) == Counter(dict.fromkeys(sent, 1))
    log.close()


def test_a_broken_rescue_judges_again_and_counts_once(traffic, tmp_path):
    log = LocalLog(tmp_path / "log")
    fill(log, traffic)
    one = processor(log, tmp_path / "state", config=replace(CONFIG, dedup=DedupConfig(capacity=6_000)))
    one.recover()
    breaks = iter([True, False, True, True] + [False] * 1_000)

    def checkpoint(name):
        if name == "judged" and next(breaks):
            raise Broken

    while True:
        try:
            drive(log, one, Rescue(log, Stored(log), batch_events_max=700, checkpoint=checkpoint))
            break
        except Broken:
            continue
    one.close()
    sent = {identity for batch in traffic for identity in batch.column("event_id").to_pylist()}
    events = frame.decode_all(log.read(Topic.ENRICHED, 0, 0, events_max=1 << 40), EVENT)
    assert Counter(events.column("event_id").to_pylist()) == Counter(dict.fromkeys(sent, 1))
    log.close()
