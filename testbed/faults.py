"""A TCP proxy that breaks connections on purpose: by whole links, or by single requests of Kafka's protocol.

A Kafka request is int32 length, int16 api_key, int16 api_version, int32 correlation_id, …; its reply int32 length, int32
correlation_id, … (Kafka protocol guide). That much is read, so that a rule can name the request it means. Connections to
``Node.faulty`` arrive here and go on to the listener behind it; the broker's metadata names ``Node.faulty`` again, so a
client that bootstraps from ``Kafka.faulty_bootstrap`` goes through the proxy for all it does. No TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from testbed.kafka import Node

_CHUNK: Final = 65_536
_FRAME_BYTES_MAX: Final = 200 << 20
_ANSWER_S: Final = 30.0


class Api(enum.IntEnum):
    """The api_key of requests that matter here."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Fault(enum.Enum):
    """What happens to a request that a rule names."""

    DELAY_REQUEST = "the broker gets it late"
    RESET_REQUEST = "the connection is reset, and the broker never gets it"
    DELAY_REPLY = "the broker has done it, the client learns it late"
    DROP_REPLY = "the broker has done it, the client waits in vain, the connection lives on"
    RESET_REPLY = "the broker has done it, the connection is reset instead of the reply"


@dataclass(slots=True)
class Rule:
    """``times``: how often it strikes. ``struck``: how often it has; ``wait`` for that."""

    api: Api
    fault: Fault
    delay_s: float = 0.0
    times: int = 1
    struck: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def wait(self, times: int = 1, deadline_s: float = _ANSWER_S) -> None:
        """Return once it has struck that often; TimeoutError otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.struck >= times, deadline_s):
                raise TimeoutError(f"{self.api.name}: {self.fault.name} struck {self.struck} times, not {times}")

    def strike(self) -> None:
        """Count one more."""
        with self._changed:
            self.struck += 1
            self._changed.notify_all()


@dataclass(slots=True)
class Conditions:
    """Of every link, both ways: ``latency_s`` before each piece, pieces of 1 to ``slice_bytes`` bytes (0: as they come)."""

    latency_s: float = 0.0
    slice_bytes: int = 0


class FaultProxy:
    """Listens at addresses and forwards to others: ``{"127.0.0.1:9000": "127.0.0.1:6379"}``; a context manager.

    ``kafka``: the bytes are Kafka's protocol, and rules apply; any other protocol has links only.
    """

    def __init__(self, routes: dict[str, str], *, kafka: bool = False, seed: int = 0) -> None:
        self.conditions = Conditions()
        self.connections = 0
        self._routes = routes
        self._kafka = kafka
        self._random = random.Random(seed)
        self._rules: list[Rule] = []
        self._writers: dict[asyncio.StreamWriter, str] = {}
        self._open: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @classmethod
    def before(cls, nodes: Iterable[Node], seed: int = 0) -> FaultProxy:
        """The proxy of brokers' faulty listeners."""
        return cls({node.faulty: node.behind for node in nodes}, kafka=True, seed=seed)

    def start(self) -> None:
        """Listen; returns once connections are taken."""
        self._thread.start()
        self._call(self._listen())

    def rule(self, api: Api, fault: Fault, *, delay_s: float = 0.0, times: int = 1) -> Rule:
        """From now on, the next ``times`` requests of that kind meet that fault."""
        if not self._kafka:
            raise ValueError("rules name requests of Kafka; build the proxy with kafka=True")
        rule = Rule(api, fault, delay_s, times)
        self._rules.append(rule)
        return rule

    def reset(self, address: str | None = None) -> None:
        """Reset all connections that are open now (to one listening address, or to all)."""

        async def do() -> None:
            for writer, of in list(self._writers.items()):
                if address in (None, of):
                    _reset(writer)

        self._call(do())

    def stall(self, address: str | None = None) -> None:
        """Pass nothing on, either way, until ``heal``: connections stay open, and new ones are taken."""
        self._call(self._stall(address))

    def heal(self) -> None:
        """No rules, no latency, no slicing, no stall."""
        self._rules.clear()
        self.conditions = Conditions()

        async def do() -> None:
            for event in self._open.values():
                event.set()

        self._call(do())

    def close(self) -> None:
        """Reset every connection and stop listening."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> FaultProxy:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, work: Awaitable[None]) -> None:
        async def wrapped() -> None:
            await work

        asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(_ANSWER_S)

    async def _listen(self) -> None:
        self._servers = []
        for listen, target in self._routes.items():
            self._open[listen] = asyncio.Event()
            self._open[listen].set()
            host, _, port = listen.partition(":")

            def accept(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, at: str = listen, to: str = target
            ) -> None:
                task = self._loop.create_task(self._serve(reader, writer, at, to))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            self._servers.append(await asyncio.start_server(accept, host, int(port)))

    async def _stall(self, address: str | None) -> None:
        for of, event in self._open.items():
            if address in (None, of):
                event.clear()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, at: str, to: str) -> None:
        self.connections += 1
        ends = [writer]
        try:
            host, _, port = to.partition(":")
            upstream, onward = await asyncio.open_connection(host, int(port))
            ends.append(onward)
            for end in ends:
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._writers[end] = at
            asked: dict[int, Rule] = {}
            done, pending = await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(reader, onward, at, self._request(asked))),
                    asyncio.ensure_future(self._pump(upstream, writer, at, self._reply(asked))),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in pending:
                task.cancel()
            await asyncio.gather(*done, *pending, return_exceptions=True)
        except OSError:
            pass  # the server behind is down: the client sees a reset
        finally:
            for end in ends:
                self._writers.pop(end, None)
                _reset(end)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        at: str,
        judge: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Pass pieces on until an end closes or ``judge`` says to reset by raising ConnectionResetError."""
        while piece := await self._piece(reader):
            passed = await judge(piece) if self._kafka else True
            await self._open[at].wait()
            if passed:
                await self._write(writer, piece)

    async def _piece(self, reader: asyncio.StreamReader) -> bytes:
        if not self._kafka:
            return await reader.read(_CHUNK)
        try:
            head = await reader.readexactly(4)
            (size,) = struct.unpack(">i", head)
            if not 0 <= size <= _FRAME_BYTES_MAX:
                raise ConnectionResetError(f"a frame of {size} bytes is none of Kafka's")
            return head + await reader.readexactly(size)
        except asyncio.IncompleteReadError:
            return b""

    async def _write(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        latency, size = self.conditions.latency_s, self.conditions.slice_bytes
        if latency:
            await asyncio.sleep(latency)
        if not size:
            writer.write(piece)
            await writer.drain()
            return
        at = 0
        while at < len(piece):
            end = at + self._random.randint(1, size)
            writer.write(piece[at:end])
            await writer.drain()
            await asyncio.sleep(0)  # so that the slice leaves alone
            at = end

    def _request(self, asked: dict[int, Rule]) -> Callable[[bytes], Awaitable[bool]]:
        async def judge(piece: bytes) -> bool:
            api, _, correlation = struct.unpack_from(">hhi", piece, 4)
            rule = self._matching(api)
            if rule is not None:
                asked[correlation] = rule
                rule.strike()
                if rule.fault is Fault.RESET_REQUEST:
                    raise ConnectionResetError
                if rule.fault is Fault.DELAY_REQUEST:
                    await asyncio.sleep(rule.delay_s)
            return True

        return judge

    def _reply(self, asked: dict[int, Rule]) -> Callable[[bytes], Awaitable[bool]]:
        async def judge(piece: bytes) -> bool:
            rule = asked.pop(struct.unpack_from(">i", piece, 4)[0], None)
            if rule is None:
                return True
            if rule.fault is Fault.DELAY_REPLY:
                await asyncio.sleep(rule.delay_s)
            if rule.fault is Fault.RESET_REPLY:
                raise ConnectionResetError
            return rule.fault is not Fault.DROP_REPLY

        return judge

    def _matching(self, api: int) -> Rule | None:
        return next((rule for rule in list(self._rules) if rule.api == api and rule.struck < rule.times), None)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)  # close by RST, not FIN
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
