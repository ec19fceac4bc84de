"""What an event costs in each of the processor's stages, and in all from a request's body to a frame (``eventmill bench``).

Two kinds of traffic: the generator's shopping app with its retries, late and bad events, and plain events of 340 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench import machine
from bench.decode import make_events, to_bodies
from bench.report import picture
from eventmill.bench import SPAN_MS, START_MS, Costs, measure
from eventmill.serve.tuning import tune


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Both kinds of traffic, in requests of 10 and of 100 events."""
    if not smoke:
        tune()
    events, runs = (1_000, 1) if smoke else (200_000, 5)
    taken: dict[str, Costs] = {}
    for batch in (10, 100):
        taken[f"shopping app, {batch} a request"] = measure(events, batch, runs)
        taken[f"plain, {batch} a request"] = measure(events, batch, runs, bodies_of=plain(events, batch))
    return {
        "question": "CPU ns an event, all threads, by stage",
        "machine": machine.describe("pyarrow"),
        "runs": runs,
        "traffic": {name: asdict(costs) for name, costs in taken.items()},
    }


def plain(events: int, batch: int) -> Callable[[int], list[bytes]]:
    """Bodies for each run."""
    return lambda run: to_bodies(make_events(events, run, START_MS + (run + 1) * SPAN_MS), batch)


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    traffic = figures["traffic"]
    lines = [f"| CPU ns an event | {' | '.join(traffic)} |", "|---|" + "---|" * len(traffic)]

    def row(name: str, costs: list[dict[str, float]], *, rate: bool = False) -> str:
        cells = [
            f"{cost['median']:.0f} ({cost['least']:.0f} to {cost['most']:.0f})"
            + (f" = {1000 / cost['median']:.2f} M/s" if rate and cost["median"] else "")
            for cost in costs
        ]
        return f"| {name} | {' | '.join(cells)} |"

    stages = next(iter(traffic.values()))["stages"]
    lines.extend(row(stage, [costs["stages"][stage] for costs in traffic.values()]) for stage in stages)
    lines.append(row("**body to session**", [costs["chain"] for costs in traffic.values()], rate=True))
    lines.append(row("**body to frame**", [costs["framed"] for costs in traffic.values()], rate=True))
    sizes = [f"{costs['bytes_per_event']:.0f} → {costs['frame_bytes_per_event']:.0f}" for costs in traffic.values()]
    lines.append(f"| bytes of JSON → of frame | {' | '.join(sizes)} |")
    return "\n".join([*lines, "\n![Events a second in each stage](images/stages.svg)"])


def plot(figures: dict[str, Any]) -> None:
    """Events a second and core, by stage."""
    with picture("stages") as axes:
        for number, (traffic, costs) in enumerate(figures["traffic"].items()):
            stages = {name: cost["median"] for name, cost in costs["stages"].items() if cost["median"] >= 1}
            stages |= {"body to session": costs["chain"]["median"], "body to frame": costs["framed"]["median"]}
            places = [place + number / 5 for place in range(len(stages))]
            axes.barh(places, [1000 / ns for ns in stages.values()], height=0.18, label=traffic)
        axes.set(xlabel="million events a second and core", xscale="log")
        axes.set_yticks([place + 0.3 for place in range(len(stages))], list(stages))
        axes.invert_yaxis()
        axes.legend(frameon=False, fontsize="small")
