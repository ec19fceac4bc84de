"""Eventmill's roles as processes of their own on three brokers: ingest and processors behind the fault proxy."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from eventmill.core import frame, groups
from eventmill.core.config import load
from eventmill.core.errors import LogUnavailable
from eventmill.core.log import StoredFrame
from eventmill.core.schema import EVENT, Topic
from eventmill.generate.oracle import judge, stored_rows
from eventmill.generate.truth import TruthFile
from eventmill.log.kafka.log import KafkaLog
from eventmill.log.kafka.topics import create
from faults.alone import PROCESSING
from faults.role import Role, refused
from faults.sums import not_rolled_up
from testbed.faults import FaultProxy
from testbed.kafka import Kafka
from testbed.process import eventually, free_port

PREFIX: Final = "eventmill"
PARTITIONS: Final = 6
_JUDGE_S: Final = 600.0


class Spread:
    """One ingest and one sink; two processors by default."""

    name = "three brokers"

    def __init__(self, folder: Path, *, processors: int = 2, environ: Mapping[str, str] | None = None) -> None:
        # An abandoned transaction is looked for every second, not every ten.
        settings = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}
        self.kafka = Kafka(settings={"broker.session.timeout.ms": "6000", **settings})
        self.proxy = FaultProxy.before(self.kafka.nodes)
        self._folder = folder
        self._more = dict(environ or {})
        self.lake_dir = folder / "sink" / "lake"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.ingests: list[Role] = []
        self.processors: list[Role] = []
        self._count = processors
        self.sinks: list[Role] = []
        self._log: KafkaLog | None = None

    def _environ(self, bootstrap: str) -> dict[str, str]:
        return {
            "EVENTMILL_KAFKA__BOOTSTRAP": bootstrap,
            "EVENTMILL_KAFKA__PARTITIONS": str(PARTITIONS),
            "EVENTMILL_KAFKA__SESSION_TIMEOUT": "6s",
            "EVENTMILL_KAFKA__TRANSACTION_TIMEOUT": "6s",
            "EVENTMILL_PROCESS__SNAPSHOTS": str(self._folder / "snapshots"),
            **PROCESSING,
            **self._more,
        }

    def _role(self, name: str, *arguments: str) -> Role:
        data = self._folder / name
        bootstrap = self.kafka.bootstrap if name == "sink" else self.kafka.faulty_bootstrap
        return Role([*arguments, "--data", str(data)], self._folder / f"{name}.txt", self._environ(bootstrap))

    def _processor(self, number: int) -> Role:
        # With a name, so that it finds its partitions waiting, and ends its own transaction, when it comes back.
        return self._role(f"process-{number}", "process", "--port", "0", "--instance", str(number))

    def another(self) -> Role:
        """One more processor, not started."""
        self._count += 1
        self.processors.append(self._processor(self._count))
        return self.processors[-1]

    def start(self) -> None:
        """Returns once every role takes traffic."""
        self.kafka.start()
        self.proxy.start()
        config = load(environ=self._environ(self.kafka.bootstrap))
        create(config)
        self._log = KafkaLog(config)
        self.ingests = [self._role("ingest", "ingest", "--port", str(self._port))]
        self.processors = [self._role(f"process-{number}", "process", "--port", "0") for number in range(self._count)]
        self.sinks = [self._role("sink", "sink", "--port", "0")]
        for role in (*self.sinks, *self.processors, *self.ingests):
            role.start()

    @property
    def log(self) -> KafkaLog:
        """Past the proxy; to be asked once it is started."""
        assert self._log is not None
        return self._log

    def mark(self) -> dict[int, int]:
        """Where the next frame of raw goes, by partition; asked again while one has no leader."""
        found: dict[int, int] = {}

        def ask() -> bool:
            try:
                found.update({each: self.log.next_offset(Topic.RAW, each) for each in range(PARTITIONS)})
            except LogUnavailable:
                return False
            return True

        eventually(ask, lambda: "every partition of raw has a leader")
        return found

    def passed(self, mark: dict[int, int]) -> bool:
        """Whether the group has committed that far."""
        try:
            return self.log.wait_committed(groups.PROCESS, Topic.RAW, mark, 0.0)
        except LogUnavailable:
            return False

    def snapshots(self) -> list[Path]:
        """Of all partitions, the newest last."""
        return sorted((self._folder / "snapshots").glob("*/snapshot-*.bin"), key=lambda path: path.stat().st_mtime)

    def workers(self) -> list[int]:
        """The ids of the ingest processes."""
        return [role.server.pid for role in self.ingests if role.server.pid is not None]

    def refused(self) -> int:
        """Requests that ingest has answered with 503."""
        return refused(self.url)

    def compact(self) -> None:
        """Compact the lake as it is now."""
        self.ask("POST", "/v1/compact")

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """The oracle's on both stores, and on the enriched topic as a read_committed consumer sees it; with the ledger's."""
        self.kafka.mend()
        self.proxy.heal()
        for role in [*self.processors, *self.ingests]:
            role.server.resume()
        eventually(lambda: self.passed(self.mark()), lambda: "everything is processed")
        eventually(lambda: self._in_flight() == 0, lambda: f"{self._in_flight()} events are stored", _JUDGE_S)
        self.ask("POST", "/v1/flush")
        frames = [
            StoredFrame(Topic.ENRICHED, message.partition(), message.offset(), 0, 0, None, {}, message.value())
            for message in messages(self.kafka.bootstrap, f"{PREFIX}.{Topic.ENRICHED}", PARTITIONS)
        ]
        stored = stored_rows(pa.Table.from_batches([frame.decode_all(frames, EVENT)]))
        balanced = self.ask("GET", "/v1/audit")["balanced"]
        stores = self.ask("POST", f"/v1/judge?truth={quote(str(truth))}")
        stores["realtime"]["corrupt"] += not_rolled_up(self)
        enriched = judge(TruthFile(truth).read(), stored).as_dict()
        return {"enriched": enriched, **{name: {**verdict, "balanced": balanced} for name, verdict in stores.items()}}

    def _in_flight(self) -> int:
        return int(self.ask("GET", "/v1/status")["in_flight"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the sink's; asked again while it says that the log is out of its reach."""
        data = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(
            f"{self.sinks[0].url}{path}", data, method=method, headers={"Content-Type": "application/json"}
        )
        answers: list[bytes] = []

        def answered() -> bool:
            try:
                with urllib.request.urlopen(request, timeout=_JUDGE_S) as answer:
                    answers.append(answer.read())
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                refusals.append(error.read().decode(errors="replace"))
            return bool(answers)

        refusals: list[str] = []
        eventually(answered, lambda: f"the sink answers {path}: {refusals[-1:]}")
        return orjson.loads(answers[0])

    def close(self) -> None:
        """Kill everything."""
        for role in [*self.processors, *self.ingests, *self.sinks]:
            role.server.kill()
        if self._log is not None:
            self._log.close()
        self.proxy.close()
        self.kafka.close()


def messages(bootstrap: str, topic: str, partitions: int, isolation: str = "read_committed") -> list[Any]:
    """All messages of a topic that a consumer of that isolation level finds now, in each partition's order."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": f"{topic}-oracle",
        "isolation.level": isolation,
        "enable.partition.eof": True,
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found, ended = [], 0
    try:
        while ended < partitions:
            message = consumer.poll(60)
            if message is None:
                raise TimeoutError(f"{topic} does not end")
            if message.error() is None:
                found.append(message)
            else:
                ended += 1
        return found
    finally:
        consumer.close()
