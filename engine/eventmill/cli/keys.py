"""``eventmill keys``: keys that cannot be guessed."""

from __future__ import annotations

import secrets

import click
import orjson

from eventmill.cli.options import json_option
from eventmill.net.keys import HASHED, fingerprint

_BYTES = 24


@click.group()
def keys() -> None:
    """Make keys for those who send events, ask, or administer."""


@keys.command()
@json_option
def new(as_json: bool) -> None:
    """Print a fresh key, and its hash for the configuration. The key itself is kept nowhere."""
    key = secrets.token_urlsafe(_BYTES)
    hashed = f"{HASHED}{fingerprint(key).hex()}"
    if as_json:
        click.echo(orjson.dumps({"key": key, "hash": hashed}))
        return
    click.echo(f"key    {key}")
    click.echo(f"hash   {hashed}")
    click.echo("Give the key to its user; put the hash into ingest.write_keys, access.read_keys or access.admin_keys.")
