"""The engine: processor, rescue lane, both sinks, upkeep and query over one data folder, in one process.

chdb allows one process per folder, so whoever asks the real-time store shares this process.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter

from eventmill.core import groups
from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.errors import LogUnavailable, StateError
from eventmill.core.redact import Redaction
from eventmill.core.retention import rules
from eventmill.core.schema import Hop, Reason, Topic
from eventmill.core.tail import Tail
from eventmill.generate.oracle import Verdict
from eventmill.net.grants import parse
from eventmill.observe import metrics, pipeline
from eventmill.observe.audit import Audit
from eventmill.process.dimensions.source import open_dimensions
from eventmill.process.replay import Rules, Wanted, replay_dead
from eventmill.process.rescue import Rescue
from eventmill.process.schemas.book import SchemaBook
from eventmill.process.schemas.ruling import Ruling
from eventmill.process.schemas.sources import open_source
from eventmill.query.cache import AnswerCache
from eventmill.query.callers import Callers
from eventmill.query.service import QueryService
from eventmill.query.trino import open_engine
from eventmill.serve import caching
from eventmill.serve.dimensions import Counted
from eventmill.serve.engine_log import REPLAY, open_log
from eventmill.serve.forgetting import resume_running
from eventmill.serve.mend import mended
from eventmill.serve.processing import build_processing
from eventmill.serve.retain import planned, retain
from eventmill.serve.stores import Stores
from eventmill.serve.typed import typed_of
from eventmill.serve.worker import Worker
from eventmill.sinks.runner import LakeRunner, RealtimeRunner

logger = logging.getLogger(__name__)

_UPKEEP_S: Final = 15.0
_DRAIN_S: Final = 60.0
_FLUSH_S: Final = 600.0
#: The first retention after a start; then they follow at their interval.
_FIRST_RETAIN_S: Final = 300.0
#: How long the lake may take to have what the real-time store has.
_CATCH_UP_S: Final = 30.0
_CONSUMERS: Final = (
    (groups.PROCESS, Topic.RAW),
    (groups.RESCUE, Topic.SUSPECTS),
    (groups.REALTIME, Topic.ENRICHED),
    (groups.LAKE, Topic.ENRICHED),
)


class Engine:
    """Start it, use it, drain it. Without ``processes`` raw is left to others: the log must be one that they share."""

    def __init__(self, config: Config, *, processes: bool = True) -> None:
        self.config = config
        rules(config)  # what cannot be is an error at the start
        self._redaction = Redaction(config.dead.redact)
        self.stores = Stores(config)
        self.fatal: tuple[str, Exception] | None = None
        self.stopped = threading.Event()
        self._hurry = threading.Event()
        self._replaying = threading.Lock()
        #: Held by whoever deletes from the stores, or compares them with the ledger.
        self.alone = threading.Lock()
        self._declared: Ruling | None = None
        self._compacted: dict[str, Any] | None = None
        log = self.stores.log
        tail = Tail((groups.REALTIME, groups.LAKE))
        self.book = SchemaBook(
            log,
            open_source(config),
            refresh_s=parse_duration_ms(config.schemas.refresh_interval) / 1000,
            reached=metrics.SCHEMAS_REACHED.set,
        )
        self.dimensions = open_dimensions(config.dimensions, Counted())
        self.processor = build_processing(config, log, self.book, tail, self.dimensions) if processes else None
        self._realtime = RealtimeRunner(
            log,
            self.stores.realtime,
            events_max=config.realtime.batch_events_max,
            interval_ms=parse_duration_ms(config.realtime.batch_interval),
            tail=tail,
            tombstones=self.stores.tombstones,
        )
        self._lake = LakeRunner(
            log,
            self.stores.lake,
            events_max=config.lake.batch_events_max,
            interval_ms=parse_duration_ms(config.lake.batch_interval),
            tail=tail,
            tombstones=self.stores.tombstones,
        )
        self._rescue: Rescue | None = None
        self.query = QueryService(
            self.stores.realtime,
            self.stores.lake.source_sql,
            config.query,
            window_ms=parse_duration_ms(config.realtime.window),
            watermark=self.stores.lake.watermark,
            lake_size=self.stores.lake.size,
            lake_view=self.stores.lake.asked,
            files_of=self.stores.lake.files_of,
            is_rolled_up=self.stores.lake_rollups.has,
            lake_version=self.stores.lake.version,
            snapshot_of=self.stores.lake.snapshot_of,
            outside=open_engine(config),
            # The versions of what is on the other servers of a cluster are not seen from one of them.
            cache=AnswerCache(0 if config.realtime.cluster else config.query.cache_bytes_max, caching.Counted()),
        )
        self.callers = Callers(self.query, parse(config.access.keys))
        self._workers = [
            self._worker("realtime", self._realtime.recover, self._step_realtime, metrics.STORED.labels("realtime")),
            self._worker("lake", self._lake.recover, self._step_lake, metrics.STORED.labels("lake")),
            self._worker("rescue", self._recover_rescue, self._step_rescue, metrics.JUDGED),
        ]
        if self.processor is not None:
            self._workers.insert(
                0, self._worker("process", self._recover_processor, self.processor.step, metrics.PROCESSED)
            )
        self._upkeep = threading.Thread(target=self._run_upkeep, name="upkeep", daemon=True)
        self._upkeep_stop = threading.Event()

    def _worker(
        self, name: str, recover: Callable[[], object], step: Callable[[float], int], counter: Counter
    ) -> Worker:
        """A worker whose steps are counted, from outside."""

        def counted(timeout_s: float) -> int:
            taken = step(timeout_s)
            counter.inc(taken)
            return taken

        return Worker(name, recover, counted, self._failed)

    def start(self) -> None:
        """Recover and go live; returns when every worker has recovered, or one has failed for good."""
        self.book.start()
        for worker in self._workers:
            worker.start()
        for worker in self._workers:
            while not worker.recovered.wait(0.05) and self.fatal is None:
                continue
        self._upkeep.start()

    def _failed(self, name: str, error: Exception) -> None:
        self.fatal = (name, error)
        self.stopped.set()

    def _recover_processor(self) -> None:
        if self.processor is not None:
            logger.info("processor: %s", self.processor.recover() or "joining its group")

    def _recover_rescue(self) -> None:
        self._rescue = Rescue(
            self.stores.log, self.stores.realtime, batch_events_max=self.config.process.batch_events_max
        )

    def _step_rescue(self, timeout_s: float) -> int:
        return self._rescue.step(timeout_s) if self._rescue is not None else 0

    def _step_realtime(self, timeout_s: float) -> int:
        latest = self.book.latest()
        if latest is not None and latest is not self._declared:
            self._declared = latest
            self.stores.realtime.declare(typed_of(latest.schemas))
        return self._realtime.step(timeout_s, hurry=self._hurry.is_set)

    def _step_lake(self, timeout_s: float) -> int:
        return self._lake.step(timeout_s, hurry=self._hurry.is_set)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Nothing is consumed inside the block; ingest goes on."""
        with contextlib.ExitStack() as stack:
            for worker in self._workers:
                stack.enter_context(worker.pause())
            yield

    def audit(self) -> Audit:
        """The ledger's proof, with all consumers paused."""
        with self.alone, self.quiet():
            return self.stores.audit()

    def in_flight(self) -> dict[str, int]:
        """Events that each consumer has still to take."""
        log = self.stores.log
        return {
            group: sum(log.lag(group, topic, each) for each in log.partitions(topic)) for group, topic in _CONSUMERS
        }

    def status(self) -> dict[str, Any]:
        """Totals and lags; cheap."""
        totals = dict.fromkeys((str(hop) for hop in Hop), 0)
        for count in self.stores.log.ledger():
            totals[count.hop] += count.events
        lags = self.in_flight()
        metrics.SCHEMA_UNKNOWN.set(self.book.unjudged)
        for group, topic in _CONSUMERS:
            metrics.LAG.labels(group).set(lags[group])
            log = self.stores.log
            waits = (log.lag_seconds(group, topic, each) for each in log.partitions(topic))
            metrics.LAG_SECONDS.labels(group).set(max(waits) if lags[group] else 0.0)
        return {"ledger": totals, "lag": lags, "in_flight": sum(lags.values()), "pressure": self.stores.log.pressure()}

    def pipeline(self, hours: int) -> dict[str, Any]:
        """The newest ``hours`` of the ledger, lags, the log's and the lake's size, the last compaction; cheap."""
        log, lags = self.stores.log, self.in_flight()
        return {
            **pipeline.hours(log.ledger(), hours),
            "lag": lags,
            "in_flight": sum(lags.values()),
            "pressure": log.pressure(),
            "log": {"bytes": log.size_bytes(), "bytes_max": self.config.log.size_bytes_max},
            "lake": self.stores.lake.size(),
            "compacted": self._compacted,
            "compact_interval_ms": parse_duration_ms(self.config.lake.compact_interval),
        }

    def dead_letters(self, limit: int, reason: Reason | None, project: str | None = None) -> dict[str, Any]:
        """The newest dead letters, with their bytes; of one project only, if one is named."""
        return pipeline.dead_letters(self.stores.log, limit=limit, reason=reason, project=project, hide=self._redaction)

    def replay(self, reasons: frozenset[str]) -> dict[str, Any]:
        """Dead letters' second chance under today's settings; one replay at a time."""
        ruling = self.book.newest()
        if ruling is None:
            raise StateError("the schemas are out of reach, so nothing can be judged; replay when they are back")
        rules = Rules(
            self.config.ingest, self.config.http, self.config.process.blocked_events, ruling, None, self._redaction
        )
        with self._replaying, contextlib.closing(open_log(self.config, name=REPLAY)) as log:
            return replay_dead(log, rules, Wanted(reasons)).as_dict()

    def _run_upkeep(self) -> None:
        compacted = time.monotonic()
        every_s = parse_duration_ms(self.config.lake.compact_interval) / 1000
        retain_s = parse_duration_ms(self.config.retention.interval) / 1000
        retained = compacted + min(_FIRST_RETAIN_S, retain_s) - retain_s
        while not self._upkeep_stop.wait(min(_UPKEEP_S, every_s, retain_s)):
            try:
                self.status()
                self.trim_log()
                resume_running(self)
                self.stores.roll_up(self._upkeep_stop.is_set)
                if time.monotonic() - compacted >= every_s:
                    compacted = time.monotonic()
                    self.compact()
                if time.monotonic() - retained >= retain_s:
                    retained = time.monotonic()
                    self.retain()
            except LogUnavailable as error:
                logger.warning("upkeep waits for the log: %s", error)
            except Exception:
                logger.exception("upkeep failed; it is tried again")

    def trim_log(self) -> None:
        """Drop what the log's retention allows."""
        now, log = now_ms(), self.config.log
        for topic in Topic:
            if topic in (Topic.SCHEMAS, Topic.TOMBSTONES, Topic.SAVED):
                continue  # small, and what raw means hangs on all of it; what is saved is kept until it is deleted
            retention = log.dead_retention if topic is Topic.DEAD else log.retention
            self.stores.log.trim(topic, 0, now - parse_duration_ms(retention))

    def compact(self) -> dict[str, Any]:
        """Compact the lake and tidy it; put right what was stored while its schema or its user was not known."""
        started = time.monotonic()
        report = mended(self.stores, self.config, self.book.newest(), self.dimensions)
        report["rolled_up"] = self.stores.roll_up(self._upkeep_stop.is_set)
        self._compacted = {"at": now_ms(), "seconds": round(time.monotonic() - started, 3), "report": report}
        return report

    def retain(self) -> dict[str, Any]:
        """Roll up and drop what is old, move what is cold, as ``[retention]`` says."""
        with self.alone:
            return retain(self.stores, self.config, now_ms(), catch_up_s=_CATCH_UP_S)

    def planned_retention(self) -> dict[str, Any]:
        """What ``retain`` would do."""
        return planned(self.stores, self.config, now_ms())

    def wait_stored(self, timeout_s: float) -> bool:
        """Wait until everything on the log stands in both stores."""
        return self.stores.log.wait_consumed(_CONSUMERS, timeout_s)

    def flush(self) -> bool:
        """Store what the log holds without waiting for full batches; false when that takes too long."""
        try:
            return self._hurry_through(_FLUSH_S)
        finally:
            self._hurry.clear()

    def _hurry_through(self, timeout_s: float) -> bool:
        """Let the sinks wait for nothing more, once all of it lies before them."""
        deadline = time.monotonic() + timeout_s
        self.stores.log.wait_consumed(_CONSUMERS[:1], timeout_s)
        self._hurry.set()
        self.stores.log.wake()
        return self.wait_stored(max(deadline - time.monotonic(), 0.0))

    def judge(self, truth: Path) -> dict[str, Verdict]:
        """The oracle's verdict on both stores by a truth file."""
        with self.quiet():
            return self.stores.judge(truth)

    def summary(self) -> dict[str, Any]:
        """What a person wants to know of a run: how long events took, how many sessions, what happened most."""
        return self.stores.summary()

    def drain(self) -> bool:
        """Store all that the log holds, take a snapshot, stop; false when something is left on the log for next time."""
        done = self.fatal is None and self._hurry_through(_DRAIN_S)
        self._upkeep_stop.set()
        self.book.close()
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()
        if self._upkeep.is_alive():
            self._upkeep.join()
        if self.processor is not None:
            self.processor.close(snapshot=self.fatal is None)
        self.dimensions.close()
        self.query.close()
        self.stores.close()
        return done
