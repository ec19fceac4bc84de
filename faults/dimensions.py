"""Row 12, of Redis: it is killed, slow, emptied, and holds other types."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eventmill.core.config import DimensionsConfig
from eventmill.core.schema import Flag
from eventmill.process.dimensions.redis_table import RedisTable
from faults.alone import Alone
from faults.scene import Scene, System
from faults.spread import Spread
from faults.sums import number
from testbed.faults import Conditions, FaultProxy
from testbed.process import eventually, free_port
from testbed.redis import Redis

_USERS: Final = 100_000
_CHUNK: Final = 1_000
#: Users whose keys are made another type, the first ones.
_SPOILT: Final = 2_000
#: Requests that meet each fault.
_UNDER_FAULT: Final = 20
_UNKNOWN: Final = int(Flag.DIMENSIONS_UNKNOWN)
_SETTINGS: Final = {
    "TTL": "500ms", "NEGATIVE_TTL": "100ms", "TIMEOUT": "200ms", "SLOW": "50ms", "BREAKER_PAUSE": "100ms",
}  # fmt: skip
_FLAGGED: Final = f"SELECT countIf(bitAnd(flags, {_UNKNOWN}) != 0) FROM"
#: Rows of the generator's users whose dimensions are not what they are to be.
_WRONG: Final = f"""
    SELECT countIf(bitAnd(flags, {_UNKNOWN}) != 0 OR (startsWith(coalesce(user_id, ''), 'user-') AND NOT (
        coalesce(country, '') = 'DE' AND coalesce(segment, '') = 'loyal' AND
        coalesce(tier, '') = concat('tier-', toString(toUInt64OrZero(substring(coalesce(user_id, ''), 6)) % 7))))) FROM"""


class Dimensions:
    """A Redis with users, behind the fault proxy. ``environ``: what lets a process ask it."""

    def __init__(self) -> None:
        self.redis = Redis()
        self.redis.start()
        address = f"127.0.0.1:{free_port()}"
        self.proxy = FaultProxy({address: f"127.0.0.1:{self.redis.port}"})
        self.proxy.start()
        settings = {**_SETTINGS, "REDIS": f"redis://{address}/0"}
        self.environ = {f"EVENTMILL_DIMENSIONS__{key}": value for key, value in settings.items()}
        self.fill()

    def fill(self, users: int = _USERS) -> None:
        """Write the users, whatever their keys hold."""
        table = RedisTable(DimensionsConfig(redis=self.redis.url), timeout_s=10)
        for start in range(0, users, _CHUNK):
            numbers = range(start, start + _CHUNK)
            table.load([(b"user-%d" % n, b"DE", b"loyal", b"tier-%d" % (n % 7)) for n in numbers], None)
        table.close()

    def spoil(self) -> None:
        """Make some users' keys another type."""
        import redis

        with redis.Redis.from_url(self.redis.url) as client, client.pipeline(transaction=False) as pipeline:
            for number in range(_SPOILT):
                pipeline.set(f"eventmill:user:user-{number}", "a string")
            pipeline.execute()

    def close(self) -> None:
        """End both."""
        self.proxy.close()
        self.redis.close()


class WithRedis(Alone):
    """One machine that asks a Redis. What is put right wrongly in a store counts as corrupt there."""

    name = "one machine and Redis"

    def __init__(self, folder: Path) -> None:
        self.dimensions = Dimensions()
        super().__init__(folder, **self.dimensions.environ)

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """See ``Alone`` and ``put_right``."""
        wrong = put_right(self, [self.url])
        return _with(wrong, super().verdicts(truth))

    def close(self) -> None:
        """End all of it."""
        super().close()
        self.dimensions.close()


class SpreadWithRedis(Spread):
    """Roles on brokers whose processors, and the sink, ask a Redis."""

    name = "three brokers and Redis"

    def __init__(self, folder: Path) -> None:
        self.dimensions = Dimensions()
        super().__init__(folder, environ=self.dimensions.environ)

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """See ``Spread`` and ``put_right``."""
        eventually(lambda: self.passed(self.mark()), lambda: "everything is processed")
        wrong = put_right(self, [role.url for role in self.processors])
        return _with(wrong, super().verdicts(truth))

    def close(self) -> None:
        """End all of it."""
        super().close()
        self.dimensions.close()


def put_right(system: System, processors: Sequence[str]) -> dict[str, int]:
    """By store, how much is wrong: before a compaction flagged must be what the processors counted, after it all are known."""
    system.ask("POST", "/v1/flush")
    off = abs(number(system, f"{_FLAGGED} events") - sum(map(_counted, processors)))
    system.compact()
    tables = {"realtime": "events", "lake": "lake.events"}
    return {store: off + number(system, f"{_WRONG} {table}") for store, table in tables.items()}


def _with(wrong: Mapping[str, int], verdicts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for store, events in wrong.items():
        verdicts[store]["corrupt"] += events
    return verdicts


def _counted(url: str) -> int:
    """Events that a processor has flagged, as its metric has it."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    return int(sum(float(n) for n in re.findall(r"^eventmill_dimension_unknown_total(?:{.*})? (\S+)$", text, re.M)))


def _dimensions(scene: Scene) -> Dimensions:
    assert isinstance(scene.system, WithRedis | SpreadWithRedis)
    return scene.system.dimensions


def break_redis(scene: Scene) -> None:
    """Killed and started empty, slow, other types, emptied: each in turn, under load, then put right."""
    system = _dimensions(scene)
    kinds = ("killed", "slow", "wrong type", "emptied")
    kind = kinds[sum(scene.notes[name] for name in kinds) % len(kinds)]
    scene.notes[kind] += 1

    def fault() -> None:
        if kind == "killed":
            system.redis.kill()
        elif kind == "slow":
            system.proxy.conditions.latency_s = 1.0
        elif kind == "wrong type":
            system.spoil()
        else:
            # Everyone is a stranger then, which is an answer and no flag, so nobody may be asked meanwhile.
            system.proxy.stall()
            system.redis.empty()
        scene.load.await_more(_UNDER_FAULT)
        if kind == "killed":
            system.proxy.stall()  # nobody asks before it is filled
            system.redis.mend()
        if kind != "slow":
            system.fill(_SPOILT if kind == "wrong type" else _USERS)
        system.proxy.heal()

    scene.strike(fault)


def break_redis_links(scene: Scene) -> None:
    """All connections are reset again and again, or every piece comes late and in slices; then they are whole."""
    system = _dimensions(scene)

    def act() -> None:
        if len(scene.recoveries) % 2:
            system.proxy.conditions = Conditions(latency_s=0.01, slice_bytes=64)
            scene.load.await_more(_UNDER_FAULT)
        else:
            for _ in range(5):
                system.proxy.reset()
                scene.load.await_more(5)
        system.proxy.heal()

    scene.strike(act)
