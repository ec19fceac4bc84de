"""What descriptions are made of. Every function gives a piece of an OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from eventmill.net.messages import JSON

Piece = dict[str, Any]

#: What any request may meet before or while it is looked at.
_ALWAYS: Final = (400, 404, 405, 408, 413, 414, 417, 431)
#: What else may happen on the way to the engine.
_BEHIND_THE_DOOR: Final = (401, 403, 429, 502, 503, 504)
_MEANINGS: Final = {
    400: "The request is not what this takes; `error` names what to change",
    401: "Wrong or missing key",
    403: "This key may not do that",
    404: "There is no such thing",
    405: "Another method is wanted: see `Allow`",
    408: "The request did not arrive within `http.request_deadline`",
    413: "Too large",
    414: "The address is too long",
    415: "Another `Content-Encoding` or `Content-Type` is wanted",
    417: "Unknown `Expect`",
    429: "Too often, or too much at once; see `Retry-After`",
    431: "Headers too large or too many",
    502: "The engine's answer was not understood",
    503: "Not now: see `Retry-After`",
    504: "Given up at its deadline",
}
_HEADERS: Final[dict[int, dict[str, Piece]]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    405: {"Allow": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}},
}


def ref(name: str) -> Piece:
    """A reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(properties: Mapping[str, Piece], *, optional: Iterable[str] = (), **more: Any) -> Piece:
    """An object that has all of these properties but the ``optional`` ones, and no others unless ``more`` says so."""
    required = [name for name in properties if name not in frozenset(optional)]
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    } | more


def listed(items: Piece, **more: Any) -> Piece:
    """An array."""
    return {"type": "array", "items": items} | more


def text(description: str = "", **more: Any) -> Piece:
    """A string."""
    return {"type": "string"} | ({"description": description} if description else {}) | more


def number(description: str = "", *, least: int | None = 0, **more: Any) -> Piece:
    """A whole number."""
    about = {"description": description} if description else {}
    return {"type": "integer"} | about | ({} if least is None else {"minimum": least}) | more


def nullable(schema: Piece) -> Piece:
    """The same or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def choice(values: Iterable[str], **more: Any) -> Piece:
    """One of a few words."""
    return {"type": "string", "enum": [str(value) for value in values]} | more


def counts(names: Iterable[str], description: str = "") -> Piece:
    """An object of counts."""
    about = {"description": description} if description else {}
    return record({str(name): number() for name in names}) | about


def json(schema: Piece, **more: Any) -> Piece:
    """A body of JSON."""
    return {JSON: {"schema": schema} | more}


def response(description: str, content: Piece, headers: Mapping[str, Piece] | None = None) -> Piece:
    """An answer."""
    return {"description": description, "content": content} | ({"headers": dict(headers)} if headers else {})


def error_name(status: int) -> str:
    """The name of an error among the document's responses."""
    return f"Error{status}"


def errors() -> dict[str, Piece]:
    """The document's error answers, by name."""
    return {
        error_name(status): response(meaning, json(ref("Error")), _HEADERS.get(status))
        for status, meaning in _MEANINGS.items()
    }


def answers(good: Mapping[int, Piece], *more: int, engine: bool = False) -> dict[str, Piece]:
    """The answers of one operation: good ones, the errors that any may give, and ``more`` of its own; with ``engine`` those
    of the way to it."""
    statuses = {*_ALWAYS, *(_BEHIND_THE_DOOR if engine else ()), *more} - set(good)
    wrong = {status: {"$ref": f"#/components/responses/{error_name(status)}"} for status in statuses}
    return {str(status): piece for status, piece in sorted({**good, **wrong}.items())}
