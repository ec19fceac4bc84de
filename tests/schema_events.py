"""Raw events with properties, a log to put them on, and schemas that come and go."""

from __future__ import annotations

from typing import Any

import orjson

from eventmill._native.decode import Decoder
from eventmill.core import frame, ledger
from eventmill.core.errors import SchemaError
from eventmill.core.schema import Hop, Topic
from eventmill.process.schemas.sets import NO_SCHEMAS, Schema, SchemaSet

START_MS = 1_795_000_000_000


def raw(*events: tuple[str, dict[str, Any]], first: int = 0, context: dict[str, Any] | None = None, at: int = START_MS,
        minute: int = 0):  # fmt: skip
    """A RAW batch of (event name, properties); ids and devices count up from ``first``; a ``minute`` has its own ids."""
    decoder = Decoder()
    batch = [
        {
            "type": "track", "event": event,
            "messageId": f"{minute or 'm'}{first + number}", "anonymousId": f"d{first + number}",
            "originalTimestamp": f"2026-11-18T10:{minute:02}:00.000Z", "properties": properties, "context": context or {},
        }
        for number, (event, properties) in enumerate(events)
    ]  # fmt: skip
    decoder.append(orjson.dumps({"batch": batch}), at)
    events_, rejects = decoder.finish()
    assert rejects.num_rows == 0
    return events_


def append(log, *batches):
    """As ingest does."""
    for batch in batches:
        with log.transaction() as transaction:
            transaction.append([frame.encode(Topic.RAW, batch)])
            transaction.count(ledger.counts(Hop.RECEIVED, batch) + ledger.counts(Hop.ACCEPTED, batch))


def everything(log, topic, schema):
    """The topic's rows."""
    start = log.start_offset(topic, 0)
    return frame.decode_all(log.read(topic, 0, start, events_max=1 << 40), schema).to_pylist()


class Given:
    """A source that the test sets; ``None``: out of reach."""

    def __init__(self, schemas: SchemaSet | None = NO_SCHEMAS) -> None:
        self.schemas = schemas

    def fetch(self) -> SchemaSet:
        if self.schemas is None:
            raise SchemaError("out of reach")
        return self.schemas

    def publish(self, event: str, document: Any) -> Schema:
        raise AssertionError


def price(version: str, **rules: Any) -> Schema:
    """A version of the schema of ``purchase``."""
    document = {"type": "object", "required": ["price"], "properties": {"price": {"type": "number", **rules}}}
    return Schema("purchase", version, f"id-{version}", document)
