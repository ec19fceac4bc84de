"""Schemas on a running service: a folder, a real registry that goes and comes, the commands."""

from __future__ import annotations

import orjson
import pytest
from tests.needs import had

from eventmill.core.config import SchemasConfig
from eventmill.core.errors import SchemaError
from eventmill.process.schemas.sources import FolderSource, RegistrySource
from serving import eventmill, eventually
from testbed.registry import Registry

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


PRICES = {"from": "2020-01-01", "to": "2040-01-01", "interval": "day", "measure": "sum:properties.price"}


def schema(**rules):
    return {
        "$schema": DRAFT_7,
        "type": "object",
        "required": ["price"],
        "properties": {"price": {"type": "number", **rules}},
    }


def event(number, price, **properties):
    return {
        "type": "track", "event": "purchase", "userId": "u", "messageId": f"m{number}",
        "properties": {"price": price, **properties},
    }  # fmt: skip


def send(server, *events):
    assert server.post("/v1/batch", {"batch": events})[0] == 200
    server.flush()


def ids(server, condition="1"):
    return [row[0] for row in server.sql(f"SELECT message_id FROM events WHERE {condition} ORDER BY message_id")]


@pytest.fixture(scope="module")
def registry():
    server = had(lambda: Registry().__enter__())
    yield server
    server.close()


def test_a_folder_of_schemas_changes_beside_the_running_service(serve, tmp_path):
    server = serve(EVENTMILL_SCHEMAS__REFRESH_INTERVAL="100ms")
    send(server, event(1, "x"))
    data = ("--data", str(server.data))
    file = tmp_path / "schema.json"
    file.write_bytes(orjson.dumps(schema(minimum=0)))
    checked = eventmill("schema", "check", str(file), "--event", "purchase", *data, "--json")
    report = orjson.loads(checked.stdout)
    assert (checked.returncode, report["events"], report["rejected"]) == (1, 1, 1)
    assert [(rule["rule"], rule["events"]) for rule in report["rules"]] == [("/price: type", 1)]
    published = eventmill("schema", "publish", str(file), "--event", "purchase", *data)
    assert published.stdout == b"purchase version 1 (purchase/1.json)\n"
    listed = orjson.loads(eventmill("schema", "list", *data, "--json").stdout)
    assert [(row["event"], row["version"]) for row in listed] == [("purchase", "1")]

    number = iter(range(100, 10_000))

    def refused():
        send(server, event(next(number), -1))
        return server.engine("GET", "/v1/audit")["dead_reasons"].get("schema")

    eventually(refused)
    send(server, event(2, 5, coupon="SPRING"))
    # One that a schema declares as a number has a column, which is rolled up.
    eventually(lambda: "p_price" in server.post("/v1/query/trends?explain=1", PRICES)[1]["sql"])
    assert server.sql("SELECT p_price FROM events WHERE message_id = 'm2'") == [[5.0]]
    assert server.sql("SELECT sum(events), sum(value_count) FROM numbers_1d WHERE property = 'price'") == [
        [len(ids(server)), len(ids(server, "JSONExtract(properties, 'price', 'Nullable(Float64)') IS NOT NULL"))]
    ]
    # A property that no schema names is in queries at once.
    assert server.sql("SELECT JSONExtractString(properties, 'coupon') FROM events WHERE message_id = 'm2'") == [
        ["SPRING"]
    ]
    stored = len(ids(server))
    file.write_bytes(orjson.dumps(schema()))
    dry = orjson.loads(
        eventmill("replay", "--dead", "--dry-run", "--schema", str(file), "--event", "purchase", *data, "--json").stdout
    )
    assert dry["replayed"] == dry["read"] > 0
    assert dry["causes"][0]["rule"] == "minimum"
    unchanged = orjson.loads(eventmill("replay", "--dead", *data, "--json").stdout)
    assert unchanged["replayed"] == 0
    patched = eventmill(
        "replay",
        "--dead",
        "--reason",
        "schema",
        "--since",
        "1h",
        "--patch",
        ".properties.price |= fabs",
        *data,
        "--json",
    )
    assert orjson.loads(patched.stdout)["replayed"] == dry["read"]
    server.flush()
    assert len(ids(server)) == stored + dry["read"]
    assert server.engine("GET", "/v1/audit")["balanced"]
    assert server.stop() == 0
    backfilled = eventmill("replay", "--raw", "--since", "1h", "--into", str(tmp_path / "fresh"), *data, "--json")
    assert orjson.loads(backfilled.stdout)["events"] > 0, backfilled.stderr
    audit = orjson.loads(eventmill("audit", "--data", str(tmp_path / "fresh"), "--json").stdout)
    # The first event was accepted before there was a schema; it is judged by today's.
    assert audit["balanced"]
    assert audit["stores"]["realtime"]["stored"] == stored - 1 + dry["read"]
    again = eventmill("replay", "--raw", "--into", str(tmp_path / "fresh"), *data)
    assert again.returncode == 2
    assert b"not empty" in again.stderr


def test_a_registry_gives_versions_references_and_modes(registry):
    from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

    source = RegistrySource(SchemasConfig(registry=registry.url, subject="app.{event}"))
    client = SchemaRegistryClient({"url": registry.url})
    client.register_schema("elsewhere", Schema(orjson.dumps(schema()).decode(), "JSON"))
    first = source.publish("Order Completed", schema(minimum=0))
    assert (first.event, first.version) == ("Order Completed", "1")
    assert source.publish("Order Completed", schema(minimum=0)) == first
    source.set_compatibility("Order Completed", "BACKWARD")
    with pytest.raises(SchemaError, match="409"):
        source.publish("Order Completed", schema(minimum=5))
    assert source.publish("Order Completed", schema()).version == "2"
    with pytest.raises(SchemaError, match="BACKWARD_TRANSITIVE"):
        source.set_compatibility("Order Completed", "SIDEWARD")
    money = {"$schema": DRAFT_7, "type": "number", "minimum": 0}
    client.register_schema("money", Schema(orjson.dumps(money).decode(), "JSON"))
    referring = {"$schema": DRAFT_7, "properties": {"price": {"$ref": "money.json"}}}
    client.register_schema(
        "app.refund", Schema(orjson.dumps(referring).decode(), "JSON", [SchemaReference("money.json", "money", 1)])
    )
    found = source.fetch()
    assert [(one.event, one.version) for one in found.schemas] == [
        ("Order Completed", "1"), ("Order Completed", "2"), ("refund", "1"),
    ]  # fmt: skip
    assert found.newest("refund").references == {"money.json": money}
    assert found.digest == source.fetch().digest


def test_while_the_registry_is_down_events_are_accepted_and_flagged_and_judged_when_it_is_back(serve, registry):
    RegistrySource(SchemasConfig(registry=registry.url)).publish("purchase", schema())
    registry.stop()
    server = serve(EVENTMILL_SCHEMAS__REGISTRY=registry.url, EVENTMILL_SCHEMAS__REFRESH_INTERVAL="100ms")
    send(server, event(1, 1), event(2, "x"))
    assert ids(server, "bitAnd(flags, 1024) != 0") == ["m1", "m2"]
    for begin in (10_000, 12_000, 14_000, 16_000):  # more than one statement could name one by one
        send(server, *(event(number, 1) for number in range(begin, begin + 2_000)))
    assert b"eventmill_schemas_reached" in server.request("GET", "/metrics")[1]
    registry.start()
    RegistrySource(SchemasConfig(registry=registry.url)).publish("purchase", schema())
    number = iter(range(100, 10_000))

    def refused():
        send(server, event(next(number), "x"))
        return server.engine("GET", "/v1/audit")["dead_reasons"].get("schema")

    eventually(refused)
    flagged = ids(server, "bitAnd(flags, 1024) != 0")
    report = server.engine("POST", "/v1/compact")
    assert report["schemas_known"] == len(flagged)
    assert ids(server, "bitAnd(flags, 1024) != 0") == []
    assert "m2" in ids(server, "bitAnd(flags, 2048) != 0")
    assert "m1" in ids(server, "bitAnd(flags, 3072) = 0")
    lake = dict(server.sql("SELECT message_id, flags FROM lake.events"))
    assert (lake["m1"] & 3072, lake["m2"] & 3072) == (0, 2048)
    assert not [flags for flags in lake.values() if flags & 1024]
    # What is known stays in force when the registry goes again.
    registry.stop()
    send(server, event(3, "x"), event(4, 4))
    assert [name for name in ids(server) if name in ("m3", "m4")] == ["m4"]
    assert server.engine("GET", "/v1/audit")["balanced"]


def test_a_folder_has_versions_shared_documents_and_any_event_name(tmp_path):
    source = FolderSource(tmp_path / "schemas")
    assert source.fetch().schemas == ()
    assert source.publish("../etc/passwd", schema()).version == "1"
    assert source.publish("_private", schema()).event == "_private"
    assert source.publish("a b/c", schema()).event == "a b/c"
    assert source.publish("a b/c", schema()).version == "1"
    assert source.publish("a b/c", schema(minimum=1)).version == "2"
    assert {path.parent.parent for path in (tmp_path / "schemas").rglob("*.json")} == {tmp_path / "schemas"}
    shared = tmp_path / "schemas" / "_shared"
    shared.mkdir()
    (shared / "money.json").write_bytes(orjson.dumps({"type": "number"}))
    (tmp_path / "schemas" / "refund.json").write_bytes(
        orjson.dumps({"properties": {"price": {"$ref": "_shared/money.json"}}})
    )
    found = FolderSource(tmp_path / "schemas").fetch()
    assert list(found.by_event) == ["../etc/passwd", "_private", "a b/c", "refund"]
    assert list(found.by_event["a b/c"]) == ["1", "2"]
    assert found.newest("refund").references == {"_shared/money.json": {"type": "number"}}
    (tmp_path / "schemas" / "broken.json").write_text("{")
    with pytest.raises(SchemaError, match=r"broken\.json"):
        source.fetch()
