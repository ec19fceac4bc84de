"""``eventmill query``: ask a running server, and read the answer in the terminal."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
import orjson

from eventmill.cli.answers import ask, print_answer
from eventmill.cli.generate import duration
from eventmill.cli.options import friendly, json_option
from eventmill.cli.saved import saved
from eventmill.core.errors import ConfigError

_LAST: Final = "24h"
Command = Callable[..., Any]
Body = dict[str, Any]


@click.group()
def query() -> None:
    """Ask a running server: trends, funnels, retention, sessions, a user's timeline, paths, SQL, or what is saved."""


query.add_command(saved)


def _asks(kind: str) -> Callable[[Callable[..., Body]], Command]:
    """Makes a command of a function that gives the request's body."""

    def wrap(body_of: Callable[..., Body]) -> Command:
        @query.command(kind)
        @click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server to ask.")
        @click.option("--key", default="", envvar="EVENTMILL_KEY", help="A key, where the server wants one.")
        @click.option("--arrow", type=click.Path(path_type=Path, dir_okay=False), help="Write an Arrow stream here.")
        @json_option
        @friendly
        @functools.wraps(body_of)
        def command(url: str, key: str, arrow: Path | None, as_json: bool, **given: Any) -> None:
            if arrow is not None and as_json:
                raise ConfigError("--json and --arrow are two forms of one answer: take one")
            answer = ask(url, key, kind, body_of(**given), arrow=arrow is not None)
            if arrow is not None:
                arrow.write_bytes(answer)
            elif as_json:
                click.echo(answer)
            else:
                print_answer(kind, orjson.loads(answer))

        return command

    return wrap


def _spans(command: Command) -> Command:
    """The options ``--from``, ``--to`` and ``--last``, which become the body's ``from`` and ``to``."""

    @click.option("--from", "since", help="From this time on, ISO 8601.")
    @click.option("--to", "until", help="Up to this time.  [default: now]")
    @click.option("--last", help=f"Or: the last such time, like 30m or 7d.  [default: {_LAST}]")
    @functools.wraps(command)
    def wrapper(since: str | None, until: str | None, last: str | None, **given: Any) -> Body:
        if since is not None and last is not None:
            raise ConfigError("--from and --last both say where the time begins: take one")
        end = datetime.now(UTC).replace(microsecond=0) if until is None else _time(until, "--to")
        back = timedelta(milliseconds=duration(last or _LAST, "--last"))
        start = end - back if since is None else _time(since, "--from")
        return {"from": start.isoformat(), "to": end.isoformat(), **command(**given)}

    return wrapper


def _filters(command: Command) -> Command:
    """The option ``--filter``, which becomes the body's ``filters``."""

    @click.option("--filter", "filters", multiple=True, metavar="'FIELD OP VALUE'", help="Like 'platform eq ios'.")
    @functools.wraps(command)
    def wrapper(filters: tuple[str, ...], **given: Any) -> Body:
        return {**command(**given), **({"filters": [filter_of(each) for each in filters]} if filters else {})}

    return wrapper


by_option = click.option("--by", "breakdown", help="Break down by this field, like platform or properties.category.")
limit_option = click.option("--limit", type=int, help="How many values of it get a line of their own.")
who_option = click.option("--who", "measure", type=click.Choice(["devices", "users"]), help="Whom to count.")


def filter_of(text: str) -> Body:
    """A filter's JSON. Fields of JSON and numbers take JSON values where they are such, all others text."""
    field, _, rest = text.strip().partition(" ")
    op, _, value = rest.strip().partition(" ")
    if not op:
        raise ConfigError(f"--filter {text!r}: write a field, an operator and a value, like 'platform eq ios'")
    if op in ("is_set", "is_not_set"):
        return {"field": field, "op": op}
    read = _json if "." in field or field in ("flags", "session_id") else str
    if op in ("in", "not_in"):
        return {"field": field, "op": op, "value": [read(each.strip()) for each in value.split(",")]}
    return {"field": field, "op": op, "value": read(value.strip())}


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _time(text: str, option: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is no ISO 8601 time; write for example 2026-11-23T08:00:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _given(**values: Any) -> Body:
    """What was said; the server knows the rest."""
    return {key: value for key, value in values.items() if value is not None}


@_asks("trends")
@click.argument("event", required=False)
@click.option("--measure", help="events, devices, users, sessions, sum:properties.price, p95:…  [default: events]")
@click.option("--interval", type=click.Choice(["minute", "hour", "day"]), help="[default: hour]")
@click.option("--compare", is_flag=True, help="Beside the period of the same length before.")
@click.option("--cumulative", is_flag=True, help="Each bucket with all before it.")
@click.option("--by", "breakdown", multiple=True, help="Break down by this field; up to three times.")
@limit_option
@_filters
@_spans
def trends(event: str | None, compare: bool, cumulative: bool, breakdown: tuple[str, ...], **given: Any) -> Body:
    """Count EVENT (all events without one) over time."""
    by = breakdown[0] if len(breakdown) == 1 else list(breakdown) or None
    more = _given(compare="previous" if compare else None, cumulative=cumulative or None, breakdown=by)
    return _given(event=event, **given) | more


@_asks("funnel")
@click.argument("steps", nargs=-1, required=True)
@click.option("--window", help="All steps within this time of the first.  [default: 1d]")
@who_option
@by_option
@limit_option
@_filters
@_spans
def funnel(steps: tuple[str, ...], **given: Any) -> Body:
    """Count who takes the STEPS (names of events) in this order."""
    return _given(steps=[{"event": step} for step in steps], **given)


@_asks("retention")
@click.option("--first", help="What puts somebody into a cohort.  [default: any event]")
@click.option("--returning", help="What counts as coming again.  [default: any event]")
@click.option("--interval", type=click.Choice(["day", "week", "month"]), help="[default: day]")
@click.option("--cohort", type=click.Choice(["first", "any"]), help="The first such event, or each.  [default: first]")
@who_option
@_filters
@_spans
def retention(first: str | None, returning: str | None, **given: Any) -> Body:
    """Count who comes again in the periods after their first."""
    selected = {key: {"event": name} for key, name in (("first", first), ("returning", returning)) if name is not None}
    return {**selected, **_given(**given)}


@_asks("sessions")
@click.option("--event", help="Only sessions that have this event.")
@click.option("--interval", type=click.Choice(["minute", "hour", "day", "total"]), help="[default: hour]")
@by_option
@limit_option
@_filters
@_spans
def sessions(**given: Any) -> Body:
    """Count sessions, their length and events, and those that end after one event."""
    return _given(**given)


@_asks("timeline")
@click.argument("whose", required=False, metavar="ID")
@click.option("--user", help="A user id.")
@click.option("--device", help="A device id.")
@click.option("--event", help="Only events of this name.")
@click.option("--limit", type=int, help="Events a page.  [default: 100]")
@click.option("--cursor", help="The page after the one that gave this cursor.")
@_filters
@_spans
def timeline(whose: str | None, **given: Any) -> Body:
    """List what ID (a user or a device) did, the newest first."""
    return _given(id=whose, **given)


@_asks("paths")
@click.option("--start", help="What happens after this event.")
@click.option("--end", help="What happened before this event.")
@click.option("--depth", type=int, help="How many steps from it.  [default: 3]")
@click.option("--top", type=int, help="How many events a step get a line of their own.  [default: 10]")
@_filters
@_spans
def paths(**given: Any) -> Body:
    """Count what comes next after an event, or came before one, within a session."""
    return _given(**given)


@_asks("sql")
@click.argument("text", metavar="SELECT")
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="For {NAME:Type} in the query.")
@click.option("--engine", type=click.Choice(["clickhouse", "trino"]), help="Trino answers SQL over lake.events alone.")
def sql(text: str, parameters: tuple[str, ...], engine: str | None) -> Body:
    """Run one SELECT over events, events_1m, sessions and lake.events."""
    bound = {}
    for each in parameters:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"--param {each!r}: write NAME=VALUE")
        bound[name] = value
    return {"query": text, "parameters": bound, **({"engine": engine} if engine else {})}
