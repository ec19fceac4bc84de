"""Serving the dashboard's files: read once, compressed once, checked by ETag, under a strict Content-Security-Policy.

The page is plain HTML, CSS and ES modules, so there is nothing to build; everything comes from this server, so it works
where there is no other.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from eventmill.core.errors import ConfigError
from eventmill.net.messages import Request, Response

#: The page itself is "/", everything that it loads lies below this.
PREFIX: Final = "/ui/"
CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
_INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class _Asset:
    """One file, as it is and compressed; the tags are those of the two encodings."""

    body: bytes
    packed: bytes
    content_type: str
    tag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> _Asset:
        suffix = name[name.rfind(".") :]
        tag = hashlib.sha256(body).hexdigest()[:16]
        return cls(body, gzip.compress(body, 9, mtime=0), CONTENT_TYPES[suffix], tag)


class Dashboard:
    """The files of ``eventmill/dashboard/static``. Raises ``ConfigError`` when the installation lacks them."""

    def __init__(self) -> None:
        found = dict(_read(files("eventmill.dashboard") / "static", ""))
        if _INDEX not in found:
            raise ConfigError("the dashboard's files are missing from this installation; install eventmill again")
        index = found.pop(_INDEX)
        self._assets = {"/": index, **{PREFIX + name: asset for name, asset in found.items()}}

    @property
    def paths(self) -> Mapping[str, str]:
        """Every path that is served, with its content type."""
        return {path: asset.content_type for path, asset in self._assets.items()}

    def answers(self, path: str) -> bool:
        """Whether a path belongs to the dashboard."""
        return path == "/" or path.startswith(PREFIX)

    def answer(self, request: Request) -> Response:
        """The file; 304 for a client that has it, 404 and 405 otherwise."""
        asset = self._assets.get(request.path)
        if asset is None:
            return Response.error(404, f"there is no {request.path}; the dashboard is at /")
        if request.method not in ("GET", "HEAD"):
            return Response.error(405, f"ask for {request.path} by GET", {"Allow": "GET, HEAD, OPTIONS"})
        packed = _takes_gzip(request.headers.get("accept-encoding", ""))
        tag = f'"{asset.tag}-gz"' if packed else f'"{asset.tag}"'
        headers = {**_HEADERS, "ETag": tag}
        if packed:
            headers["Content-Encoding"] = "gzip"
        known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
        if tag in known or "*" in known:
            return Response(304, headers=headers)
        return Response(200, asset.packed if packed else asset.body, asset.content_type, headers)


def _read(folder: Traversable, prefix: str) -> list[tuple[str, _Asset]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{prefix}{entry.name}/")
        elif entry.name[entry.name.rfind(".") :] in CONTENT_TYPES:
            found.append((prefix + entry.name, _Asset.of(entry.name, entry.read_bytes())))
    return found


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header names gzip with a weight above 0 (RFC 9110, 12.5.3)."""
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            weight = parameters.strip().removeprefix("q=")
            return weight.strip("0.") != "" or not weight
    return False
