"""Events that a fault sends beside the load, with their truth for the oracle."""

from __future__ import annotations

import datetime
import http.client
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
import pyarrow as pa

from eventmill.core.clock import now_ms
from eventmill.generate.truth import TRUTH, payload_hashes
from faults.scene import Scene


class Sent(NamedTuple):
    """One event: its id, its device (who is its user, too), and when it happened, in ms."""

    identity: uuid.UUID
    device: str
    at: int


def post(url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer of ``/v1/batch``."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        connection.request("POST", "/v1/batch", body)
        answer = connection.getresponse()
        return answer.status, orjson.loads(answer.read())
    finally:
        connection.close()


def send(
    scene: Scene,
    name: str,
    rows: Sequence[Sent],
    *,
    ahead_ms: int = 0,
    properties: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    stored: bool = True,
) -> None:
    """Send them as one batch of events of that name, by phones whose clocks are ahead; it must be acknowledged.

    Unless ``stored`` they are to become dead letters afterwards, and are phantoms where they are found.
    """
    events = [
        {
            "type": "track", "event": name, "messageId": str(identity), "properties": properties or {},
            "originalTimestamp": _iso(at + ahead_ms), "context": {"device": {"id": device}, **(context or {})},
            "userId": device,
        }
        for identity, device, at in rows
    ]  # fmt: skip
    status, answer = post(scene.system.url, orjson.dumps({"batch": events, "sentAt": _iso(now_ms() + ahead_ms)}))
    assert (status, answer["accepted"]) == (200, len(events)), (status, answer)
    if not stored:
        return
    device = pa.array([row.device for row in rows])
    told = pa.array([row.at + ahead_ms for row in rows])
    names = pa.array([name] * len(rows))
    columns = {
        "id": pa.array([row.identity.bytes for row in rows], pa.binary(16)),
        "payload_hash": payload_hashes(
            names, device, pa.array([orjson.dumps(properties or {}).decode()] * len(rows)), told
        ),
        "device": device,
        "time": pa.array([row.at for row in rows]),
        "event": names,
        "kind": pa.array(["unique"] * len(rows)),
        "request": pa.array([-1] * len(rows)),
    }
    scene.sent_too.append(pa.table(columns, TRUTH))


def _iso(at: int) -> str:
    return datetime.datetime.fromtimestamp(at / 1000, datetime.UTC).isoformat(timespec="milliseconds")
