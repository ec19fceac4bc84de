"""Schemas change while events pass; whatever breaks off, a fold judges each event as the first run did."""

from __future__ import annotations

import pytest

from eventmill.core import groups
from eventmill.core.config import Config, DedupConfig
from eventmill.core.schema import DEAD, EVENT, Flag, Topic
from eventmill.log.local import LocalLog
from eventmill.process.dedup import Dedup, build_filter
from eventmill.process.pipeline import Processor, build_stages
from eventmill.process.schemas.book import SchemaBook, epochs
from eventmill.process.schemas.sets import SchemaSet
from schema_events import Given, append, everything, price, raw

CONFIG = Config(dedup=DedupConfig(capacity=10_000))


class Broken(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def log(tmp_path):
    log = LocalLog(tmp_path / "log")
    yield log
    log.close()


def start(log, folder, source, checkpoint=lambda _: None):
    book = SchemaBook(log, source, refresh_s=3600)
    book.refresh()

    def stages():
        return [Dedup(build_filter(CONFIG.dedup, secret=b"the same in each")), *build_stages(CONFIG, book)[1:]]

    one = Processor(
        log, stages, folder, batch_events_max=1_000, snapshot_interval_events=10**9, book=book, checkpoint=checkpoint
    )
    one.recover()
    return one, book


def run(one):
    while one.step(0):
        pass


def outcome(log):
    events = [(row["message_id"], row["session_id"], row["flags"]) for row in everything(log, Topic.ENRICHED, EVENT)]
    dead = [(row["event_id"], row["schema"], row["path"], row["rule"]) for row in everything(log, Topic.DEAD, DEAD)]
    return events, dead


def purchases(first, *prices, **rest):
    return raw(*(("purchase", {"price": value}) for value in prices), first=first, **rest)


def test_bad_events_become_dead_letters_with_path_rule_schema_and_offset(log, tmp_path):
    append(log, raw(("other", {"price": "x"})), purchases(1, 5, "x"), raw(("purchase", {}), first=3))
    one, _ = start(log, tmp_path / "state", Given(SchemaSet.of([price("1", minimum=0)])))
    run(one)
    assert [row["message_id"] for row in everything(log, Topic.ENRICHED, EVENT)] == ["m0", "m1"]
    dead = everything(log, Topic.DEAD, DEAD)
    assert [(row["reason"], row["stage"], row["event"], row["schema"], row["path"], row["rule"], row["raw_offset"])
            for row in dead] == [
        ("schema", "validate", "purchase", "id-1@1", "/price", "type", 1),
        ("schema", "validate", "purchase", "id-1@1", "", "required", 2),
    ]  # fmt: skip
    assert b'"messageId":"m2"' in dead[0]["payload"]


def sessions_seen(one):
    """Devices that have an open session: their next event belongs to it, and has not the id of one that begins then."""
    sessionize = one._state._stages[-1]
    enrich = one._state._stages[-2]
    devices = [0, 1, 10, 11, 12, 20, 21, 22, 30, 31]

    def ids(events):
        return sessionize.apply(enrich.apply(events).events).events.column("session_id").to_pylist()

    later = [ids(raw(("other", {}), first=device, minute=20))[0] for device in devices]
    enrich, sessionize = build_stages(CONFIG)[-2:]
    begun = [ids(raw(("other", {}), first=device, minute=20))[0] for device in devices]
    return {device for device, one_id, own_id in zip(devices, later, begun, strict=True) if one_id != own_id}


def scenario(log, one, source, book):
    """Three epochs: no schema; a lenient one; a strict one. The second batch of each is sessionized after the first."""
    append(log, purchases(0, -5, "x"))
    run(one)
    source.schemas = SchemaSet.of([price("1")])
    book.refresh()
    append(log, purchases(10, -5, "x", 7))
    run(one)
    source.schemas = SchemaSet.of([price("1"), price("2", minimum=0)])
    book.refresh()
    append(log, purchases(20, -5, "x", 7), purchases(30, -1, 2))
    run(one)


def test_each_event_is_judged_by_the_schemas_in_force_at_its_offset_also_when_folded_again(log, tmp_path):
    source = Given()
    one, book = start(log, tmp_path / "state", source)
    scenario(log, one, source, book)
    expected = outcome(log)
    assert [row[0] for row in expected[0]] == ["m0", "m1", "m10", "m12", "m22", "m31"]
    assert [(row[1], row[3]) for row in expected[1]] == [
        ("id-1@1", "type"), ("id-2@2", "minimum"), ("id-2@2", "type"), ("id-2@2", "minimum"),
    ]  # fmt: skip
    assert [epoch.from_offset for epoch in epochs(log)] == [1, 2]
    one.close()
    # By then the source has other schemas, and later none can be had: neither changes what was.
    for other in (SchemaSet.of([price("9", maximum=-100)]), None):
        again, _ = start(log, tmp_path / "anew", Given(other))
        assert sessions_seen(again) == {0, 1, 10, 12, 22, 31}
        again.close()


def test_a_fold_by_todays_schemas_would_differ_and_this_test_would_see_it(log, tmp_path):
    """Negative control: without the records events that were accepted are missing in the sessions."""
    source = Given()
    one, book = start(log, tmp_path / "state", source)
    scenario(log, one, source, book)
    one.close()
    again, forgetful = start(log, tmp_path / "anew", Given())
    forgetful.recover = forgetful.turn_to = lambda *_: None
    again.recover()
    assert sessions_seen(again) == {12, 22, 31}
    again.close()


@pytest.mark.parametrize("point", ["processed", "produced", "offsets sent", "committed"])
def test_a_change_broken_off_counts_only_when_committed(log, tmp_path, point):
    source = Given(SchemaSet.of([price("1")]))
    one, _ = start(log, tmp_path / "state", source)
    append(log, purchases(0, -5, "x"))
    run(one)
    one.close()
    append(log, purchases(10, -5, "x", 7))

    def checkpoint(name):
        if name == point:
            raise Broken(name)

    source.schemas = SchemaSet.of([price("2", minimum=0)])
    broken, _ = start(log, tmp_path / "state", source, checkpoint)
    with pytest.raises(Broken):
        broken.step(0)
    broken.close()
    # What comes up instead finds the source as it was before.
    one, _ = start(log, tmp_path / "state", Given(SchemaSet.of([price("1")])))
    run(one)
    one.close()
    committed = point == "committed"
    assert len(epochs(log)) == (2 if committed else 1)
    kept = [row[0] for row in outcome(log)[0]]
    assert kept == (["m0", "m12"] if committed else ["m0", "m10", "m12"])


def test_out_of_reach_events_are_accepted_and_flagged_and_known_schemas_stay_in_force(log, tmp_path):
    source = Given(None)
    one, book = start(log, tmp_path / "state", source)
    append(log, purchases(0, 1, "x"))
    run(one)
    assert book.unjudged == 2
    source.schemas = SchemaSet.of([price("1")])
    book.refresh()
    append(log, purchases(10, 1, "x"))
    run(one)
    source.schemas = None
    assert not book.refresh()
    append(log, purchases(20, 1, "x"))
    run(one)
    one.close()
    events, dead = outcome(log)
    flagged = [name for name, _, flags in events if flags & Flag.SCHEMA_UNKNOWN]
    assert (flagged, [row[0] for row in events], len(dead)) == (["m0", "m1"], ["m0", "m1", "m10", "m20"], 2)


def test_versions_live_side_by_side(log, tmp_path):
    """By what an event declares, in any spelling, else the newest; an unknown version is flagged."""
    one, _ = start(
        log, tmp_path / "state", Given(SchemaSet.of([price("1"), price("2", minimum=0), price("10", minimum=9)]))
    )
    declared = [{"schemaVersion": version} for version in (1, "1", 2, "2", "\u0032", 3, None, 1.5)]
    for number, context in enumerate(declared):
        append(log, purchases(number * 10, -1, 5, 10, context=context))
    append(log, raw(("purchase", {"price": -1, "schemaVersion": 1}), first=100))
    append(log, raw(("purchase", {"price": -1, "schemaVersion": 2}), first=101, context={"schemaVersion": 1}))
    append(log, raw(("purchase", {"price": -1, "more": {"schemaVersion": 1}}), first=102))
    run(one)
    one.close()
    events, _ = outcome(log)
    kept = [name for name, _, _ in events]
    assert kept == [
        "m0", "m1", "m2", "m10", "m11", "m12", "m21", "m22", "m31", "m32", "m41", "m42", "m50", "m51", "m52", "m62",
        "m70", "m71", "m72", "m100", "m101",
    ]  # fmt: skip
    assert [name for name, _, flags in events if flags & Flag.SCHEMA_UNKNOWN] == [
        "m50",
        "m51",
        "m52",
        "m70",
        "m71",
        "m72",
    ]


def test_without_schemas_a_batch_goes_through_untouched(log, tmp_path):
    one, book = start(log, tmp_path / "state", Given())
    append(log, purchases(0, 1))
    run(one)
    assert book.current is None
    assert log.end_offset(Topic.SCHEMAS, 0) == 0
    batch = raw(("purchase", {}))
    (validate,) = [stage for stage in one._state._stages if stage.name == "validate"]
    assert validate.apply(batch).events is batch
    assert log.committed(groups.PROCESS, Topic.RAW, 0) == 1
    one.close()
