"""A cluster as far as one embedded engine can be one: its only shard is this process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pyarrow as pa

from eventmill.sinks.realtime.clients import Clients
from eventmill.sinks.realtime.shape import Shape

NAME: Final = "analytics"
SHAPE: Final = Shape(cluster=NAME)
#: The port is that of the engine's own protocol, by which it knows itself in the cluster; nobody listens there.
_CONFIG: Final = f"""<clickhouse>
  <tcp_port>19000</tcp_port>
  <remote_servers><{NAME}><shard><replica><host>127.0.0.1</host><port>19000</port></replica></shard></{NAME}></remote_servers>
</clickhouse>
"""
_REPLICATED: Final = re.compile(r"ENGINE = Replicated(\w+)\('/[^']*', '\{replica\}'(?:, )?")
_WINDOW: Final = re.compile(r"\breplicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = \d+")


class Member(Clients):
    """Connections to an engine in ``folder`` that is the cluster. It has no queue of statements ON CLUSTER, so they are run
    here; and no replicas, so each table is as the replicated one, but remembers blocks itself. ``ran``: what was given."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.xml"
        config.write_text(_CONFIG)
        super().__init__(Path(f"{folder / 'data'}?config-file={config}"))
        self.ran: list[str] = []

    def command(self, statement: str, rows: pa.Table | None = None) -> None:
        """Run a statement that answers nothing."""
        self.ran.append(statement)
        plain = _REPLICATED.sub(r"ENGINE = \1(", statement.replace(f" ON CLUSTER '{NAME}'", ""))
        plain = _WINDOW.sub(r"non_replicated_deduplication_window = \1", plain)
        eventmill_rows = rows  # noqa: F841 - see ``Clients.source``
        with self._borrow(()) as client:
            client.command(plain, use_database=False)
