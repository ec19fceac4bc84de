"""Who may ask and who may change: scopes of keys, and how often each key may ask.

Without read and admin keys questions are free, as befits a server on loopback; changes are then for whoever has a write
key. As soon as one such key is configured, questions need a read or an admin key, and changes an admin key.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from eventmill.core.config import AccessConfig
from eventmill.net.keys import Keys, WriteKeys, fingerprint, key_of_header
from eventmill.net.messages import JSON, Request, Response

#: What changes what is stored, or reads files of the server.
CHANGES: Final = frozenset(["/v1/replay", "/v1/flush", "/v1/compact", "/v1/judge"])
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="eventmill"'}


class Access:
    """The door of everything but events. One of each process; not thread-safe: the event loop's.

    ``now``: seconds that only grow.
    """

    def __init__(self, config: AccessConfig, write: WriteKeys, *, now: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._read = Keys(config.read_keys)
        self._admin = Keys(config.admin_keys)
        self._open = not (self._read or self._admin)
        self._per_minute = config.requests_per_minute
        self._now = now
        #: What is left to each known key, and when that was so.
        self._left: dict[bytes, tuple[float, float]] = {}

    @property
    def open(self) -> bool:
        """Whether anyone may ask."""
        return self._open

    def refuse(self, request: Request) -> Response | None:
        """The answer to a request that may not pass: 401, 403, 415 or 429; ``None`` when it may."""
        key = key_of_header(request.headers.get("authorization"))
        changes = (request.path.rstrip("/") or "/") in CHANGES
        refusal = self._change(request, key) if changes else self._question(key)
        if refusal is not None or self._open or key is None:
            return refusal
        return self._too_often(fingerprint(key))

    def _question(self, key: str | None) -> Response | None:
        if self._open or self._read.accepts(key) or self._admin.accepts(key):
            return None
        if key is not None and not self._write.open and self._write.accepts(key):
            return Response.error(403, "a write key may only send events; ask with a read key")
        return Response.error(
            401, "wrong or missing key: send a read key as Bearer token or HTTP Basic user name", _CHALLENGE
        )

    def _change(self, request: Request, key: str | None) -> Response | None:
        if self._open and not self._write.accepts(key):
            return Response.error(
                401, "wrong or missing write key: send it as HTTP Basic user name or Bearer token", _CHALLENGE
            )
        if not self._open and not self._admin.accepts(key):
            if self._read.accepts(key) or (not self._write.open and self._write.accepts(key)):
                why = "" if self._admin else "; none is configured: set access.admin_keys"
                return Response.error(403, f"{request.path} needs an admin key{why}")
            return Response.error(
                401, "wrong or missing key: send an admin key as Bearer token or HTTP Basic user name", _CHALLENGE
            )
        # A page of another site may post a form without asking, but not JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return Response.error(415, f"{request.path} takes JSON: send Content-Type: {JSON}")
        return None

    def _too_often(self, digest: bytes) -> Response | None:
        """A bucket that holds a minute's requests and fills evenly."""
        rate, now = self._per_minute / 60, self._now()
        left, at = self._left.get(digest, (float(self._per_minute), now))
        left = min(left + (now - at) * rate, float(self._per_minute))
        if left < 1:
            self._left[digest] = left, now
            wait = math.ceil((1 - left) / rate)
            return Response.error(
                429, f"this key may ask {self._per_minute} times a minute; ask again later", {"Retry-After": str(wait)}
            )
        self._left[digest] = left - 1, now
        return None
