"""From an SDK's JSON body to Arrow columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow as pa

from eventmill._native.decode import Decoder
from eventmill.core.clock import now_ms

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Decoded:
    """``events``: a record batch of ``core.schema.RAW``. ``rejects``: of ``core.schema.REJECT``, one row a bad event."""

    events: pa.RecordBatch
    rejects: pa.RecordBatch


def decode(
    payload: bytes | bytearray | memoryview | str,
    received_at: datetime | int | None = None,
    type: str | None = None,  # noqa: A002
) -> Decoded:
    """A body of Segment's HTTP Tracking API as columns: a batch, or one event.

    ``received_at``: when the server got it, as a datetime or ms since the epoch (default now); event times are corrected
    for the phone's clock by it. ``type``: the event's type, where the endpoint says it (``"track"``, …). A bad event is a row
    in ``rejects``. Raises ``BodyError`` when the payload is not JSON or neither a batch nor an event.

    >>> decoded = decode('{"type": "track", "event": "Opened", "userId": "u1", "messageId": "m1"}', received_at=0)
    >>> decoded.events.column("event").to_pylist(), decoded.rejects.num_rows
    (['Opened'], 0)
    """
    if received_at is None:
        received_at = now_ms()
    elif isinstance(received_at, datetime):
        moment = received_at if received_at.tzinfo else received_at.replace(tzinfo=UTC)
        received_at = (moment - _EPOCH) // timedelta(milliseconds=1)
    decoder = Decoder()
    decoder.append(payload.encode() if isinstance(payload, str) else payload, received_at, type)
    return Decoded(*decoder.finish())
