"""The server's connections over real sockets: slow, rude, many and half-closed clients, and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections import Counter

import httptools
import pytest
import uvloop

from eventmill.core.config import HttpConfig
from eventmill.net.connection import Connection, encode
from eventmill.net.messages import Request, Response
from eventmill.net.protocol import Received, RequestReader
from eventmill.net.server import HttpServer, allow_open_files, reuse_port_socket

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
WAIT_S = 20


class Handler:
    """Answers with the path; what begins with ``/hold`` waits for ``release``."""

    def __init__(self):
        self.seen, self.running, self.peak, self.release = [], 0, 0, asyncio.Event()
        self._arrivals = asyncio.Semaphore(0)

    async def arrivals(self, count=1):
        """Wait for so many more requests."""
        for _ in range(count):
            await self._arrivals.acquire()

    async def __call__(self, request):
        self.seen.append(request.path)
        self._arrivals.release()
        self.running += 1
        self.peak = max(self.peak, self.running)
        if request.path.startswith("/hold"):
            await self.release.wait()
        else:
            await asyncio.sleep(0)
        self.running -= 1
        if request.path == "/fail":
            raise RuntimeError("on purpose")
        return Response(200, b"x" * (8 << 20) if request.path == "/large" else request.path.encode(), "text/plain")


@contextlib.asynccontextmanager
async def serving(drain=True, **limits):
    admit, refused = limits.pop("admit", None), []
    handler = Handler()
    options = {"on_refused": refused.append, **({"admit": admit} if admit else {})}
    server = HttpServer(handler, HttpConfig(**limits), **options)
    bound = reuse_port_socket("127.0.0.1", 0)
    await server.start(bound)
    server.port, server.refused = bound.getsockname()[1], refused
    async with asyncio.timeout(WAIT_S):
        yield server
        handler.release.set()
        if drain:
            await server.drain()


@contextlib.asynccontextmanager
async def client(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader):
    """(status, headers, body)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def run(scenario):
    uvloop.run(scenario())


def test_pipelined_requests_past_the_cap_wait_their_turn():
    async def scenario():
        async with serving(pipelined_max=4) as server, client(server) as (reader, writer):
            paths = [b"hold%d" % n for n in range(50)]
            writer.write(b"".join(GET % path for path in paths[:3]))
            await server.handler.arrivals(3)
            writer.write(b"".join(GET % path for path in paths[3:]))
            await server.handler.arrivals()
            server.handler.release.set()
            assert [(await answer(reader))[2] for _ in paths] == [b"/" + path for path in paths]
            assert server.handler.peak == 4

    run(scenario)


def test_answers_keep_the_order_of_their_requests():
    async def scenario():
        async with serving() as server, client(server) as (reader, writer):
            writer.write(GET % b"hold" + GET % b"quick" + GET % b"fail" + b"nonsense\r\n\r\n")
            await server.handler.arrivals(3)
            server.handler.release.set()
            assert [(await answer(reader))[0] for _ in range(4)] == [200, 200, 500, 400]
            assert await reader.read() == b""
            assert server.refused == [400]

    run(scenario)


def test_a_client_that_ends_its_side_still_gets_its_answers():
    async def scenario():
        async with serving(pipelined_max=2) as server, client(server) as (reader, writer):
            writer.write(GET % b"hold" * 5)
            writer.write_eof()
            await server.handler.arrivals()
            server.handler.release.set()
            assert [(await answer(reader))[0] for _ in range(5)] == [200] * 5
            assert await reader.read() == b""

    run(scenario)


def test_a_client_that_ends_its_side_amid_a_request_is_let_go():
    async def scenario():
        async with serving() as server, client(server) as (reader, writer):
            writer.write(GET[:9])
            writer.write_eof()
            assert await reader.read() == b""

    run(scenario)


def test_a_refused_client_that_goes_on_sending_reads_why():
    async def scenario():
        async with serving() as server, client(server) as (reader, writer):
            size = 20_000_000
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            writer.write(b"x" * size)
            await writer.drain()
            assert (await answer(reader))[0] == 413
            assert await reader.read() == b""
            assert server.refused == [413]

    run(scenario)


class Clock:
    """The loop as a connection sees it, with a clock that the test moves."""

    def __init__(self, connection):
        self._loop, self.ahead_s = connection._loop, 0.0
        connection._loop = self

    def __getattr__(self, name):
        return getattr(self._loop, name)

    def time(self):
        return self._loop.time() + self.ahead_s


def test_empty_lines_do_not_keep_a_connection_alive():
    async def scenario():
        async with serving(idle_timeout="75s") as server, client(server) as (reader, writer):
            writer.write(GET % b"a")
            assert (await answer(reader))[0] == 200
            (connection,) = server.connections
            clock = Clock(connection)
            for _ in range(4):
                clock.ahead_s += 18
                connection.data_received(b"\r\n")
                connection.check(clock.time())
                assert not connection._transport.is_closing()
            clock.ahead_s += 18
            connection.check(clock.time())
            assert await reader.read() == b""

    run(scenario)


def test_each_request_has_its_own_deadline_and_a_busy_connection_none():
    async def scenario():
        async with serving(request_deadline="30s") as server, client(server) as (reader, writer):
            # Every write ends one request and begins the next, so that one is always under way.
            one = GET % b"a"
            writer.write(one + one[:5])
            assert (await answer(reader))[0] == 200
            (connection,) = server.connections
            clock = Clock(connection)
            for _ in range(5):
                clock.ahead_s += 25
                connection.check(clock.time())
                writer.write(one[5:] + one[:5])
                assert (await answer(reader))[0] == 200
            clock.ahead_s += 25
            connection.data_received(one[5:8])  # a sign of life does not move the deadline
            connection.check(clock.time())
            clock.ahead_s += 6
            connection.check(clock.time())
            assert (await answer(reader))[0] == 408
            assert server.refused == [408]

    run(scenario)


def test_who_does_not_read_his_answers_is_cut_off():
    async def scenario():
        async with serving(request_deadline="200ms", pipelined_max=4) as server:
            rude = socket.create_connection(("127.0.0.1", server.port))
            rude.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(rude, GET % b"large" * 50)
            await server.handler.arrivals()
            await server._empty.wait()
            assert len(server.handler.seen) <= 8
            rude.close()

    run(scenario)


def test_past_the_cap_connections_are_told_so_and_room_comes_back():
    async def served(reader, writer):
        writer.write(GET % b"a")
        status, headers, _ = await answer(reader)
        assert (status == 200) or (headers["retry-after"], headers["connection"]) == ("1", "close")
        return status == 200

    async def gone(server, count):
        while len(server.connections) > count:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def scenario():
        async with serving(connections_max=2) as server, client(server) as first:
            assert await served(*first)
            async with client(server) as second:
                assert await served(*second)
                async with client(server) as third:
                    assert not await served(*third)
                    second[1].close()
                    await gone(server, 2)
                    async with client(server) as fourth:  # beside the third, which takes no room
                        assert await served(*fourth)
            await gone(server, 1)
            async with client(server) as fifth, client(server) as sixth:
                assert await served(*fifth)
                assert not await served(*sixth)
            assert server.handler.seen == ["/a"] * 4

    run(scenario)


def test_a_flood_past_the_cap_takes_no_room():
    async def scenario():
        async with serving(connections_max=1) as server, client(server) as (reader, writer):
            writer.write(GET % b"a")
            assert (await answer(reader))[0] == 200
            flood = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(400)]
            results = await asyncio.gather(*(one[0].read() for one in flood), return_exceptions=True)
            told = sum(isinstance(one, bytes) and one.startswith(b"HTTP/1.1 503") for one in results)
            assert 1 <= told <= 400
            assert len(server.connections) <= 1 + 256
            for _, to in flood:
                to.close()
            writer.write(GET % b"b")
            assert (await answer(reader))[0] == 200

    run(scenario)


def test_100_continue_waits_for_the_answers_before_it_and_what_is_condemned_gets_none():
    def admit(request):
        return Response.error(401, "no") if "authorization" not in request.headers else None

    async def scenario():
        head = b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n%s\r\n"
        async with serving(admit=admit) as server, client(server) as (reader, writer):
            writer.write(GET % b"hold" + head % b"Authorization: x\r\n")
            await server.handler.arrivals()
            server.handler.release.set()
            assert (await answer(reader))[2] == b"/hold"
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ok")
            assert (await answer(reader))[2] == b"/p"
            writer.write(head % b"")
            status, headers, _ = await answer(reader)
            assert (status, headers["connection"]) == (401, "close")
            assert await reader.read() == b""
            assert server.handler.seen == ["/hold", "/p"]

    run(scenario)


def test_http_1_0_and_head():
    async def scenario():
        async with serving() as server:
            async with client(server) as (reader, writer):
                writer.write(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                status, headers, body = await answer(reader)
                assert (status, headers["connection"], body) == (200, "keep-alive", b"/a")
                writer.write(b"GET /b HTTP/1.0\r\n\r\n")
                status, headers, _ = await answer(reader)
                assert (status, headers["connection"]) == (200, "close")
                assert await reader.read() == b""
            async with client(server) as (reader, writer):
                writer.write(b"HEAD /abc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert b"Content-Length: 4\r\n" in (whole := await reader.read())
                assert whole.endswith(b"\r\n\r\n")

    run(scenario)


@pytest.mark.parametrize(
    ("origins", "echoed"), [(("*",), True), (("https://a.example",), True), (("https://b",), False)]
)
def test_cors_reaches_refusals_too(origins, echoed):
    async def scenario():
        async with serving(cors_origins=origins) as server, client(server) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nContent-Length: 900000\r\n\r\n")
            status, headers, _ = await answer(reader)
            assert (status, headers["vary"]) == (413, "origin")
            assert (headers.get("access-control-allow-origin") == "https://a.example") == echoed

    run(scenario)


def test_the_drain_answers_all_pipelined_requests_and_refuses_newcomers():
    async def scenario():
        async with serving(drain=False) as server, client(server) as (reader, writer):
            writer.write(GET % b"hold" * 3)
            await server.handler.arrivals(3)
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            assert server.full
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", server.port)
            server.handler.release.set()
            answers = [await answer(reader) for _ in range(3)]
            assert [(status, headers["connection"]) for status, headers, _ in answers] == [
                (200, "keep-alive"), (200, "keep-alive"), (200, "close"),
            ]  # fmt: skip
            assert await reader.read() == b""
            await draining

    run(scenario)


def test_no_client_can_hold_up_the_drain(caplog, monkeypatch):
    monkeypatch.setattr("eventmill.net.server.LINGER_S", 0.05)

    async def scenario():
        async with serving(drain=False, request_deadline="100ms") as server, client(server) as (_, writer):
            writer.write(GET % b"hold")
            await server.handler.arrivals()
            await server.drain()  # the handler never ends by itself
            assert not server.connections
            server.handler.release.set()

    run(scenario)
    assert "cut off" in caplog.text


def test_an_answer_without_content_names_no_length():
    assert b"Content-Length" not in encode(Response(204), "now", {}, keep_alive=True, head=False)


def test_the_limit_on_open_files_is_raised_or_missed_aloud(caplog, monkeypatch):
    limits = {"now": (100, 5_000)}
    monkeypatch.setattr("resource.getrlimit", lambda _: limits["now"])
    monkeypatch.setattr("resource.setrlimit", lambda _, new: limits.update(now=new))
    allow_open_files(1_000)
    assert 1_000 < limits["now"][0] < 5_000
    assert not caplog.records
    allow_open_files(10_000)
    assert limits["now"] == (5_000, 5_000)
    assert "connections_max" in caplog.text


def test_an_impossible_port_is_an_error_with_a_cure():
    with pytest.raises(OSError, match="65535"):
        reuse_port_socket("127.0.0.1", 70_000)


def test_a_closed_connection_leaves_nothing_for_the_garbage_collector():
    """A body that waits for a collection is memory; phones open a connection for each."""

    def left():
        kinds = (Connection, Request, Received, RequestReader, httptools.HttpRequestParser)
        return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in kinds)

    async def scenario():
        async with serving() as server:
            for number in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" % number + b"x" * 50_000)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                writer.close()
                await writer.wait_closed()
        return left()

    gc.collect()
    gc.disable()
    try:
        before = left()
        assert uvloop.run(scenario()) - before == Counter()
    finally:
        gc.enable()
