"""Row 12, of Redis: it is killed, slow, emptied, and holds other types."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any, Final

from eventmill.core.config import DimensionsConfig
from eventmill.core.schema import Flag
from eventmill.process.dimensions.redis_table import RedisTable
from faults.alone import Alone
from faults.scene import Scene
from testbed.faults import Conditions, FaultProxy
from testbed.process import free_port
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


class WithRedis(Alone):
    """One machine that asks a Redis through the fault proxy. What is put right wrongly in a store counts as corrupt there."""

    name = "one machine and Redis"

    def __init__(self, folder: Path) -> None:
        self.redis = Redis()
        self.redis.start()
        address = f"127.0.0.1:{free_port()}"
        self.proxy = FaultProxy({address: f"127.0.0.1:{self.redis.port}"})
        self.proxy.start()
        settings = {f"EVENTMILL_DIMENSIONS__{key}": value for key, value in _SETTINGS.items()}
        super().__init__(folder, EVENTMILL_DIMENSIONS__REDIS=f"redis://{address}/0", **settings)
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

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """See ``Alone``; before it flagged must be what was counted, after the compaction everyone must be known."""
        self._ask("POST", "/v1/flush")
        off = abs(self._number(f"{_FLAGGED} events") - self.counted())
        self._ask("POST", "/v1/compact")
        verdicts = super().verdicts(truth)
        for store, table in (("realtime", "events"), ("lake", "lake.events")):
            verdicts[store]["corrupt"] += off + self._number(f"{_WRONG} {table}")
        return verdicts

    def counted(self) -> int:
        """Events that were flagged, as the metric has it."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            text = answer.read().decode()
        return int(sum(float(n) for n in re.findall(r"^eventmill_dimension_unknown_total(?:{.*})? (\S+)$", text, re.M)))

    def _number(self, query: str) -> int:
        asked = urllib.request.Request(f"{self.url}/v1/query/sql", json.dumps({"query": query}).encode())
        with urllib.request.urlopen(asked) as answer:
            return int(json.load(answer)["rows"][0][0])

    def close(self) -> None:
        """End all three."""
        super().close()
        self.proxy.close()
        self.redis.close()


def break_redis(scene: Scene) -> None:
    """Killed and started empty, slow, other types, emptied: each in turn, under load, then put right."""
    system = scene.system
    assert isinstance(system, WithRedis)
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
    system = scene.system
    assert isinstance(system, WithRedis)

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
