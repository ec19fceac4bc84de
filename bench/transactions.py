"""Does each message come through once, whatever is bounced? Kafka's own system test for transactions, with our processor in it.

Messages stand in raw. Processors copy them (the copy is ``kafka.mirror``, a message for each event in the processors'
transactions) while brokers or processors are bounced, one after the other, hard (kill -9) or clean (SIGTERM), and a reader
follows what is committed all the while. It must see each message once, in its partition's order, and so must one that comes
afterwards. A third reader takes what is not committed too: what it sees more is what torn transactions had written before.
Processors that are killed die within a transaction, when its messages are on the brokers and it is not committed: if nothing
was torn then, nothing was tried. (See ``transactions_test.py`` of kafkatest.)
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from bench import machine
from eventmill.core import groups
from eventmill.core.config import load
from eventmill.core.errors import LogUnavailable
from eventmill.core.schema import Topic
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from faults.role import Role
from faults.spread import messages
from testbed.kafka import Kafka
from testbed.process import Server, eventually

MESSAGES: Final = 100_000
WAYS: Final = tuple((target, how) for target in ("brokers", "processors") for how in ("hard", "clean"))
#: The way that tears transactions for certain.
DYING: Final = ("processors", "hard")
_PARTITIONS: Final = 6
_BOUNCES: Final = 3
_BATCH: Final = 500
#: Where processors that are killed die: all messages of the transaction are delivered by then.
_POINT: Final = "offsets sent"
_DEADLINE_S: Final = 300.0
#: An abandoned transaction is looked for every second, not every ten.
_SETTINGS: Final = {
    "broker.session.timeout.ms": "6000", "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"
}  # fmt: skip
_START: Final = 1_795_000_000_000
_DEVICES: Final = 997

#: Numbers of the messages of each partition, in order.
_Seen = dict[int, list[int]]


class _Reader:
    """A consumer from before the first message on, in a thread of its own."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        settings = {"bootstrap.servers": bootstrap, "group.id": f"{topic}-reader", "isolation.level": "read_committed"}
        self._consumer = Consumer({**settings, "enable.auto.commit": False, "log_level": 0})
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(_PARTITIONS)])
        self.messages: list[Message] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.messages += [each for each in self._consumer.consume(1_000, 0.2) if each.error() is None]
        self._consumer.close()

    def __enter__(self) -> _Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _numbers(messages: Sequence[Message]) -> _Seen:
    found: _Seen = {partition: [] for partition in range(_PARTITIONS)}
    for message in messages:
        found[message.partition() or 0].append(orjson.loads(message.value() or b"")["properties"]["n"])
    return found


def _fill(bootstrap: str, topic: str, count: int) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 20}
    )
    for n in range(count):
        event = {
            "type": "track", "event": "Copied", "userId": f"u{n % _DEVICES}", "messageId": str(n),
            "properties": {"n": n}, "timestamp": _START + n * 100,
        }  # fmt: skip
        while True:
            try:
                producer.produce(topic, orjson.dumps(event), key=f"u{n % _DEVICES}")
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(_DEADLINE_S):
        raise TimeoutError(f"{topic} does not take all messages")


def _bounce(server: Server, how: str, start: Callable[[], object]) -> None:
    """Down by the one way or the other, and up again."""
    server.kill() if how == "hard" else server.stop()
    start()


class _Dying:
    """Processors that kill themselves, each in its n-th transaction after a start.

    n is so low that all come to it, though whoever is there meanwhile takes more than its share of what is left.
    """

    def __init__(self, processors: Sequence[Role], count: int) -> None:
        self._processors = processors
        self._failpoint = _POINT, max(1, count // (2 * _BATCH * (_BOUNCES + 1)))
        for role in processors:
            role.launch(self._failpoint)

    def bounce(self, number: int) -> None:
        """Return once the processor of that bounce has died and is up again."""
        role = self._processors[number % len(self._processors)]
        role.await_end(_DEADLINE_S)
        if number + len(self._processors) < _BOUNCES:
            role.launch(self._failpoint)
        else:
            role.start()


def copied(kafka: Kafka, folder: Path, target: str, how: str, count: int) -> dict[str, Any]:
    """Copy ``count`` messages under bounces of ``target`` ("brokers", "processors") and say what readers saw."""
    environ = {
        "EVENTMILL_LOG__PREFIX": f"copy-{uuid.uuid4().hex[:8]}", "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "EVENTMILL_KAFKA__PARTITIONS": str(_PARTITIONS), "EVENTMILL_KAFKA__SESSION_TIMEOUT": "6s",
        "EVENTMILL_KAFKA__TRANSACTION_TIMEOUT": "6s", "EVENTMILL_PROCESS__SNAPSHOTS": str(folder / "snapshots"),
        "EVENTMILL_PROCESS__BATCH_EVENTS_MAX": str(_BATCH), "EVENTMILL_PROCESS__SNAPSHOT_INTERVAL_EVENTS": "5000",
        "EVENTMILL_DEDUP__CAPACITY": "10000000", "EVENTMILL_DATA": str(folder / "data"),
    }  # fmt: skip
    copy = environ["EVENTMILL_KAFKA__MIRROR"] = f"{environ['EVENTMILL_LOG__PREFIX']}.out"
    config = load(environ=environ)
    topics.create(config)
    _fill(kafka.bootstrap, f"{config.log.prefix}.{Topic.RAW}", count)
    processors = [Role(["process", "--port", "0"], folder / f"{number}.txt", environ) for number in range(2)]
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        log = KafkaLog(config)
        stack.callback(log.close)
        for role in processors:
            stack.callback(role.server.kill)
        torn_on_purpose = (target, how) == DYING
        if torn_on_purpose:
            dying = _Dying(processors, count)
        else:
            for role in processors:
                role.start()
        reader = stack.enter_context(_Reader(kafka.bootstrap, copy))

        def reach(least: int) -> None:
            eventually(
                lambda: len(reader.messages) >= least,
                lambda: f"copying goes on: {[role.server.tail() for role in processors]}",
                _DEADLINE_S,
            )

        mark = {each: log.next_offset(Topic.RAW, each) for each in range(_PARTITIONS)}
        for number in range(_BOUNCES):
            if torn_on_purpose:
                dying.bounce(number)
                continue
            # The bounces are spread over the copy.
            reach(max(count * number // (_BOUNCES + 1), 1))
            if target == "brokers":
                _bounce(kafka.nodes[number].server, how, kafka.mend)
            else:
                role = processors[number % len(processors)]
                _bounce(role.server, how, role.start)

        def done() -> bool:
            with contextlib.suppress(LogUnavailable):
                return log.wait_committed(groups.PROCESS, Topic.RAW, mark, 0.0)
            return False

        eventually(done, lambda: f"all is copied: {[role.server.tail() for role in processors]}", _DEADLINE_S)
        seconds = time.monotonic() - began
        afterwards = messages(kafka.bootstrap, copy, _PARTITIONS)
        torn = len(messages(kafka.bootstrap, copy, _PARTITIONS, "read_uncommitted")) - len(afterwards)
        reach(len(afterwards))
        suspects = sum(log.lag(groups.RESCUE, Topic.SUSPECTS, each) for each in log.partitions(Topic.SUSPECTS))
    return {
        "bounced": target, "how": how, "bounces": _BOUNCES, "messages": count, "seconds": round(seconds, 1),
        "torn": torn, "suspects": suspects, **_judged(_numbers(reader.messages), _numbers(afterwards), count - suspects),
    }  # fmt: skip


def _judged(concurrent: _Seen, afterwards: _Seen, expected: int) -> dict[str, int]:
    """What is wrong with what the readers saw. Suspects are not ``expected``: they wait for their look-up in the store."""
    times = Counter(n for partition in concurrent.values() for n in partition)
    ordered = sum(partition != sorted(partition) for partition in concurrent.values())
    return {
        "copied": len(times),
        "lost": expected - len(times),
        "doubled": sum(times.values()) - len(times),
        "partitions_out_of_order": ordered,
        "readers_disagree": sum(concurrent[each] != afterwards[each] for each in concurrent),
    }


def failures(row: dict[str, Any]) -> dict[str, int]:
    """What of a row must be 0 and is not; and "untorn", if no transaction was torn where each kill must have torn one."""
    must = ("lost", "doubled", "partitions_out_of_order", "readers_disagree")
    wrong = {name: row[name] for name in must if row[name]}
    untried = (row["bounced"], row["how"]) == DYING and row["torn"] < row["bounces"]
    return {**wrong, "untorn": row["bounces"] - row["torn"]} if untried else wrong


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Every way of bouncing; ``smoke``: one, with few messages. Ends with an error when a reader saw anything wrong."""
    rows = []
    for target, how in WAYS[2:3] if smoke else WAYS:
        with Kafka(settings=_SETTINGS) as kafka, tempfile.TemporaryDirectory() as folder:
            rows.append(copied(kafka, Path(folder), target, how, 2_000 if smoke else MESSAGES))
        if failures(rows[-1]):
            raise SystemExit(f"{target} bounced, {how}: {rows[-1]}")
    return {
        "question": "does each message come through once, whatever is bounced",
        "machine": machine.describe("confluent_kafka"),
        "rows": rows,
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| bounced | how | messages | seen once | lost | doubled | out of order | written by torn transactions |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in figures["rows"]:
        how = {"hard": "kill -9", "clean": "SIGTERM"}[row["how"]]
        counts = (row["copied"], row["lost"], row["doubled"], row["partitions_out_of_order"])
        shown = " | ".join(f"{count:,}" for count in (*counts, row["torn"]))
        lines.append(f"| {row['bounces']} {row['bounced']} | {how} | {row['messages']:,} | {shown} |")
    if suspects := sum(row["suspects"] for row in figures["rows"]):
        lines += ["", f"{suspects:,} are suspects, which the look-up in the store decides."]
    return "\n".join(lines)
