"""The real-time store that a configuration names: in the data folder, on a server, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eventmill.core.config import Config
from eventmill.core.errors import ConfigError
from eventmill.sinks.realtime.clients import Clients, Connections
from eventmill.sinks.realtime.server import Server, parse_url
from eventmill.sinks.realtime.shape import Shape
from eventmill.sinks.realtime.store import RealtimeStore


def shape_of(config: Config, cluster: str | None = None) -> Shape:
    """How its tables are written down; ``cluster`` is another than the configuration's. Raises ``ConfigError``."""
    named = config.realtime.cluster if cluster is None else cluster
    if named and not config.realtime.url:
        raise ConfigError("a cluster needs a server of it in realtime.url: clickhouse://user:password@host:8123")
    return Shape(cluster=named)


def open_store(config: Config) -> RealtimeStore:
    """Raises ``StoreError``, ``ConfigError``."""
    shape = shape_of(config)
    if not config.realtime.url:
        return RealtimeStore(config.realtime_dir, shape=shape)
    return RealtimeStore(config.realtime_dir, connections=Server(parse_url(config.realtime.url)), shape=shape)


@contextmanager
def connected(config: Config) -> Iterator[Connections]:
    """Connections for whoever looks after the schema. The embedded store's folder must be held, and exist."""
    found: Connections
    if config.realtime.url:
        found = Server(parse_url(config.realtime.url))
    elif config.realtime_dir.is_dir():
        found = Clients(config.realtime_dir)
    else:
        raise ConfigError(f"{config.data} has no real-time store; name the right folder by --data")
    try:
        yield found
    finally:
        found.close()
