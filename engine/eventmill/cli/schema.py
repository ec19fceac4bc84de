"""``eventmill schema``: list, check, publish those of events; diff, apply that of the tables (``tables``)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eventmill.cli import tables
from eventmill.cli.options import config_option, configure, data_option, friendly, json_option
from eventmill.core.errors import ConfigError
from eventmill.core.renames import Renames

_READ_EVENTS: Final = 50_000
_HOUR_MS: Final = 3_600_000

file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
reference_option = click.option(
    "--reference", "references", multiple=True, metavar="NAME=SUBJECT:VERSION",
    help="Registry only: what the schema refers to as NAME; may be repeated.  [default: those of the newest version]",
)  # fmt: skip
event_option = click.option("--event", required=True, help="The event's name.")


@click.group()
def schema() -> None:
    """The schemas of events: list them, check a new one on stored events, publish it. And that of the real-time store's tables:
    diff, apply."""


schema.add_command(tables.diff)
schema.add_command(tables.apply)


@schema.command("list")
@data_option
@config_option
@json_option
@friendly
def list_(data: Path | None, config_file: Path | None, as_json: bool) -> None:
    """List every version of every event's schema, the newest last."""
    from eventmill.process.schemas.sources import open_source

    schemas = open_source(configure(config_file, data=data)).fetch().schemas
    if as_json:
        rows = [
            {"event": one.event, "version": one.version, "id": one.identity, "schema": one.document} for one in schemas
        ]
        click.echo(orjson.dumps(rows).decode())
        return
    table = Table(box=SIMPLE_HEAD)
    for name in ("event", "version", "id"):
        table.add_column(name)
    for one in schemas:
        table.add_row(escape(one.event), one.version, escape(one.identity))
    Console().print(table if schemas else "there are no schemas; see `eventmill schema publish`")


@schema.command()
@file_argument
@event_option
@click.option(
    "--hours", default=24, show_default=True, type=click.IntRange(1), help="Check what was stored in these last hours."
)
@reference_option
@data_option
@config_option
@json_option
@friendly
def check(
    file: Path,
    event: str,
    hours: int,
    references: tuple[str, ...],
    data: Path | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Run a schema over the stored events of the last hours, before it is published; exit 1 when it would break something."""
    from eventmill.core.clock import now_ms
    from eventmill.core.redact import Redaction
    from eventmill.process.schemas.columnar import Checker
    from eventmill.process.schemas.sources import open_source
    from eventmill.process.schemas.trial import read_document, try_schema
    from eventmill.serve.engine_log import open_existing

    config = configure(config_file, data=data)
    document = read_document(file)
    source, given = open_source(config), _given(references)
    newest = source.fetch().newest(event)
    checker = Checker(document, source.references(event, document, given))
    log = open_existing(config)
    try:
        trial = try_schema(checker, _properties(log, event, now_ms() - hours * _HOUR_MS), Redaction(config.dead.redact))
        broken = _broken(log, event, None if newest is None else newest.document, document, config.query.renames)
    finally:
        log.close()
    report = {
        "event": event, "hours": hours, **trial.as_dict(), **broken, "refusal": source.refusal(event, document, given)
    }  # fmt: skip
    if as_json:
        click.echo(orjson.dumps(report).decode())
    else:
        _print(report)
    sys.exit(1 if any(report[name] for name in ("rejected", "columns", "queries", "refusal")) else 0)


def _given(references: Iterable[str]) -> dict[str, Any]:
    """``NAME=SUBJECT:VERSION`` of each."""
    from eventmill.process.schemas.sources import Reference

    found = {}
    for text in references:
        name, _, cited = text.partition("=")
        subject, _, version = cited.rpartition(":")
        if not (name and subject and version.isascii() and version.isdigit()):
            raise ConfigError(f"--reference {text!r} is not NAME=SUBJECT:VERSION, such as money.json=money:1")
        found[name] = Reference(subject, int(version))
    return found


def _broken(log: Any, event: str, before: Any, after: Any, renames: Renames) -> dict[str, Any]:
    """What holds today and would not under ``after``: properties that the schema names, and saved questions."""
    from eventmill.process.schemas.impact import broken
    from eventmill.query.mentions import properties_of
    from eventmill.query.saved import SavedQuestions

    queries = []
    for project, saved in SavedQuestions(log).everyones():
        hit = broken(before, after, properties_of(saved, event, renames))
        if hit:
            whys = [f"properties.{path} {why}" for path, why in hit.items()]
            queries.append({"project": project, "name": saved.name, "kind": saved.kind, "why": whys})
    columns = [f"properties.{path} {why}" for path, why in broken(before, after).items()]
    return {"columns": columns, "queries": queries}


def _properties(log: Any, event: str, since_ms: int) -> Iterator[Any]:
    """Columns of the properties of an event's rows as they went to the stores."""
    import pyarrow.compute as pc

    from eventmill.core import frame
    from eventmill.core.schema import EVENT, Topic

    for partition in log.partitions(Topic.ENRICHED):
        offsets = log.offsets_between(Topic.ENRICHED, partition, since_ms, 1 << 62)
        position, end = (offsets[0], offsets[-1] + 1) if offsets else (0, 0)
        while position < end:
            frames = log.read(Topic.ENRICHED, partition, position, events_max=_READ_EVENTS, to_offset=end)
            position = frames[-1].offset + 1
            batch = frame.decode_all(frames, EVENT)
            yield batch.column("properties").filter(pc.equal(batch.column("event").cast("string"), event))


def _print(report: dict[str, Any]) -> None:
    out = Console()
    out.print(
        f"[bold]{escape(report['event'])}[/]: of {report['events']:,} events stored in the last {report['hours']} hours "
        f"{'[red]' if report['rejected'] else '[green]'}{report['rejected']:,}[/] would be rejected"
    )
    if report["rules"]:
        table = Table(box=SIMPLE_HEAD)
        table.add_column("path: rule")
        table.add_column("events", justify="right")
        table.add_column("properties, for example")
        for rule in report["rules"]:
            table.add_row(escape(rule["rule"]), f"{rule['events']:,}", escape(rule["examples"][0]))
        out.print(table)
    for line in report["columns"]:
        out.print(f"[yellow]stored column[/]: {escape(line)}")
    for query in report["queries"]:
        of = "" if query["project"] is None else f" of project {query['project']}"
        out.print(f"[yellow]saved question[/] {escape(query['name'] + of)}: {escape('; '.join(query['why']))}")
    if report["refusal"]:
        out.print(f"[red]{escape(report['refusal'])}[/]")


@schema.command()
@file_argument
@event_option
@click.option("--compatibility", help="Registry only: first set the subject's compatibility mode, such as BACKWARD.")
@reference_option
@data_option
@config_option
@friendly
def publish(
    file: Path,
    event: str,
    compatibility: str | None,
    references: tuple[str, ...],
    data: Path | None,
    config_file: Path | None,
) -> None:
    """Publish a schema as the event's next version, to the folder or the registry; it is in force within seconds."""
    from eventmill.process.schemas.columnar import Checker
    from eventmill.process.schemas.sources import RegistrySource, open_source
    from eventmill.process.schemas.trial import read_document

    source, given = open_source(configure(config_file, data=data)), _given(references)
    document = read_document(file)
    Checker(document, source.references(event, document, given))
    if compatibility is not None:
        if not isinstance(source, RegistrySource):
            raise ConfigError("--compatibility is a registry's; a folder takes any schema")
        source.set_compatibility(event, compatibility.upper())
    published = source.publish(event, document, given)
    click.echo(f"{published.event} version {published.version} ({published.identity})")
