"""The generator makes what it says, the same each time, and the oracle sees every fault that is put before it."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from eventmill._native.decode import Decoder
from eventmill.core.errors import ConfigError
from eventmill.generate.files import Bodies, write
from eventmill.generate.oracle import judge, stored_rows
from eventmill.generate.stream import Spec, stream
from eventmill.generate.truth import OUTCOME, TruthFile
from serving import eventmill

SPEC = Spec(events=20_000, seed=5, start_ms=1_795_000_000_000, span_ms=6 * 3_600_000)
UNKNOWN, ACKED, REFUSED = range(3)


@pytest.fixture(scope="module")
def run():
    """(bodies, truth) of SPEC."""
    blocks = list(stream(SPEC))
    bodies = [body for block in blocks for body in block.bodies]
    return bodies, pa.concat_tables(block.truth for block in blocks)


@pytest.fixture(scope="module")
def decoded(run):
    """(events, rejects) as ingest decodes the bodies."""
    decoder = Decoder()
    for body in run[0]:
        decoder.append(body, SPEC.end_ms)
    return decoder.finish()


def told(truth, outcome=ACKED):
    """The truth, every request with one outcome."""
    return truth.append_column("outcome", pa.array([OUTCOME[outcome]] * truth.num_rows))


@pytest.fixture(scope="module")
def stored(decoded):
    """What a store without fault holds: the first of each id."""
    events = pa.Table.from_batches([decoded[0]])
    _, first = np.unique(np.array(events.column("event_id").to_pylist()), return_index=True)
    return stored_rows(events.take(pa.array(np.sort(first))))


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(run):
    again = [body for block in stream(SPEC) for body in block.bodies]
    other = [body for block in stream(replace(SPEC, seed=6)) for body in block.bodies]
    assert again == run[0]
    assert not set(other) & set(run[0])


def test_the_truth_is_what_the_bodies_say(run):
    bodies, truth = run
    rows = truth.to_pylist()
    sent = [event for body in bodies for event in json.loads(body)["batch"]]
    assert len(sent) == len(rows) == SPEC.events
    assert [row["request"] for row in rows] == [n for n, body in enumerate(bodies) for _ in json.loads(body)["batch"]]
    for event, row in zip(sent, rows, strict=True):
        if row["kind"] != "bad":
            assert uuid.UUID(event["messageId"]).bytes == row["id"]
            assert row["device"] == event["context"]["device"]["id"]


def test_shares_are_as_asked(run):
    kinds = Counter(run[1].column("kind").to_pylist())
    originals = SPEC.events * 0.95
    repeats = SPEC.events - originals
    assert repeats * 0.98 <= kinds["duplicate"] <= repeats  # the retry of a bad event is a bad event
    assert kinds["late"] == pytest.approx(originals * 0.02, rel=0.25)
    assert kinds["bad"] == pytest.approx(SPEC.events * 0.01, rel=0.35)


def test_event_names_follow_zipf_and_phones_come_again(run):
    names = Counter(run[1].column("event").to_pylist()).most_common()
    assert names[0][1] > 2 * names[2][1] > 4 * names[10][1]
    devices = Counter(run[1].column("device").to_pylist())
    assert 100 < len(devices) < SPEC.events / 10


def test_a_late_event_is_hours_older_than_its_request(run):
    late = run[1].filter(pc.equal(run[1].column("kind"), "late"))
    age = SPEC.end_ms - np.array(late.column("time").to_pylist())
    assert age.max() < 72 * 3_600_000 + SPEC.span_ms
    assert np.median(age) > 12 * 3_600_000


def test_ingest_takes_the_good_ones_and_no_bad_one(run, decoded):
    good = pc.sum(pc.not_equal(run[1].column("kind"), "bad")).as_py()
    events, rejects = decoded
    assert (events.num_rows, rejects.num_rows) == (good, SPEC.events - good)
    assert len(set(rejects.column("reason").to_pylist())) >= 5


def test_the_oracle_finds_no_fault_in_a_store_without_one(run, stored):
    verdict = judge(told(run[1]), stored)
    assert verdict.good
    assert verdict.unique == verdict.stored == stored.num_rows > 0.9 * SPEC.events


def changed(stored, number):
    """The payload of one row altered."""
    hashes = stored.column("payload_hash").to_numpy().copy()
    hashes[number] ^= 1
    return stored.set_column(1, "payload_hash", pa.array(hashes))


def foreign(stored):
    row = stored.slice(0, 1).set_column(0, stored.schema.field("id"), pa.array([b"\1" * 16], pa.binary(16)))
    return pa.concat_tables([stored, row])


def bad_one_stored(stored, truth):
    ids = truth.filter(pc.equal(truth.column("kind"), "bad")).slice(0, 1).column("id")
    row = stored.slice(0, 1).set_column(0, stored.schema.field("id"), ids)
    return pa.concat_tables([stored, row])


@pytest.mark.parametrize(
    ("fault", "breaking"),
    [
        ("lost", lambda stored, _: stored.slice(1)),
        ("doubled", lambda stored, _: pa.concat_tables([stored, stored.slice(7, 1)])),
        ("phantom", lambda stored, _: foreign(stored)),
        ("phantom", bad_one_stored),
        ("corrupt", lambda stored, _: changed(stored, 3)),
    ],
)
def test_the_oracle_sees_one_fault_among_all(run, stored, fault, breaking):
    verdict = judge(told(run[1]), breaking(stored, run[1]))
    faults = {name: getattr(verdict, name) for name in ("lost", "doubled", "phantom", "corrupt")}
    assert faults == {"lost": 0, "doubled": 0, "phantom": 0, "corrupt": 0} | {fault: 1}
    assert not verdict.good
    assert len(verdict.examples[fault]) == 1


@pytest.mark.parametrize("outcome", [UNKNOWN, REFUSED])
def test_what_was_not_acknowledged_may_be_missing_but_never_twice(run, stored, outcome):
    truth = told(run[1], outcome)
    assert judge(truth, stored).good
    assert judge(truth, stored.slice(100)).good
    assert judge(truth, pa.concat_tables([stored, stored.slice(0, 2)])).doubled == 2
    assert judge(truth, stored).unknown_stored == (stored.num_rows if outcome == UNKNOWN else 0)


def test_outcomes_outlive_a_sender_that_is_killed(tmp_path):
    spec = replace(SPEC, events=1_000)
    file = TruthFile(tmp_path / "truth.parquet")
    assert write(spec, tmp_path / "requests.ndjson", file) == (10, 1_000)
    bodies = Bodies(tmp_path / "requests.ndjson")
    assert [bytes(body) for body in bodies] == [body for block in stream(spec) for body in block.bodies]
    outcomes = file.outcomes(len(bodies))
    outcomes[3] = ACKED
    outcomes[4] = REFUSED
    unfinished = file.read()
    expected = ["unknown"] * 300 + ["acked"] * 100 + ["refused"] * 100 + ["unknown"] * 500
    assert unfinished.column("outcome").to_pylist() == expected
    file.finish()
    assert file.read().equals(unfinished)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.ndjson", "truth.parquet"]


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match="requests"):
        Bodies(tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ([], "--url"),
        (["--url", "https://elsewhere"], "http://127.0.0.1:8080"),
        (["--out", "o", "--start", "yesterday"], "ISO 8601"),
        (["--out", "o", "--span", "long"], "--span"),
        (["--in", "o", "--truth", "t", "--url", "http://127.0.0.1:1"], "--in"),
        (["--events", "0", "--out", "o"], "0 is not in the range"),
    ],
)
def test_wrong_options_are_told_in_a_line(tmp_path, monkeypatch, arguments, cure):
    monkeypatch.chdir(tmp_path)
    done = eventmill("generate", "--events", "100", *arguments)
    assert done.returncode != 0
    assert cure in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_server_that_is_not_there_leaves_all_unknown(tmp_path):
    truth = tmp_path / "truth.parquet"
    done = eventmill(
        "generate",
        "--events",
        "300",
        "--url",
        "http://127.0.0.1:1",
        "--give-up",
        "50ms",
        "--truth",
        str(truth),
        "--json",
    )
    assert done.returncode == 2
    assert "3 of 3 requests got no answer" in done.stderr.decode()
    report = json.loads(done.stdout)
    assert (report["requests"], report["acked"], report["unknown"]) == (3, 0, 3)
    assert set(TruthFile(truth).read().column("outcome").to_pylist()) == {"unknown"}
