"""Descriptions of the endpoints that take events, and of those that tell how the process is."""

from __future__ import annotations

from typing import Any, Final

from eventmill.openapi.parts import Piece, answers, choice, json, listed, number, record, ref, response, text

#: Path to the type of its event; null for a batch.
PATHS: Final[dict[str, str | None]] = {
    "/v1/batch": None,
    "/v1/import": None,
    **{f"/v1/{kind}": kind for kind in ("track", "screen", "page", "identify", "group", "alias")},
}
_TAGS: Final = ["events"]
_ENCODING: Final = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "How the body is compressed",
    "schema": choice(["identity", "gzip", "zstd"]),
}
#: Of a Segment event; what is not listed is kept in ``context`` and ``properties``, or is not used.
_EVENT: Final = {
    "event": text("The event's name, of `track`"),
    "name": text("The screen's or page's name"),
    "userId": text("Who; this or `anonymousId` is needed"),
    "anonymousId": text("Which installation"),
    "messageId": text("The client's id of this event, best a UUID: events of one id are stored once"),
    "timestamp": text("When it happened by the device's clock, ISO 8601"),
    "originalTimestamp": text("The same before a proxy corrected it"),
    "sentAt": text("When the device sent it by its own clock, ISO 8601"),
    "properties": {"type": "object", "description": "What the event is about: any JSON"},
    "traits": {"type": "object", "description": "Of `identify` and `group`: any JSON"},
    "context": {"type": "object", "description": "App, device, os, locale and more, as Segment's SDKs fill it"},
    "groupId": text("Of `group`"),
    "previousId": text("Of `alias`"),
}
_KEY: Final = {"writeKey": text("The write key, where no `Authorization` carries it")}


def schemas() -> dict[str, Piece]:
    """Schemas by name."""
    kinds = [kind for kind in PATHS.values() if kind is not None]
    event = {"type": "object", "properties": _EVENT, "additionalProperties": True}
    batch = {
        "batch": listed(ref("BatchEvent"), description="Events of any types"),
        "sentAt": _EVENT["sentAt"],
        "context": {"type": "object", "description": "For events that have none of their own"},
        **_KEY,
    }
    return {
        "Event": {**event, "properties": _EVENT | _KEY},
        "BatchEvent": {**event, "properties": {"type": choice(kinds), **_EVENT}, "required": ["type"]},
        "Batch": record(batch, optional=("sentAt", "context", "writeKey"), additionalProperties=True),
        "Accepted": record(
            {
                "success": {"const": True},
                "accepted": number("Events that are durable and on their way to both stores"),
                "rejected": number("Events kept as dead letters, with their reason"),
            }
        ),
    }


def paths() -> dict[str, Any]:
    """The operations by path."""
    return {
        **{path: {"post": _take(path, kind)} for path, kind in PATHS.items()},
        "/healthz": {
            "get": _tell("Whether the process lives", {200: _json_of("It does", {"status": {"const": "ok"}})})
        },
        "/readyz": {"get": _tell("Whether it takes traffic", _ready())},
        "/metrics": {"get": _tell("Metrics for Prometheus", {200: response("Metrics", {"text/plain": {}})})},
    }


def _take(path: str, kind: str | None) -> Piece:
    what = "events of any types" if kind is None else f"one {kind} event"
    body = ref("Batch" if kind is None else "Event")
    return {
        "operationId": path.removeprefix("/v1/"),
        "summary": f"Take {what}",
        "description": "200 comes when everything is durable. Events that are not as they should be are kept as dead letters.",
        "tags": _TAGS,
        "parameters": [_ENCODING],
        "requestBody": {"required": True, "content": json(body)},
        "security": [{"basic": []}, {"bearer": []}, {}],
        "responses": answers({200: response("Durable", json(ref("Accepted")))}, 401, 415, 429, 503),
    }


def _tell(summary: str, good: dict[int, Piece]) -> Piece:
    return {"summary": summary, "tags": ["health"], "security": [], "responses": answers(good)}


def _ready() -> dict[int, Piece]:
    no = {"ready": {"const": False}, "reason": text("Why")}
    return {200: _json_of("It does", {"ready": {"const": True}}), 503: _json_of("It does not now", no)}


def _json_of(description: str, properties: dict[str, Piece]) -> Piece:
    return response(description, json(record(properties)))
