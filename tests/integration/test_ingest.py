"""Ingest over real sockets: every documented answer, and 200 only when durable."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
from dataclasses import replace

import orjson
import pytest
import zstandard

from eventmill.core import frame
from eventmill.core.config import AccessConfig, Config, HttpConfig, IngestConfig
from eventmill.core.errors import LogUnavailable
from eventmill.core.schema import RAW, REJECT, Hop, Topic
from eventmill.ingest.committer import Committer
from eventmill.ingest.endpoints import Endpoints
from eventmill.log.local import LocalLog
from eventmill.net.access import Access
from eventmill.net.keys import WriteKeys
from eventmill.net.proxy import Proxy
from eventmill.net.server import HttpServer, reuse_port_socket

EVENT = {"type": "track", "event": "Opened", "userId": "u1", "messageId": "m1"}
BATCH = orjson.dumps({"batch": [EVENT]})


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split()[1]), headers, orjson.loads(body) if body.startswith(b"{") else body

    async def request(self, path, body=b"", method="POST", **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return await self.answer()


class Service:
    def __init__(self, log, http=None, ingest=None, access=None):
        self.log, self.http, self.ingest = log, http or HttpConfig(port=0), ingest or IngestConfig()
        self.access = access or AccessConfig()

    async def __aenter__(self):
        self.committer = Committer(self.log, self.ingest, self.http)
        self.proxy = Proxy(self.log.path.parent / "no.sock")
        keys = WriteKeys(self.ingest.write_keys)
        endpoints = Endpoints(self.committer, keys, Access(self.access, keys), self.http, self.proxy)
        self.server = HttpServer(endpoints.handle, self.http)
        bound = reuse_port_socket("127.0.0.1", 0)
        await self.server.start(bound)
        self.port = bound.getsockname()[1]
        self.clients = []
        return self

    async def __aexit__(self, *_):
        for client in self.clients:
            client.writer.close()
        await self.server.drain()
        await self.committer.close()
        self.proxy.close()

    async def connect(self):
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    def raw(self):
        frames = self.log.read(Topic.RAW, 0, 0, events_max=1 << 40)
        return frame.decode_all(frames, RAW)


@pytest.fixture
def log(tmp_path):
    opened = LocalLog(tmp_path / "log")
    yield opened
    opened.close()


def run(log, scenario, **options):
    async def main():
        async with Service(log, **options) as service:
            await scenario(service)

    asyncio.run(main())


def test_an_acknowledged_batch_is_on_the_log(log):
    async def scenario(service):
        client = await service.connect()
        status, _, answer = await client.request("/v1/batch", orjson.dumps({"batch": [EVENT, {"type": "track"}]}))
        assert (status, answer) == (200, {"success": True, "accepted": 1, "rejected": 1})
        assert service.raw().column("message_id").to_pylist() == ["m1"]
        dead = frame.decode_all(log.read(Topic.DEAD, 0, 0, events_max=9), REJECT)
        assert dead.column("payload").to_pylist() == [b'{"type":"track"}']
        counts = {(c.hop, c.reason): c.events for c in log.ledger()}
        assert counts == {(Hop.RECEIVED, ""): 2, (Hop.ACCEPTED, ""): 1, (Hop.REJECTED, "missing_event"): 1}

    run(log, scenario)


@pytest.mark.parametrize("kind", ["track", "screen", "page", "identify", "group", "alias"])
def test_each_endpoint_takes_its_event(log, kind):
    async def scenario(service):
        client = await service.connect()
        event = {"event": "Opened", "userId": "u1", "messageId": kind}
        status, _, answer = await client.request(f"/v1/{kind}", orjson.dumps(event))
        assert (status, answer["accepted"]) == (200, 1)
        assert service.raw().column("type").to_pylist() == [kind]

    run(log, scenario)


@pytest.mark.parametrize(
    ("encode", "name"), [(bytes, "identity"), (gzip.compress, "gzip"), (zstandard.ZstdCompressor().compress, "zstd")]
)
def test_each_encoding_is_taken(log, encode, name):
    async def scenario(service):
        client = await service.connect()
        status, _, answer = await client.request("/v1/batch", encode(BATCH), Content_Encoding=name)
        assert (status, answer["accepted"]) == (200, 1)

    run(log, scenario)


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"", {}, 400, "JSON"),
        (b"{", {}, 400, "JSON"),
        (BATCH[:-3], {}, 400, "JSON"),
        (b"\xff\xfe", {}, 400, "JSON"),
        (b"[]", {}, 400, "batch"),
        (b'"text"', {}, 400, "batch"),
        (b'{"batch": 7}', {}, 400, "batch"),
        (b"{}", {}, 400, "batch"),
        (b"x" * 600_000, {}, 413, "500,000"),
        (gzip.compress(b" " * 600_000), {"Content_Encoding": "gzip"}, 413, "500,000"),
        (b"plain", {"Content_Encoding": "gzip"}, 400, "gzip"),
        (b"plain", {"Content_Encoding": "zstd"}, 400, "zstd"),
        (b"plain", {"Content_Encoding": "br"}, 415, "gzip"),
    ],
)
def test_bad_bodies_get_their_answer_and_the_service_goes_on(log, body, headers, status, says):
    async def scenario(service):
        client = await service.connect()
        found, _, answer = await client.request("/v1/batch", body, **headers)
        assert (found, answer["success"]) == (status, False)
        assert says in answer["error"]
        client = await service.connect()
        assert (await client.request("/v1/batch", BATCH))[0] == 200
        assert service.raw().num_rows == 1

    run(log, scenario)


def test_wrong_paths_and_methods(log):
    async def scenario(service):
        client = await service.connect()
        assert (await client.request("/v2/batch", BATCH))[0] == 404
        status, headers, _ = await client.request("/v1/batch", method="GET")
        assert (status, headers["allow"]) == (405, "POST, OPTIONS")
        assert (await client.request("/healthz", method="GET"))[0] == 200
        assert (await client.request("/readyz", method="GET"))[0] == 200
        assert b"eventmill_requests_total" in (await client.request("/metrics", method="GET"))[2]
        assert (await client.request("/v1/query/trends", b"{}"))[0] == 503

    run(log, scenario)


def test_write_keys_by_all_three_ways(log):
    def basic(key):
        return "Basic " + base64.b64encode(f"{key}:".encode()).decode()

    async def scenario(service):
        client = await service.connect()
        with_key = orjson.dumps({"batch": [EVENT], "writeKey": "right"})
        for headers, body, status in (
            ({"Authorization": basic("right")}, BATCH, 200),
            ({"Authorization": "Bearer right"}, BATCH, 200),
            ({}, with_key, 200),
            ({}, BATCH, 401),
            ({"Authorization": basic("wrong")}, with_key, 401),
            ({"Authorization": "Bearer "}, with_key, 401),
            ({"Authorization": "Basic ???"}, with_key, 401),
            ({}, with_key.replace(b"right", b"wrong"), 401),
        ):
            assert (await client.request("/v1/batch", body, **headers))[0] == status
        assert service.raw().num_rows == 3

    run(log, scenario, ingest=IngestConfig(write_keys=("other", "right")))


def test_pipelined_requests_are_answered_in_order(log):
    async def scenario(service):
        client = await service.connect()
        one = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
        bodies = [orjson.dumps({"event": "e", "userId": "u", "messageId": str(n)}) for n in range(50)]
        await client.send(b"".join(one % (len(b), b) for b in bodies) + b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [(await client.answer())[0] for _ in range(51)] == [200] * 50 + [404]
        assert service.raw().num_rows == 50

    run(log, scenario)


def test_chunked_bodies_and_100_continue(log):
    async def scenario(service):
        client = await service.connect()
        await client.send(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (BATCH[:10], BATCH[10:]):
            await client.send(b"%x\r\n%s\r\n" % (len(part), part))
        await client.send(b"0\r\n\r\n")
        assert (await client.answer())[0] == 200
        head = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        await client.send(head % len(BATCH))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(BATCH)
        assert (await client.answer())[0] == 200
        await client.send(head % 600_000)
        assert (await client.answer())[0] == 413

    run(log, scenario)


def test_a_slow_request_is_cut_off_at_its_deadline_however_it_drips(log):
    async def scenario(service):
        client = await service.connect()

        async def drip():
            await client.send(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            while not client.reader.at_eof():
                try:
                    await client.send(b"x")
                except ConnectionError:
                    return
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        status, _, answer = await client.answer()
        assert (status, "request_deadline" in answer["error"]) == (408, True)
        assert await client.reader.read() == b""
        await dripping

    run(log, scenario, http=HttpConfig(port=0, request_deadline="200ms"))


def test_idle_connections_are_closed(log):
    async def scenario(service):
        client = await service.connect()
        assert (await client.request("/healthz", method="GET"))[0] == 200
        assert await client.reader.read() == b""

    run(log, scenario, http=HttpConfig(port=0, idle_timeout="200ms"))


def test_connections_past_the_cap_are_refused(log):
    async def scenario(service):
        first = await service.connect()
        assert (await first.request("/healthz", method="GET"))[0] == 200
        second = await service.connect()
        status, headers, _ = await second.answer()
        assert (status, "retry-after" in headers) == (503, True)
        assert (await first.request("/healthz", method="GET"))[0] == 200

    run(log, scenario, http=HttpConfig(port=0, connections_max=1))


def test_cors_for_allowed_origins_only(log):
    async def scenario(service):
        client = await service.connect()
        headers = (await client.request("/v1/batch", BATCH, Origin="https://app.example"))[1]
        assert headers["access-control-allow-origin"] == "https://app.example"
        preflight = {"Origin": "https://app.example", "Access_Control_Request_Method": "POST"}
        status, headers, _ = await client.request("/v1/batch", method="OPTIONS", **preflight)
        assert (status, "POST" in headers["access-control-allow-methods"]) == (204, True)
        headers = (await client.request("/v1/batch", BATCH, Origin="https://evil.example"))[1]
        assert "access-control-allow-origin" not in headers

    run(log, scenario, http=HttpConfig(port=0, cors_origins=("https://app.example",)))


def test_a_log_that_cannot_take_it_means_503_and_nothing_stored(log, monkeypatch):
    async def scenario(service):
        client = await service.connect()
        monkeypatch.setattr(log, "pressure", lambda: "the log is full")
        status, headers, answer = await client.request("/v1/batch", BATCH)
        assert (status, headers["retry-after"], answer["success"]) == (503, "5", False)
        monkeypatch.undo()
        assert log.end_offset(Topic.RAW, 0) == 0

        def broken():
            raise LogUnavailable("disk full")

        monkeypatch.setattr(log, "transaction", broken)
        assert (await client.request("/v1/batch", BATCH))[0] == 503
        monkeypatch.undo()
        assert (await client.request("/v1/batch", BATCH))[0] == 200
        assert service.raw().num_rows == 1

    run(log, scenario)


def test_too_much_pending_is_refused_at_once(log):
    async def scenario(service):
        service.committer.decoder.append(BATCH, 0)
        client = await service.connect()
        status, _, answer = await client.request("/v1/batch", BATCH)
        assert (status, "pending_bytes_max" in answer["error"]) == (503, True)

    run(log, scenario, ingest=IngestConfig(pending_bytes_max=1))


def test_a_drain_answers_what_is_in_flight(log):
    async def scenario(service):
        client = await service.connect()
        await client.send(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BATCH) + BATCH[:5])
        other = await service.connect()
        assert (await other.request("/healthz", method="GET"))[0] == 200
        draining = asyncio.create_task(service.server.drain())
        assert await other.reader.read() == b""
        await client.send(BATCH[5:])
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        await draining
        assert service.raw().num_rows == 1

    run(log, scenario)


def test_a_frequent_name_gets_a_frame_of_its_own_and_names_are_bounded(log):
    async def scenario(service):
        client = await service.connect()
        events = [{**EVENT, "event": f"e{n % 3}" if n < 300 else f"rare{n}", "messageId": str(n)} for n in range(400)]
        assert (await client.request("/v1/batch", orjson.dumps({"batch": events})))[0] == 200
        frames = log.read(Topic.RAW, 0, 0, events_max=1 << 40)
        keys = {f.key: f.events for f in frames}
        assert keys == {b"e0": 100, b"e1": 100, b"__other__": 200}
        assert len(set(service.raw().column("event").to_pylist())) == 103

    run(log, scenario, ingest=IngestConfig(frame_events_min=50, event_names_max=2))


def test_two_servers_share_a_port():
    first = reuse_port_socket("127.0.0.1", 0)
    second = reuse_port_socket("127.0.0.1", first.getsockname()[1])
    first.listen()
    second.listen()
    assert first.getsockname() == second.getsockname()
    with pytest.raises(OSError, match=r"[Aa]ddress"), socket.socket() as third:
        third.bind(first.getsockname())
    first.close()
    second.close()


def test_configuration_is_immutable():
    config = Config()
    assert replace(config, http=HttpConfig(port=1)).http.port == 1
    with pytest.raises(AttributeError):
        config.http = None
