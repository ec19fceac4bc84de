"""How long a partition stands still when processors come and go: 1, 2, 4 of them and 2 again over 12 partitions of one broker.

Every partition gets a frame each tenth of a second, so the longest pause between two frames of enriched, by the clock of the
processor that made them, is what a partition waited. Those that stayed with their processor are told from those that moved.
At the end all events are sent again: state that did not move with its partition would let them pass.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bench import machine
from bench.decode import make_events, to_bodies
from eventmill._native.decode import Decoder
from eventmill.core import groups
from eventmill.core.clock import now_ms
from eventmill.core.config import Config, load
from eventmill.core.errors import LogUnavailable
from eventmill.core.log import Frame
from eventmill.core.schema import Topic
from eventmill.log.kafka import topics
from eventmill.log.kafka.log import KafkaLog
from eventmill.process.placing import raw_frames
from faults.role import Role
from testbed.kafka import Kafka
from testbed.process import eventually

_PARTITIONS: Final = 12
_TICK_S: Final = 0.1
_ASK_S: Final = 10.0


@dataclass
class _Step:
    """One change of the number of processors: ms since the epoch, and who had which partition before and after."""

    begun: int
    before: dict[int, str]
    after: dict[int, str]
    title: str
    settled_s: float
    ended: int = 0


@dataclass
class _Load:
    """Sends each of ``ticks`` (frames that go together) in turn, one a tenth of a second."""

    config: Config
    ticks: list[list[Frame]]
    sent: list[list[Frame]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        log = KafkaLog(self.config)
        due = time.monotonic()
        for frames in self.ticks:
            if stop.wait(max(0.0, due - time.monotonic())):
                break
            due = max(due + _TICK_S, time.monotonic() - 1)
            with log.transaction() as transaction:
                transaction.append(frames)
            self.sent.append(frames)
        log.close()


def run(*, smoke: bool = False) -> dict[str, Any]:
    """One run; ``smoke``: two processors at most, and hardly any time between the steps."""
    counts, seconds, events = ((1, 2), 0.5, 200) if smoke else ((1, 2, 4, 2), 10.0, 120)
    with Kafka(1, fast_start=smoke, heap_mib=512) as kafka, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        config, environ = _config(kafka, Path(name))
        log = KafkaLog(config)
        stack.callback(log.close)
        load = _Load(config, list(_ticks(300 if smoke else 1_500, events)))
        processors: list[Role] = []
        stack.callback(_kill, processors)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        steps: list[_Step] = []
        with load.running():
            for count in counts:
                before = _owners(admin, config)
                begun, clock = now_ms(), time.monotonic()
                leaving = [processors.pop() for _ in range(len(processors) - count)]
                joining = [
                    Role(["process", "--port", "0"], Path(name) / f"{len(processors) + each}.txt", environ)
                    for each in range(count - len(processors))
                ]
                title = f"{len(processors) + len(leaving)} → {count}"
                processors += joining
                for role in joining:
                    role.launch()
                for role in leaving:
                    role.server.stop()
                owners = _settled(admin, config, log, count, processors)
                step = _Step(begun, before, owners, title, time.monotonic() - clock)
                time.sleep(seconds)
                step.ended = now_ms()
                steps.append(step)
        _caught_up(log, processors)
        once = _enriched(log)
        with log.transaction() as transaction:
            transaction.append(itertools.chain.from_iterable(load.sent))
        _caught_up(log, processors)
        rows = [_row(step, once) for step in steps if step.before]
        first, second = (_events(stamps) for stamps in (once, _enriched(log)))
    sent = sum(frame.events for tick in load.sent for frame in tick)
    if second > first or first < 0.99 * sent:
        raise SystemExit(f"{sent} events were sent: {first} passed, and {second - first} when they were sent again")
    return {
        "question": "how long a partition stands still when processors come and go",
        "machine": machine.describe("confluent_kafka"),
        "events": sent,
        "partitions": _PARTITIONS,
        "rows": rows,
    }


def _kill(processors: list[Role]) -> None:
    for role in processors:
        role.server.kill()


def _config(kafka: Kafka, folder: Path) -> tuple[Config, dict[str, str]]:
    environ = {
        "EVENTMILL_LOG__PREFIX": f"groups-{uuid.uuid4().hex[:8]}",
        "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "EVENTMILL_KAFKA__PARTITIONS": str(_PARTITIONS),
        "EVENTMILL_KAFKA__REPLICATION": "1",
        "EVENTMILL_KAFKA__MIN_INSYNC": "1",
        "EVENTMILL_DEDUP__CAPACITY": "100000000",
        "EVENTMILL_PROCESS__SNAPSHOTS": str(folder / "snapshots"),
        "EVENTMILL_DATA": str(folder / "data"),
    }
    config = load(environ=environ)
    topics.create(config)
    return config, environ


def _ticks(count: int, events: int) -> Iterator[list[Frame]]:
    for number in range(count):
        decoder = Decoder()
        for body in to_bodies(make_events(events, number, now_ms()), events):
            decoder.append(body, now_ms())
        yield raw_frames(decoder.finish()[0], _PARTITIONS)


def _owners(admin: AdminClient, config: Config) -> dict[int, str]:
    """Each partition's member; empty while the group has none."""
    group = f"{config.log.prefix}.{groups.PROCESS}"
    try:
        found = admin.describe_consumer_groups([group], request_timeout=_ASK_S)[group].result(_ASK_S)
    except KafkaException:
        return {}  # it is not there yet
    return {
        place.partition: member.member_id
        for member in found.members
        for place in (member.assignment.topic_partitions if member.assignment else ())
    }


def _settled(admin: AdminClient, config: Config, log: KafkaLog, count: int, processors: list[Role]) -> dict[int, str]:
    """Who has what, once everybody has an equal part and has committed something of each partition since."""
    owners: dict[int, str] = {}

    def shared() -> bool:
        nonlocal owners
        owners = _owners(admin, config)
        return len(owners) == _PARTITIONS and len(set(owners.values())) == count

    eventually(
        shared, lambda: f"{count} processors share the partitions: {[role.server.tail() for role in processors]}"
    )
    _caught_up(log, processors)
    return owners


def _caught_up(log: KafkaLog, processors: list[Role]) -> None:
    """What is on raw now has been processed."""
    mark = {each: log.next_offset(Topic.RAW, each) for each in range(_PARTITIONS)}

    def passed() -> bool:
        try:
            return log.wait_committed(groups.PROCESS, Topic.RAW, mark, 0.0)
        except LogUnavailable:
            return False

    eventually(passed, lambda: f"all is processed: {[role.server.tail() for role in processors]}")


def _enriched(log: KafkaLog) -> dict[int, list[tuple[int, int]]]:
    """(ms since the epoch, events) of each frame of enriched, by partition."""
    found: dict[int, list[tuple[int, int]]] = {}
    for partition in range(_PARTITIONS):
        position, end = 0, log.next_offset(Topic.ENRICHED, partition)
        eventually(
            lambda each=partition, last=end: log.end_offset(Topic.ENRICHED, each) >= last,  # type: ignore[misc]
            lambda: "the last transaction's mark is written",
        )
        stamps = found.setdefault(partition, [])
        while frames := log.read(Topic.ENRICHED, partition, position, events_max=1 << 30, to_offset=end):
            stamps += [(each.appended_at, each.events) for each in frames]
            position = frames[-1].offset + 1
    return found


def _events(enriched: dict[int, list[tuple[int, int]]]) -> int:
    return sum(events for stamps in enriched.values() for _, events in stamps)


def _row(step: _Step, enriched: dict[int, list[tuple[int, int]]]) -> dict[str, Any]:
    pauses: dict[bool, list[int]] = {True: [], False: []}
    for partition, stamps in enriched.items():
        times = [at for at, _ in stamps if at <= step.ended]
        inside = [later - at for at, later in itertools.pairwise(times) if later >= step.begun]
        pauses[step.before.get(partition) == step.after[partition]].append(max(inside))
    return {
        "step": step.title,
        "kept": len(pauses[True]),
        "moved": len(pauses[False]),
        "kept_pause_ms": max(pauses[True], default=0),
        "moved_pause_ms": max(pauses[False], default=0),
        "settled_s": round(step.settled_s, 1),
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| processors | partitions kept | their longest pause | moved | their longest pause | all settled after |"]
    lines.append("|---|---|---|---|---|---|")
    for row in figures["rows"]:
        kept, moved = (f"{row[f'{kind}_pause_ms'] / 1000:.2f} s" if row[kind] else "" for kind in ("kept", "moved"))
        lines.append(f"| {row['step']} | {row['kept']} | {kept} | {row['moved']} | {moved} | {row['settled_s']} s |")
    return "\n".join([*lines, "", f"{figures['events']:,} events, each sent twice; every one passed once."])
