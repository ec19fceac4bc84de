"""The whole description, and serving it."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, Final

import orjson

from eventmill import __version__
from eventmill.net.messages import Request, Response
from eventmill.openapi import events, pipeline, questions, saved
from eventmill.openapi.parts import Piece, answers, errors, json, record, response, text

PATH: Final = "/openapi.json"
_ABOUT: Final = """Events of mobile apps in, answers out.

Where no read or admin keys are configured, anyone may ask. A key is the HTTP Basic user name or a Bearer token; keys have
scopes (write, read, admin), perhaps a project, and limits of their own. Every error is JSON and names its cure."""


def document() -> Piece:
    """An OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0) as plain values."""
    error = record({"success": {"const": False}, "error": text("What is wrong, and what to change")})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Eventmill",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": "events", "description": "Segment's HTTP Tracking API: what SDKs send"},
            {"name": "questions", "description": "Over the real-time store and the lake as one"},
            {"name": "saved", "description": "Questions by name, each project's own"},
            {"name": "pipeline", "description": "Where every event is"},
            {"name": "health", "description": "For orchestrators and Prometheus"},
        ],
        "security": [{"bearer": []}, {"basic": []}, {}],
        "paths": {
            **events.paths(),
            **questions.paths_of(),
            **saved.paths(),
            **pipeline.paths(),
            PATH: {"get": _itself()},
        },
        "components": {
            "schemas": {
                "Error": error,
                **events.schemas(),
                **questions.schemas(),
                **saved.schemas(),
                **pipeline.schemas(),
            },
            "responses": errors(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key as the token"},
                "basic": {"type": "http", "scheme": "basic", "description": "A key as the user name, no password"},
            },
        },
    }


class Description:
    """Answers ``GET /openapi.json`` to anyone: it tells nothing that is not in the documentation."""

    def answer(self, request: Request) -> Response:
        """The document; 304 for a client that has it, 405 otherwise."""
        if request.method not in ("GET", "HEAD"):
            return Response.error(405, f"ask for {PATH} by GET", {"Allow": "GET, HEAD, OPTIONS"})
        body, tag = _rendered()
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(304, headers=headers)
        return Response(200, body, headers=headers)


@cache
def _rendered() -> tuple[bytes, str]:
    body = orjson.dumps(document(), option=orjson.OPT_INDENT_2)
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def _itself() -> dict[str, Any]:
    described = response("This document", json({"type": "object"}))
    return {
        "operationId": "openapi",
        "summary": "This document",
        "tags": ["health"],
        "security": [],
        "responses": answers({200: described}),
    }
