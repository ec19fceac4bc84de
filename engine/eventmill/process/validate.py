"""What decoding alone cannot refuse: events that the operator does not want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.ids import format_event_id
from eventmill.core.schema import REJECT, Reason
from eventmill.core.stage import Outcome


class Validate:
    """Stateless. Events named in ``process.blocked_events`` become dead letters."""

    name: Final = "validate"

    def __init__(self, blocked_events: Sequence[str]) -> None:
        self._blocked = pa.array(sorted(blocked_events), pa.string())

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Rows of blocked names are rejects, the others go on."""
        if len(self._blocked) == 0 or batch.num_rows == 0:
            return Outcome(batch)
        blocked = pc.is_in(batch.column("event"), value_set=self._blocked)
        if not pc.any(blocked).as_py():
            return Outcome(batch)
        return Outcome(batch.filter(pc.invert(blocked)), rejects=_dead_letters(batch.filter(blocked)))


def _dead_letters(batch: pa.RecordBatch) -> pa.RecordBatch:
    rows = batch.to_pylist()
    return pa.RecordBatch.from_arrays(
        [
            pa.array([Reason.BLOCKED_EVENT.value] * len(rows)),
            pa.array([f"{row['event']!r} is listed in process.blocked_events" for row in rows]),
            pa.array([client_event(row) for row in rows], pa.binary()),
            batch.column("received_at"),
        ],
        schema=REJECT,
    )


def client_event(row: dict[str, Any]) -> bytes:
    """A raw row as an event in the client's spelling, such as ``replay`` can decode again."""
    event = {
        "messageId": row["message_id"] or format_event_id(row["event_id"]),
        "type": row["type"],
        "event": row["event"] if row["type"] == "track" else None,
        "anonymousId": row["anonymous_id"],
        "userId": row["user_id"],
        "originalTimestamp": row["original_timestamp"],
        "sentAt": row["sent_at"],
        "traits" if row["type"] in ("identify", "group") else "properties": orjson.Fragment(row["properties"]),
        "context": orjson.Fragment(row["context"]),
    }
    return orjson.dumps({key: value for key, value in event.items() if value is not None})
