"""One row of the matrix: a system under load, faults at random moments, and the oracle's verdict at the end."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet

from eventmill.generate.truth import TruthFile
from faults.role import Load, Role
from testbed.process import eventually

_RATE: Final = 3_000.0
#: Requests (of 50 events) between two faults, at random in this range.
_BETWEEN: Final = (10, 90)
#: Requests after the last fault: it takes traffic as before.
_AFTER: Final = 40


class System(Protocol):
    """What faults are made in. ``processors`` are the processes that hold the processor's state, ``sinks`` the stores."""

    name: str
    url: str
    processors: list[Role]
    sinks: list[Role]
    #: The folder of the lake.
    lake_dir: Path

    def start(self) -> None:
        """Returns once it takes traffic."""
        ...

    def mark(self) -> Any:
        """How far the log is now."""
        ...

    def passed(self, mark: Any) -> bool:
        """Whether the processor has committed all up to there; false too when it does not answer."""
        ...

    def snapshots(self) -> list[Path]:
        """Of the processor, the newest last."""
        ...

    def workers(self) -> list[int]:
        """The ids of the ingest processes."""
        ...

    def compact(self) -> None:
        """Compact the lake as it is now."""
        ...

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the process that has the stores."""
        ...

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """The oracle's, by store, once everything has arrived; what a roll-up lacks or has too much is corrupt."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass
class Scene:
    """A running system with its load. ``recoveries`` in seconds; ``notes`` are counts that the report shows.

    ``sent_too``: the truth about events that an act has sent besides the load, all acknowledged.
    """

    system: System
    load: Load
    rng: random.Random
    recoveries: list[float] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    sent_too: list[pa.Table] = field(default_factory=list)

    def strike(self, fault: Callable[[], None], recovered: Callable[[Any], bool] | None = None) -> None:
        """At a random moment do ``fault``; recovered is what was on the log by then when the processor has committed it."""
        self.load.await_more(self.rng.randint(*_BETWEEN))
        mark = self.system.mark()
        begun = time.monotonic()
        fault()
        check = recovered or self.system.passed
        eventually(lambda: check(mark), lambda: f"{self.system.name} recovers")
        self.recoveries.append(time.monotonic() - begun)


@dataclass(frozen=True)
class Row:
    """A row of the matrix on one kind of system. ``runs``: faults in the whole matrix and in its small size.

    ``seconds``: what a run takes at most, by which the load is measured out. ``why_not``: what keeps this machine from it.
    """

    number: int
    title: str
    act: Callable[[Scene], None]
    build: Callable[[Path], System]
    runs: int
    small: int = 1
    seconds: int = 10
    why_not: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Result:
    """What a row showed. ``recoveries`` in seconds, one a run."""

    number: int
    title: str
    system: str
    runs: int
    acked: int
    lost: int
    doubled: int
    phantom: int
    corrupt: int
    balanced: bool
    recoveries: list[float]
    notes: dict[str, int]
    #: How many runs the whole matrix has of it.
    planned: int = 0

    @property
    def good(self) -> bool:
        """Nothing lost, doubled, invented or changed, and the ledger balances."""
        return self.balanced and not (self.lost or self.doubled or self.phantom or self.corrupt)


def run(row: Row, runs: int, *, seed: int = 3, told: Callable[[int], None] = lambda _: None) -> Result:
    """Run one row; ``told`` hears of each run that is over. They end with the load, which may not last on a slow machine."""
    with tempfile.TemporaryDirectory(prefix="eventmill-faults-") as name:
        folder = Path(name)
        system = row.build(folder)
        load = Load(system.url, folder, events=100_000 + runs * int(row.seconds * _RATE), rate=_RATE, seed=seed)
        scene = Scene(system, load, random.Random(seed))
        try:
            system.start()
            load.start()
            done = 0
            while done < runs and (not done or load.left() > row.seconds * _RATE):
                row.act(scene)
                done += 1
                told(done)
            if load.left() > row.seconds * _RATE:
                load.await_more(_AFTER)
            load.stop()
            _add(load.truth, scene.sent_too)
            verdicts = system.verdicts(load.truth)
        finally:
            load.stop()
            system.close()
    worst = {
        fault: max(verdict[fault] for verdict in verdicts.values())
        for fault in ("lost", "doubled", "phantom", "corrupt")
    }
    return Result(
        row.number, row.title, system.name, done, next(iter(verdicts.values()))["acked"], **worst,
        balanced=all(verdict.get("balanced", True) for verdict in verdicts.values()),
        recoveries=scene.recoveries, notes=dict(scene.notes), planned=row.runs,
    )  # fmt: skip


def _add(path: Path, tables: list[pa.Table]) -> None:
    """Put what was sent besides into the truth file."""
    if tables:
        truth = TruthFile(path)
        truth.finish()
        more = pa.concat_tables(tables)
        more = more.append_column("outcome", pa.array(["acked"] * more.num_rows))
        whole = pa.concat_tables([truth.read(), more], promote_options="permissive")
        pyarrow.parquet.write_table(whole, path)
