"""HTTP without I/O: any cut of the bytes gives the same requests, and every limit holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.config import HttpConfig
from eventmill.net.protocol import Continue, Received, Refused, RequestReader

LIMITS = HttpConfig(request_bytes_max=100, header_bytes_max=500, headers_max=8)
TWO = (
    b"POST /v1/batch?a=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)


def read(*parts, limits=LIMITS):
    reader = RequestReader(limits)
    return [found for part in parts for found in reader.feed(part)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(TWO)), max_size=12))
def test_any_cut_gives_the_same_requests(cuts):
    edges = sorted({0, len(TWO), *cuts})
    found = read(*(TWO[a:b] for a, b in pairwise(edges)))
    assert [(f.request.method, f.request.path, f.request.body, f.keep_alive) for f in found] == [
        ("POST", "/v1/batch", b"hello", True),
        ("POST", "/v1/track", b"abcde", True),
        ("GET", "/healthz", b"", False),
    ]
    assert found[0].request.query == {"a": "1"}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + b"x" * 128, 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 3\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(9)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 600 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 600 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
    ],
)
def test_what_cannot_be_served_is_refused_once(head, status):
    found = read(head, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [f.status for f in found if isinstance(f, Refused)] == [status]
    assert not [f for f in found if isinstance(f, Received)]


def test_an_endless_header_is_cut_off_before_it_ends():
    reader = RequestReader(LIMITS)
    fed = 0
    found = reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\nx: ")
    while not found:
        found = reader.feed(b"y" * 64)
        fed += 64
    assert found[0].status == 431
    assert fed < 1_000


def test_a_client_that_waits_is_told_to_go_on():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    first, second = read(head, b"abc")
    assert isinstance(first, Continue)
    assert second.request.body == b"abc"


def test_repeated_headers_are_joined_and_names_are_lower_case():
    (found,) = read(b"GET / HTTP/1.0\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    assert found.request.headers == {"x-a": "1, 2"}
    assert not found.keep_alive
