"""HTTP/1.1 without I/O: bytes in, requests and refusals out.

llhttp (through httptools, in its strict mode) judges every byte: it refuses smuggling and malformed framing. Beside it
the reader keeps its own account of where a head and a body end, and feeds the parser exactly up to there. So every
limit counts exact bytes however the stream is cut, a request's first byte is known, a client that sends many requests at
once waits in bytes and not in parsed requests, and a disagreement between the two accounts is a refusal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

import httptools

from eventmill.core.config import HttpConfig
from eventmill.net.messages import Request

_EXPECT_CONTINUE: Final = "100-continue"
_HEAD_END: Final = b"\r\n\r\n"
_NOT_BLANK: Final = re.compile(rb"[^\r\n]")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[;\t ].*)?\r\n", re.DOTALL)
_CHUNK_LINE_BYTES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Received:
    """A whole request; ``keep_alive`` tells whether the connection may go on after its answer."""

    request: Request
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The connection cannot go on: answer with this and close. ``headers`` are those of the request, as far as read."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Continue:
    """The client waits for ``100 Continue`` before it sends the body; ``request`` is without it."""

    request: Request


Found = Received | Refused | Continue


class RequestReader:
    """One connection's requests. After a ``Refused``, or a request that ends the connection, nothing more is read."""

    def __init__(self, limits: HttpConfig) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""
        self._at = 0
        self._found: list[Found] = []
        self._refused: Refused | None = None
        self._begin()
        #: Whether a request's first byte has come, but not its last.
        self.in_request = False
        #: How many requests have begun.
        self.begun = 0
        #: Nothing more is read.
        self.finished = False

    @property
    def waiting(self) -> bool:
        """Whether bytes are left that ``feed(b"")`` would look at."""
        return self._at < len(self._data) and not self.finished

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._hosts = 0
        self._head_bytes = 0
        self._head_tail = b""
        self._head: Request | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_left = 0
        self._chunks: _Chunks | None = None

    def stop(self) -> None:
        """Read nothing more."""
        self.finished = True
        self.in_request = False
        self._data, self._at = b"", 0

    def close(self) -> None:
        """The connection is gone. Parser and reader hold one another; parted, both go at once, not at some collection."""
        self.stop()
        del self._parser

    def feed(self, data: bytes, requests_max: int | None = None) -> list[Found]:
        """What the bytes complete, in order: at most so many requests (``http.pipelined_max``); ``feed(b"")`` goes on."""
        if self.finished:
            return []
        most = self._limits.pipelined_max if requests_max is None else requests_max
        if data:
            self._data = self._data[self._at :] + data if self._at < len(self._data) else data
            self._at = 0
        while self._at < len(self._data) and not self.finished and len(self._found) < most:
            self._step()
        if not self.waiting:
            self._data, self._at = b"", 0
        found, self._found = self._found, []
        return found

    def _step(self) -> None:
        """Take what belongs to one head or one body."""
        if not self.in_request:
            # Empty lines before a request begin nothing: they must not count as a sign of life.
            first = _NOT_BLANK.search(self._data, self._at)
            self._at = len(self._data) if first is None else first.start()
            if first is None:
                return
            self._begin()
            self.in_request = True
            self.begun += 1
        if self._head is None:
            self._take_head()
        elif self._chunks is not None:
            self._take_chunks(self._chunks)
        else:
            self._take_body()
        if self._refused is not None:
            self.finished = True
            self._found.append(self._refused)

    def _take_head(self) -> None:
        most = self._limits.header_bytes_max
        part = self._data[self._at : self._at + most - self._head_bytes]
        window = self._head_tail + part
        end = window.find(_HEAD_END)
        if end >= 0:
            part = part[: end + len(_HEAD_END) - len(self._head_tail)]
        self._head_tail = window[-3:]
        self._head_bytes += len(part)
        self._at += len(part)
        self._parse(part)
        if self._refused is not None:
            return
        if (end >= 0) != (self._head is not None):
            self._refuse(400, "the request's head does not end where it should")
        elif end < 0 and self._head_bytes >= most:
            self._refuse(431, f"the request's head exceeds {most:,} bytes (http.header_bytes_max)")
        elif self._head is not None and self.in_request and self._at == len(self._data):
            self._check_expectation(self._head)

    def _check_expectation(self, head: Request) -> None:
        # Whoever has sent a part of the body does not wait, and HTTP/1.0 knows no interim answers.
        if "expect" in self._headers and self._parser.get_http_version() == "1.1":
            self._found.append(Continue(head))

    def _take_body(self) -> None:
        part = memoryview(self._data)[self._at : self._at + self._body_left]
        self._body_left -= len(part)
        self._at += len(part)
        self._parse(part)
        if (self._body_left == 0) == self.in_request:
            self._refuse(400, "the body does not end where Content-Length says")

    def _take_chunks(self, chunks: _Chunks) -> None:
        end = chunks.scan(self._data, self._at)
        part = memoryview(self._data)[self._at : end]
        self._at = end
        self._parse(part)
        if chunks.broken or chunks.done == self.in_request:
            self._refuse(
                400, "the chunked body cannot be read: a chunk's size line, or the trailer, is damaged or too long"
            )

    def _parse(self, part: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            pass  # on_headers_complete has refused it
        except httptools.HttpParserCallbackError:
            self._refuse(400, "the request's address or headers cannot be read")
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is not HTTP/1.1: {error}")

    def _refuse(self, status: int, message: str) -> None:
        """The first reason counts."""
        if self._refused is None:
            self._refused = Refused(status, message, self._headers)

    # Called by the parser, in this order.

    def on_url(self, url: bytes) -> None:
        """The target, maybe in parts."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line; what a trailer says is not taken for a header."""
        if self._head is not None:
            return
        self._header_count += 1
        if self._header_count > self._limits.headers_max:
            self._refuse(431, f"there are more than {self._limits.headers_max} headers (http.headers_max)")
            return
        key = name.lower().decode("latin-1")
        text = value.decode("latin-1").strip(" \t")
        self._hosts += key == "host"
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """The head is whole: the checks that need no body."""
        headers = self._headers
        version = self._parser.get_http_version()
        method = self._parser.get_method().decode("ascii")
        url = httptools.parse_url(self._url) if method != "CONNECT" else None
        path = unquote((url.path or b"/").decode("latin-1")) if url is not None else ""
        query = dict(parse_qsl(url.query.decode("latin-1"), keep_blank_values=True)) if url and url.query else {}
        self._head = Request(method, path, query, headers, b"")
        coding = headers.get("transfer-encoding")
        expect = headers.get("expect", _EXPECT_CONTINUE)
        if version not in ("1.0", "1.1"):
            self._refuse(505, f"HTTP/{version} is not served; use HTTP/1.1")
        elif self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            self._refuse(400, "exactly one Host header is needed")
        elif method == "CONNECT":
            self._refuse(405, "this is not a proxy")
        elif self._parser.should_upgrade():
            # Passing over the offer is not possible: llhttp takes the body for another protocol and leaves it unread.
            self._refuse(400, "this server does not upgrade connections; leave the Upgrade header out")
        elif coding is not None and (coding.lower() != "chunked" or version == "1.0"):
            self._refuse(501, f"Transfer-Encoding {coding} is not understood; send chunked, over HTTP/1.1")
        elif expect.lower() != _EXPECT_CONTINUE:
            self._refuse(417, f"Expect: {expect} is not understood; send 100-continue or nothing")
        elif coding is not None:
            self._chunks = _Chunks(self._limits.header_bytes_max)
        else:
            self._body_left = int(headers.get("content-length") or 0)
            if self._body_left > self._limits.request_bytes_max:
                self._refuse_large()

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
        if self._refused is not None or self._head is None:
            return
        self.in_request = False
        head, body, self._body = self._head, self._body, []
        request = Request(
            head.method, head.path, head.query, head.headers, body[0] if len(body) == 1 else b"".join(body)
        )
        keep_alive = self._parser.should_keep_alive()
        self._found.append(Received(request, keep_alive))
        self.finished = not keep_alive


class _Chunks:
    """Finds where a chunked body ends, so that what follows stays unread; llhttp checks the grammar beside it."""

    def __init__(self, trailer_bytes_max: int) -> None:
        self._trailer_bytes_max = trailer_bytes_max
        self._line = b""
        self._left = 0
        self._in_trailer = False
        self._trailer_bytes = 0
        self.done = False
        self.broken = False

    def scan(self, data: bytes, at: int) -> int:
        """The position up to which ``data`` belongs to the body, trailer included."""
        while at < len(data) and not self.done and not self.broken:
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                continue
            most = self._trailer_bytes_max - self._trailer_bytes if self._in_trailer else _CHUNK_LINE_BYTES_MAX
            stop = min(len(data), at + most - len(self._line))
            end = data.find(b"\n", at, stop)
            stop = stop if end < 0 else end + 1
            self._line += data[at:stop]
            at = stop
            if end >= 0:
                self._end_line()
            elif len(self._line) >= most:
                self.broken = True
        return at

    def _end_line(self) -> None:
        line, self._line = self._line, b""
        if self._in_trailer:
            self._trailer_bytes += len(line)
            self.done = line == b"\r\n"
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            self.broken = True
            return
        bytes_ = int(size[1], 16)
        self._in_trailer = bytes_ == 0
        self._left = bytes_ + 2 if bytes_ else 0
