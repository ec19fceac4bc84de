"""The engine's HTTP: query, status, audit and trace, on a unix socket; ingest workers forward to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from eventmill.core.errors import EventmillError
from eventmill.net.messages import Request, Response
from eventmill.serve.engine import Engine

_TRACE: Final = "/v1/trace/"


class EngineApi:
    """A ``net.messages.Handler``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def handle(self, request: Request) -> Response:
        """Route by path; slow work runs in threads."""
        if request.path.startswith("/v1/query/"):
            return await self._engine.query.handle(request)
        try:
            if request.path.startswith(_TRACE):
                text = unquote(request.path.removeprefix(_TRACE))
                found: dict[str, Any] = await asyncio.to_thread(self._engine.stores.trace, text)
                return Response.json(404 if found["fate"] == "unknown" else 200, found)
            if request.path == "/v1/status":
                return Response.json(200, await asyncio.to_thread(self._engine.status))
            if request.path == "/v1/audit":
                audit = await asyncio.to_thread(self._engine.audit)
                return Response.json(200, audit.as_dict())
            if request.path == "/v1/flush" and request.method == "POST":
                return Response.json(200, {"stored": await asyncio.to_thread(self._engine.flush)})
            if request.path == "/v1/judge" and request.method == "POST":
                verdicts = await asyncio.to_thread(self._engine.judge, Path(request.query.get("truth", "")))
                return Response.json(200, {store: verdict.as_dict() for store, verdict in verdicts.items()})
            if request.path == "/v1/summary":
                return Response.json(200, await asyncio.to_thread(self._engine.summary))
            if request.path == "/v1/compact" and request.method == "POST":
                return Response.json(200, await asyncio.to_thread(self._engine.compact))
        except EventmillError as error:
            return Response.error(503, str(error), {"Retry-After": "1"})
        return Response.error(
            404, f"there is no {request.path}; see /v1/query/trends, /v1/query/sql, /v1/trace/ID, /v1/status"
        )
