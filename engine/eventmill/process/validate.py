"""What decoding alone cannot refuse: events that the operator does not want, and events that break their schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.ids import format_event_id
from eventmill.core.schema import DEAD, Flag, Reason
from eventmill.core.stage import Outcome
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.ruling import Ruling, Verdict


class Validate:
    """Stateless: the schemas in force are those of the book, which are a function of the offset.

    Events named in ``process.blocked_events``, and those that break their schema, become dead letters; those whose schema is
    not known now are flagged.
    """

    name: Final = "validate"

    def __init__(self, blocked_events: Sequence[str], book: SchemaBook | None = None) -> None:
        self._blocked = tuple(blocked_events)
        self._book = book

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Bad rows are rejects, the others go on."""
        outcome, unjudged = judged(batch, self._blocked, None if self._book is None else self._book.current)
        if unjudged and self._book is not None:
            self._book.count_unjudged(unjudged)
        return outcome


def judged(batch: pa.RecordBatch, blocked: Sequence[str], ruling: Ruling | None) -> tuple[Outcome, int]:
    """What becomes of a RAW batch (which may have more columns), and of how many rows nobody knows the schema now."""
    if batch.num_rows == 0 or (ruling is None and not blocked):
        return Outcome(batch), 0
    verdict = None if ruling is None else ruling.judge(batch)
    refused = refusals(batch, blocked, verdict)
    events, unjudged = batch, 0
    if verdict is not None and verdict.unknown.any():
        events, unjudged = flagged(batch, verdict.unknown, Flag.SCHEMA_UNKNOWN), int(verdict.unknown.sum())
    if not refused:
        return Outcome(events), unjudged
    keep = np.ones(batch.num_rows, np.bool_)
    keep[list(refused)] = False
    return Outcome(events.filter(pa.array(keep)), rejects=_letters(batch, refused)), unjudged


def flagged(batch: pa.RecordBatch, rows: Any, flag: Flag) -> pa.RecordBatch:
    """The batch with one more flag where ``rows`` (booleans) says so."""
    place = batch.schema.get_field_index("flags")
    flags = batch.column(place).to_numpy() | np.where(rows, np.int32(flag), np.int32(0))
    return batch.set_column(place, batch.schema.field(place), pa.array(flags, pa.int32()))


def refusals(batch: pa.RecordBatch, blocked: Sequence[str], verdict: Verdict | None) -> dict[int, dict[str, Any]]:
    """Per refused row of a RAW batch what its dead letter says of it."""
    refused: dict[int, dict[str, Any]] = {}
    for row, (schema, failure) in ({} if verdict is None else verdict.broken).items():
        named = f"{schema.identity}@{schema.version}"
        refused[row] = _about(
            Reason.SCHEMA,
            f"{failure.path or '/'} of {schema.event!r} breaks {failure.rule!r} of schema {named}",
            schema.event,
        ) | {"schema": named, "path": failure.path, "rule": failure.rule}
    if blocked:
        names = batch.column("event")
        for row in np.flatnonzero(pc.is_in(names, value_set=pa.array(sorted(blocked), pa.string()))).tolist():
            name = names[row].as_py()
            refused[row] = _about(Reason.BLOCKED_EVENT, f"{name!r} is listed in process.blocked_events", name)
    return refused


def _about(reason: Reason, detail: str, event: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("schema", "path", "rule"))
    return {"reason": reason.value, "detail": detail, "stage": Validate.name, "event": event, **nothing}


def _letters(batch: pa.RecordBatch, refused: dict[int, dict[str, Any]]) -> pa.RecordBatch:
    rows = sorted(refused)
    letters = [
        refused[number]
        | {"payload": client_event(row), **{name: row.get(name) for name in ("received_at", "event_id", "project")}}
        for number, row in zip(rows, batch.take(pa.array(rows, pa.int64())).to_pylist(), strict=True)
    ]
    return pa.RecordBatch.from_pylist(letters, DEAD)


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
