"""Everything on one machine, as ``eventmill serve`` runs it, with the embedded log and both stores."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any, Final

import orjson

from eventmill.core.config import Config
from eventmill.core.errors import EventmillError
from eventmill.serve.remote import ask
from faults.role import Role
from faults.sums import not_rolled_up
from testbed.process import free_port

#: Few events, so snapshots must come often to be met by a fault at all. What comes within minutes is all of one slice of the
#: filter, which has room for it.
PROCESSING: Final = {
    "EVENTMILL_PROCESS__SNAPSHOT_INTERVAL_EVENTS": "5000",
    "EVENTMILL_DEDUP__CAPACITY": "3000000",
    "EVENTMILL_DEDUP__SLICE": "24h",
}


class Alone:
    """One process that is ingest, processor and sinks; its ingest worker is a child of it."""

    name = "one machine"

    def __init__(self, folder: Path, **environ: str) -> None:
        self.data = folder / "data"
        self.lake_dir = self.data / "lake"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._config = Config(data=self.data)
        arguments = ["serve", "--data", str(self.data), "--port", str(port)]
        self.role = Role(arguments, folder / "serve.txt", {**PROCESSING, **environ})
        self.processors = self.sinks = [self.role]

    def start(self) -> None:
        """Returns once it takes traffic."""
        self.role.start()

    def mark(self) -> int:
        """Events that are on the raw topic now."""
        totals = self.ask("GET", "/v1/status")["ledger"]
        return int(totals["accepted"] + totals["rescued"] + totals["replayed"])

    def passed(self, mark: int) -> bool:
        """Whether the processor has taken them all."""
        try:
            totals = self.ask("GET", "/v1/status")["ledger"]
        except (OSError, EventmillError, http.client.HTTPException):
            return False
        return bool(totals["enriched"] + totals["invalid"] + totals["suspect"] >= mark)

    def snapshots(self) -> list[Path]:
        """Of the processor, the newest last."""
        return sorted((self.data / "state").glob("snapshot-*.bin"))

    def workers(self) -> list[int]:
        """The ids of the ingest workers' processes."""
        children = Path(f"/proc/{self.role.server.pid}/task").glob("*/children")
        return [int(pid) for task in children for pid in task.read_text().split()]

    def compact(self) -> None:
        """Compact the lake as it is now."""
        self.ask("POST", "/v1/compact")

    def verdicts(self, truth: Path) -> dict[str, dict[str, Any]]:
        """Of each store, once everything has arrived there."""
        self.ask("POST", "/v1/flush")
        verdicts = self.ask("POST", f"/v1/judge?truth={truth}")
        audit = self.ask("GET", "/v1/audit")
        verdicts["realtime"]["corrupt"] += not_rolled_up(self)
        return {name: {**verdict, "balanced": audit["balanced"]} for name, verdict in verdicts.items()}

    def close(self) -> None:
        """Kill it."""
        self.role.server.kill()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the server's."""
        return ask(self._config, method, path, b"" if body is None else orjson.dumps(body))
