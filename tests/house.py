"""The roles apart on real brokers, one of each but for two processors."""

from __future__ import annotations

import urllib.request
import uuid

import orjson

from eventmill.core.config import load
from eventmill.log.kafka import topics
from faults.role import Role
from serving import eventmill

PARTITIONS = 3
WAIT_S = 60


class House:
    """An ingest, two processors and a sink, with a folder of schemas that all see."""

    def __init__(self, kafka, folder):
        self.folder, self.kafka = folder, kafka
        self.environ = {
            "EVENTMILL_LOG__PREFIX": f"d{uuid.uuid4().hex[:8]}", "EVENTMILL_KAFKA__BOOTSTRAP": kafka.bootstrap,
            "EVENTMILL_KAFKA__PARTITIONS": str(PARTITIONS), "EVENTMILL_DEDUP__CAPACITY": "10000000",
            "EVENTMILL_PROCESS__SNAPSHOTS": str(folder / "snapshots"), "EVENTMILL_SCHEMAS__FOLDER": str(folder / "schemas"),
            "EVENTMILL_SCHEMAS__REFRESH_INTERVAL": "100ms", "EVENTMILL_DATA": str(folder / "sink"),
        }  # fmt: skip
        self.config = load(environ=self.environ)
        topics.create(self.config)
        self.roles = {
            name: Role(
                [name.rstrip("2"), "--port", "0", "--data", str(folder / name)], folder / f"{name}.txt", self.environ
            )
            for name in ("ingest", "process", "process2", "sink")
        }

    def start(self):
        for role in self.roles.values():
            role.start()

    def ask(self, name, method, path, body=None):
        request = urllib.request.Request(
            self.roles[name].url + path, None if body is None else orjson.dumps(body), method=method,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return orjson.loads(answer.read())

    def command(self, *arguments, code=0):
        done = eventmill(*map(str, arguments), **self.environ)
        assert done.returncode == code, done.stderr.decode()
        return done.stdout

    def send(self, first, *prices):
        batch = [
            {
                "type": "track",
                "event": "purchase",
                "userId": f"u{n}",
                "messageId": f"m{n}",
                "properties": {"price": price},
            }
            for n, price in enumerate(prices, first)
        ]
        assert self.ask("ingest", "POST", "/v1/batch", {"batch": batch})["accepted"] == len(prices)

    def settle(self):
        assert self.ask("sink", "POST", "/v1/flush") == {"stored": True}
        audit = orjson.loads(self.command("audit", "--json"))  # over the socket in the sink's data folder
        assert audit["balanced"], audit
        return audit

    def stored(self):
        sql = {"query": "SELECT message_id, JSONExtractFloat(properties, 'price') FROM events ORDER BY message_id"}
        return dict(self.ask("sink", "POST", "/v1/query/sql", sql)["rows"])
