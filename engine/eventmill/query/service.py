"""The query service: questions of all kinds over the real-time store and the lake."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
import pyarrow as pa
import xxhash

from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import QueryConfig
from eventmill.core.errors import QueryError, StoreError
from eventmill.core.lakefile import LakeFile
from eventmill.core.retention import LakeView
from eventmill.net.messages import Request, Response
from eventmill.query import funnel, paths, retention, sessions, timeline, trends
from eventmill.query.asker import LAKE, OUT_OF_TIME, Asker, Estimate, Store, TooManyRows
from eventmill.query.cache import AnswerCache, Kept, Key, key_of
from eventmill.query.lanes import FairPool
from eventmill.query.lateness import Lateness, finality
from eventmill.query.live import LiveTail
from eventmill.query.outside import Engine, Outside
from eventmill.query.outside_leg import MARK
from eventmill.query.outside_select import OutsideSelects
from eventmill.query.project import ProjectStore, files_of_project, lake_of, view_of
from eventmill.query.relative import absolute
from eventmill.query.render import Answer, iso
from eventmill.query.retired import kept_since, refuse
from eventmill.query.routing import Route, Span, route
from eventmill.query.scan import BOUNDARY_MS, Plan, Question
from eventmill.query.select import Selects
from eventmill.query.versions import LakeVersion, version_of

logger = logging.getLogger(__name__)

PREFIX: Final = "/v1/query/"
BODY_BYTES_MAX: Final = 262_144
#: Queries that wait for a place, for each that runs.
WAITING_PER_PLACE: Final = 4
SQL: Final = "sql"
#: Kind to what checks its body; it is given the body, the most rows of an answer, and now.
KINDS: Final[dict[str, Callable[[Any, int, int], Question]]] = {
    "trends": lambda body, rows_max, _: trends.parse(body, rows_max),
    "funnel": lambda body, _, __: funnel.parse(body),
    "retention": lambda body, rows_max, _: retention.parse(body, rows_max),
    "sessions": lambda body, rows_max, _: sessions.parse(body, rows_max),
    "timeline": lambda body, _, now: timeline.parse(body, now),
    "paths": lambda body, _, __: paths.parse(body),
}
_ALL: Final = ", ".join((*KINDS, SQL))
#: What ``explain`` may be.
_EXPLAIN: Final = ("", "0", "1")


@dataclass(frozen=True, slots=True)
class _Ready:
    """A checked question; ``run`` answers it. ``estimate`` raises ``QueryError`` when it would cost too much; ``key`` is what
    its answer depends on now, null where that cannot be told; ``finality`` how final that answer is now."""

    stores: list[str]
    boundary: str | None
    estimate: Callable[[], Estimate]
    sql: str
    parameters: dict[str, Any]
    run: Callable[[], tuple[pa.Table, dict[str, Any]]]
    facts: dict[str, Any] = field(default_factory=dict)
    key: Callable[[], Key | None] = lambda: None
    finality: Callable[[], dict[str, Any]] = dict
    #: What another engine is asked of the lake.
    outside: tuple[str, ...] = ()


class QueryService:
    """Safe to share between threads.

    Making one moves the process to the root directory. ``lake_source`` gives the lake as a FROM expression, or null while
    there is none; ``watermark`` the newest ``received_at`` in it (ms since the epoch), ``lake_size`` its ``bytes`` and
    ``rows``; ``lake_view`` the lake together with the aggregates of what is retired; ``files_of`` the files that such an
    expression reads (null: it cannot say), ``is_rolled_up`` which of those are; ``snapshot_of`` the snapshot that it is of, and
    ``outside`` who reads that in its place (null: nobody). ``window_ms`` is how far back the real-time store answers; ``clock``
    is now.
    """

    def __init__(
        self,
        store: Store,
        lake_source: Callable[[], str | None],
        config: QueryConfig,
        *,
        window_ms: int,
        watermark: Callable[[], int | None] = lambda: None,
        lake_size: Callable[[], dict[str, int] | None] = lambda: None,
        lake_view: Callable[[], LakeView | None] | None = None,
        files_of: Callable[[str], tuple[LakeFile, ...] | None] = lambda _: None,
        is_rolled_up: Callable[[LakeFile], bool] = lambda _: False,
        lake_version: LakeVersion = lambda _, __, ___: None,
        snapshot_of: Callable[[str], int | None] = lambda _: None,
        outside: Engine | None = None,
        clock: Callable[[], int] = now_ms,
        pool: FairPool | None = None,
        caller: str | None = None,
        project: str | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        # chdb reads a lake only below the working directory, which it looks up at every query.
        os.chdir("/")
        self._store = store
        self._lake_source = lake_source
        self.config = config
        self._caller = caller
        self._project = project
        self.cache = AnswerCache(config.cache_bytes_max) if cache is None else cache
        self._slow_s = parse_duration_ms(config.slow) / 1_000
        self._window_ms = window_ms
        self._watermark = watermark
        self._lake_size = lake_size
        self._lake_view = lake_view or (lambda: _without_aggregates(lake_source()))
        self._files_of = files_of
        self._is_rolled_up = is_rolled_up
        self._lake_version = lake_version
        self._snapshot_of = snapshot_of
        self._outside = outside
        self._clock = clock
        self._pool = pool or FairPool(config.concurrency_max)
        self._lane = self._pool.lane(config.concurrency_max)
        self._places = threading.BoundedSemaphore(config.concurrency_max * (1 + WAITING_PER_PLACE))
        self._asker = Asker(store, config)
        self._lateness = Lateness(self._asker, clock)
        self._selects = Selects(self._asker, lake_source, self._both)
        self._outside_selects = OutsideSelects(
            self._selects, self._asker, outside, lake_source, snapshot_of, files_of, project
        )
        self.live = LiveTail(self._asker, self._lane)

    def narrowed(self, config: QueryConfig, *, project: str | None, caller: str) -> QueryService:
        """The same stores and threads for one caller: other limits, a lane of its own, one project's events (null: all).

        The cache is shared, too; a project's answers are kept under its name, and no other sees them.
        """
        store, source, view, files_of = self._store, self._lake_source, self._lake_view, self._files_of
        if project is not None:
            store, source, view = ProjectStore(store, project), lake_of(project, source), view_of(project, view)
            files_of = files_of_project(project, files_of)
        made = QueryService(
            store, source, config, window_ms=self._window_ms, watermark=self._watermark, lake_size=self._lake_size,
            lake_view=view, files_of=files_of, is_rolled_up=self._is_rolled_up, lake_version=self._lake_version,
            snapshot_of=self._snapshot_of, outside=self._outside, clock=self._clock, pool=self._pool, caller=caller,
            project=project, cache=self.cache,
        )  # fmt: skip
        made._selects = Selects(made._asker, self._lake_source, self._both, self._selects.shown)
        return made

    async def handle(self, request: Request) -> Response:
        """A ``net.messages.Handler`` for everything below ``/v1/query/``."""
        kind = request.path.removeprefix(PREFIX)
        if kind not in KINDS and kind != SQL:
            return Response.error(404, f"there is no {request.path}; below {PREFIX} there are {_ALL}")
        if request.method != "POST":
            return Response.error(405, f"{request.path} takes POST", {"Allow": "POST"})
        if len(request.body) > BODY_BYTES_MAX:
            return Response.error(413, f"the body has over {BODY_BYTES_MAX} bytes")
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            return Response.error(400, f"the body is not JSON: {error}")
        return await self.submit(kind, body, request)

    async def submit(self, kind: str, body: Any, request: Request) -> Response:
        """The answer to a question of a known kind, in its turn; ``request`` says in which form, and whether to explain."""
        if request.query.get("explain", "0") not in _EXPLAIN:
            return Response.error(
                400, f"explain is {request.query['explain'][:100]!r}; 1 explains the question, 0 asks it"
            )
        if not self._places.acquire(blocking=False):
            return self._crowded()
        explains = request.query.get("explain", "0") == "1"
        accept = request.headers.get("accept", "")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lane, self._respond, kind, body, accept, explains)

    def _crowded(self) -> Response:
        if self._caller is None:
            return Response.error(503, "too many queries are waiting; try again", {"Retry-After": "1"})
        most = self.config.concurrency_max
        return Response.error(
            429,
            f"this key has {most} queries running and {most * WAITING_PER_PLACE} waiting; ask again when some are answered",
            {"Retry-After": "1"},
        )

    def _respond(self, kind: str, body: Any, accept: str, explains: bool) -> Response:
        started = time.monotonic()
        try:
            if explains:
                return Response.json(200, self.explain(kind, body))
            return self.answer(kind, body).response(accept)
        except TooManyRows as error:
            return Response.json(400, {"success": False, "error": str(error), **error.facts()})
        except QueryError as error:
            return Response.error(400, str(error))
        except StoreError as error:
            if error.code == OUT_OF_TIME:
                return Response.error(504, f"the query took over {self.config.seconds_max} s; narrow its time range")
            return Response.error(503, f"the store cannot answer now: {error}", {"Retry-After": "1"})
        finally:
            self._places.release()
            self._log_slow(kind, body, time.monotonic() - started)

    def _log_slow(self, kind: str, body: Any, seconds: float) -> None:
        """What took long, by a digest of the question: its values may be people's."""
        if seconds >= self._slow_s:
            asked = xxhash.xxh3_64_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
            span = [str(body.get(key))[:40] for key in ("from", "to")] if isinstance(body, dict) else []
            logger.warning(
                "slow query: %s %s took %.2f s (key %s, from %s)",
                kind, asked, seconds, self._caller or "none", " to ".join(span),
            )  # fmt: skip

    def check(self, kind: str, body: Any) -> None:
        """Whether a body can be asked at all; nothing is read. Raises ``QueryError`` telling what to change."""
        if kind == SQL:
            self._selects.read(body)
        else:
            self._question(kind, body)

    def _question(self, kind: str, body: Any) -> Question:
        now = self._clock()
        return KINDS[kind](absolute(body, now), self.config.result_rows_max, now)

    def ask(self, kind: str, body: Any) -> dict[str, Any]:
        """As ``POST /v1/query/<kind>`` with this body. Raises ``QueryError``, ``StoreError``."""
        return self.answer(kind, body).as_dict()

    def answer(self, kind: str, body: Any) -> Answer:
        """The same as a table. Raises ``QueryError``, ``StoreError``."""
        started = time.monotonic()
        ready = self._prepare(kind, body)
        key = ready.key()
        kept = None if key is None else self.cache.find(key)
        cached = kept is not None
        if kept is None:
            kept = self._asked(ready, key)
        meta = {
            "stores": ready.stores,
            "boundary": ready.boundary,
            "estimated_rows": kept.meta["estimated_rows"],
            "elapsed_ms": round((time.monotonic() - started) * 1_000, 3),
            "cached": cached,
        }
        return Answer(kept.table, meta | ready.facts | ready.finality() | kept.meta)

    def _asked(self, ready: _Ready, key: Key | None) -> Kept:
        """The stores' answer; kept when nothing that it depends on has changed while they were asked."""
        rows = sum(ready.estimate().values())
        table, facts = ready.run()
        answer = Kept(table, facts | {"estimated_rows": rows})
        if key is not None and ready.key() == key:
            self.cache.keep(key, answer)
        return answer

    def explain(self, kind: str, body: Any) -> dict[str, Any]:
        """How a question would be answered: ``stores``, ``boundary``, ``tables`` (each with the rows that would be read and
        about how many bytes those take on disk, and the engine that reads them), ``sql`` and its ``parameters``, and ``trino``,
        the statements that Trino is asked. Raises ``QueryError``, ``StoreError``."""
        ready = self._prepare(kind, body)
        tables = [
            {
                "table": table,
                "rows": rows,
                "bytes": round(rows * self._row_bytes(table)),
                "engine": "trino" if table == LAKE and ready.outside else "clickhouse",
            }
            for table, rows in ready.estimate().items()
        ]
        return {
            "stores": ready.stores,
            "boundary": ready.boundary,
            "tables": tables,
            "sql": ready.sql,
            "parameters": ready.parameters,
            "trino": list(ready.outside),
        }

    def _row_bytes(self, table: str) -> float:
        if table != LAKE:
            return self._asker.row_bytes(table)
        size = self._lake_size() or {}
        return size.get("bytes", 0) / max(size.get("rows", 0), 1)

    def _prepare(self, kind: str, body: Any) -> _Ready:
        if kind == SQL and self._outside_selects.wanted(body):
            asked, limits = self._outside_selects.check(body), self.config
            return _Ready(
                ["lake"], None, lambda: self._outside_selects.estimate(asked), asked.shown, {},
                lambda: (self._outside_selects.answer(asked, limits.seconds_max, limits.result_rows_max), {}),
                outside=(asked.statement,),
            )  # fmt: skip
        if kind == SQL:
            query = self._selects.check(body)
            boundary = None if query.boundary is None else iso(query.boundary)
            return _Ready(
                query.stores, boundary, lambda: self._selects.estimate(query), query.text, query.parameters,
                lambda: (self._selects.answer(query), {}),
            )  # fmt: skip
        question = self._question(kind, body)
        view = self._lake_view()
        source = None if view is None else view.events
        way = replace(self._route(question, source), view=view)
        outside = self._read_outside(question, source, way)
        plan = question.plan(way, source) if outside is None else outside.plan
        refuse(plan, way)
        boundary = None if way.boundary is None else iso(way.boundary)
        # Where the lake's files lie is nobody's business.
        shown = plan.sql.replace(MARK, LAKE) if outside is not None else plan.sql
        for place, name in () if view is None else (
            (view.events, LAKE), (view.minutes, "lake.events_1m"), (view.sessions, "lake.sessions")
        ):  # fmt: skip
            shown = shown if place is None else shown.replace(place, name)
        return _Ready(
            way.stores, boundary, lambda: self._asker.estimate(plan), shown, plan.parameters,
            lambda: question.answer(self._stored(plan, outside)), kept_since(view, self.config.renames),
            lambda: self._key(kind, question, source, way, plan),
            lambda: self._finality(question), () if outside is None else tuple(outside.statements),
        )  # fmt: skip

    def _read_outside(self, question: Question, source: str | None, way: Route) -> Outside | None:
        """The plan of which another engine reads the lake's events; null where there is none, or none are read. It takes a
        snapshot by its number, which is known of the newest only."""
        if self._outside is None or source is None or way.lake is None or way.files is None:
            return None
        snapshot = self._snapshot_of(source)
        if snapshot is None:
            return None
        found = Outside.of(question.plan(way, MARK), question, self._outside.table, snapshot, self._project)
        return found if found.legs else None

    def _stored(self, plan: Plan, outside: Outside | None) -> pa.Table:
        if outside is None or self._outside is None:
            return self._asker.answer(plan)
        return outside.answer(self._outside, self._asker, self.config.seconds_max)

    def _finality(self, question: Question) -> dict[str, Any]:
        """Of every kind until when it is complete, of trends each bucket that is not."""
        now = self._clock()
        if isinstance(question, trends.Trends):
            return finality(self._lateness.curve(question.filters), question.buckets(), question.asked, now)
        told = finality(self._lateness.curve(), range(0), question.span, now)
        return {"complete_until": told["complete_until"]}

    def _key(self, kind: str, question: Question, source: str | None, way: Route, plan: Plan) -> Key | None:
        """All that an answer depends on; who has other limits may be refused what another is told."""
        version = version_of(self._store, self._lake_version, source, way, plan)
        if version is None:
            return None
        # The lake's events have versions by date; aggregates of what is retired are told apart by the metadata that is read.
        sql = plan.sql if source is None else plan.sql.replace(source, LAKE).replace(MARK, LAKE)
        return key_of(self._project, kind, question, sql, sorted(plan.parameters.items()), version, self.config)

    def _both(self) -> int | None:
        """Where the stores meet for those who say no time: at an hour; null without a lake."""
        exists = self._lake_source() is not None
        now = self._clock()
        watermark = self._watermark() if exists else None
        found = route(
            Span(0, now), BOUNDARY_MS, lake_exists=exists, watermark=watermark, now=now, window_ms=self._window_ms
        )
        return found.boundary

    def _route(self, question: Question, source: str | None) -> Route:
        found = route(
            question.span,
            question.bucket_ms,
            lake_exists=source is not None,
            watermark=None if source is None else self._watermark(),
            now=self._clock(),
            window_ms=self._window_ms,
        )
        found = replace(found, typed=self._store.typed, renames=self.config.renames)
        if found.lake is None or source is None:
            return found
        return replace(found, files=self._files_of(source), is_rolled_up=self._is_rolled_up)

    def close(self) -> None:
        """Wait for running queries and stop."""
        self._pool.close()
        self._lateness.close()


def _without_aggregates(source: str | None) -> LakeView | None:
    return None if source is None else LakeView(source)
