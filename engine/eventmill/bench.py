"""What an event costs on this machine, stage by stage, on one core: the part of the engine that needs no disk and no network.

The traffic is the generator's, new for every run: a shopping app with 5 % retries and 2 % late events. Bodies are decoded into
batches of as many events as the processor folds at once, and each batch goes through the processor's own stages and becomes
a frame. Costs are CPU time of the whole process, so a stage that used a second thread would pay for it.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from eventmill._native.decode import Decoder
from eventmill.core import frame
from eventmill.core.config import Config, load
from eventmill.core.log import Frame, StoredFrame
from eventmill.core.schema import EVENT, Topic
from eventmill.core.stage import Stage, StatefulStage
from eventmill.generate.stream import Spec, stream
from eventmill.process.partition import FOLD_EVENTS
from eventmill.process.pipeline import build_stages

#: Run n's events are of the span that ends at START_MS + (n + 1) * SPAN_MS.
START_MS: Final = 1_795_000_000_000
SPAN_MS: Final = 3_600_000
#: Users in the dimension table; the generator's logged-in users are among them.
_USERS: Final = 200_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU ns an event: median, least and most of the runs."""

    median: float
    least: float
    most: float

    @property
    def events_per_second(self) -> float:
        """On one core, were there nothing else to do."""
        return 1e9 / self.median


@dataclass(frozen=True, slots=True)
class Costs:
    """``stages``: by name, in order; ``chain``: decode to the last stage; ``framed``: with the frame written as well."""

    events: int
    batch_events: int
    bytes_per_event: float
    frame_bytes_per_event: float
    stages: dict[str, Cost]
    chain: Cost
    framed: Cost

    def as_dict(self) -> dict[str, Any]:
        """For machines."""

        def plain(cost: Cost) -> dict[str, float]:
            return {"ns": cost.median, "ns_min": cost.least, "ns_max": cost.most, "per_second": cost.events_per_second}

        return {
            "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            "events": self.events,
            "events_a_request": self.batch_events,
            "bytes_per_event": self.bytes_per_event,
            "frame_bytes_per_event": self.frame_bytes_per_event,
            "stages": {name: plain(cost) for name, cost in self.stages.items()},
            "chain": plain(self.chain),
            "framed": plain(self.framed),
        }


def measure(
    events: int,
    batch_events: int = 100,
    runs: int = 5,
    *,
    bodies_of: Callable[[int], list[bytes]] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Costs:
    """Run the stages ``runs`` times over ``events`` events each, and once before to warm up.

    ``batch_events``: events a request. ``bodies_of`` gives other traffic than the generator's for each run, of so many events.
    ``progress`` is told the events done after each run.
    """
    bodies_of = bodies_of or (lambda run: _bodies(events, batch_events, run))
    with tempfile.TemporaryDirectory(prefix="eventmill-bench-") as folder:
        stages = build_stages(_config(Path(folder)))
        taken: list[dict[str, float]] = []
        for number in range(runs + 1):
            run = _Run(stages, bodies_of(number), START_MS + (number + 1) * SPAN_MS)
            if number:
                taken.append(run.costs())
            progress(events)
    names = list(taken[0])
    chain = names[: names.index("frame: write")]
    return Costs(
        events=events,
        batch_events=batch_events,
        bytes_per_event=round(run.body_bytes / run.rows, 1),
        frame_bytes_per_event=round(run.frame_bytes / run.rows_out, 1),
        stages={name: _cost([one[name] for one in taken]) for name in names},
        chain=_cost([sum(one[name] for name in chain) for one in taken]),
        framed=_cost([sum(one[name] for name in [*chain, "frame: write"]) for one in taken]),
    )


def _config(folder: Path) -> Config:
    rng = np.random.default_rng(1)
    users = pa.table(
        {
            "user_id": [f"user-{number}" for number in range(_USERS)],
            "country": rng.choice(["DE", "FR", "US", "IN", "BR"], _USERS),
            "segment": rng.choice(["new", "loyal", "gone"], _USERS),
            "tier": rng.choice(["free", "gold"], _USERS),
        }
    )
    pyarrow.parquet.write_table(users, folder / "users.parquet")
    return load(None, overrides={"dimensions.file": str(folder / "users.parquet")})


def _bodies(events: int, batch_events: int, run: int) -> list[bytes]:
    spec = Spec(events, run, START_MS + run * SPAN_MS, SPAN_MS, batch_size=batch_events)
    return [body for block in stream(spec) for body in block.bodies]


def _stored(written: Frame) -> StoredFrame:
    return StoredFrame(
        written.topic, 0, 0, START_MS, written.events, written.key, written.headers, bytes(written.payload)
    )


def _cost(ns: Sequence[float]) -> Cost:
    return Cost(round(statistics.median(ns), 1), round(min(ns), 1), round(max(ns), 1))


class _Run:
    """One pass over the bodies."""

    def __init__(self, stages: Sequence[Stage | StatefulStage], bodies: list[bytes], received_at: int) -> None:
        self._seconds: dict[str, float] = {}
        self.body_bytes = sum(map(len, bodies))
        self.rows = self.rows_out = self.frame_bytes = 0
        for batch in self._decoded(bodies, received_at):
            self.rows += batch.num_rows
            for stage in stages:
                batch = self._timed(stage.name, stage.apply, batch).events
            self.rows_out += batch.num_rows
            written = self._timed("frame: write", frame.encode, Topic.ENRICHED, frame.conform(batch, EVENT))
            self.frame_bytes += len(written.payload)
            self._timed("frame: read", frame.decode, _stored(written))

    def _timed(self, name: str, work: Callable[..., T], *given: Any) -> T:
        begun = time.process_time()
        done = work(*given)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.process_time() - begun
        return done

    def _decoded(self, bodies: list[bytes], received_at: int) -> Iterator[pa.RecordBatch]:
        decoder = Decoder()

        def fill() -> pa.RecordBatch:
            while waiting and decoder.rows < FOLD_EVENTS:
                decoder.append(waiting.pop(), received_at)
            return decoder.finish()[0]

        waiting = bodies[::-1]
        while waiting:
            yield self._timed("decode", fill)

    def costs(self) -> dict[str, float]:
        """ns an event that was decoded, by stage."""
        return {name: seconds / self.rows * 1e9 for name, seconds in self._seconds.items()}
