"""The way from a worker to the engine: what clients send cannot steer it, and its failures are answers."""

from __future__ import annotations

import asyncio
import contextlib
import stat

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.config import HttpConfig
from eventmill.net import unix
from eventmill.net.messages import Request, Response
from eventmill.net.protocol import Received, RequestReader
from eventmill.net.proxy import Proxy, _encode
from eventmill.net.server import HttpServer


def request(method="GET", path="/v1/status", query=None, body=b"", **headers):
    return Request(method, path, query or {}, headers, body)


@contextlib.asynccontextmanager
async def engine(path, handler):
    server = HttpServer(handler, HttpConfig())
    await server.start_unix(path)
    try:
        yield server
    finally:
        await server.drain()


async def scripted(path, script):
    """An engine that answers with bytes of our choice, once a connection."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(script)
        writer.close()

    return await asyncio.start_unix_server(serve, sock=unix.listener(path))


def test_the_request_arrives_whole(tmp_path):
    async def main():
        async def handler(got):
            return Response.json(201, [got.method, got.path, got.query, got.headers["accept"], got.body.decode()])

        async with engine(tmp_path / "s", handler):
            proxy = Proxy(tmp_path / "s")
            sent = request("POST", "/v1/query/ä b%", {"a": "1 &=", "b": ""}, b"body", accept="x/y")
            answer = await proxy.forward(sent)
            assert (answer.status, answer.content_type) == (201, "application/json")
            assert answer.body.decode() == '["POST","/v1/query/ä b%",{"a":"1 &=","b":""},"x/y","body"]'
            proxy.close()

    uvloop.run(main())


def test_a_path_cannot_smuggle_a_second_request(tmp_path):
    async def main():
        seen = []

        async def handler(got):
            seen.append((got.method, got.path))
            return Response.json(200, len(seen))

        async with engine(tmp_path / "s", handler):
            proxy = Proxy(tmp_path / "s")
            evil = "/v1/trace/x HTTP/1.1\r\nHost: a\r\n\r\nPOST /v1/compact"
            assert (await proxy.forward(request(path=evil))).body == b"1"
            assert (await proxy.forward(request(query={"a\r\nb": "c\r\n\r\nGET /"}))).body == b"2"
            assert seen == [("GET", evil), ("GET", "/v1/status")]
            proxy.close()

    uvloop.run(main())


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=200, deadline=None)
@given(path=TEXT, query=st.dictionaries(TEXT, TEXT, max_size=3), body=st.binary(max_size=50))
def test_any_request_reads_back_as_itself(path, query, body):
    sent = request("POST", "/" + path.lstrip("/"), query, body)
    (found,) = RequestReader(HttpConfig()).feed(_encode("POST", sent))
    assert isinstance(found, Received)
    assert (found.request.path, found.request.query, found.request.body) == (sent.path, query, body)


def test_connections_are_reused_and_replaced_when_the_engine_restarts(tmp_path):
    async def main():
        async def handler(_):
            return Response.json(200, {})

        proxy = Proxy(tmp_path / "s")
        async with engine(tmp_path / "s", handler) as server:
            for method in ("GET", "HEAD", "POST"):
                assert (await proxy.forward(request(method))).status == 200
            assert len(server.connections) == 1
        (tmp_path / "s").unlink(missing_ok=True)
        async with engine(tmp_path / "s", handler):
            assert (await proxy.forward(request())).status == 200
        down = await proxy.forward(request())
        assert (down.status, down.headers["Retry-After"]) == (503, "1")
        (tmp_path / "s").unlink(missing_ok=True)
        async with engine(tmp_path / "s", handler):
            assert (await proxy.forward(request())).status == 200
        proxy.close()

    uvloop.run(main())


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (b"", 503),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", 503),
        (b"nonsense\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", 502),
    ],
)
def test_a_bad_answer_is_an_error_and_not_an_exception(tmp_path, script, status):
    async def main():
        server = await scripted(tmp_path / "s", script)
        assert (await Proxy(tmp_path / "s", answer_bytes_max=100).forward(request())).status == status
        server.close()

    uvloop.run(main())


def test_other_methods_are_refused(tmp_path):
    answer = uvloop.run(Proxy(tmp_path / "s").forward(request("PATCH")))
    assert (answer.status, "GET" in answer.headers["Allow"]) == (405, True)


def test_the_socket_may_have_a_long_path_and_is_private(tmp_path):
    async def main():
        async def handler(_):
            return Response.json(200, {})

        folder = tmp_path / ("long" * 40)
        folder.mkdir()
        async with engine(folder / "engine.sock", handler):
            assert stat.S_IMODE((folder / "engine.sock").stat().st_mode) == 0o600
            proxy = Proxy(folder / "engine.sock")
            assert (await proxy.forward(request())).status == 200
            proxy.close()

    uvloop.run(main())
