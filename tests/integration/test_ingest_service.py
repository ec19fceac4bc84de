"""A whole ingest worker: group commit under concurrency, recorded SDK requests, readiness, signals."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import orjson
import pytest
import uvloop

from eventmill.core import frame
from eventmill.core.config import Config, HttpConfig, IngestConfig
from eventmill.core.errors import ConfigError, LogUnavailable
from eventmill.core.schema import RAW, Hop, Topic
from eventmill.ingest.service import run
from eventmill.log.local import LocalLog
from eventmill.observe import metrics

RECORDED = Path(__file__).parents[1] / "data" / "sdk_requests" / "captured.jsonl"
WAIT_S = 60


def batch(*ids, key=None):
    events = [{"type": "track", "event": "Opened", "userId": "u", "messageId": one} for one in ids]
    return orjson.dumps({"batch": events, **({"writeKey": key} if key else {})})


class Watched:
    """A log whose commits the test can count, hold up and fail."""

    def __init__(self, log):
        self._log, self.commits, self.held, self.failing = log, 0, threading.Event(), 0
        self.held.set()
        self.waiting = threading.Semaphore(0)

    def __getattr__(self, name):
        return getattr(self._log, name)

    @contextlib.contextmanager
    def transaction(self):
        self.waiting.release()
        assert self.held.wait(WAIT_S)
        with self._log.transaction() as transaction:
            yield transaction
            self.commits += 1
            if self.failing:
                self.failing -= 1
                raise LogUnavailable("broken on purpose", retry_after_s=7)

    async def begun(self):
        """A commit has begun."""
        assert await asyncio.to_thread(self.waiting.acquire, timeout=WAIT_S)


class Worker:
    def __init__(self, url, log):
        self.host, port = url.removeprefix("http://").split(":")
        self.port, self.log = int(port), log

    async def send(self, body, path="/v1/batch", method="POST", **headers):
        """(status, headers, answer), over a connection of its own."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *lines = head.decode().split("\r\n")
        answer = orjson.loads(rest) if rest.startswith(b"{") else rest
        return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), answer

    def stored(self):
        frames = self.log.read(Topic.RAW, 0, 0, events_max=1 << 40)
        return frame.decode_all(frames, RAW).column("message_id").to_pylist()


def work(tmp_path, scenario, ingest=None, wrap=Watched, **http):
    """Run a worker, the scenario on it, then end it by SIGTERM."""

    async def main():
        ready = asyncio.get_running_loop().create_future()
        config = Config(tmp_path, HttpConfig(port=0, **http), ingest or IngestConfig())
        running = asyncio.create_task(run(config, log, engine_socket=tmp_path / "no", ready=ready.set_result))
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            try:
                await scenario(Worker(await ready, log))
            except BaseException:
                log.held.set()
                raise
            os.kill(os.getpid(), signal.SIGTERM)
            await running

    log = wrap(LocalLog(tmp_path / "log"))
    try:
        uvloop.run(main())
    finally:
        log.close()


def test_one_commit_takes_all_that_came_during_the_last(tmp_path):
    async def scenario(worker):
        log = worker.log
        log.held.clear()
        first = asyncio.create_task(worker.send(batch("first")))
        await log.begun()
        rest = [asyncio.create_task(worker.send(batch(f"{n}"))) for n in range(60)]
        rest.append(asyncio.create_task(worker.send(b"{")))
        assert (await rest[-1])[0] == 400  # what needs no commit waits for none
        assert not first.done()
        log.held.set()
        assert [(await one)[0] for one in (first, *rest)] == [200] * 61 + [400]
        assert sorted(worker.stored()) == sorted(["first", *map(str, range(60))])
        assert log.commits < 10
        counts = {(count.hop, count.reason): count.events for count in log.ledger()}
        assert counts == {(Hop.RECEIVED, ""): 61, (Hop.ACCEPTED, ""): 61}

    work(tmp_path, scenario)


def test_a_group_of_dead_letters_alone_is_committed_after_the_last_one(tmp_path):
    async def scenario(worker):
        worker.log.held.clear()
        first = asyncio.create_task(worker.send(batch("first")))
        await worker.log.begun()
        dead = asyncio.create_task(worker.send(b'{"batch": [7]}'))
        assert (await worker.send(b"{"))[0] == 400  # sent later, so the one before has arrived
        worker.log.held.set()
        assert [(await one)[2]["rejected"] for one in (first, dead)] == [0, 1]

    work(tmp_path, scenario)


def test_when_200_arrives_another_connection_to_the_file_sees_the_event(tmp_path):
    async def scenario(worker):
        for number in range(20):
            assert (await worker.send(batch(f"{number}")))[0] == 200
            other = sqlite3.connect(worker.log.path)
            events = other.execute("SELECT sum(events) FROM frames").fetchone()
            other.close()
            assert events == (number + 1,)

    work(tmp_path, scenario)


def test_a_failed_commit_refuses_its_whole_group_and_no_other(tmp_path):
    async def scenario(worker):
        log = worker.log
        log.held.clear()
        first = asyncio.create_task(worker.send(batch("first")))
        await log.begun()
        second = [asyncio.create_task(worker.send(batch(f"{n}"))) for n in range(9)]
        bad = [asyncio.create_task(worker.send(b"{")) for _ in range(9)]
        assert [(await one)[0] for one in bad] == [400] * 9
        log.failing = 1
        log.held.set()
        status, headers, answer = await first
        assert (status, headers["retry-after"], answer["success"]) == (503, "7", False)
        assert [(await one)[0] for one in second] == [200] * 9
        assert sorted(worker.stored()) == [str(n) for n in range(9)]
        assert {count.events for count in log.ledger()} == {9}

    work(tmp_path, scenario)


def test_any_other_failure_is_a_500_and_stores_nothing(tmp_path):
    class Broken(Watched):
        broken = True

        def pressure(self):
            if self.broken:
                raise RuntimeError("on purpose")
            return self._log.pressure()

    async def scenario(worker):
        assert (await worker.send(batch("a")))[0] == 500
        worker.log.broken = False
        assert (await worker.send(batch("b")))[0] == 200
        assert worker.stored() == ["b"]

    work(tmp_path, scenario, wrap=Broken)


def test_a_wrong_key_in_the_body_takes_back_only_its_own_rows(tmp_path):
    async def scenario(worker):
        log = worker.log
        log.held.clear()
        kept = [asyncio.create_task(worker.send(batch("0", key="right")))]
        await log.begun()
        wrong = []
        for number in range(1, 20):
            kept.append(asyncio.create_task(worker.send(batch(f"{number}", key="right"))))
            wrong.append(asyncio.create_task(worker.send(batch("stolen", key="wrong"))))
        assert [(await one)[0] for one in wrong] == [401] * 19
        log.held.set()
        assert [(await one)[0] for one in kept] == [200] * 20
        assert sorted(worker.stored()) == sorted(str(n) for n in range(20))

    work(tmp_path, scenario, ingest=IngestConfig(write_keys=("right",)))


def test_a_full_group_does_not_wait_for_its_interval(tmp_path):
    # Only a group that is full, by events or by bytes, or by dead letters alone, is answered before the test gives up.
    for number, (options, body) in enumerate(
        [
            ({"commit_events_max": 3}, batch("a", "b", "c")),
            ({"commit_events_max": 3}, orjson.dumps({"batch": [1, 2, 3]})),
            ({"pending_bytes_max": 400}, batch("a")),
        ]
    ):

        async def scenario(worker, body=body):
            assert (await worker.send(body))[0] == 200

        work(tmp_path / str(number), scenario, ingest=IngestConfig(commit_interval="1h", **options))


def test_what_waits_for_its_commit_is_bounded(tmp_path):
    async def scenario(worker):
        log = worker.log
        log.held.clear()
        taken = asyncio.create_task(worker.send(batch(*map(str, range(90)))))
        await log.begun()
        status, headers, answer = await worker.send(batch("more"))
        assert (status, headers["retry-after"], "pending_bytes_max" in answer["error"]) == (503, "1", True)
        log.held.set()
        assert (await taken)[0] == 200
        assert (await worker.send(batch("more")))[0] == 200

    work(tmp_path, scenario, ingest=IngestConfig(pending_bytes_max=1_000))


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded requests are not there")
def test_recorded_sdk_requests_are_taken_as_they_were_sent(tmp_path):
    async def scenario(worker):
        sent = 0
        for line in RECORDED.read_bytes().splitlines():
            one = orjson.loads(line)
            body = one["body"].encode()
            headers = {name: value for name, value in one["headers"].items() if name.lower() != "content-length"}
            encoding = {name.lower(): value for name, value in headers.items()}.get("content-encoding")
            wire = gzip.compress(body) if encoding == "gzip" else body
            status, _, answer = await worker.send(wire, one["path"], one["method"], **headers)
            assert (status, answer["rejected"]) == (200, 0), one
            events = orjson.loads(body)
            assert answer["accepted"] == (len(events["batch"]) if "batch" in events else 1)
            sent += answer["accepted"]
        assert len(worker.stored()) == sent > 0

    work(tmp_path, scenario)


def answered():
    """Answers by (endpoint, status) since this process began."""
    samples = next(iter(metrics.REQUESTS.collect())).samples
    return Counter(
        {(one.labels["endpoint"], one.labels["status"]): one.value for one in samples if one.name.endswith("_total")}
    )


def test_answers_that_need_no_body(tmp_path):
    async def scenario(worker):
        key = "Basic " + base64.b64encode(b"wrong:").decode()
        for expected, options in (
            (401, {"Authorization": key}),
            (405, {"method": "PUT", "Authorization": "Bearer right"}),
        ):
            status, headers, _ = await worker.send(b"", Expect="100-continue", **options)
            assert status == expected
            assert ("www-authenticate" in headers) == (status == 401)
        status, headers, _ = await worker.send(b"x", Content_Encoding="br", Authorization="Bearer right")
        assert (status, headers["accept-encoding"]) == (415, "identity, gzip, zstd")
        assert (await worker.send(b"", "/metrics"))[:2][0] == 405
        status, _, answer = await worker.send(b"", "/nowhere", "GET")
        assert (status, "/v1/batch" in answer["error"]) == (404, True)
        assert (await worker.send(b"", "/v1/status", "GET"))[0] == 503
        assert (await worker.send(b"x" * 600_000))[0] == 413
        text = (await worker.send(b"", "/metrics", "GET"))[2].decode()
        assert "nowhere" not in text
        now = answered()
        for endpoint, code in (("/v1/batch", "415"), ("unknown", "404"), ("refused", "413")):
            assert now[endpoint, code] == before[endpoint, code] + 1
            assert f'eventmill_requests_total{{endpoint="{endpoint}",status="{code}"}}' in text

    before = answered()
    work(tmp_path, scenario, ingest=IngestConfig(write_keys=("right",)))


def test_readiness_follows_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr("eventmill.ingest.committer._PRESSURE_FRESH_S", 0.0)

    class Pressed(Watched):
        reasons = iter([None, "the log is full", LogUnavailable("no disk"), None])

        def pressure(self):
            reason = next(self.reasons)
            if isinstance(reason, Exception):
                raise reason
            return reason

    async def scenario(worker):
        answers = [await worker.send(b"", "/readyz", "GET") for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 503, 503, 200]
        assert [answer.get("reason") for _, _, answer in answers] == [None, "the log is full", "no disk", None]
        assert (await worker.send(b"", "/healthz", "GET"))[0] == 200

    work(tmp_path, scenario, wrap=Pressed)


def test_sigterm_finishes_what_is_in_flight(tmp_path):
    taken = []

    async def scenario(worker):
        worker.log.held.clear()
        taken.append(asyncio.create_task(worker.send(batch("late"))))
        await worker.log.begun()
        os.kill(os.getpid(), signal.SIGTERM)
        with contextlib.suppress(OSError):
            while True:  # until it has stopped listening
                _, writer = await asyncio.open_connection(worker.host, worker.port)
                writer.close()
        assert not taken[0].done()
        worker.log.held.set()
        assert (await taken[0])[0] == 200
        assert worker.stored() == ["late"]

    work(tmp_path, scenario)


def test_what_was_on_its_way_when_its_clients_left_is_written_before_the_end(tmp_path):
    async def scenario(worker):
        log = worker.log
        log.held.clear()
        clients = []
        for one in ("first", "second"):
            reader, writer = await asyncio.open_connection(worker.host, worker.port)
            body = batch(one)
            writer.write(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            clients.append((reader, writer))
            if one == "first":
                await log.begun()
        assert (await worker.send(b"{"))[0] == 400  # sent later, so the two before have arrived
        for _, writer in clients:  # by a reset: a plain end could be that of a client which still reads
            kept = writer.get_extra_info("socket")
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        asyncio.get_running_loop().call_later(0.05, log.held.set)
        os.kill(os.getpid(), signal.SIGTERM)

    work(tmp_path, scenario)
    again = LocalLog(tmp_path / "log")
    assert sorted(Worker("http://a:1", again).stored()) == ["first", "second"]
    again.close()


def test_a_client_that_waits_for_100_learns_at_once_that_its_key_is_wrong(tmp_path):
    async def scenario(worker):
        for path, key, expected in (
            ("/v1/batch", "wrong", b"HTTP/1.1 401"),
            ("/v1/track/", "wrong", b"HTTP/1.1 401"),
            ("/v1/batch", "right", b"HTTP/1.1 100"),
            ("/elsewhere", "wrong", b"HTTP/1.1 100"),
        ):
            reader, writer = await asyncio.open_connection(worker.host, worker.port)
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nAuthorization: Bearer {key}\r\n"
            writer.write(head.encode() + b"Content-Length: 9\r\n\r\n")
            assert await reader.readexactly(12) == expected
            writer.close()

    work(tmp_path, scenario, ingest=IngestConfig(write_keys=("right",)))


def test_a_worker_that_cannot_start_says_why(tmp_path):
    async def nothing(_):
        return None

    with pytest.raises(ConfigError, match="empty"):
        work(tmp_path, nothing, ingest=IngestConfig(write_keys=("",)))
    with pytest.raises(ConfigError, match="cannot listen"):
        work(tmp_path, nothing, host="192.0.2.1")


def test_the_command_prints_ready_shares_metrics_and_drains(tmp_path):
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    command = [sys.executable, "-m", "eventmill", "ingest", "--data", str(tmp_path / "data"), "--port"]

    def start(port):
        return subprocess.Popen([*command, str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)

    workers = [start(0)]
    try:
        url = workers[0].stdout.readline().decode().split()[1]
        workers.append(start(url.rpartition(":")[2]))
        assert workers[1].stdout.readline().decode().split() == ["ready", url]

        async def use():
            worker = Worker(url, None)
            for number in range(40):
                assert (await worker.send(batch(f"{number}")))[0] == 200
            return (await worker.send(b"", "/metrics", "GET"))[2].decode()

        text = uvloop.run(use())
        assert "eventmill_events_accepted_total 40.0" in text
    finally:
        for one in workers:
            one.send_signal(signal.SIGTERM)
        results = [(one.wait(WAIT_S), one.stderr.read().decode()) for one in workers]
        for one in workers:
            one.stdout.close()
            one.stderr.close()
    assert [code for code, _ in results] == [0, 0]
    assert all("drained" in messages and "Traceback" not in messages for _, messages in results)


def test_the_pool_of_forwards_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("eventmill.net.proxy._FORWARDS_MAX", 0)

    async def scenario(worker):
        status, _, answer = await worker.send(b"", "/v1/status", "GET")
        assert (status, "wait for the engine" in answer["error"]) == (503, True)

    work(tmp_path, scenario)
