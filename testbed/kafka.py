"""An Apache Kafka cluster (KRaft, combined broker and controller nodes) whose nodes can be broken one by one.

Each broker has a second listener for clients that shall meet faults: it advertises the address of a proxy
(``Node.faulty``), which a test puts there (``testbed.faults``), so every connection of such a client, those it makes from
metadata too, goes through the proxy, and the brokers among themselves do not.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from testbed.jars import classpath, java
from testbed.packages import CACHE, locked
from testbed.process import READY_S, Server, eventually, free_port
from testbed.secure import SCRAM, Secure
from testbed.single import Startable

_ASK_S: Final = 5.0
_CONSUME_S: Final = 0.2
_LOGGING: Final = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
#: What makes a small cluster start fast and stay small. None of it weakens durability or changes a protocol.
_SMALL: Final = {
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": str(4 << 20),
    "log.index.size.max.bytes": str(1 << 20),
}


class Node:
    """One broker that is a controller too. ``direct`` and ``faulty`` are ``host:port`` for clients."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.folder = folder
        self.direct, self.faulty, self.behind = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.controller, self.secure = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.server = Server([], folder / "messages.txt")

    def prepare(self, cluster: str, properties: Mapping[str, str], command: list[str], model: Path) -> None:
        """Write its configuration, and storage like ``model``, which ``kafka-storage format`` left."""
        shutil.copytree(model, self.folder / "data")
        (self.folder / "data" / "meta.properties").write_text(
            f"version=1\ncluster.id={cluster}\nnode.id={self.number}\ndirectory.id={_kafka_uuid()}\n"
        )
        own = {
            "node.id": str(self.number),
            "log.dirs": str(self.folder / "data"),
            "listeners": f"DIRECT://{self.direct},FAULTY://{self.behind},CONTROLLER://{self.controller}",
            "advertised.listeners": f"DIRECT://{self.direct},FAULTY://{self.faulty}",
        }
        if any(name.startswith("listener.name.secure.") for name in properties):
            for name in ("listeners", "advertised.listeners"):
                own[name] += f",SECURE://{self.secure}"
        path = self.folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in {**properties, **own}.items()))
        self.server.command = [*command, "kafka.Kafka", str(path)]


class Kafka(Startable):
    """A cluster in a temporary folder; a context manager that starts and removes it.

    ``nodes``: 3 (replication factor 3, min.insync.replicas 2) or 1 (both 1). ``heap_mib`` is per node. ``fast_start``: C1 alone
    compiles, and classes come from an archive that a first run leaves in the cache; a start takes half the CPU time, and all
    later work more, so benches turn it off. ``settings``: further broker properties; ``flags``: further ones of the JVM;
    ``secure``: one more listener, with TLS and a password.
    Raises testbed.packages.Unavailable without Java or the jars.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        heap_mib: int = 384,
        fast_start: bool = True,
        settings: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        secure: bool = False,
    ) -> None:
        program, places = java(), classpath()  # first: where they are missing, nothing is left behind
        memory = [f"-Xms{min(heap_mib, 128)}m", f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
        flags = [*memory, *flags, *(["-XX:TieredStopAtLevel=1", _class_archive(program, places)] if fast_start else [])]
        self.folder = Path(tempfile.mkdtemp(prefix="eventmill-kafka-"))
        self.secure = Secure(self.folder) if secure else None
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        flags.append(f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}")
        self._java = [program, *flags, "-cp", places]
        self.nodes = [Node(number, self.folder / f"node-{number}") for number in range(1, nodes + 1)]
        copies = str(min(3, nodes))
        in_sync = "2" if nodes >= 3 else "1"
        replication = dict.fromkeys(
            ("default", "offsets.topic", "transaction.state.log", "share.coordinator.state.topic"), copies
        )
        self._properties = {
            "process.roles": "broker,controller",
            "controller.quorum.voters": ",".join(f"{node.number}@{node.controller}" for node in self.nodes),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "DIRECT",
            "listener.security.protocol.map": "DIRECT:PLAINTEXT,FAULTY:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
            "auto.create.topics.enable": "false",
            **{f"{topic}.replication.factor": count for topic, count in replication.items()},
            "min.insync.replicas": in_sync,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.min.isr": in_sync,
            **_SMALL,
            **({} if self.secure is None else self.secure.broker),
            **(settings or {}),
        }
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        """``bootstrap.servers`` of clients that talk to the brokers."""
        return ",".join(node.direct for node in self.nodes)

    @property
    def faulty_bootstrap(self) -> str:
        """``bootstrap.servers`` of clients that go through the proxies; see ``testbed.faults``."""
        return ",".join(node.faulty for node in self.nodes)

    @property
    def secure_bootstrap(self) -> str:
        """``bootstrap.servers`` of clients that use TLS and a password; see ``testbed.secure``."""
        return ",".join(node.secure for node in self.nodes)

    @property
    def admin(self) -> AdminClient:
        """An admin client of the brokers themselves."""
        if self._admin is None:
            brisk = {"socket.timeout.ms": 2000, "reconnect.backoff.max.ms": 500}  # a frozen broker is left soon
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, **brisk})
        return self._admin

    def start(self) -> None:
        """Format storage if it is new, start every node that does not run, return when all take traffic."""
        if not self.nodes[0].folder.exists():
            self._format()
        for node in self.nodes:
            node.server.start()
        self.wait_ready()

    def node(self, number: int) -> Node:
        """By its node id, from 1."""
        return self.nodes[number - 1]

    def wait_ready(self, deadline_s: float = READY_S) -> None:
        """Return once every running node is in the metadata and each of their partitions has all replicas in sync.

        Nodes that are down or frozen are not waited for, and their replicas may lag.
        """
        state = "no answer"

        def ready() -> bool:
            nonlocal state
            up = {node.number for node in self.nodes if node.server.running and not node.server.frozen}
            dead = [node.number for node in self.nodes if node.number not in up]
            if gone := [number for number in dead if self.node(number).server.crashed]:
                raise RuntimeError(f"broker {gone[0]} ended: {self.node(gone[0]).server.tail()}")
            try:
                metadata = self.admin.list_topics(timeout=_ASK_S)
            except KafkaException as error:
                state = str(error)
                return False
            missing = up - set(metadata.brokers)
            late = [
                f"{topic.topic}-{number}"
                for topic in metadata.topics.values()
                for number, partition in topic.partitions.items()
                if partition.leader not in up or (set(partition.replicas) & up) - set(partition.isrs)
            ]
            state = f"brokers not there: {sorted(missing)}, partitions out of sync: {late[:5]}"
            return not missing and not late

        eventually(ready, lambda: f"Kafka is ready ({state})", deadline_s)

    def mend(self) -> None:
        """Every node runs and is in sync again, whatever was done to it."""
        for node in self.nodes:
            node.server.resume()
        self.start()

    def create(self, topic: str, partitions: int = 3, settings: Mapping[str, str] | None = None) -> None:
        """Create a topic and return once every partition has a leader."""
        new = NewTopic(topic, partitions, config=dict(settings or {}))
        for done in self.admin.create_topics([new]).values():
            done.result(READY_S)

        def led() -> bool:
            seen = self.admin.list_topics(topic, timeout=_ASK_S).topics[topic]
            return len(seen.partitions) == partitions and all(one.leader > 0 for one in seen.partitions.values())

        eventually(led, lambda: f"{topic} has leaders")

    def committed(self, topic: str, partitions: int) -> int:
        """Messages of a topic as a read_committed consumer counts them."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap, "group.id": f"{topic}-count", "enable.auto.commit": False,
                "enable.partition.eof": True, "isolation.level": "read_committed",
            }
        )  # fmt: skip
        try:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
            found, ended, last = 0, 0, time.monotonic()
            while ended < partitions:
                messages = consumer.consume(10_000, _CONSUME_S)
                last = time.monotonic() if messages else last
                if time.monotonic() - last > READY_S:
                    raise TimeoutError(f"{topic} does not end")
                ended += sum(message.error() is not None for message in messages)
                found += sum(message.error() is None for message in messages)
            return found
        finally:
            consumer.close()

    def leader(self, topic: str, partition: int) -> Node:
        """The broker that leads a partition now."""
        found: dict[str, Any] = self.admin.list_topics(topic, timeout=READY_S).topics
        number = found[topic].partitions[partition].leader
        if number < 1:
            raise LookupError(f"{topic}-{partition} has no leader now")
        return self.node(number)

    def group_coordinator(self, group: str) -> Node:
        """The broker that keeps a consumer group's offsets."""
        return self._coordinator("__consumer_offsets", group)

    def transaction_coordinator(self, transactional_id: str) -> Node:
        """The broker that keeps a transactional producer's state."""
        return self._coordinator("__transaction_state", transactional_id)

    def run(self, main: str, *arguments: str, classes: Iterable[Path] = ()) -> subprocess.CompletedProcess[str]:
        """Run a Java program of Kafka's, or of ``classes`` beside its jars, to its end."""
        places = ":".join([classpath(), *map(str, classes)])
        command = [*self._java[:-1], places, main, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def close(self) -> None:
        """Kill every node and remove the folder."""
        self._admin = None
        for node in self.nodes:
            node.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _coordinator(self, topic: str, key: str) -> Node:
        return self.leader(topic, _java_hash(key) % int(self._properties[_PARTITIONS[topic]]))

    def _format(self) -> None:
        # What `kafka-storage format` writes beside meta.properties (feature levels) is the same for every node: made once.
        cluster = _kafka_uuid()
        first = self.nodes[0]
        model = self.folder / "format"
        config = self.folder / "format.properties"
        config.write_text(
            "".join(f"{name}={value}\n" for name, value in self._properties.items())
            + f"node.id={first.number}\nlog.dirs={model}\n"
            + f"listeners=DIRECT://{first.direct},CONTROLLER://{first.controller}\n"
        )
        users = [] if self.secure is None else ["--add-scram", SCRAM]
        done = self.run("kafka.tools.StorageTool", "format", "-c", str(config), "-t", cluster, *users)
        if done.returncode:
            raise RuntimeError(f"kafka-storage format failed: {(done.stdout + done.stderr)[-2000:]}")
        for node in self.nodes:
            node.prepare(cluster, self._properties, self._java, model)


_PARTITIONS: Final = {
    "__consumer_offsets": "offsets.topic.num.partitions",
    "__transaction_state": "transaction.state.log.num.partitions",
}


def _class_archive(java: str, classpath: str) -> str:
    """The JVM's flag for the archive of a broker's classes, parsed and checked; made by a broker that runs for a moment.

    A JVM that cannot make or use one goes without.
    """
    name = hashlib.sha256(f"{Path(java).resolve()} {classpath}".encode()).hexdigest()[:12]
    path = CACHE / f"kafka-classes-{name}.jsa"
    if not path.exists():
        with locked("kafka-classes"):
            if not path.exists():
                draft = path.with_suffix(".draft")
                dump = ("-XX:+IgnoreUnrecognizedVMOptions", f"-XX:ArchiveClassesAtExit={draft}")
                with Kafka(1, fast_start=False, flags=dump) as kafka:
                    kafka.create("classes", 1)
                    kafka.nodes[0].server.stop()
                draft.touch()
                draft.rename(path)
    return f"-XX:SharedArchiveFile={path}"


def _kafka_uuid() -> str:
    """A random id as Kafka writes them, never beginning with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if re.match(r"[^-]", text):
            return text


def _java_hash(key: str) -> int:
    """``Utils.abs(key.hashCode())``, by which Kafka chooses a coordinator's partition."""
    value = 0
    for unit in memoryview(key.encode("utf-16-le")).cast("H"):
        value = (31 * value + unit) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >> 31 else value
    return 0 if signed == -(1 << 31) else abs(signed)
