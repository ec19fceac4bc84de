"""Every Arrow schema, once.

``RAW`` is what the decoder makes, ``LOGGED`` what ingest writes to the log, ``EVENT`` what the processor writes and both
stores keep, ``REJECT`` a dead letter. Columns are only ever added at the end of a released schema; the version
travels in each frame's headers.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

TIME: Final = pa.timestamp("ms", tz="UTC")
EVENT_ID: Final = pa.binary(16)
#: Text of which there are few: names, versions, models, places.
WORD: Final = pa.dictionary(pa.int32(), pa.string())

_IDENTITY: Final = [
    pa.field("event_id", EVENT_ID, nullable=False),
    pa.field("message_id", pa.string()),
    pa.field("event", WORD, nullable=False),
    pa.field("type", WORD, nullable=False),
    pa.field("device_id", pa.string(), nullable=False),
    pa.field("anonymous_id", pa.string()),
    pa.field("user_id", pa.string()),
    pa.field("timestamp", TIME, nullable=False),
    pa.field("original_timestamp", TIME),
    pa.field("sent_at", TIME),
    pa.field("received_at", TIME, nullable=False),
]
_DEVICE: Final = [
    pa.field("app_version", WORD),
    pa.field("platform", WORD),
    pa.field("os_version", WORD),
    pa.field("device_model", WORD),
    pa.field("locale", WORD),
]
_PAYLOAD: Final = [
    pa.field("properties", pa.string(), nullable=False),
    pa.field("context", pa.string(), nullable=False),
    pa.field("flags", pa.int32(), nullable=False),
]
_SESSION: Final = [pa.field("session_id", pa.int64(), nullable=False)]
_DIMENSIONS: Final = [
    pa.field("country", WORD),
    pa.field("segment", WORD),
    pa.field("tier", WORD),
]

#: The project of the write key that the event came with; null for a key without one. One value for all events of a request,
#: so in a frame it is one number per run of rows, which LZ4 makes nothing of.
_PROJECT: Final = [pa.field("project", WORD)]

#: One decoded event. ``message_id`` is the client's id where it is not a
#: canonical lower-case UUID (else null: ``event_id`` says it all); ``properties`` and ``context`` are JSON objects.
RAW: Final = pa.schema([*_IDENTITY, *_DEVICE, *_PAYLOAD])

#: One event as ingest puts it on the log: RAW and its project.
LOGGED: Final = pa.schema([*RAW, *_PROJECT])

#: One processed event: LOGGED plus its session and the user's dimensions.
EVENT: Final = pa.schema([*_IDENTITY, *_SESSION, *_DEVICE, *_DIMENSIONS, *_PAYLOAD, *_PROJECT])

#: A dead letter: why, where, and the client's own bytes.
REJECT: Final = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("received_at", TIME, nullable=False),
    ]
)

#: The stage of letters that were never decoded.
AT_INGEST: Final = "ingest"

#: A dead letter on the log: where it died, and what it was, as far as that is known. ``schema`` is the schema's id and version,
#: ``path`` (JSON Pointer into ``properties``) and ``rule`` tell what of it was broken; ``raw_partition`` and ``raw_offset`` are
#: the event's frame, of an event that came so far; ``redacted`` says that members of ``payload`` are (``core.redact``).
DEAD: Final = pa.schema(
    [
        *REJECT,
        pa.field("stage", pa.string()),
        pa.field("event", pa.string()),
        pa.field("event_id", EVENT_ID),
        pa.field("schema", pa.string()),
        pa.field("path", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("raw_offset", pa.int64()),
        pa.field("project", pa.string()),
        pa.field("raw_partition", pa.int32()),
        pa.field("redacted", pa.bool_()),
    ]
)

#: A change of the schemas in force: from this raw offset on those that ``content`` (JSON) holds.
SCHEMAS: Final = pa.schema(
    [
        pa.field("from_offset", pa.int64(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
    ]
)

#: What was forgotten (``kind`` "tombstone"), and what of it had been counted before its deletion ("counted"); what the
#: real-time store has retired ("retired"). ``content`` is JSON.
TOMBSTONES: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
    ]
)

#: A saved question of a project ("" for what belongs to none); of each name the newest counts. ``content`` is JSON, null once
#: it is deleted.
SAVED: Final = pa.schema(
    [
        pa.field("project", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
    ]
)

DIMENSION_NAMES: Final = tuple(field.name for field in _DIMENSIONS)


class Flag(IntFlag):
    """Bits of the ``flags`` column: what was unusual about an event."""

    SENT_AT_MISSING = 1 << 0
    SENT_AT_ABSURD = 1 << 1
    TIMESTAMP_MISSING = 1 << 2
    TIMESTAMP_ABSURD = 1 << 3
    ID_HASHED = 1 << 4
    ID_DERIVED = 1 << 5
    DIMENSIONS_UNKNOWN = 1 << 6
    LATE = 1 << 7
    RESCUED = 1 << 8
    REPLAYED = 1 << 9
    SCHEMA_UNKNOWN = 1 << 10
    SCHEMA_BROKEN = 1 << 11


class Reason(StrEnum):
    """The closed set of reasons for a dead letter."""

    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_TYPE = "unknown_type"
    MISSING_EVENT = "missing_event"
    MISSING_IDENTITY = "missing_identity"
    WRONG_FIELD_TYPE = "wrong_field_type"
    BAD_TIMESTAMP = "bad_timestamp"
    EVENT_TOO_LARGE = "event_too_large"
    NAME_TOO_LONG = "name_too_long"
    TOO_DEEP = "too_deep"
    BLOCKED_EVENT = "blocked_event"
    SCHEMA = "schema"


#: The reasons that the decoder can give, in the order of the C enum ``em_reject`` (1-based there).
DECODE_REASONS: Final = tuple(reason for reason in Reason if reason not in (Reason.BLOCKED_EVENT, Reason.SCHEMA))


class Topic(StrEnum):
    """Names of the log's topics, without the configured prefix."""

    RAW = "raw"
    ENRICHED = "enriched"
    DEAD = "dead"
    SUSPECTS = "suspects"
    SCHEMAS = "schemas"
    TOMBSTONES = "tombstones"
    SAVED = "saved"


class Hop(StrEnum):
    """What the ledger counts, per hour of ``received_at``.

    received = rejected + accepted; accepted + rescued + replayed = enriched + invalid + suspect + (raw in flight);
    suspect = duplicate + rescued + (suspects in flight); enriched = stored + forgotten + retired + (enriched in flight), in
    each store (what the lake has forgotten and retired stands in its tables, ``forgotten`` and ``retired`` count the real-time
    store's).
    """

    RECEIVED = "received"
    REJECTED = "rejected"
    ACCEPTED = "accepted"
    ENRICHED = "enriched"
    INVALID = "invalid"
    SUSPECT = "suspect"
    DUPLICATE = "duplicate"
    RESCUED = "rescued"
    REPLAYED = "replayed"
    FORGOTTEN = "forgotten"
    RETIRED = "retired"
