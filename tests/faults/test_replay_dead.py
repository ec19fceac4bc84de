"""Dead letters put back: mended, exactly once, with their ids and times."""

from __future__ import annotations

from collections import Counter

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from eventmill.core import frame, groups
from eventmill.core.config import Config, DedupConfig
from eventmill.core.errors import ConfigError, StateError
from eventmill.core.redact import REDACTED, Redaction
from eventmill.core.schema import DEAD, EVENT, Flag, Hop, Topic
from eventmill.log.local import LocalLog
from eventmill.process.pipeline import Processor, build_stages
from eventmill.process.replay import Patch, Rules, Wanted, replay_dead
from eventmill.process.rescue import Rescue
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.ruling import Ruling
from eventmill.process.schemas.sets import SchemaSet
from schema_events import START_MS, Given, append, everything, price, raw

CONFIG = Config(dedup=DedupConfig(capacity=10_000))
STRICT = SchemaSet.of([price("1", minimum=0)])


class Stored:
    """The store's look-up, answered from what the processor has put out."""

    def __init__(self, log):
        self.log = log

    def contains(self, ids, events, timestamps):
        stored = frame.decode_all(self.log.read(Topic.ENRICHED, 0, 0, events_max=1 << 40), EVENT)
        return pc.is_in(ids, value_set=pa.array(stored.column("event_id")))


class House:
    """Log, processor, sink and rescue."""

    def __init__(self, folder, schemas=STRICT):
        self.redaction = Redaction(["properties.email", "context.ip"])
        self.log = LocalLog(folder / "log")
        self.book = SchemaBook(self.log, Given(schemas), refresh_s=3600)
        self.book.refresh()
        self.processor = Processor(
            self.log, lambda: build_stages(CONFIG, self.book), folder / "state", batch_events_max=1_000,
            snapshot_interval_events=10**9, book=self.book, redaction=self.redaction,
        )  # fmt: skip
        self.processor.recover()
        self.rescue = Rescue(self.log, Stored(self.log), batch_events_max=1_000)

    def run(self):
        moved = 1
        while moved:
            moved = self.processor.step(0)
            with self.log.transaction() as transaction:
                transaction.commit_offset(groups.REALTIME, Topic.ENRICHED, 0, self.log.end_offset(Topic.ENRICHED, 0))
            moved += self.rescue.step(0.001)

    def replay(self, wanted=None, *, schemas=STRICT, patch=None, dry_run=False):
        rules = Rules(
            CONFIG.ingest, CONFIG.http, (), Ruling(schemas), None if patch is None else Patch(patch), self.redaction
        )
        return replay_dead(self.log, rules, wanted or Wanted(), dry_run=dry_run)

    def stored(self):
        return everything(self.log, Topic.ENRICHED, EVENT)

    def dead(self):
        """What the group has still before it."""
        position = self.log.committed(groups.REPLAY, Topic.DEAD, 0)
        return frame.decode_all(self.log.read(Topic.DEAD, 0, position, events_max=1 << 40), DEAD).to_pylist()

    def balance(self):
        """Received less what is accounted for."""
        hops = Counter()
        for count in self.log.ledger():
            hops[count.hop] += count.events
        return hops[Hop.RECEIVED] - len(self.stored()) - hops[Hop.DUPLICATE] - (hops[Hop.INVALID] - hops[Hop.REPLAYED])


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    house.processor.close()
    house.log.close()


def purchases(first, *prices, **rest):
    return raw(*(("purchase", {"price": value}) for value in prices), first=first, **rest)


def test_mended_by_a_patch_each_comes_back_once_with_its_id_and_times(house):
    append(house.log, purchases(0, 1, "2.5", "3", "x"))
    house.run()
    before = house.dead()
    report = house.replay(patch='.properties.price |= tonumber | .messageId = "other" | .originalTimestamp = null')
    house.run()
    assert (report.read, report.replayed, report.still_dead, report.skipped) == (3, 2, 1, 0)
    rows = {row["message_id"]: row for row in house.stored()}
    assert sorted(rows) == ["m0", "m1", "m2"]
    assert [orjson.loads(rows[name]["properties"])["price"] for name in ("m1", "m2")] == [2.5, 3]
    for name in ("m1", "m2"):
        row = rows[name]
        assert row["received_at"] == before[0]["received_at"]
        assert row["original_timestamp"] == rows["m0"]["original_timestamp"]
        assert row["timestamp"] == rows["m0"]["timestamp"]
        assert row["flags"] & Flag.REPLAYED
    (still,) = house.dead()
    assert still["payload"] == before[2]["payload"]
    assert house.balance() == 0
    again = house.replay(patch=".properties.price |= tonumber")
    house.run()
    assert (again.read, again.replayed, len(house.stored())) == (1, 0, 3)
    assert house.balance() == 0


def test_a_letter_whose_event_has_come_in_otherwise_is_not_stored_twice(house):
    """The client sent it again while it was dead, and then a mended one under the same id."""
    append(house.log, purchases(0, "7"), purchases(0, "7"), purchases(0, 7))
    house.run()
    report = house.replay(patch=".properties.price |= tonumber")
    house.run()
    assert report.replayed >= 1
    assert [row["message_id"] for row in house.stored()] == ["m0"]
    assert house.balance() == 0


def test_letters_put_back_past_the_filter_would_be_doubled_and_this_test_would_see_it(house):
    """Negative control: replayed events that pass the filter as those of the rescue lane do."""
    append(house.log, purchases(0, "7"), purchases(0, 7))
    house.run()
    house.replay(patch=".properties.price |= tonumber")
    batch = frame.decode_all(
        house.log.read(Topic.RAW, 0, house.log.end_offset(Topic.RAW, 0) - 1, events_max=9), raw(("a", {})).schema
    )
    place = batch.schema.get_field_index("flags")
    flags = pa.array(batch.column("flags").to_numpy() | int(Flag.RESCUED), pa.int32())
    append(house.log, batch.set_column(place, batch.schema.field(place), flags))
    house.run()
    assert len(house.stored()) > 1


def test_letters_are_grouped_by_cause_and_chosen_by_cause_reason_event_and_time(house):
    append(
        house.log,
        purchases(0, "x", "y", -1),
        purchases(10, "z", at=START_MS + 3_600_000),
        raw(("purchase", {}), first=20),
    )
    house.run()
    whole = house.replay(dry_run=True).as_dict()
    assert [(cause["rule"], cause["path"], cause["read"]) for cause in whole["causes"]] == [
        ("type", "/price", 3), *sorted([("minimum", "/price", 1), ("required", "", 1)],
                                       key=lambda one: next(c["fingerprint"] for c in whole["causes"] if c["rule"] == one[0])),
    ]  # fmt: skip
    minimum = next(cause["fingerprint"] for cause in whole["causes"] if cause["rule"] == "minimum")
    assert house.replay(Wanted(fingerprints=frozenset([minimum])), dry_run=True).read == 5
    for wanted, asked in [
        (Wanted(fingerprints=frozenset([minimum])), 1),
        (Wanted(since_ms=START_MS + 1_000), 1),
        (Wanted(reasons=frozenset(["schema"])), 5),
        (Wanted(reasons=frozenset(["too_deep"])), 0),
        (Wanted(events=frozenset(["purchase"])), 5),
        (Wanted(events=frozenset(["other"])), 0),
    ]:
        assert house.replay(wanted, dry_run=True).skipped == 5 - asked


def test_a_dry_run_against_a_new_schema_says_what_a_replay_then_does_and_changes_nothing(house):
    append(house.log, purchases(0, "x", -1, -2))
    house.run()
    lenient = SchemaSet.of([price("1", minimum=0), price("2")])
    before = house.log.end_offset(Topic.DEAD, 0), house.log.end_offset(Topic.RAW, 0), house.log.ledger()
    tried = house.replay(schemas=lenient, dry_run=True)
    assert (tried.replayed, tried.still_dead) == (2, 1)
    assert (house.log.end_offset(Topic.DEAD, 0), house.log.end_offset(Topic.RAW, 0), house.log.ledger()) == before
    house.book._source.schemas = lenient
    house.book.refresh()
    assert house.replay(schemas=lenient).replayed == 2
    house.run()
    assert sorted(row["message_id"] for row in house.stored()) == ["m1", "m2"]
    assert [row["schema"] for row in house.dead()] == ["id-2@2"]
    assert house.balance() == 0


def test_broken_off_before_its_commit_a_replay_has_done_nothing(house):
    append(house.log, purchases(0, "1", "2"))
    house.run()
    real = house.log.transaction

    class Torn(Exception):
        pass

    def transaction():
        context = real()

        class Wrapped:
            def __enter__(self):
                return context.__enter__()

            def __exit__(self, *_):
                error = Torn()
                context.__exit__(Torn, error, None)
                raise error

        return Wrapped()

    house.log.transaction = transaction
    with pytest.raises(Torn):
        house.replay(patch=".properties.price |= tonumber")
    house.log.transaction = real
    assert house.replay(patch=".properties.price |= tonumber").replayed == 2
    house.run()
    assert len(house.stored()) == 2
    assert house.balance() == 0


def test_two_replays_at_once_are_one_and_an_error(house):
    append(house.log, purchases(0, "1"))
    house.run()
    append(house.log, purchases(5, 5))
    real, ran = house.log.transaction, []

    def transaction():
        if not ran:
            ran.append(house.replay.__func__)
            house.replay(patch=".properties.price |= tonumber")
        return real()

    house.log.transaction = transaction
    with pytest.raises(StateError, match="another replay"):
        house.replay(patch=".properties.price |= tonumber")
    house.log.transaction = real
    house.run()
    assert sorted(row["message_id"] for row in house.stored()) == ["m0", "m5"]


def test_an_expression_that_is_none_is_an_error_and_one_that_fails_mends_nothing(house):
    with pytest.raises(ConfigError, match="jq"):
        Patch(".properties |")
    append(house.log, purchases(0, "x"))
    house.run()
    for expression in ("error", "empty", ".properties", ".,.", ".properties.price.a.b"):
        assert house.replay(patch=expression, dry_run=True).still_dead == 1


def test_a_redacted_letter_comes_back_as_it_was_while_raw_has_it_and_redacted_later(house):
    def sent(first, price):
        return raw(("purchase", {"price": price, "email": "a@b.de"}), first=first)

    append(house.log, sent(0, "1"), sent(1, "2"), sent(2, "x"))
    house.run()
    assert [b"a@b.de" in row["payload"] for row in house.dead()] == [False] * 3
    assert [row["redacted"] for row in house.dead()] == [True] * 3
    report = house.replay(patch=".properties.price |= tonumber")
    house.run()
    assert (report.replayed, report.still_dead) == (2, 1)
    assert [orjson.loads(row["properties"])["email"] for row in house.stored()] == ["a@b.de"] * 2
    (still,) = house.dead()
    assert (still["redacted"], orjson.loads(still["payload"])["properties"]["email"]) == (True, "[redacted]")
    append(house.log, raw(("other", {})))
    house.run()
    for group in (groups.SNAPSHOT, groups.REALTIME):
        with house.log.transaction() as transaction:
            for topic in (Topic.RAW, Topic.ENRICHED):
                transaction.commit_offset(group, topic, 0, house.log.end_offset(topic, 0))
    house.log.trim(Topic.RAW, 0, 1 << 62)
    assert house.log.start_offset(Topic.RAW, 0) > still["raw_offset"]
    assert house.replay(patch=".properties.price = 3").replayed == 1
    house.run()
    assert orjson.loads(house.stored()[-1]["properties"])["email"] == REDACTED
