"""``eventmill query saved``: a project's saved questions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventmill.cli.answers import fetch, plain, print_answer
from eventmill.cli.options import friendly, json_option
from eventmill.core.errors import ConfigError

_PATH: Final = "/v1/saved"


@click.group()
def saved() -> None:
    """List, save, run and delete saved questions."""


def _server(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--key", default="", envvar="EVENTMILL_KEY", help="A key, where the server wants one.")(
        command
    )
    return click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server to ask.")(command)


def _at(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"


@saved.command("list")
@_server
@json_option
@friendly
def list_saved(url: str, key: str, as_json: bool) -> None:
    """List what is saved."""
    answer = fetch(url, key, _PATH)
    if as_json:
        click.echo(answer)
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("name", "kind", "saved at", "question"):
        table.add_column(heading, overflow="fold")
    found = orjson.loads(answer)["saved"]
    for each in found:
        table.add_row(*(Text(plain(each[cell])) for cell in ("name", "kind", "saved_at", "query")))
    Console().print(table if found else "nothing is saved")


@saved.command()
@click.argument("name")
@click.argument("kind")
@click.argument("body", metavar="JSON")
@_server
@friendly
def save(name: str, kind: str, body: str, url: str, key: str) -> None:
    """Save a question of KIND under NAME. JSON is the request's body; - reads it from standard input."""
    try:
        given = orjson.loads(sys.stdin.buffer.read() if body == "-" else body)
    except orjson.JSONDecodeError as error:
        raise ConfigError(
            f'JSON does not parse ({error}); write a body like \'{{"from": "-7d", "to": "now"}}\''
        ) from error
    fetch(url, key, _at(name), {"kind": kind, "query": given}, method="PUT")
    click.echo(f"saved {plain(name)}")


@saved.command()
@click.argument("name")
@click.option("--from", "since", help="From this time on, ISO 8601 or like -7d, instead of what is saved.")
@click.option("--to", "until", help="Up to this time, ISO 8601 or now, instead of what is saved.")
@_server
@json_option
@friendly
def run(name: str, since: str | None, until: str | None, url: str, key: str, as_json: bool) -> None:
    """Ask what is saved under NAME."""
    anew = {name: value for name, value in (("from", since), ("to", until)) if value is not None}
    kind = orjson.loads(fetch(url, key, _at(name)))["kind"]
    answer = fetch(url, key, f"{_at(name)}/run", anew)
    if as_json:
        click.echo(answer)
    else:
        print_answer(kind, orjson.loads(answer))


@saved.command()
@click.argument("name")
@_server
@friendly
def delete(name: str, url: str, key: str) -> None:
    """Delete what is saved under NAME."""
    fetch(url, key, _at(name), {}, method="DELETE")
    click.echo(f"deleted {plain(name)}")
