"""Who may ask and who may change: scopes of keys, and how often each key may ask.

Without read and admin keys questions are free, as befits a server on loopback; changes are then for whoever has a write
key. As soon as one such key is configured, questions need a read or an admin key, and changes an admin key.

A key of ``access.keys`` may belong to a project. Who answers learns the key's name (``identified``) and shows that project's
events only; what counts over all projects is refused here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from eventmill.core.config import AccessConfig
from eventmill.net.grants import ADMIN, CALLER, READ, WRITE, Grant, Grants, parse
from eventmill.net.keys import Keys, WriteKeys, fingerprint, key_of_header
from eventmill.net.messages import JSON, Request, Response

#: What changes what is stored, or reads files of the server.
CHANGES: Final = frozenset(["/v1/replay", "/v1/flush", "/v1/compact", "/v1/judge", "/v1/forget"])
#: What shows figures of the whole server, or a single event of whichever project.
WHOLE: Final = ("/v1/status", "/v1/audit", "/v1/pipeline", "/v1/trace/", "/v1/summary")
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="eventmill"'}


class Access:
    """The door of everything but events. One of each process; not thread-safe: the event loop's.

    ``now``: seconds that only grow.
    """

    def __init__(self, config: AccessConfig, write: WriteKeys, *, now: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._read = Keys(config.read_keys)
        self._admin = Keys(config.admin_keys)
        self._grants = Grants(parse(config.keys))
        self._open = not (self._read or self._admin or self._grants)
        self._per_minute = config.requests_per_minute
        self._now = now
        #: What is left to each known key, and when that was so.
        self._left: dict[bytes, tuple[float, float]] = {}

    @property
    def open(self) -> bool:
        """Whether anyone may ask."""
        return self._open

    def may_write(self, key: str | None) -> bool:
        """Whether events may come with this key."""
        if not self._grants.scoped(WRITE):
            return self._write.accepts(key)
        return self._grants.find(key, WRITE) is not None or (not self._write.open and self._write.accepts(key))

    def project(self, key: str | None) -> str | None:
        """The project of events that come with this key."""
        grant = self._grants.find(key, WRITE)
        return None if grant is None else grant.project

    def identified(self, request: Request) -> Request:
        """The request with the name of its key for whoever answers it, whatever the client wrote there."""
        grant = self._grants.find(key_of_header(request.headers.get("authorization")))
        headers = {name: value for name, value in request.headers.items() if name != CALLER}
        return replace(request, headers=headers if grant is None else {**headers, CALLER: grant.name})

    def too_many_events(self, key: str | None) -> Response | None:
        """429 for a write key with a limit of its own that has sent too many requests."""
        grant = self._grants.find(key, WRITE)
        if grant is None or grant.requests_per_minute is None:
            return None
        return self._too_often(fingerprint(key or ""), grant.requests_per_minute)

    def refuse(self, request: Request) -> Response | None:
        """The answer to a request that may not pass: 401, 403, 415 or 429; ``None`` when it may."""
        key = key_of_header(request.headers.get("authorization"))
        changes = (request.path.rstrip("/") or "/") in CHANGES
        refusal = self._change(request, key) if changes else self._question(key)
        if refusal is not None or self._open or key is None:
            return refusal
        grant = self._grants.find(key)
        if grant is not None and grant.project is not None and request.path.startswith(WHOLE):
            return Response.error(
                403, f"{request.path[:100]} tells of all projects; ask with a key that has no project"
            )
        limit = self._per_minute if grant is None else grant.requests_per_minute or self._per_minute
        return self._too_often(fingerprint(key), limit)

    def _named(self, key: str | None, scope: str) -> Grant | None:
        return self._grants.find(key, scope)

    def _question(self, key: str | None) -> Response | None:
        if self._open or self._read.accepts(key) or self._admin.accepts(key) or self._named(key, READ):
            return None
        if self._named(key, WRITE) is not None or (
            key is not None and not self._write.open and self._write.accepts(key)
        ):
            return Response.error(403, "a write key may only send events; ask with a read key")
        return Response.error(
            401, "wrong or missing key: send a read key as Bearer token or HTTP Basic user name", _CHALLENGE
        )

    def _change(self, request: Request, key: str | None) -> Response | None:
        if self._open and not self._write.accepts(key):
            return Response.error(
                401, "wrong or missing write key: send it as HTTP Basic user name or Bearer token", _CHALLENGE
            )
        if not self._open and not self._admin.accepts(key) and self._named(key, ADMIN) is None:
            if self._grants.find(key) or self._read.accepts(key) or (not self._write.open and self._write.accepts(key)):
                why = "" if self._admin or self._grants.scoped(ADMIN) else "; none is configured: set access.admin_keys"
                return Response.error(403, f"{request.path} needs an admin key{why}")
            return Response.error(
                401, "wrong or missing key: send an admin key as Bearer token or HTTP Basic user name", _CHALLENGE
            )
        # A page of another site may post a form without asking, but not JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return Response.error(415, f"{request.path} takes JSON: send Content-Type: {JSON}")
        return None

    def _too_often(self, digest: bytes, limit: int) -> Response | None:
        """A bucket that holds a minute's requests and fills evenly."""
        rate, now = limit / 60, self._now()
        left, at = self._left.get(digest, (float(limit), now))
        left = min(left + (now - at) * rate, float(limit))
        if left < 1:
            self._left[digest] = left, now
            wait = math.ceil((1 - left) / rate)
            return Response.error(
                429, f"this key may ask {limit} times a minute; ask again later", {"Retry-After": str(wait)}
            )
        self._left[digest] = left - 1, now
        return None
