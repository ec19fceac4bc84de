"""``eventmill forget``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eventmill.cli.options import config_option, configure, console, data_option, friendly, json_option
from eventmill.core.clock import moment_ms


@click.command()
@click.option("--user", help="Only events of this user's id, as the app sent it (userId).")
@click.option("--event", help="Only events of this name, and of those that it had before (query.renames).")
@click.option("--from", "since", help="Only events that happened at or after (ISO 8601, or 2h for two hours ago).")
@click.option("--to", "until", help="Only events that happened before.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@data_option
@config_option
@json_option
@friendly
def forget(
    user: str | None,
    event: str | None,
    since: str | None,
    until: str | None,
    dry_run: bool,
    data: Path | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Delete a user's events, an event's, or a time's from both stores, the log and the dead letters, for good.

    What began and did not come to its end is ended first. The receipt is written below DATA/forgotten/.
    """
    from eventmill.serve.forget import tombstone
    from eventmill.serve.forgetting import forget_now
    from eventmill.serve.remote import ask, stores_or_none

    config = configure(config_file, data=data)
    wanted = tombstone(
        user, event, None if since is None else moment_ms(since), None if until is None else moment_ms(until),
        config.query.renames,
    )  # fmt: skip
    with stores_or_none(config) as stores, console.status("counting" if dry_run else "forgetting"):
        if stores is None:
            body = orjson.dumps({"tombstone": wanted.as_dict(), "dry_run": dry_run})
            receipt = ask(config, "POST", "/v1/forget", body)
        else:
            receipt = forget_now(stores, config, wanted, dry_run=dry_run)
    if as_json:
        click.echo(orjson.dumps(receipt).decode())
        return
    Console().print(_table(receipt, dry_run))
    if wanted.older:
        Console().print(f"{wanted.event} was called {', '.join(wanted.older)} before: those events are counted, too")
    if not dry_run:
        Console().print(f"receipt: {receipt['receipt']}", soft_wrap=True)
        for topic in receipt["left_to_retention"]:
            Console().print(
                f"topic {topic} cannot be changed; its retention ends what it holds, and the stores take none of it"
            )


def _table(receipt: dict[str, Any], dry_run: bool) -> Table:
    title = "What would be forgotten" if dry_run else "Forgotten"
    table = Table(title=title, title_style="bold", box=SIMPLE_HEAD)
    table.add_column("where")
    for name in ("events", "in"):
        table.add_column(name, justify="right")
    realtime, lake = receipt["realtime"], receipt["lake"]
    table.add_row("real-time store", f"{realtime['rows']:,}", f"{realtime['parts']:,} parts")
    table.add_row("lake", f"{lake['rows']:,}", f"{lake['files']:,} files")
    aggregates = receipt["aggregates"]
    if aggregates["events"]:
        table.add_row("lake's aggregates", f"{aggregates['events']:,}", f"{aggregates['files']:,} files")
    for topic, found in receipt["topics"].items():
        table.add_row(f"topic {topic}", f"{found['events']:,}", f"{found['frames']:,} frames")
    if receipt["saved_questions"]:
        table.add_row("saved questions", "", f"{receipt['saved_questions']:,} that name the user")
    return table
