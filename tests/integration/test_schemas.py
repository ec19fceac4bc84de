"""Schemas on a running service: a folder, a real registry that goes and comes, the commands."""

from __future__ import annotations

import orjson
import pytest
from tests.needs import had

from eventmill.core.config import SchemasConfig
from eventmill.core.errors import ConfigError, SchemaError
from eventmill.process.schemas.sources import FolderSource, Reference, RegistrySource
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
    assert "BACKWARD" not in (source.refusal("Order Completed", schema()) or "")
    assert "compatibility mode" in source.refusal("Order Completed", schema(minimum=5))
    assert source.refusal("Never Seen", schema(minimum=5)) is None
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
    # The next version refers to what the newest one does, unless it is told otherwise; what is not there is told.
    closed = {**referring, "additionalProperties": False}
    assert source.publish("refund", closed).references == {"money.json": money}
    client.register_schema("money", Schema(orjson.dumps({**money, "minimum": -1}).decode(), "JSON"))
    loose = source.publish("refund", {**closed, "maxProperties": 9}, {"money.json": Reference("money", 2)})
    assert (loose.version, loose.references["money.json"]["minimum"]) == ("3", -1)
    with pytest.raises(SchemaError):
        source.publish("return", referring)
    with pytest.raises(SchemaError, match="money"):
        source.references("refund", closed, {"money.json": Reference("money", 77)})


def test_an_old_and_a_new_version_live_side_by_side_and_a_check_tells_what_the_next_one_breaks(
    serve, registry, tmp_path
):
    settings = {
        "EVENTMILL_SCHEMAS__REGISTRY": registry.url, "EVENTMILL_SCHEMAS__SUBJECT": "shop.{event}",
        "EVENTMILL_SCHEMAS__REFRESH_INTERVAL": "100ms",
    }  # fmt: skip
    server = serve(**settings)
    data = ("--data", str(server.data))

    def run(verb, document, *more, code=0):
        file = tmp_path / "schema.json"
        file.write_bytes(orjson.dumps(document))
        done = eventmill("schema", verb, str(file), "--event", "purchase", *data, *more, **settings)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout

    first = schema(minimum=0)
    second = {
        **first,
        "required": ["price", "coupon"],
        "properties": {**first["properties"], "coupon": {"type": "string"}},
    }
    source = RegistrySource(SchemasConfig(registry=registry.url, subject="shop.{event}"))
    source.publish("purchase", first)
    source.publish("purchase", second)
    number = iter(range(100, 10_000))

    def both_in_force():
        send(server, event(next(number), -1, schemaVersion=1), event(next(number), 1, schemaVersion=2))
        return server.engine("GET", "/v1/audit")["dead_reasons"].get("schema", 0) >= 2

    eventually(both_in_force)
    stored = len(ids(server))
    before = server.engine("GET", "/v1/audit")["dead"]
    send(
        server, event(1, 1, schemaVersion=1), event(2, 2, schemaVersion=1), event(3, 3, coupon="SPRING", schemaVersion=2),
        event(4, 4, coupon="MAY"), event(5, 5), event(6, -6, schemaVersion=1), event(7, 7, schemaVersion=3),
    )  # fmt: skip
    # Without a version the newest counts; the one that nobody knows is accepted.
    assert len(ids(server)) == stored + 5
    assert server.engine("GET", "/v1/audit")["dead"] == before + 2
    day = {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "event": "purchase", "interval": "day"}
    trends = {**day, "measure": "sum:properties.price", "breakdown": "properties.coupon"}
    status, body = server.post("/v1/query/trends", trends)
    assert status == 200, body
    assert {(row[1], row[2]) for row in body["rows"]} >= {("SPRING", 3.0), ("MAY", 4.0)}
    saved = {"kind": "trends", "query": trends}
    assert server.request("PUT", "/v1/saved/coupons", orjson.dumps(saved))[0] == 201
    third = {**first, "additionalProperties": False, "properties": {"price": {"type": "string"}}}
    source.set_compatibility("purchase", "FULL")
    report = orjson.loads(run("check", third, "--json", code=1))
    assert report["columns"] == [
        "properties.coupon may not be there any more", "properties.price was number, and may be string",
    ]  # fmt: skip
    assert [(query["name"], query["why"]) for query in report["queries"]] == [("coupons", report["columns"])]
    assert "'shop.purchase'" in report["refusal"]


def test_while_the_registry_is_down_events_are_accepted_and_flagged_and_judged_when_it_is_back(serve, registry):
    RegistrySource(SchemasConfig(registry=registry.url)).publish("purchase", schema())
    registry.kill()
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
    registry.kill()
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
    # The first version of another event may refer to it too.
    fresh = FolderSource(tmp_path / "schemas")
    assert fresh.publish("return", {"$ref": "_shared/money.json"}).references == {
        "_shared/money.json": {"type": "number"}
    }
    with pytest.raises(SchemaError, match=r"nowhere\.json"):
        fresh.publish("return", {"$ref": "_shared/nowhere.json"})
    with pytest.raises(ConfigError, match="--reference"):
        fresh.publish("return", {}, {"money.json": Reference("money", 1)})
    (tmp_path / "schemas" / "broken.json").write_text("{")
    with pytest.raises(SchemaError, match=r"broken\.json"):
        source.fetch()
