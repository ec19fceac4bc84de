"""``eventmill replay``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from eventmill.cli.options import config_option, configure, console, data_option, friendly, json_option
from eventmill.core.clock import moment_ms
from eventmill.core.errors import ConfigError


def progress_bar(what: str) -> Progress:
    """A bar on standard error that is gone when it is done."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


@click.command()
@click.option("--dead", is_flag=True, help="Judge the dead letters again, by today's settings and schemas.")
@click.option("--since", help="Only dead letters received since (ISO 8601, or 2h for two hours ago).")
@click.option("--reason", "reasons", multiple=True, help="Only dead letters of this reason; may be repeated.")
@click.option("--event", "events", multiple=True, help="Only dead letters of this event; may be repeated.")
@click.option("--fingerprint", "fingerprints", multiple=True, help="Only dead letters of this cause; may be repeated.")
@click.option("--patch", help="Mend each event first by this jq expression.")
@click.option(
    "--schema", "schema_file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --dry-run: judge by this schema, as if it were published for the events of --event.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would become of them.")
@click.option("--raw", is_flag=True, help="Backfill: process raw events again, into a fresh data folder (--into).")
@click.option("--until", help="With --raw: events received before.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="With --raw: the fresh data folder.")
@data_option
@config_option
@json_option
@friendly
def replay(data: Path | None, config_file: Path | None, as_json: bool, dead: bool, raw: bool, **given: Any) -> None:
    """Put dead letters back into the stream where they are good by now; or process raw events again into a fresh folder."""
    if dead == raw:
        raise ConfigError("say what to replay: --dead, or --raw --into DIR")
    report = (_dead if dead else _raw)(configure(config_file, data=data), given)
    if as_json:
        click.echo(orjson.dumps(report).decode())
        return
    out = Console()
    if raw:
        out.print(f"{report['events']:,} raw events processed into {given['into']}")
        return
    if report["causes"]:
        out.print(_causes(report["causes"]))
    verb = "would be put back" if given["dry_run"] else "put back"
    out.print(
        f"{report['read']:,} dead letters read, [green]{report['replayed']:,}[/] {verb}, "
        f"[yellow]{report['still_dead']:,}[/] still bad, {report['skipped']:,} not asked for"
    )


def _dead(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    from eventmill.core.redact import Redaction
    from eventmill.process.replay import Patch, Rules, Wanted, replay_dead
    from eventmill.process.schemas.ruling import Ruling
    from eventmill.process.schemas.sources import open_source
    from eventmill.process.schemas.trial import read_document, with_document
    from eventmill.serve.engine_log import REPLAY, open_existing

    source = open_source(config)
    schemas = source.fetch()
    if given["schema_file"] is not None:
        if not (given["dry_run"] and given["events"]):
            raise ConfigError("--schema goes with --dry-run and --event; publish it first: eventmill schema publish")
        document = read_document(given["schema_file"])
        for event in given["events"]:
            schemas = with_document(schemas, event, document, source.references(event, document))
    patch = None if given["patch"] is None else Patch(given["patch"])
    redaction = Redaction(config.dead.redact)
    rules = Rules(config.ingest, config.http, config.process.blocked_events, Ruling(schemas), patch, redaction)
    wanted = Wanted(
        frozenset(given["reasons"]), frozenset(given["events"]), frozenset(given["fingerprints"]),
        0 if given["since"] is None else moment_ms(given["since"]),
    )  # fmt: skip
    log = open_existing(config, name=None if given["dry_run"] else REPLAY)
    try:
        with progress_bar("dead letters") as bar:
            task = bar.add_task("", total=None)
            report = replay_dead(
                log, rules, wanted, dry_run=given["dry_run"],
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    finally:
        log.close()
    return report.as_dict()


def _causes(causes: list[dict[str, Any]]) -> Table:
    table = Table(title="Dead letters by cause", title_style="bold", box=SIMPLE_HEAD)
    for name in ("fingerprint", "what is wrong"):
        table.add_column(name)
    for name in ("letters", "good", "bad"):
        table.add_column(name, justify="right")
    for cause in causes:
        counts = (f"{cause[name]:,}" for name in ("read", "replayed", "still_dead"))
        table.add_row(cause["fingerprint"], f"[bold]{cause['reason']}[/] {escape(cause['detail'])}", *counts)
    return table


def _raw(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    from eventmill.serve.backfill import backfill

    if given["into"] is None:
        raise ConfigError("--raw needs --into DIR, a folder that holds nothing yet")
    with progress_bar("raw events") as bar:
        task = bar.add_task("", total=None)
        events = backfill(
            config, given["into"],
            since_ms=0 if given["since"] is None else moment_ms(given["since"]),
            until_ms=1 << 62 if given["until"] is None else moment_ms(given["until"]),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    return {"events": events}
