"""Row 13: a sink is killed while the real-time store takes an insert, which goes to several partitions and two roll-ups."""

from __future__ import annotations

import time
from typing import Final

from eventmill.core import groups
from faults.child import REACHED, SINK_POINTS
from faults.scene import Scene, System
from faults.sums import number
from testbed.process import eventually

#: An insert takes about as long, so that kills are spread over all of it.
_INSERT_MS: Final = 150
_INSERTS: Final = 3
_STORES: Final = (groups.REALTIME, groups.LAKE)
_DAYS: Final = "SELECT uniqExact(toDate(timestamp)) FROM events"


def kill_sink(scene: Scene) -> None:
    """kill -9 some milliseconds after an insert was announced; recovered when both stores have what stood on the log then."""
    system = scene.system
    (victim,) = system.sinks
    point = "intent" if len(scene.recoveries) % 5 else "inserted"
    after_ms = scene.rng.randrange(_INSERT_MS) if point == "intent" else 0
    victim.server.kill()
    victim.launch((point, scene.rng.randint(1, _INSERTS)), after_ms=after_ms)
    victim.await_end(load=scene.load)
    reached = [line.removeprefix(REACHED) for line in victim.said.splitlines() if line.startswith(REACHED)]
    within = [name for name in reached if name in (*SINK_POINTS, "committed")][-1]
    scene.notes[
        {"intent": "within the insert", "inserted": "before the offsets", "committed": "after them"}[within]
    ] += 1

    begun = time.monotonic()
    victim.start()
    settle(system)
    scene.recoveries.append(time.monotonic() - begun)
    scene.notes["most partitions of events"] = number(system, _DAYS)


def settle(system: System) -> None:
    """Return once what is on the log now is processed and in both stores, though the load goes on."""
    mark = system.mark()
    eventually(lambda: system.passed(mark), lambda: "everything is processed")
    enriched = int(system.ask("GET", "/v1/status")["ledger"]["enriched"])
    eventually(lambda: stored(system) >= enriched, lambda: f"both stores hold {enriched} events")


def judged(system: System) -> None:
    """Return once every suspect of now has been looked up, though the load goes on."""

    def ledger() -> dict[str, int]:
        found: dict[str, int] = system.ask("GET", "/v1/status")["ledger"]
        return found

    suspects = ledger()["suspect"]

    def done() -> bool:
        now = ledger()
        return now["duplicate"] + now["rescued"] >= suspects

    eventually(done, lambda: f"{suspects} suspects are looked up: {ledger()}")


def stored(system: System) -> int:
    """Events that both stores have taken."""
    status = system.ask("GET", "/v1/status")
    return int(status["ledger"]["enriched"]) - max(int(status["lag"][group]) for group in _STORES)
