"""Descriptions of the endpoints that tell and change what the pipeline does."""

from __future__ import annotations

from typing import Any, Final

from eventmill.core.groups import CONSUMERS
from eventmill.core.schema import Hop, Reason
from eventmill.observe.pipeline import HOURS, HOURS_MAX, SAMPLES, SAMPLES_MAX
from eventmill.openapi.parts import (
    Piece,
    answers,
    choice,
    counts,
    json,
    listed,
    nullable,
    number,
    record,
    ref,
    response,
    text,
)  # fmt: skip

_TAGS: Final = ["pipeline"]
_STORES: Final = ("realtime", "lake")
_DAMS: Final = nullable(text("Why the log takes no more just now"))
_STORED: Final = ("stored", "doubled", "in_flight", "missing", "forgotten", "retired")
_OF_LETTERS: Final = ("read", "replayed", "still_dead", "skipped")


def schemas() -> dict[str, Piece]:
    """Schemas by name."""
    lag = counts(CONSUMERS, "Events that each consumer has still to take")
    balance = record({name: number(least=None if name == "missing" else 0) for name in _STORED})
    stores = record(dict.fromkeys(_STORES, balance))
    hour = {"hour": number("ms since the epoch"), **{name: number() for name in ("received", "accepted", "duplicates")}}
    hop = {"hop": text(), "verdict": text()}
    cause = {
        "fingerprint": text(),
        "reason": choice(Reason),
        **{name: nullable(text()) for name in ("event", "schema", "path", "rule")},
        "detail": text("The first one's"),
        **{name: number() for name in ("read", "replayed", "still_dead")},
    }
    letter = {
        "received_at": number("ms since the epoch"),
        "reason": choice(Reason),
        "detail": text(),
        "payload": text("The client's text, cut where it is long"),
        "bytes": number("Of the whole payload"),
    }
    reasons = {"type": "object", "additionalProperties": number(), "propertyNames": choice(Reason)}
    lake = {name: number() for name in ("files", "bytes", "rows", "snapshots", "written_at")}
    return {
        "Fate": record(
            {
                "event_id": text(format="uuid"),
                "fate": choice(["stored", "in flight", "dead", "unknown"]),
                "hops": listed(record(hop, additionalProperties=True)),
            }
        ),
        "Status": record(
            {"ledger": counts(Hop, "Events by hop, of all time"), "lag": lag, "in_flight": number(), "pressure": _DAMS}
        ),
        "Audit": record(
            {
                "balanced": {"type": "boolean", "description": "Nothing missing, nothing too many, nothing twice"},
                **{name: number() for name in ("received", "accepted", "duplicates", "rescued", "replayed")},
                "dead": number(least=None),
                "dead_reasons": reasons,
                "stores": stores,
                "hours": listed(
                    record({**hour, "dead": number(least=None), "stores": stores, "balanced": {"type": "boolean"}})
                ),
            }
        ),
        "Pipeline": record(
            {
                "hours": listed(record({"hour": number("ms since the epoch"), **{str(name): number() for name in Hop}})),
                "dead_reasons": reasons,
                "lag": lag,
                "in_flight": number(),
                "pressure": _DAMS,
                "log": record({"bytes": number(), "bytes_max": number()}),
                "lake": nullable(record(lake, additionalProperties=True)),
                "compacted": nullable(
                    record({"at": number("ms since the epoch"), "seconds": {"type": "number"}, "report": {"type": "object"}})
                ),
                "compact_interval_ms": number(),
            },
            additionalProperties=True,
        ),
        "Letters": record({"waiting": nullable(number("For a replay")), "letters": listed(record(letter))}),
        "Reasons": record(
            {"reasons": listed(choice(Reason), description="None: all")}, optional=["reasons"],
        ),
        "Replayed": record({**{name: number() for name in _OF_LETTERS}, "causes": listed(record(cause))}),
    }  # fmt: skip


def paths() -> dict[str, Any]:
    """The operations by path."""
    event_id = {
        "name": "event_id",
        "in": "path",
        "required": True,
        "description": "The client's message id, or the event id",
        "schema": text(minLength=1),
    }
    unknown = {404: response("Nobody has heard of it", json({"anyOf": [ref("Fate"), ref("Error")]}))}
    return {
        "/v1/trace/{event_id}": {"get": _tell("trace", "One event's fate", "Fate", [event_id], unknown)},
        "/v1/status": {"get": _tell("status", "The ledger's totals and each consumer's lag", "Status")},
        "/v1/audit": {"get": _tell("audit", "The proof that every event is accounted for, in both stores", "Audit")},
        "/v1/pipeline": {
            "get": _tell(
                "pipeline", "The ledger's newest hours, lags, the log's and the lake's size", "Pipeline",
                [_whole("hours", HOURS, HOURS_MAX)],
            )
        },
        "/v1/dead": {
            "get": _tell(
                "dead", "The newest dead letters that wait for a replay", "Letters",
                [_whole("limit", SAMPLES, SAMPLES_MAX), {"name": "reason", "in": "query", "schema": choice(["", *Reason])}],
            )
        },
        "/v1/replay": {
            "post": {
                "operationId": "replay",
                "summary": "Dead letters' second chance under today's settings",
                "tags": _TAGS,
                "requestBody": {"required": True, "content": json(ref("Reasons"))},
                "responses": answers({200: response("What came of them", json(ref("Replayed")))}, 415, engine=True),
            }
        },
    }  # fmt: skip


def _whole(name: str, default: int, most: int) -> Piece:
    return {"name": name, "in": "query", "schema": number(least=1, maximum=most, default=default)}


def _tell(
    name: str, summary: str, schema: str, parameters: list[Piece] | None = None, more: dict[int, Piece] | None = None
) -> Piece:
    return {
        "operationId": name,
        "summary": summary,
        "tags": _TAGS,
        "parameters": parameters or [],
        "responses": answers({200: response(summary, json(ref(schema))), **(more or {})}, engine=True),
    }
