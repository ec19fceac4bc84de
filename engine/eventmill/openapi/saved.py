"""Descriptions of saved questions."""

from __future__ import annotations

from typing import Any, Final

from eventmill.openapi.parts import Piece, answers, choice, json, listed, record, ref, response, text
from eventmill.openapi.questions import ANSWERS, EXPLAIN, KINDS
from eventmill.query.saved import NAME_CHARS_MAX

_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": text("Printable, without a slash", minLength=1, maxLength=NAME_CHARS_MAX),
}


def schemas() -> dict[str, Piece]:
    """Schemas by name."""
    keys = {"kind": choice(KINDS), "query": {"type": "object", "description": "The body of that kind of question"}}
    again = {"parameters": {"type": "object"}, "from": ref("Time"), "to": ref("Time"), "cursor": text()}
    return {
        "ToSave": record(keys),
        "Saved": record({"name": text(), **keys, "saved_at": text(format="date-time")}),
        "SavedList": record({"saved": listed(ref("Saved"))}),
        "Deleted": record({"deleted": text()}),
        "Anew": record(again, optional=again, description="What a run says anew, as far as its kind has it"),
    }


def paths() -> dict[str, Any]:
    """The operations by path."""
    saved = json(ref("Saved"))
    put = {200: response("Changed", saved), 201: response("New", saved)}
    run = {**_operation("run", "Ask it", {}, body=ref("Anew")), "parameters": [EXPLAIN], "responses": ANSWERS}
    return {
        "/v1/saved": {"get": _operation("saved", "What is saved", {200: response("All", json(ref("SavedList")))})},
        "/v1/saved/{name}": {
            "parameters": [_NAME],
            "get": _operation("savedOne", "One of them", {200: response("It", saved)}),
            "put": _operation("save", "Save a question", put, body=ref("ToSave")),
            "delete": _operation("unsave", "Delete it", {200: response("Deleted", json(ref("Deleted")))}),
        },
        "/v1/saved/{name}/run": {"parameters": [_NAME], "post": run},
    }


def _operation(name: str, summary: str, good: dict[int, Piece], *, body: Piece | None = None) -> Piece:
    asked = {} if body is None else {"requestBody": {"required": True, "content": json(body)}}
    about = {"operationId": name, "summary": summary, "tags": ["saved"]}
    return {**about, **asked, "responses": answers(good, engine=True)}
