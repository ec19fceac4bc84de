"""The command line."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Final

import click

#: command -> (module, one line for the overview). Modules are imported when their command runs: some are heavy.
COMMANDS: Final = {
    "serve": ("eventmill.cli.serve", "serve"),
    "ingest": ("eventmill.cli.serve", "ingest"),
    "process": ("eventmill.cli.roles", "process"),
    "sink": ("eventmill.cli.roles", "sink"),
    "topics": ("eventmill.cli.roles", "topics"),
    "generate": ("eventmill.cli.generate", "generate"),
    "demo": ("eventmill.cli.demo", "demo"),
    "audit": ("eventmill.cli.ledger", "audit"),
    "trace": ("eventmill.cli.ledger", "trace"),
    "compact": ("eventmill.cli.maintain", "compact"),
    "export": ("eventmill.cli.export", "export"),
    "retain": ("eventmill.cli.retain", "retain"),
    "forget": ("eventmill.cli.forget", "forget"),
    "lake": ("eventmill.cli.lake", "lake"),
    "replay": ("eventmill.cli.replay", "replay"),
    "query": ("eventmill.cli.query", "query"),
    "top": ("eventmill.cli.top", "top"),
    "schema": ("eventmill.cli.schema", "schema"),
    "dimensions": ("eventmill.cli.dimensions", "dimensions"),
    "keys": ("eventmill.cli.keys", "keys"),
    "bench": ("eventmill.cli.bench", "bench"),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.command(cls=_Lazy)
@click.version_option(version("eventmill"), prog_name="eventmill")
def main() -> None:
    """Mobile analytics from app event to dashboard: nothing lost, nothing doubled."""
