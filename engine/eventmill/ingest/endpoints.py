"""The endpoints: Segment's HTTP Tracking API, health and metrics."""

from __future__ import annotations

from typing import Final

from eventmill.core.clock import now_ms
from eventmill.core.config import HttpConfig
from eventmill.core.errors import BodyError, LogUnavailable
from eventmill.ingest.auth import WriteKeys, key_of_header
from eventmill.ingest.committer import Committer
from eventmill.net.inflate import InflateError, inflate
from eventmill.net.messages import Request, Response
from eventmill.net.proxy import Proxy
from eventmill.observe import metrics

#: Path -> the type of event that its body is; None for a batch.
EVENTS: Final[dict[str, str | None]] = {
    "/v1/batch": None,
    "/v1/import": None,
    **{f"/v1/{kind}": kind for kind in ("track", "screen", "page", "identify", "group", "alias")},
}
#: What the engine answers.
FORWARDED: Final = ("/v1/query/", "/v1/trace/", "/v1/status", "/v1/audit")
_UNAUTHORIZED: Final = {"WWW-Authenticate": 'Basic realm="eventmill"'}


class Endpoints:
    """A ``net.messages.Handler``. ``ready`` tells /readyz whether the log takes events."""

    def __init__(self, committer: Committer, keys: WriteKeys, limits: HttpConfig, proxy: Proxy) -> None:
        self._committer = committer
        self._keys = keys
        self._limits = limits
        self._proxy = proxy
        self.ready = True

    async def handle(self, request: Request) -> Response:
        """Route by path."""
        path = request.path.rstrip("/") or "/"
        if path in EVENTS:
            response = await self._events(request, EVENTS[path])
            metrics.REQUESTS.labels(path, str(response.status)).inc()
            return response
        if request.path.startswith(FORWARDED):
            return await self._proxy.forward(request)
        if path == "/healthz":
            return Response.json(200, {"status": "ok"})
        if path == "/readyz":
            return Response.json(200 if self.ready else 503, {"ready": self.ready})
        if path == "/metrics":
            return Response(200, metrics.render(), metrics.CONTENT_TYPE)
        known = ", ".join((*EVENTS, "/v1/query/trends", "/v1/query/sql", "/v1/trace/ID", "/v1/status", "/metrics"))
        return Response.error(404, f"there is no {request.path}; there are {known}")

    async def _events(self, request: Request, kind: str | None) -> Response:
        if request.method != "POST":
            return Response.error(405, "send events by POST", {"Allow": "POST, OPTIONS"})
        header_key = key_of_header(request.headers.get("authorization"))
        if header_key is not None and not self._keys.accepts(header_key):
            return self._unauthorized()
        try:
            body = inflate(request.body, request.headers.get("content-encoding", ""), self._limits.request_bytes_max)
            self._committer.check_room()
            decoder = self._committer.decoder
            accepted, rejected, body_key = decoder.append(body, now_ms(), kind)
            if header_key is None and not self._keys.accepts(body_key):
                decoder.rollback()
                return self._unauthorized()
            if accepted or rejected:
                await self._committer.commit()
        except InflateError as error:
            return Response.error(error.status, str(error))
        except BodyError as error:
            return Response.error(400, str(error))
        except LogUnavailable as error:
            return Response.error(503, f"{error}; send it again later", {"Retry-After": str(error.retry_after_s)})
        return Response.json(200, {"success": True, "accepted": accepted, "rejected": rejected})

    @staticmethod
    def _unauthorized() -> Response:
        return Response.error(
            401, "wrong or missing write key: send it as HTTP Basic user name, Bearer token, or writeKey", _UNAUTHORIZED
        )
