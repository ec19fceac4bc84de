"""What decoding alone cannot refuse: events that the operator does not want, and events that break their schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.frame import to_batch
from eventmill.core.ids import format_event_id
from eventmill.core.schema import DEAD, Flag, Reason
from eventmill.core.stage import Outcome
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.ruling import Verdict


class Validate:
    """Stateless: the schemas in force are those of the book, which are a function of the offset.

    Events named in ``process.blocked_events``, and those that break their schema, become dead letters; those whose schema is
    not known now are flagged.
    """

    name: Final = "validate"

    def __init__(self, blocked_events: Sequence[str], book: SchemaBook | None = None) -> None:
        self._blocked = pa.array(sorted(blocked_events), pa.string())
        self._book = book

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Bad rows are rejects, the others go on."""
        if batch.num_rows == 0:
            return Outcome(batch)
        blocked = self._refused(batch)
        if blocked is not None:
            batch, letters = blocked
            judged = self._judged(batch)
            rejects = pa.Table.from_batches([letters, *([judged.rejects] if judged.rejects is not None else [])])
            return Outcome(judged.events, rejects=to_batch(rejects))
        return self._judged(batch)

    def _refused(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch] | None:
        if len(self._blocked) == 0:
            return None
        blocked = pc.is_in(batch.column("event"), value_set=self._blocked)
        if not pc.any(blocked).as_py():
            return None
        return batch.filter(pc.invert(blocked)), _blocked_letters(batch.filter(blocked))

    def _judged(self, batch: pa.RecordBatch) -> Outcome:
        if self._book is None or self._book.current is None:
            return Outcome(batch)
        verdict = self._book.current.judge(batch)
        if verdict is None:
            return Outcome(batch)
        events = batch
        if verdict.unknown.any():
            events = flagged(batch, verdict.unknown, Flag.SCHEMA_UNKNOWN)
            self._book.unjudged += int(verdict.unknown.sum())
        if not verdict.broken:
            return Outcome(events)
        keep = np.ones(batch.num_rows, np.bool_)
        keep[list(verdict.broken)] = False
        return Outcome(events.filter(pa.array(keep)), rejects=schema_letters(batch, verdict))


def flagged(batch: pa.RecordBatch, rows: Any, flag: Flag) -> pa.RecordBatch:
    """The batch with one more flag where ``rows`` (booleans) says so."""
    place = batch.schema.get_field_index("flags")
    flags = batch.column(place).to_numpy() | np.where(rows, np.int32(flag), np.int32(0))
    return batch.set_column(place, batch.schema.field(place), pa.array(flags, pa.int32()))


def schema_letters(batch: pa.RecordBatch, verdict: Verdict) -> pa.RecordBatch:
    """The broken rows as dead letters."""
    letters = []
    chosen = batch.take(pa.array(sorted(verdict.broken), pa.int64()))
    for number, row in zip(sorted(verdict.broken), chosen.to_pylist(), strict=True):
        schema, failure = verdict.broken[number]
        named = f"{schema.identity}@{schema.version}"
        detail = f"{failure.path or '/'} of {row['event']!r} breaks {failure.rule!r} of schema {named}"
        letters.append(
            _letter(Reason.SCHEMA, detail, row) | {"schema": named, "path": failure.path, "rule": failure.rule}
        )
    return pa.RecordBatch.from_pylist(letters, DEAD)


def _blocked_letters(batch: pa.RecordBatch) -> pa.RecordBatch:
    letters = [
        _letter(Reason.BLOCKED_EVENT, f"{row['event']!r} is listed in process.blocked_events", row)
        for row in batch.to_pylist()
    ]
    return pa.RecordBatch.from_pylist(letters, DEAD)


def _letter(reason: Reason, detail: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "reason": reason.value, "detail": detail, "payload": client_event(row), "received_at": row["received_at"],
        "stage": Validate.name, "event": row["event"], "event_id": row["event_id"],
    }  # fmt: skip


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
