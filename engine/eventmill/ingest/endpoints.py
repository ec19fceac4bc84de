"""The endpoints: Segment's HTTP Tracking API, health and metrics."""

from __future__ import annotations

import asyncio
from typing import Final

from eventmill.core.clock import now_ms
from eventmill.core.config import HttpConfig
from eventmill.core.errors import BodyError, EventmillError, LogUnavailable
from eventmill.dashboard.assets import Dashboard
from eventmill.ingest.committer import Committer
from eventmill.net.access import Access
from eventmill.net.inflate import InflateError, inflate
from eventmill.net.keys import key_of_header
from eventmill.net.messages import Request, Response
from eventmill.net.proxy import Proxy
from eventmill.observe import metrics
from eventmill.openapi.document import PATH as DESCRIPTION
from eventmill.openapi.document import Description
from eventmill.openapi.events import PATHS as EVENTS

#: What the engine answers.
FORWARDED: Final = (
    "/v1/query/", "/v1/saved", "/v1/trace/", "/v1/status", "/v1/audit", "/v1/pipeline", "/v1/dead", "/v1/live",
)  # fmt: skip
#: What the engine does, too: it changes what is stored.
REPLAY: Final = "/v1/replay"
_OWN: Final = ("/healthz", "/readyz", "/metrics")
_KNOWN: Final = ", ".join(
    (*EVENTS, "/v1/query/trends", "/v1/query/sql", "/v1/trace/ID", "/v1/status", *_OWN, DESCRIPTION, "/")
)
_UNAUTHORIZED: Final = {"WWW-Authenticate": 'Basic realm="eventmill"'}
_ENCODINGS: Final = {"Accept-Encoding": "identity, gzip, zstd"}


class Endpoints:
    """A ``net.messages.Handler``. ``ready`` false makes /readyz say so, whatever the log says."""

    def __init__(self, committer: Committer, access: Access, limits: HttpConfig, proxy: Proxy) -> None:
        self._committer = committer
        self._access = access
        self._limits = limits
        self._proxy = proxy
        self._dashboard = Dashboard()
        self._description = Description()
        self.ready = True

    async def handle(self, request: Request) -> Response:
        """Route by path; every answer is counted under a name of a closed set."""
        path = request.path.rstrip("/") or "/"
        if path in EVENTS:
            endpoint, response = path, await self._events(request, EVENTS[path])
        elif request.path.startswith(FORWARDED):
            endpoint, response = "engine", await self._ask(request)
        elif path == REPLAY:
            endpoint, response = path, await self._replay(request)
        elif path == DESCRIPTION:
            endpoint, response = path, self._description.answer(request)
        elif path in _OWN:
            endpoint, response = path, await self._own(request, path)
        elif self._dashboard.answers(request.path):
            endpoint, response = "dashboard", self._dashboard.answer(request)
        else:
            endpoint, response = "unknown", Response.error(404, f"there is no {request.path}; there are {_KNOWN}")
        metrics.answered(endpoint, response.status).inc()
        return response

    async def _replay(self, request: Request) -> Response:
        if request.method != "POST":
            return Response.error(405, f"{REPLAY} takes POST", {"Allow": "POST, OPTIONS"})
        return await self._ask(request)

    async def _ask(self, request: Request) -> Response:
        return self._access.refuse(request) or await self._proxy.forward(self._access.identified(request))

    async def _own(self, request: Request, path: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response.error(405, f"ask for {path} by GET", {"Allow": "GET, HEAD, OPTIONS"})
        if path == "/healthz":
            return Response.json(200, {"status": "ok"})
        if path == "/metrics":
            return Response(200, await asyncio.to_thread(metrics.render), metrics.CONTENT_TYPE)
        reason = await self._committer.pressure() if self.ready else "this worker is stopping"
        if reason is not None:
            return Response.json(503, {"ready": False, "reason": reason}, {"Retry-After": "1"})
        return Response.json(200, {"ready": True})

    def admit(self, request: Request) -> Response | None:
        """The answer to an event request that its head alone condemns; ``None`` when its body is worth sending."""
        if (request.path.rstrip("/") or "/") not in EVENTS:
            return None
        return self._judge(request)

    def _judge(self, request: Request) -> Response | None:
        if request.method != "POST":
            return Response.error(405, "send events by POST", {"Allow": "POST, OPTIONS"})
        key = key_of_header(request.headers.get("authorization"))
        if key is not None and not self._access.may_write(key):
            return self._unauthorized()
        try:
            self._committer.check_room()
        except LogUnavailable as error:
            return _unavailable(error, error.retry_after_s)
        return None

    async def _events(self, request: Request, kind: str | None) -> Response:
        refusal = self._judge(request)
        if refusal is not None:
            return refusal
        try:
            body = inflate(request.body, request.headers.get("content-encoding", ""), self._limits.request_bytes_max)
            decoder = self._committer.decoder
            accepted, rejected, body_key = decoder.append(body, now_ms(), kind)
            key = (
                key_of_header(request.headers.get("authorization")) if "authorization" in request.headers else body_key
            )
            if "authorization" not in request.headers and not self._access.may_write(key):
                decoder.rollback()
                return self._unauthorized()
            too_often = self._access.too_many_events(key)
            if too_often is not None:
                decoder.rollback()
                return too_often
            self._committer.stamp(self._access.project(key))
            if accepted or rejected:
                await self._committer.commit()
        except InflateError as error:
            return Response.error(error.status, str(error), _ENCODINGS if error.status == 415 else {})
        except BodyError as error:
            return Response.error(400, str(error))
        except LogUnavailable as error:
            return _unavailable(error, error.retry_after_s)
        except EventmillError as error:  # a group past the decoder's or a frame's limit: smaller groups come through
            return _unavailable(error, 1)
        return Response.json(200, {"success": True, "accepted": accepted, "rejected": rejected})

    @staticmethod
    def _unauthorized() -> Response:
        return Response.error(
            401, "wrong or missing write key: send it as HTTP Basic user name, Bearer token, or writeKey", _UNAUTHORIZED
        )


def _unavailable(error: EventmillError, retry_after_s: int) -> Response:
    return Response.error(503, f"{error}; send it again later", {"Retry-After": str(retry_after_s)})
