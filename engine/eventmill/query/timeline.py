"""Timelines: one user's or device's events, the newest first, page by page."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import QueryError
from eventmill.core.schema import EVENT_ID, TIME
from eventmill.query.body import (
    INTERVALS,
    Selection,
    read_event,
    read_number,
    read_object,
)
from eventmill.query.conditions import read_filters
from eventmill.query.fields import TEXT_CHARS_MAX, Parameters, parse_time
from eventmill.query.routing import Route, Span
from eventmill.query.scan import AT, BOUNDARY_MS, Plan, Scan

EVENTS: Final = 100
EVENTS_MAX: Final = 1_000
#: How far back a timeline goes that does not say ``from``.
BACK_MS: Final = 90 * INTERVALS["day"]
#: Whose events: the key to the columns of which one must be it.
WHOSE: Final = {
    "user": ("user_id",),
    "device": ("device_id",),
    "id": ("user_id", "device_id", "anonymous_id"),
}
_KEYS: Final = (*WHOSE, "from", "to", "event", "filters", "limit", "cursor")
_TEXT: Final = (
    "event", "type", "device_id", "user_id", "anonymous_id", "platform", "app_version", "os_version", "device_model",
    "country", "properties",
)  # fmt: skip
_PLACE: Final = struct.Struct(">q16s")


@dataclass(frozen=True, slots=True)
class Timeline:
    """A checked question. ``after`` is the place (ms, event id) behind which the page begins."""

    columns: tuple[str, ...]
    whose: str
    span: Span
    chosen: Selection
    limit: int
    after: tuple[int, bytes] | None

    @property
    def bucket_ms(self) -> int:
        """The boundary between the stores lies at an hour."""
        return BOUNDARY_MS

    def plan(self, way: Route, lake_source: str | None) -> Plan:
        """The page's events and one more. What each store has of them is sorted there."""
        scan = Scan(way, lake_source, None if self.chosen.event is None else [self.chosen.event])
        end = f" ORDER BY at DESC, id DESC LIMIT {self.limit + 1}"
        return scan.plan(f"SELECT * FROM ({scan.rows(self._build, end)}){end}")

    def _build(self, parameters: Parameters) -> tuple[list[str], list[str]]:
        whose = parameters.bind(self.whose, "String")
        conditions = [
            f"({' OR '.join(f'ifNull({column} = {whose}, 0)' for column in self.columns)})",
            *(each.sql(parameters) for each in self.chosen.filters),
        ]
        if self.after is not None:
            at, event_id = parameters.bind(self.after[0], "Int64"), parameters.bind(self.after[1].hex(), "String")
            conditions.append(f"({AT}, event_id) < ({at}, toFixedString(unhex({event_id}), 16))")
        columns = [
            f"{AT} AS at",
            "event_id AS id",
            "toUnixTimestamp64Milli(received_at) AS received",
            "toString(session_id) AS session",
            f"toNullable({parameters.event()}) AS c_event",
            *(f"CAST({name}, 'Nullable(String)') AS c_{name}" for name in _TEXT if name != "event"),
        ]
        return columns, conditions

    def answer(self, found: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """The page, and ``cursor`` for the next one (null when this is the last).

        ``session_id`` is text: a number of 64 bits does not survive every reader of JSON.
        """
        if not found.num_rows:
            return pa.table({field.name: pa.array([], field.type) for field in _COLUMNS}), {"cursor": None}
        page = found.slice(0, self.limit)
        columns = {
            "timestamp": page.column("at").cast(pa.int64()).cast(TIME),
            "event_id": page.column("id"),
            "session_id": page.column("session"),
            "received_at": page.column("received").cast(pa.int64()).cast(TIME),
            **{name: page.column(f"c_{name}") for name in _TEXT},
        }
        more = found.num_rows > self.limit
        last = (page.column("at")[-1].as_py(), page.column("id")[-1].as_py())
        table = pa.table({field.name: columns[field.name] for field in _COLUMNS})
        return table, {"cursor": _written(*last) if more else None}


_COLUMNS: Final = pa.schema(
    [
        ("timestamp", TIME),
        ("event_id", EVENT_ID),
        ("session_id", pa.string()),
        ("received_at", TIME),
        *((name, pa.string()) for name in _TEXT),
    ]
)


def _written(at_ms: int, event_id: bytes) -> str:
    return base64.urlsafe_b64encode(_PLACE.pack(at_ms, event_id)).decode()


def _place(cursor: Any) -> tuple[int, bytes] | None:
    if cursor is None:
        return None
    try:
        at, event_id = _PLACE.unpack(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (TypeError, ValueError, binascii.Error, struct.error):
        raise QueryError("cursor must be the cursor of the page before, as its meta gave it") from None
    return int(at), bytes(event_id)


def parse(body: Any, now: int) -> Timeline:
    """Check a request's body; ``now`` (ms) is where a timeline ends that does not say ``to``.

    Raises ``QueryError`` naming the key and what it takes.
    """
    body = read_object(body, _KEYS)
    given = [key for key in WHOSE if body.get(key) is not None]
    if len(given) != 1:
        raise QueryError("say whose events: one of user (a user id), device (a device id) or id (either)")
    whose = body[given[0]]
    if not isinstance(whose, str) or not 0 < len(whose) <= TEXT_CHARS_MAX:
        raise QueryError(f"{given[0]} must be text of 1 to {TEXT_CHARS_MAX} characters")
    end = now if body.get("to") is None else parse_time(body["to"], "to")
    start = max(end - BACK_MS, 0) if body.get("from") is None else parse_time(body["from"], "from")
    if end <= start:
        raise QueryError("to must lie after from")
    chosen = Selection(read_event(body.get("event")), read_filters(body.get("filters")))
    return Timeline(
        WHOSE[given[0]], whose, Span(start, end), chosen, read_number(body, "limit", EVENTS, EVENTS_MAX),
        _place(body.get("cursor")),
    )  # fmt: skip
