"""Forgetting and exporting where the log's topics cannot be changed, and others write into raw too."""

from __future__ import annotations

import orjson
from confluent_kafka import Producer

from eventmill.core.schema import Topic
from serving import eventmill, eventually

MINE, OTHER = "u mine", "u other"


def event(number, user, **more):
    return {
        "type": "track", "event": "seen", "messageId": f"m{number}", "userId": user, "anonymousId": "a shared device",
        "timestamp": f"2026-11-22T10:{number:02d}:00.250Z", **more,
    }  # fmt: skip


def batch(first, **more):
    """Ten events, of both in turn."""
    return [event(number, MINE if number % 2 else OTHER, **more) for number in range(first, first + 10)]


def foreign(house, *events):
    """Messages of others in raw, keyed by nothing."""
    producer = Producer({"bootstrap.servers": house.kafka.bootstrap})
    topic = f"{house.config.log.prefix}.{Topic.RAW}"
    for each in events:
        producer.produce(topic, orjson.dumps(each), partition=0)
    assert producer.flush(60) == 0


def users(house):
    """How many events of each the real-time store and the lake have."""
    sql = {"query": "SELECT user_id, count() FROM all_events GROUP BY user_id ORDER BY user_id"}
    return dict(house.ask("sink", "POST", "/v1/query/sql", sql)["rows"])


def forgotten(house):
    """By store, once everything is stored and the ledger balances."""
    stores = house.settle()["stores"]
    return [stores[store]["forgotten"] for store in ("realtime", "lake")]


def test_a_user_is_gone_from_both_stores_and_what_the_topics_keep_does_not_come_back(house, tmp_path):
    house.start()
    for _ in range(2):
        house.ask("ingest", "POST", "/v1/batch", {"batch": batch(0)})
    foreign(house, *batch(20), event(40, MINE, event=7), event(41, OTHER, event=7))
    eventually(lambda: house.settle()["received"] == 32)
    assert users(house) == {MINE: 10, OTHER: 10}
    export = ("export", "--user", MINE, "--out", tmp_path / "mine.ndjson", "--json")
    assert orjson.loads(house.command(*export)) == {"events": 10, "dead_letters": 1}

    wanted = ("forget", "--user", MINE, "--json")
    there = orjson.loads(house.command(*wanted, "--dry-run"))
    # An event of others stands in raw once more, where its device belongs, unless it came there at once.
    raw = there["topics"].pop("raw")["events"]
    assert raw in (15, 20)
    assert there["topics"]["enriched"]["events"] == 10
    assert there["topics"]["dead"] == {"frames": 1, "events": 1}
    receipt = orjson.loads(house.command(*wanted))
    assert (receipt["realtime"]["rows"], receipt["lake"]["rows"]) == (10, 10)
    assert {"raw", "enriched", "dead"} <= set(receipt["left_to_retention"])
    assert users(house) == {OTHER: 10}
    assert forgotten(house) == [10, 10]
    assert orjson.loads(house.command(*export)) == {"events": 0, "dead_letters": 1}

    # Neither a phone nor another producer that sends it again, nor a replay of what the topics keep.
    assert house.ask("ingest", "POST", "/v1/batch", {"batch": batch(50)})["accepted"] == 10
    foreign(house, *batch(0))
    named = ("--patch", '.event = "mended"')
    assert orjson.loads(house.command("replay", "--dead", *named, "--json"))["replayed"] == 1
    # Those of before pass the filter after all: their twins are in the store no more.
    eventually(lambda: forgotten(house) == [20, 20])
    assert users(house) == {OTHER: 16}
    fresh = tmp_path / "fresh"
    house.command("replay", "--raw", "--since", "1h", "--into", fresh)
    anew = orjson.loads(eventmill("audit", "--data", str(fresh), "--json").stdout)
    assert anew["balanced"], anew
    assert anew["stores"]["lake"]["stored"] == 16
    assert orjson.loads(house.command("replay", "--dead", "--json"))["read"] == 0
