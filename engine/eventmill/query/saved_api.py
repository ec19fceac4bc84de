"""``/v1/saved``: list, save, show, delete and run a project's saved questions."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from eventmill.core.clock import now_ms
from eventmill.core.errors import LogUnavailable, QueryError, StateError
from eventmill.net.messages import Request, Response
from eventmill.query.body import read_object
from eventmill.query.render import iso
from eventmill.query.saved import BYTES_MAX, Saved, SavedQuestions, checked_name
from eventmill.query.service import KINDS, SQL, QueryService

PREFIX: Final = "/v1/saved"
_RUN: Final = "/run"
#: What a run may say anew, by kind.
_OVERRIDES: Final = {SQL: ("parameters",), "timeline": ("from", "to", "cursor")}
_TIMES: Final = ("from", "to")


class SavedApi:
    """Safe to share between threads."""

    def __init__(self, saved: SavedQuestions) -> None:
        self._saved = saved

    async def handle(self, request: Request, query: QueryService, project: str | None) -> Response:
        """The answer to a caller of ``project`` (null: of none), whose questions ``query`` answers."""
        path = request.path.removeprefix(PREFIX).strip("/")
        try:
            if not path:
                return await self._list(request, project)
            name = checked_name(path.removesuffix(_RUN))
            if path.endswith(_RUN):
                return await self._run(request, query, project, name)
            if request.method == "PUT":
                return await asyncio.to_thread(self._put, request, query, project, name)
            if request.method == "DELETE":
                there = await asyncio.to_thread(self._saved.delete, project, name)
                return Response.json(200, {"deleted": name}) if there else _missing(name)
            if request.method in ("GET", "HEAD"):
                found = await asyncio.to_thread(self._saved.find, project, name)
                return _missing(name) if found is None else Response.json(200, _shown(found))
        except QueryError as error:
            return Response.error(400, str(error))
        except (LogUnavailable, StateError) as error:
            return Response.error(503, str(error), {"Retry-After": "1"})
        return Response.error(405, f"{PREFIX}/NAME takes GET, PUT and DELETE", {"Allow": "GET, HEAD, PUT, DELETE"})

    async def _list(self, request: Request, project: str | None) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response.error(405, f"ask for {PREFIX} by GET; save by PUT {PREFIX}/NAME", {"Allow": "GET, HEAD"})
        found = await asyncio.to_thread(self._saved.all, project)
        return Response.json(200, {"saved": [_shown(each) for each in found]})

    def _put(self, request: Request, query: QueryService, project: str | None, name: str) -> Response:
        if len(request.body) > BYTES_MAX:
            return Response.error(413, f"a saved question has at most {BYTES_MAX} bytes")
        given = read_object(_json(request.body), ("kind", "query"))
        kind, body = given.get("kind"), given.get("query")
        if not isinstance(kind, str) or kind not in (*KINDS, SQL):
            raise QueryError(f"kind is {str(kind)[:100]!r}; it is one of {', '.join((*KINDS, SQL))}")
        query.check(kind, body)
        saved = Saved(name, kind, body or {}, now_ms())
        return Response.json(201 if self._saved.put(project, saved) else 200, _shown(saved))

    async def _run(self, request: Request, query: QueryService, project: str | None, name: str) -> Response:
        if request.method != "POST":
            return Response.error(405, f"{PREFIX}/NAME{_RUN} takes POST", {"Allow": "POST"})
        found = await asyncio.to_thread(self._saved.find, project, name)
        if found is None:
            return _missing(name)
        anew = read_object(_json(request.body or b"{}"), _OVERRIDES.get(found.kind, _TIMES))
        return await query.submit(found.kind, {**found.query, **anew}, request)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise QueryError(f"the body is not JSON: {error}") from error


def _shown(saved: Saved) -> dict[str, Any]:
    return {"name": saved.name, "kind": saved.kind, "query": saved.query, "saved_at": iso(saved.saved_at)}


def _missing(name: str) -> Response:
    return Response.error(404, f"no question is saved as {name!r}; GET {PREFIX} lists those that are")
