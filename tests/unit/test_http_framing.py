"""HTTP without I/O: whatever is sent, however it is cut, the same requests and refusals come out, within every limit."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventmill.core.config import HttpConfig
from eventmill.net.protocol import Continue, Received, Refused, RequestReader

LIMITS = HttpConfig(request_bytes_max=60, header_bytes_max=200, headers_max=5, pipelined_max=3)


def drain(reader, data):
    """All that comes out of ``data``, however often the reader stops for its cap on pipelined requests."""
    found = reader.feed(data)
    while reader.waiting:
        more = reader.feed(b"")
        assert len([one for one in more if isinstance(one, Received)]) <= LIMITS.pipelined_max
        found += more
    return found


def read(parts, limits=LIMITS):
    reader = RequestReader(limits)
    found = [one for part in parts for one in drain(reader, part)]
    return [one for one in found if not isinstance(one, Continue)], reader


def cut(data, edges):
    places = sorted({0, len(data), *(edge % (len(data) + 1) for edge in edges)})
    return [data[a:b] for a, b in pairwise(places)]


def chunked(body, sizes, extension, trailer):
    out, at = b"", 0
    for size in sizes:
        part = body[at : at + size]
        at += size
        if part:
            out += b"%x%s\r\n%s\r\n" % (len(part), extension, part)
    rest = body[at:]
    if rest:
        out += b"%X\r\n%s\r\n" % (len(rest), rest)
    return out + b"0\r\n" + trailer + b"\r\n"


RIGHT = {
    "method": b"POST",
    "target": b"/v1/batch?a=1&b=%20",
    "version": b"1.1",
    "extra": b"",
    "coding": b"chunked",
    "extension": b"",
    "trailer": b"",
    "length": None,
}
#: One of these at most makes a request odd; some are still right.
ODD = [
    *(("method", method) for method in (b"GET", b"HEAD", b"CONNECT", b"BREW")),
    *(("target", target) for target in (b"*", b"http://h/x", b"/" + b"p" * 150, b"/\xff", b"nope")),
    *(("version", version) for version in (b"1.0", b"0.9", b"2.0", b"1.2")),
    *(("coding", coding) for coding in (b"gzip, chunked", b"identity", b"Chunked")),
    *(("extension", extension) for extension in (b";a=b", b" ", b";" + b"e" * 300)),
    *(("trailer", trailer) for trailer in (b"Host: b\r\n", b"T: " + b"t" * 250 + b"\r\n", b"bad\r\n")),
    *(("length", length) for length in (b"+1", b"-1", b"9" * 30, b"1, 1", b"")),
    ("extra", b"Connection: close\r\n"),
    ("extra", b"Connection: keep-alive\r\n"),
    ("extra", b"X: y\r\n" * 3),
    ("extra", b"X: y\r\n" * 6),
    ("extra", b"Host: b\r\n"),
    ("extra", b"X: " + b"y" * 190 + b"\r\n"),
    ("extra", b"X:" + b" " * 40 + b"y\r\n"),
    ("extra", b"Expect: 100-continue\r\n"),
    ("extra", b"Expect: tea\r\n"),
    ("extra", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    ("extra", b"A : b\r\n"),
    ("extra", b"A: b\n"),
    ("extra", b" folded\r\n"),
    ("extra", b"A: \x00\r\n"),
    ("extra", b"Content-Length: 3\r\n"),
]
BODIES = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n", b"b" * 61])
)


@st.composite
def messages(draw):
    """One request, in three of four cases without any oddity."""
    part = dict(RIGHT)
    if draw(st.integers(0, 3)) == 0:
        name, value = draw(st.sampled_from(ODD))
        part[name] = value
    body = draw(BODIES)
    head = b"%s %s HTTP/%s\r\nHost: a\r\n%s" % (part["method"], part["target"], part["version"], part["extra"])
    if part["length"] is None and draw(st.booleans()):
        sizes = draw(st.lists(st.integers(1, 30), max_size=3))
        rest = chunked(body, sizes, part["extension"], part["trailer"])
        return head + b"Transfer-Encoding: " + part["coding"] + b"\r\n\r\n" + rest
    length = b"%d" % len(body) if part["length"] is None else part["length"]
    return head + b"Content-Length: " + length + b"\r\n\r\n" + body


BETWEEN = st.sampled_from([b""] * 8 + [b"\r\n", b"\n\r\n\r\n", b"garbage"])
STREAMS = st.lists(st.tuples(messages(), BETWEEN).map(b"".join), max_size=6)
EDGES = st.lists(st.integers(0, 5_000), max_size=25)


@settings(max_examples=500, deadline=None)
@given(STREAMS.map(b"".join), EDGES)
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 9, [13])
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 400, list(range(0, 400, 7)))
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 400 + b"y\r\n\r\n", list(range(0, 400, 50)))
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"e" * 400, [100, 300])
def test_any_stream_means_the_same_however_it_is_cut(stream, edges):
    whole, at_once = read([stream])
    parts, in_parts = read(cut(stream, edges))
    assert parts == whole
    assert (in_parts.in_request, in_parts.finished, in_parts.begun) == (
        at_once.in_request, at_once.finished, at_once.begun,
    )  # fmt: skip
    bytewise, _ = read(stream[at : at + 1] for at in range(len(stream)))
    assert bytewise == whole


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), EDGES)
def test_any_bytes_give_requests_or_one_refusal(stream, edges):
    found, reader = read(cut(stream, edges))
    assert [isinstance(one, Refused) for one in found].count(True) <= 1
    if any(isinstance(one, Refused) for one in found):
        assert isinstance(found[-1], Refused)
        assert reader.finished


HOST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def test_a_head_of_exactly_the_limit_passes():
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
    fits = head.replace(b"X: ", b"X: " + b"y" * (200 - len(head)))
    assert isinstance(read([fits])[0][0], Received)
    assert isinstance(read(cut(fits, range(200)))[0][0], Received)
    assert read([fits.replace(b"X: ", b"X: y")])[0][0].status == 431


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (HOST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 300 + b"\r\n", 400),
        (HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"t" * 300 + b"\r\n\r\n", 400),
        (HOST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        (HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
        (HOST + b"Transfer-Encoding: chunked\r\n\r\n3d\r\n" + b"x" * 61, 413),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    ],
)
def test_what_is_not_served_has_a_status_of_its_own(stream, status):
    found, _ = read([stream])
    assert [one.status for one in found] == [status]


def test_the_body_behind_an_offer_to_upgrade_is_no_request():
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(body)
    found, _ = read([HOST + offer + body])
    assert [one.status for one in found] == [400]


def test_a_trailer_adds_no_header():
    body = b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nHost: b\r\n\r\n"
    (found,), _ = read([HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body])
    assert set(found.request.headers) == {"host", "transfer-encoding"}


def test_empty_lines_begin_no_request():
    reader = RequestReader(LIMITS)
    for _ in range(100):
        assert reader.feed(b"\r\n") == []
    assert (reader.begun, reader.in_request) == (0, False)
    reader.feed(b"G")
    assert (reader.begun, reader.in_request) == (1, True)


def test_pipelined_requests_past_the_cap_wait_as_bytes():
    reader = RequestReader(LIMITS)
    assert len(reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 7)) == 3
    assert (reader.waiting, reader.begun, reader.in_request) == (True, 3, False)
    assert [len(reader.feed(b"", room)) for room in (0, 1, 3, 3)] == [0, 1, 3, 0]
    assert not reader.waiting


@pytest.mark.parametrize(
    ("head", "waits"),
    [
        (HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", True),
        (HOST + b"expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\na", False),
        (HOST + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", False),
        (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", False),
        (HOST + b"Content-Length: 3\r\n\r\n", False),
    ],
)
def test_only_a_client_that_waits_is_told_to_go_on(head, waits):
    assert [isinstance(one, Continue) for one in RequestReader(LIMITS).feed(head)].count(True) == waits


def test_nothing_is_read_after_the_last_request():
    found, reader = read([b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n"])
    assert len(found) == 1
    assert reader.finished
    assert not reader.waiting
