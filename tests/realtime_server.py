"""A real-time store on a server, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eventmill.sinks.realtime import migrations
from eventmill.sinks.realtime.server import Server, parse_url
from eventmill.sinks.realtime.shape import WINDOW, Shape
from eventmill.sinks.realtime.store import RealtimeStore


def store_on(url: str) -> Callable[..., RealtimeStore]:
    """Opens the store on that server, which is empty at first; each time over connections of its own."""
    server = Server(parse_url(url))
    server.command("DROP DATABASE IF EXISTS eventmill SYNC")
    server.close()

    def opened(*, window: int = WINDOW) -> RealtimeStore:
        connections = Server(parse_url(url))
        list(migrations.apply(connections, Shape(window)))
        return RealtimeStore(Path("nowhere"), connections=connections, shape=Shape(window))

    return opened
