"""Options that commands share, and how errors reach a person."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from eventmill.core.config import Config, load
from eventmill.core.errors import EventmillError
from eventmill.core.redact import LineFormatter

F = TypeVar("F", bound=Callable[..., Any])

#: What people read goes to standard error, what machines read to standard output.
console = Console(stderr=True)

data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="The data folder.  [default: eventmill-data]"
)
config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="A TOML configuration file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object to standard output.")


def configure(config_file: Path | None, **overrides: Any) -> Config:
    """The configuration; an override's ``__`` stands for the dot (``http__port=0``)."""
    return load(config_file, overrides={key.replace("__", "."): value for key, value in overrides.items()})


def log_to_stderr(level: int = logging.INFO) -> None:
    """One line a record, on standard error, without e-mail addresses and passwords of URLs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("pyiceberg", "httpx", "httpx2"):  # a line a file, or a request
        logging.getLogger(chatty).setLevel(logging.WARNING)


def friendly(command: F) -> F:
    """Print an ``EventmillError`` as one line and exit with 2."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except EventmillError as error:
            console.print(f"[bold red]eventmill:[/] {error}", highlight=False, soft_wrap=True)
            sys.exit(2)

    return wrapper  # type: ignore[return-value]
