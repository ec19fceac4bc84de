"""A request and its answer, as handlers see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. ``headers`` has lower-case names; ``body`` is as sent (not inflated)."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; the server adds Content-Length, Connection and CORS headers."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
        """``value`` as JSON."""
        return cls(status, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), JSON, headers or {})

    @classmethod
    def error(cls, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        """``{"success": false, "error": message}``."""
        return cls.json(status, {"success": False, "error": message}, headers)


Handler = Callable[[Request], Awaitable[Response]]
