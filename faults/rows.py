"""The rows of the matrix: what each breaks, and how it is put right again."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Final

from faults import disk
from faults.adversary import Roomy, adversarial_ids
from faults.alone import Alone
from faults.clocks import wrong_clocks
from faults.dimensions import WithRedis, break_redis, break_redis_links
from faults.lakes import WithReader, kill_compactor, meet_compactor
from faults.overfull import SmallFilter, overfill
from faults.poison import poison
from faults.registry import WithRegistry, break_registry
from faults.scene import Row, Scene
from faults.sinks import kill_sink
from testbed.process import eventually

#: The processor's failpoints, in the order in which it passes them.
POINTS: Final = ("processed", "produced", "offsets sent", "committed", "snapshot written", "snapshot renamed")


def kill_processor(scene: Scene) -> None:
    """kill -9 at a random moment, then start again."""
    victim = scene.rng.choice(scene.system.processors)

    def fault() -> None:
        victim.server.kill()
        victim.start()

    scene.strike(fault)


def kill_at_failpoint(scene: Scene) -> None:
    """kill -9 at exactly one point of the way, each in turn, then start again."""
    victim = scene.rng.choice(scene.system.processors)
    point = POINTS[sum(scene.notes.values()) % len(POINTS)]
    scene.notes[point] += 1
    nth = 1 if point.startswith("snapshot") else scene.rng.randint(1, 4)
    victim.server.kill()
    victim.launch((point, nth))
    victim.await_end(load=scene.load)

    begun = time.monotonic()
    victim.start()
    mark = scene.system.mark()
    eventually(lambda: scene.system.passed(mark), lambda: f"it recovers from the end at {point!r}")
    scene.recoveries.append(time.monotonic() - begun)


def damage(snapshot: Path, rng: random.Random) -> None:
    """Turn a bit of the file, or cut it."""
    content = bytearray(snapshot.read_bytes())
    if rng.random() < 0.5:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        del content[rng.randrange(len(content)) :]
    snapshot.write_bytes(content)


def damage_snapshot(scene: Scene) -> None:
    """kill -9, then cut the newest snapshot or turn a bit of it: the older one must do."""
    victim = scene.rng.choice(scene.system.processors)
    eventually(lambda: len(scene.system.snapshots()) >= 2, lambda: "two snapshots are written")

    def fault() -> None:
        victim.server.kill()
        damage(scene.system.snapshots()[-1], scene.rng)
        victim.start()

    scene.strike(fault)
    assert "passed over" in victim.said, victim.said
    scene.notes["fell back"] += 1


def kill_ingest(scene: Scene) -> None:
    """kill -9 an ingest process under load; recovered when requests are answered again."""

    def fault() -> None:
        os.kill(scene.rng.choice(scene.system.workers()), signal.SIGKILL)
        scene.load.await_more(5)

    scene.strike(fault, recovered=lambda _: True)


def drain(scene: Scene) -> None:
    """SIGTERM: it drains and exits 0, and the next one goes on."""
    victim = scene.rng.choice(scene.system.processors)

    def fault() -> None:
        begun = time.monotonic()
        code = victim.server.stop()
        scene.notes["longest drain, ms"] = max(scene.notes["longest drain, ms"], int(1000 * (time.monotonic() - begun)))
        assert code == 0, victim.server.tail()
        victim.start()

    scene.strike(fault)


MATRIX: Final = (
    Row(1, "kill -9 of the processor mid-batch", kill_processor, Alone, runs=100, small=0),
    Row(2, "kill -9 at each failpoint", kill_at_failpoint, Alone, runs=60, small=2),
    Row(3, "newest snapshot cut or bit-flipped", damage_snapshot, Alone, runs=20, small=0),
    Row(4, "kill -9 of ingest under load", kill_ingest, Alone, runs=50, small=0),
    Row(11, "resets, slices and latency on Redis", break_redis_links, WithRedis, runs=10, small=0),
    Row(12, "Redis killed, slow, of another type, emptied", break_redis, WithRedis, runs=10, small=0, seconds=20),
    Row(
        12,
        "the schema registry never reached, killed, hanging",
        break_registry,
        WithRegistry,
        runs=10,
        small=0,
        seconds=60,
    ),
    Row(13, "kill -9 of the sink within a ClickHouse insert", kill_sink, Alone, runs=50, small=0, seconds=20),
    Row(14, "kill -9 of a compactor, the lake being read", kill_compactor, WithReader, runs=30, small=0),
    Row(15, "two compactors, late appends, a zombie sink", meet_compactor, WithReader, runs=60, small=0),
    Row(
        17,
        "disk full: log, snapshots, ClickHouse, Parquet",
        disk.fill_disk,
        disk.SmallDisks,
        runs=20,
        small=0,
        seconds=40,
        why_not=disk.why_not,
    ),
    Row(18, "wrong clocks, events days late and from the future", wrong_clocks, Alone, runs=5, small=0, seconds=30),
    Row(19, "poison: bodies and events that nobody should send", poison, Alone, runs=20, small=0),
    Row(22, "ids chosen to meet in filter and hash tables", adversarial_ids, Roomy, runs=20, small=0, seconds=30),
    Row(24, "more ids than the filter is made for", overfill, SmallFilter, runs=2, small=0, seconds=60),
    Row(25, "SIGTERM, then start again", drain, Alone, runs=10, small=0),
)
