"""Row 12, of the schema registry: it is out of reach from the start, killed, or hangs; then it is back."""

from __future__ import annotations

import re
import urllib.request
import uuid
from pathlib import Path
from typing import Any, Final

from eventmill.core.clock import now_ms
from eventmill.core.config import SchemasConfig
from eventmill.core.schema import Flag
from eventmill.process.schemas.sources import RegistrySource
from faults.alone import Alone
from faults.scene import Scene, System
from faults.sending import Sent, send
from faults.sinks import settle
from faults.spread import Spread
from faults.sums import number
from testbed.faults import FaultProxy
from testbed.process import eventually, free_port
from testbed.registry import PATH, Registry

_EVENT: Final = "Checked"
_ASK_S: Final = 10.0
_GOOD: Final = 150
_BAD: Final = 50
_UNKNOWN: Final = f"countIf(bitAnd(flags, {int(Flag.SCHEMA_UNKNOWN)}) != 0)"
_BROKEN: Final = f"countIf(bitAnd(flags, {int(Flag.SCHEMA_BROKEN)}) != 0)"
_METRIC: Final = re.compile(r"^eventmill_schemas_reached(?:{.*})? (\S+)$", re.M)


class Schemas:
    """A registry behind the fault proxy, which passes nothing on yet. ``environ``: what lets a process ask it."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.registry.start()
        address = f"127.0.0.1:{free_port()}"
        self.proxy = FaultProxy({address: f"127.0.0.1:{self.registry.port}"})
        self.proxy.start()
        self.proxy.stall()
        url = f"http://{address}{PATH}"
        self.environ = {"EVENTMILL_SCHEMAS__REGISTRY": url, "EVENTMILL_SCHEMAS__REFRESH_INTERVAL": "200ms"}
        #: Events sent that break their schema.
        self.bad = 0
        #: Events whose flags were not what they were to be.
        self.wrong = 0

    def publish(self, versions: int) -> None:
        """Versions 1 to ``versions`` of the event's schema, which differ in what they say of themselves."""
        source = RegistrySource(SchemasConfig(registry=self.registry.url))
        for version in range(1, versions + 1):
            rules = {"required": ["price"], "properties": {"price": {"type": "number"}}}
            document = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", **rules}
            found = source.publish(_EVENT, {**document, "description": f"version {version}"})
            assert found.version == str(version), found

    def close(self) -> None:
        """End both."""
        self.proxy.close()
        self.registry.close()


class WithRegistry(Alone):
    """One machine that asks a registry. What has wrong flags in a store counts as corrupt there."""

    name = "one machine and a registry"

    def __init__(self, folder: Path) -> None:
        self.schemas = Schemas()
        super().__init__(folder, **self.schemas.environ)

    @property
    def judges(self) -> list[str]:
        """Where the processes answer that ask the registry."""
        return [self.url]

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """See ``Alone``; by how many events flags were wrong."""
        return _with(self.schemas.wrong, super().verdicts(truth))

    def close(self) -> None:
        """End all of it."""
        super().close()
        self.schemas.close()


class SpreadWithRegistry(Spread):
    """Roles on brokers whose processors, and the sink, ask a registry."""

    name = "three brokers and a registry"

    def __init__(self, folder: Path) -> None:
        self.schemas = Schemas()
        super().__init__(folder, environ=self.schemas.environ)

    @property
    def judges(self) -> list[str]:
        """See ``WithRegistry``."""
        return [role.url for role in (*self.processors, *self.sinks)]

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """See ``Spread``."""
        return _with(self.schemas.wrong, super().verdicts(truth))

    def close(self) -> None:
        """End all of it."""
        super().close()
        self.schemas.close()


def _with(wrong: int, verdicts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for verdict in verdicts.values():
        verdict["corrupt"] += wrong
    return verdicts


def break_registry(scene: Scene) -> None:
    """While it is away, apps send a version of a schema that nobody here has seen: accepted and flagged. When it is back and
    the stores are put right, they are judged; from then on what breaks the schema is refused."""
    system = scene.system
    assert isinstance(system, WithRegistry | SpreadWithRegistry)
    schemas, version = system.schemas, len(scene.recoveries) + 1
    kind = "never reached" if version == 1 else ("killed", "hangs")[version % 2]
    scene.notes[kind] += 1

    def fault() -> None:
        if kind == "killed":
            schemas.registry.kill()
        else:
            schemas.proxy.stall()
        eventually(lambda: _reached(system, 0), lambda: "everyone notices that the registry is away")
        _send(scene, version, _GOOD, price=1)
        _send(scene, version, _BAD, price="a lot")
        schemas.bad += _BAD

    scene.strike(fault)
    settle(system)
    if kind == "never reached":  # then nothing at all can be judged
        schemas.wrong += number(system, f"SELECT count() - {_UNKNOWN} FROM events")
    else:
        schemas.wrong += abs(number(system, f"SELECT {_UNKNOWN} FROM events") - _GOOD - _BAD)
    scene.notes["flagged"] += number(system, f"SELECT {_UNKNOWN} FROM events")
    if kind == "killed":
        schemas.proxy.stall()  # nobody asks before it has its schemas
        schemas.registry.start()
    schemas.publish(version)
    schemas.proxy.heal()
    _put_right(scene, system, version)


def _put_right(scene: Scene, system: WithRegistry | SpreadWithRegistry, version: int) -> None:
    """The schemas are in force again, and after a compaction no flag is left but on what is broken."""
    schemas = system.schemas
    eventually(lambda: _reached(system, 1), lambda: "everyone has the registry's schemas")
    before = _invalid(system)
    _send(scene, version, _BAD, price="a lot", stored=False)
    settle(system)
    schemas.wrong += abs(_invalid(system) - before - _BAD)
    scene.notes["refused when it was back"] += _BAD
    system.compact()
    for table in ("events", "lake.events"):
        unknown = number(system, f"SELECT {_UNKNOWN} FROM {table}")
        broken = number(system, f"SELECT {_BROKEN} FROM {table}")
        schemas.wrong += unknown + abs(broken - schemas.bad)
    scene.notes["marked as broken"] = schemas.bad
    scene.notes["wrong flags"] = schemas.wrong


def _send(scene: Scene, version: int, events: int, *, price: Any, stored: bool = True) -> None:
    """Events of that version, each of a device of its own, so that they are in all partitions."""
    rows = [Sent(uuid.UUID(int=scene.rng.getrandbits(128)), f"checked-{n}", now_ms()) for n in range(events)]
    send(
        scene, _EVENT, rows, properties={"price": price}, context={"schemaVersion": str(version)}, stored=stored
    )  # fmt: skip


def _invalid(system: System) -> int:
    """Events that processors have refused."""
    return int(system.ask("GET", "/v1/status")["ledger"]["invalid"])


def _reached(system: WithRegistry | SpreadWithRegistry, state: int) -> bool:
    """Whether everyone who asks the registry says that it answers (1), or that it does not (0)."""
    return all(_says(url) == state for url in system.judges)


def _says(url: str) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=_ASK_S) as answer:
        (found,) = _METRIC.findall(answer.read().decode())
    return int(float(found))
