"""The live tail: events as they reach the real-time store, as server-sent events.

An answer brings what has come since the last one, or waits a few seconds for something to come; then it ends. A browser's
``EventSource``, like any client that keeps to the standard, asks again at once and says by ``Last-Event-ID`` what it had last
(https://html.spec.whatwg.org/multipage/server-sent-events.html). So no place is held by those who only watch, and a stop
waits for nobody.

Where somebody is in the stream is the log's offset: it only grows, and an index finds the newest events at the cost of the
newest. Nobody sees an offset before all of its rows are stored.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import orjson

from eventmill.core.errors import QueryError, StoreError
from eventmill.net.messages import Request, Response
from eventmill.query.asker import Asker
from eventmill.query.body import EVENT_CHARS_MAX, read_event
from eventmill.query.fields import Parameters
from eventmill.query.render import Answer
from eventmill.query.scan import EVENTS

PATH: Final = "/v1/live"
EVENT_STREAM: Final = "text/event-stream"
EVENTS_MAX: Final = 100
WATCHERS_MAX: Final = 64
WAIT_S: Final = 5.0
_LOOK_S: Final = 0.5
#: A client comes back after so many ms.
_RETRY_MS: Final = 250
#: How far back the first answer goes, in the log's offsets, so that a quiet server shows something.
_BEFORE: Final = 20
_COLUMNS: Final = (
    "toInt64(log_offset) AS place, event_id, {event} AS name, type::String AS type, timestamp, inserted_at, "
    "platform::Nullable(String) AS platform, app_version::Nullable(String) AS app_version, device_id, user_id, properties"
)


@dataclass(frozen=True, slots=True)
class Watch:
    """What a client wants to see. ``after`` is the newest offset that it has; null: none yet."""

    event: str | None
    whose: str | None
    after: int | None


class LiveTail:
    """Answers ``GET /v1/live``."""

    def __init__(self, asker: Asker, pool: Executor, *, wait_s: float = WAIT_S) -> None:
        self._asker = asker
        self._pool = pool
        self._wait_s = wait_s
        self._watchers = 0

    async def handle(self, request: Request) -> Response:
        """A ``net.messages.Handler``."""
        if request.method != "GET":
            return Response.error(405, f"{PATH} takes GET", {"Allow": "GET"})
        if self._watchers >= WATCHERS_MAX:
            return Response.error(503, "too many are watching; try again", {"Retry-After": "5"})
        self._watchers += 1
        try:
            return await self._answer(_watch(request))
        except QueryError as error:
            return Response.error(400, str(error))
        except StoreError as error:
            return Response.error(503, f"the store cannot answer now: {error}", {"Retry-After": "1"})
        finally:
            self._watchers -= 1

    async def _answer(self, watch: Watch) -> Response:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._wait_s
        since = watch.after
        while True:
            newest = await loop.run_in_executor(self._pool, self._newest)
            first = since is None
            since = max(newest - _BEFORE, -1) if since is None else since
            rows: list[dict[str, Any]] = []
            if newest > since:
                rows = await loop.run_in_executor(self._pool, self._between, watch, since, newest)
                since = newest
            if rows or first or loop.time() >= end:
                return Response(200, _written(rows, newest), EVENT_STREAM, {"Cache-Control": "no-store"})
            await asyncio.sleep(_LOOK_S)

    def _newest(self) -> int:
        return int(self._asker.run(self._asker.store.stored_through))

    def _between(self, watch: Watch, since: int, newest: int) -> list[dict[str, Any]]:
        """The newest events behind ``since``, the oldest of them first, and one more than are told."""
        parameters = Parameters(self._asker.renames)
        first, last = (parameters.bind(place, "UInt64") for place in (since + 1, newest))
        conditions = [f"log_offset BETWEEN {first} AND {last}"]
        if watch.event is not None:
            conditions.append(parameters.named([watch.event]))
        if watch.whose is not None:
            whose = parameters.bind(watch.whose, "String")
            conditions.append(f"(device_id = {whose} OR user_id = {whose} OR anonymous_id = {whose})")
        sql = (
            f"SELECT {_COLUMNS.format(event=parameters.event())} FROM {EVENTS} WHERE {' AND '.join(conditions)} "
            f"ORDER BY log_offset DESC, timestamp DESC, event_id LIMIT {EVENTS_MAX + 1}"
        )
        asker = self._asker
        table = asker.run(lambda: asker.store.query_arrow(sql, parameters.values, asker.about))
        answer = Answer(table.rename_columns({"name": "event"}) if table.num_columns else table, {}).as_dict()
        return [dict(zip(answer["columns"], row, strict=True)) for row in reversed(answer["rows"])]


def _written(rows: list[dict[str, Any]], newest: int) -> bytes:
    """The stream: ``skipped`` when there were more, each event with its offset as its id, at last the offset looked up to."""
    parts = [f"retry: {_RETRY_MS}\n\n"]
    if len(rows) > EVENTS_MAX:
        parts.append("event: skipped\ndata: {}\n\n")
    for row in rows[-EVENTS_MAX:]:
        place = row.pop("place")
        parts.append(f"id: {place}\ndata: {orjson.dumps(row).decode()}\n\n")
    if newest >= 0:
        parts.append(f"id: {newest}\n\n")
    return "".join(parts).encode()


def _watch(request: Request) -> Watch:
    unknown = sorted(set(request.query) - {"event", "id", "after"})
    if unknown:
        raise QueryError(
            f"there is no parameter {unknown[0][:100]!r}; there are event, id (a user or a device) and after"
        )
    whose = request.query.get("id") or None
    if whose is not None and len(whose) > EVENT_CHARS_MAX:
        raise QueryError(f"id has over {EVENT_CHARS_MAX} characters")
    after = request.headers.get("last-event-id") or request.query.get("after") or None
    if after is not None and not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise QueryError(f"after is {after[:100]!r}; it must be the id of an event that came before")
    return Watch(read_event(request.query.get("event") or None), whose, None if after is None else int(after))
