"""The rows of the matrix that need brokers: dead and frozen ones, zombies, rebalances, lost replies."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

from faults.adversary import SpreadRoomy, adversarial_ids
from faults.clocks import in_lake, mismatches, wrong_clocks
from faults.dimensions import SpreadWithRedis, break_redis
from faults.poison import poison
from faults.registry import SpreadWithRegistry, break_registry
from faults.rows import damage, drain, kill_at_failpoint, kill_processor
from faults.scene import Row, Scene
from faults.sinks import kill_sink
from faults.spread import PARTITIONS, PREFIX, Spread
from testbed.faults import Api, Conditions, Fault
from testbed.kafka import Node
from testbed.process import eventually


def spread(scene: Scene) -> Spread:
    """The scene's system."""
    assert isinstance(scene.system, Spread)
    return scene.system


def _victim(scene: Scene, number: int) -> Node:
    """A leader of the raw topic and the coordinator of the group, in turn."""
    kafka = spread(scene).kafka
    if number % 2:
        return kafka.group_coordinator(f"{PREFIX}.process")
    return kafka.leader(f"{PREFIX}.raw", scene.rng.randrange(3))


def _refusal(scene: Scene) -> None:
    """Note how long no request at all was answered."""
    seconds = scene.load.await_more(1)
    scene.notes["longest refusal, ms"] = max(scene.notes["longest refusal, ms"], int(1000 * seconds))


def kill_ingest(scene: Scene) -> None:
    """kill -9 of ingest under load, then start again; recovered when requests are answered."""
    victim = scene.rng.choice(spread(scene).ingests)

    def fault() -> None:
        victim.server.kill()
        victim.start()
        scene.load.await_more(5)

    scene.strike(fault, recovered=lambda _: True)


def damage_snapshots(scene: Scene) -> None:
    """kill -9, then cut the newest snapshot of each partition or turn a bit of it: whoever takes over uses an older one."""
    victim = scene.rng.choice(scene.system.processors)

    def newest() -> dict[Path, list[Path]]:
        found: dict[Path, list[Path]] = {}
        for path in scene.system.snapshots():
            found.setdefault(path.parent, []).append(path)
        return found

    eventually(
        lambda: len(newest()) == PARTITIONS and all(len(paths) >= 2 for paths in newest().values()),
        lambda: "each partition has two snapshots",
    )

    def fault() -> None:
        victim.server.kill()
        for paths in newest().values():
            damage(paths[-1], scene.rng)
        victim.start()

    scene.strike(fault)
    assert any("passed over" in role.said for role in scene.system.processors), "nobody met a damaged snapshot"
    scene.notes["fell back"] += 1


def kill_broker(scene: Scene) -> None:
    """kill -9; recovered while the broker is still down."""
    node = _victim(scene, len(scene.recoveries))

    def fault() -> None:
        node.server.kill()
        _refusal(scene)

    scene.strike(fault)
    spread(scene).kafka.mend()


def freeze_broker(scene: Scene) -> None:
    """SIGSTOP past every session timeout; recovered while it is still frozen."""
    node = _victim(scene, len(scene.recoveries))

    def fault() -> None:
        node.server.pause()
        _refusal(scene)

    scene.strike(fault)
    spread(scene).kafka.mend()


def two_brokers_down(scene: Scene) -> None:
    """Less than min.insync.replicas are left: nothing may be acknowledged that is not kept."""
    kafka = spread(scene).kafka

    def fault() -> None:
        for node in scene.rng.sample(kafka.nodes, 2):
            node.server.kill()
        before = spread(scene).refused()
        eventually(lambda: spread(scene).refused() > before, lambda: "ingest says 503")
        scene.notes["refused with 503"] += 1
        kafka.mend()

    scene.strike(fault)


def freeze_processor(scene: Scene) -> None:
    """SIGSTOP until the others have taken its partitions; then it wakes, a zombie."""
    zombie = scene.rng.choice(scene.system.processors)
    scene.strike(zombie.server.pause)
    zombie.server.resume()
    scene.load.await_more(20)
    if zombie.server.crashed:
        zombie.start()


class SessionsCompared(Spread):
    """Three brokers; at the end all sessions are compared. An event in another session than an exact computation puts it in
    counts as corrupt in the lake."""

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """See ``Spread``."""
        verdicts = super().verdicts(truth)
        self.compact()
        verdicts["lake"]["corrupt"] += mismatches(in_lake(self))
        return verdicts


def add_and_remove(scene: Scene) -> None:
    """One processor more, and one of the older ones less, by SIGTERM and SIGKILL in turn."""
    system = spread(scene)

    def fault() -> None:
        system.another().start()
        old = system.processors.pop(0)
        if len(scene.recoveries) % 2:
            old.server.kill()
        else:
            old.server.stop()

    scene.strike(fault)


def break_end_txn(scene: Scene) -> None:
    """The commit is delayed, or carried out and its reply lost in one way or another."""
    faults = [Fault.DELAY_REQUEST, Fault.RESET_REQUEST, Fault.DELAY_REPLY, Fault.DROP_REPLY, Fault.RESET_REPLY]
    fault = faults[len(scene.recoveries) % len(faults)]

    def act() -> None:
        spread(scene).proxy.rule(Api.END_TXN, fault, delay_s=scene.rng.uniform(0.5, 3)).wait()

    scene.strike(act)
    scene.notes[fault.name] += 1


def break_links(scene: Scene) -> None:
    """All connections are reset, or every piece comes late and in slices."""
    proxy = spread(scene).proxy

    def act() -> None:
        if len(scene.recoveries) % 2:
            proxy.conditions = Conditions(latency_s=0.02, slice_bytes=4096)
            scene.load.await_more(20)
        else:
            for _ in range(5):
                proxy.reset()
                scene.load.await_more(5)

    scene.strike(act)
    proxy.heal()


def several(scene: Scene) -> None:
    """One of several faults, in turn: what the small size has time for, on one cluster."""
    acts = (kill_processor, kill_at_failpoint, freeze_processor)
    acts[len(scene.recoveries) % len(acts)](scene)


_on: Final = functools.partial(Row, build=Spread, seconds=60)
#: Rows 1, 2 and 8 in the small size.
SMALL: Final = _on(
    1, "processor killed, killed at a failpoint, broker killed, processor frozen", several, runs=4, small=4
)
BROKERS: Final[tuple[Row, ...]] = (
    _on(1, "kill -9 of a processor mid-batch", kill_processor, runs=100, small=0),
    _on(2, "kill -9 at each failpoint", kill_at_failpoint, runs=60, small=0),
    _on(3, "newest snapshots cut or bit-flipped", damage_snapshots, runs=20, small=0),
    _on(4, "kill -9 of ingest under load", kill_ingest, runs=50, small=0),
    _on(5, "kill -9 of a broker: leader, coordinator", kill_broker, runs=20, small=0),
    _on(6, "SIGSTOP of a broker", freeze_broker, runs=10, small=0, seconds=120),
    _on(7, "two brokers down", two_brokers_down, runs=5, small=0),
    _on(8, "SIGSTOP of a processor past its session timeout", freeze_processor, runs=20, small=0),
    _on(9, "processors added and removed, sessions compared", add_and_remove, build=SessionsCompared, runs=50, small=0),
    _on(10, "EndTxn delayed, reset, or its reply lost", break_end_txn, runs=50, small=0),
    _on(11, "resets, slices and latency on Kafka", break_links, runs=20, small=0),
    _on(
        12,
        "Redis killed, slow, of another type, emptied",
        break_redis,
        build=SpreadWithRedis,
        runs=10,
        small=0,
        seconds=60,
    ),
    _on(
        12,
        "the schema registry never reached, killed, hanging",
        break_registry,
        build=SpreadWithRegistry,
        runs=10,
        small=0,
        seconds=120,
    ),
    _on(13, "kill -9 of the sink within a ClickHouse insert", kill_sink, runs=50, small=0, seconds=90),
    _on(18, "wrong clocks, events days late and from the future", wrong_clocks, runs=5, small=0),
    _on(19, "poison: bodies and events that nobody should send", poison, runs=20, small=0),
    _on(
        22,
        "ids chosen to meet in filter and hash tables",
        adversarial_ids,
        build=SpreadRoomy,
        runs=20,
        small=0,
        seconds=60,
    ),
    _on(25, "SIGTERM of a processor, then start again", drain, runs=10, small=0),
)
