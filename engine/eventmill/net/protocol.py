"""HTTP/1.1 without I/O: bytes in, requests and refusals out.

llhttp (through httptools, in its strict mode) refuses smuggling and malformed framing; the limits on headers, body and
``Host`` are ours, since the parser has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

import httptools

from eventmill.core.config import HttpConfig
from eventmill.net.messages import Request

_EXPECT_CONTINUE: Final = "100-continue"


@dataclass(frozen=True, slots=True)
class Received:
    """A whole request; ``keep_alive`` tells whether the connection may go on after its answer."""

    request: Request
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The connection cannot go on: answer with this and close."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Continue:
    """The client waits for ``100 Continue`` before it sends the body."""


class RequestReader:
    """One connection's requests. After a ``Refused`` nothing more is read."""

    def __init__(self, limits: HttpConfig) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._found: list[Received | Refused | Continue] = []
        self._refused: Refused | None = None
        self._begin()
        self.in_request = False

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._header_bytes = 0
        self._hosts = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._in_headers = True

    def feed(self, data: bytes) -> list[Received | Refused | Continue]:
        """What the bytes complete, in order."""
        if self._refused is not None:
            return []
        begun_before = self.in_request
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # on_headers_complete has refused it
        except httptools.HttpParserCallbackError:
            self._refuse(400, "the request's address or headers cannot be read")
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is not HTTP/1.1: {error}")
        if self._refused is None and self.in_request and self._in_headers:
            # Header lines may be held inside the parser, so the bytes of the whole unfinished head are counted.
            self._header_bytes += len(data) if begun_before else 0
            self._check_headers()
        found, self._found = self._found, []
        if self._refused is not None:
            found.append(self._refused)
        return found

    def _refuse(self, status: int, message: str) -> None:
        if self._refused is None:
            self._refused = Refused(status, message)

    def _check_headers(self) -> None:
        limits = self._limits
        if self._header_bytes + len(self._url) > limits.header_bytes_max:
            self._refuse(431, f"the headers exceed {limits.header_bytes_max:,} bytes (http.header_bytes_max)")
        elif self._header_count > limits.headers_max:
            self._refuse(431, f"there are more than {limits.headers_max} headers (http.headers_max)")

    # Called by the parser, in this order.

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._begin()
        self.in_request = True

    def on_url(self, url: bytes) -> None:
        """The target, maybe in parts."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        key = name.decode("latin-1").lower()
        self._hosts += key == "host"
        if self._header_count <= self._limits.headers_max:
            text = value.decode("latin-1").strip()
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text
        else:
            self._check_headers()

    def on_headers_complete(self) -> None:
        """The head is whole: the checks that need no body."""
        self._in_headers = False
        self._check_headers()
        if self._hosts > 1 or (self._hosts == 0 and self._parser.get_http_version() == "1.1"):
            self._refuse(400, "exactly one Host header is needed")
        if self._parser.should_upgrade():
            self._refuse(400, "this server does not upgrade connections; leave the Upgrade header out")
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limits.request_bytes_max:
            self._refuse_large()
        expect = self._headers.get("expect")
        if expect is not None and self._refused is None:
            if expect.lower() == _EXPECT_CONTINUE:
                self._found.append(Continue())
            else:
                self._refuse(417, f"Expect: {expect} is not understood; send 100-continue or nothing")

    def _refuse_large(self) -> None:
        self._refuse(413, f"the request exceeds {self._limits.request_bytes_max:,} bytes; send smaller batches")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.request_bytes_max:
            self._refuse_large()
        elif self._refused is None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.in_request = False
        if self._refused is not None:
            return
        url = httptools.parse_url(self._url)
        query = dict(parse_qsl(url.query.decode("latin-1"), keep_blank_values=True)) if url.query else {}
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=unquote((url.path or b"/").decode("latin-1")),
            query=query,
            headers=self._headers,
            body=body,
        )
        self._found.append(Received(request, self._parser.should_keep_alive()))
