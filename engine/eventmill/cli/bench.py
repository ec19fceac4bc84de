"""``eventmill bench``."""

from __future__ import annotations

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eventmill.bench import Cost, Costs, measure
from eventmill.cli.generate import bar
from eventmill.cli.options import friendly, json_option
from eventmill.serve.tuning import tune


@click.command()
@click.option("--events", type=click.IntRange(1_000), default=200_000, show_default=True, help="Events a run.")
@click.option("--batch-size", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Events a request.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs, after one to warm up.")
@json_option
@friendly
def bench(events: int, batch_size: int, runs: int, *, as_json: bool) -> None:
    """Measure what an event costs in each stage on this machine, on one core."""
    tune()
    with bar() as progress:
        task = progress.add_task("measuring", total=events * (runs + 1))
        costs = measure(events, batch_size, runs, progress=lambda count: progress.advance(task, count))
    if as_json:
        click.echo(orjson.dumps(costs.as_dict()).decode())
    else:
        Console().print(table(costs))


def table(costs: Costs) -> Table:
    """The costs for people."""
    shown = Table(
        title=f"CPU time an event, one core: {costs.bytes_per_event:.0f} bytes an event, {costs.batch_events} a request",
        title_style="bold",
        box=SIMPLE_HEAD,
        caption=f"frames: {costs.frame_bytes_per_event:.0f} bytes an event",
    )
    shown.add_column("stage")
    for name in ("ns (median)", "min", "max", "events/s"):
        shown.add_column(name, justify="right")

    def row(name: str, cost: Cost, style: str = "") -> None:
        rate = f"{cost.events_per_second / 1e6:.2f} M"
        shown.add_row(name, f"{cost.median:.0f}", f"{cost.least:.0f}", f"{cost.most:.0f}", rate, style=style)

    for name, cost in costs.stages.items():
        row(name, cost)
    shown.add_section()
    row("body to session", costs.chain, "bold")
    row("body to frame", costs.framed, "bold")
    return shown
