"""The engine's HTTP: query, status, audit and trace, on a unix socket; ingest workers forward to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import orjson

from eventmill.core.errors import EventmillError, QueryError
from eventmill.core.schema import Reason
from eventmill.net.grants import CALLER
from eventmill.net.messages import Request, Response
from eventmill.observe import metrics
from eventmill.observe.pipeline import HOURS, HOURS_MAX, SAMPLES, SAMPLES_MAX
from eventmill.query.live import PATH as LIVE
from eventmill.query.saved import SavedQuestions
from eventmill.query.saved_api import PREFIX as SAVED
from eventmill.query.saved_api import SavedApi
from eventmill.query.service import KINDS, SQL
from eventmill.query.service import PREFIX as QUERIES
from eventmill.serve.engine import Engine
from eventmill.serve.forgetting import asked, forget_running
from eventmill.serve.upkeep import planned

_TRACE: Final = "/v1/trace/"
#: What is told, and what is done.
_TOLD: Final = frozenset(["/v1/status", "/v1/audit", "/v1/pipeline", "/v1/dead", "/v1/summary"])
_DONE: Final = frozenset(["/v1/replay", "/v1/flush", "/v1/judge", "/v1/forget", "/v1/compact"])


class EngineApi:
    """A ``net.messages.Handler``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._saved = SavedApi(SavedQuestions(engine.stores.log))

    async def handle(self, request: Request) -> Response:
        """Route by path; slow work runs in threads."""
        caller = request.headers.get(CALLER)
        try:
            grant, query = self._engine.callers.grant(caller), self._engine.callers.of(caller)
        except KeyError:
            return Response.error(
                403, f"this process knows no key called {str(caller)[:70]}; give all the same access.keys"
            )
        if request.path.startswith(QUERIES):
            kind = request.path.removeprefix(QUERIES)
            # A closed set: what is no kind is refused at once.
            with metrics.QUERY_SECONDS.labels(kind if kind in KINDS or kind == SQL else "unknown").time():
                return await query.handle(request)
        if request.path == SAVED or request.path.startswith(f"{SAVED}/"):
            return await self._saved.handle(request, query, None if grant is None else grant.project)
        if request.path == LIVE:
            return await query.live.handle(request)
        refusal = _wrong_method(request)
        if refusal is not None:
            return refusal
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
            if request.path == "/v1/pipeline":
                return Response.json(200, await asyncio.to_thread(self._engine.pipeline, _hours(request)))
            if request.path == "/v1/dead":
                limit, reason = _letters(request)
                project = None if grant is None else grant.project
                return Response.json(200, await asyncio.to_thread(self._engine.dead_letters, limit, reason, project))
            if request.path == "/v1/replay":
                return Response.json(200, await asyncio.to_thread(self._engine.replay, _reasons(request.body)))
            if request.path == "/v1/flush":
                return Response.json(200, {"stored": await asyncio.to_thread(self._engine.flush)})
            if request.path == "/v1/judge":
                verdicts = await asyncio.to_thread(self._engine.judge, Path(request.query.get("truth", "")))
                return Response.json(200, {store: verdict.as_dict() for store, verdict in verdicts.items()})
            if request.path == "/v1/summary":
                return Response.json(200, await asyncio.to_thread(self._engine.summary))
            if request.path == "/v1/forget":
                wanted, dry_run = asked(request.body)
                receipt = await asyncio.to_thread(forget_running, self._engine, wanted, dry_run=dry_run)
                return Response.json(200, receipt)
            if request.path == "/v1/compact" and request.query.get("dry_run"):
                planning = asyncio.to_thread(planned, self._engine.stores.lake, self._engine.config)
                return Response.json(200, await planning)
            if request.path == "/v1/compact":
                return Response.json(200, await asyncio.to_thread(self._engine.compact))
            if request.path == "/v1/retain" and request.method == "POST":
                dry_run = bool(request.query.get("dry_run"))
                work = self._engine.planned_retention if dry_run else self._engine.retain
                return Response.json(200, await asyncio.to_thread(work))
        except QueryError as error:
            return Response.error(400, str(error))
        except EventmillError as error:
            return Response.error(503, str(error), {"Retry-After": "1"})
        return Response.error(
            404, f"there is no {request.path}; see /v1/query/trends, /v1/query/sql, /v1/saved, /v1/trace/ID, /v1/status"
        )


def _wrong_method(request: Request) -> Response | None:
    """405 for a known path that takes another method."""
    if request.path in _DONE and request.method != "POST":
        return Response.error(405, f"{request.path} takes POST", {"Allow": "POST, OPTIONS"})
    is_told = request.path in _TOLD or request.path.startswith(_TRACE)
    if is_told and request.method not in ("GET", "HEAD"):
        return Response.error(405, f"ask for {request.path[:100]} by GET", {"Allow": "GET, HEAD, OPTIONS"})
    return None


def _hours(request: Request) -> int:
    return _number(request, "hours", HOURS, HOURS_MAX)


def _letters(request: Request) -> tuple[int, Reason | None]:
    reason = request.query.get("reason")
    return _number(request, "limit", SAMPLES, SAMPLES_MAX), None if not reason else _reason(reason)


def _reasons(body: bytes) -> frozenset[str]:
    """The reasons of ``{"reasons": […]}``; none means all."""
    try:
        given = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise QueryError(f"the body is not JSON: {error}") from error
    reasons = given.get("reasons", []) if isinstance(given, dict) else None
    if not isinstance(reasons, list) or set(given) - {"reasons"}:
        raise QueryError('the body must be a JSON object {"reasons": [reason, …]}; an empty list means all')
    return frozenset(_reason(each) for each in reasons)


def _reason(given: Any) -> Reason:
    if given not in tuple(Reason):
        raise QueryError(f"there is no reason {str(given)[:100]!r}; the reasons are {', '.join(Reason)}")
    return Reason(given)


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise QueryError(f"{name} must be a number from 1 to {most}")
    return int(text)
