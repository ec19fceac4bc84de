"""Group commit: the events of many requests become durable together, and each request is answered after that.

While one group is written, the next one collects. A log of many partitions gets a frame for each of them, with all events of
a device in one. Into a single partition an event name with many events in the group goes in a frame of its own, keyed by the
name; all others share one frame, since a frame costs some kilobytes whatever it holds.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import pyarrow as pa

from eventmill._native.decode import Decoder
from eventmill.core import frame, ledger
from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import HttpConfig, IngestConfig
from eventmill.core.errors import LogUnavailable
from eventmill.core.letters import at_ingest
from eventmill.core.log import Count, Frame, Log
from eventmill.core.projects import Run, stamped
from eventmill.core.redact import NOTHING, Redaction
from eventmill.core.schema import Hop, Topic
from eventmill.core.threads import name_thread
from eventmill.kernels.partition import Partitioner, by_key
from eventmill.observe import metrics

_FULL_RETRY_S: Final = 5
_PRESSURE_FRESH_S: Final = 1.0


class _Group:
    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.events: list[Run] = []
        self.rejects: list[Run] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Committer:
    """Belongs to one event loop."""

    def __init__(self, log: Log, ingest: IngestConfig, http: HttpConfig, redaction: Redaction = NOTHING) -> None:
        self._log = log
        self._redaction = redaction
        self._config = ingest
        self._limits = {
            "event_bytes_max": http.event_bytes_max,
            "event_name_bytes_max": ingest.event_name_bytes_max,
            "depth_max": ingest.depth_max,
            "age_max_ms": parse_duration_ms(ingest.age_max),
        }
        self._partitioner = Partitioner(ingest.event_names_max)
        self._partitions = len(log.partitions(Topic.RAW))
        self._interval_s = parse_duration_ms(ingest.commit_interval) / 1000
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(1, "commit", name_thread, ("commit",))
        # A quarter, so that the next group can collect while this one is written and neither comes near the limit.
        self._commit_bytes = ingest.pending_bytes_max // 4
        self._writing_bytes = 0
        self._pressure: tuple[float, str | None] = (-_PRESSURE_FRESH_S, None)
        self._spare: Decoder | None = None
        self._group = _Group(self._new_decoder())
        self._writing: _Group | None = None
        self._timer: asyncio.TimerHandle | None = None

    def _new_decoder(self) -> Decoder:
        decoder, self._spare = self._spare, None
        return decoder or Decoder(**self._limits)

    @property
    def decoder(self) -> Decoder:
        """The collecting group's decoder; whoever appends to it awaits ``commit`` before yielding to the loop."""
        return self._group.decoder

    def stamp(self, project: str | None) -> None:
        """What was appended since the last call belongs to this project."""
        group = self._group
        for runs, rows in ((group.events, group.decoder.rows), (group.rejects, group.decoder.reject_rows)):
            if runs and runs[-1][0] == project:
                runs[-1] = project, rows
            else:
                runs.append((project, rows))

    def check_room(self) -> None:
        """Raises ``LogUnavailable`` while too much waits for its commit."""
        waiting = self._writing_bytes + self._group.decoder.nbytes
        if waiting > self._config.pending_bytes_max:
            raise LogUnavailable(f"{waiting:,} bytes wait for the log (ingest.pending_bytes_max)")

    async def pressure(self) -> str | None:
        """Why the log takes no events now, about a second old at most; ``None`` when it does."""
        if self._loop.time() - self._pressure[0] >= _PRESSURE_FRESH_S:
            self._pressure = (
                self._loop.time(),
                self._pressure[1],
            )  # whoever else asks now is content with the last one
            try:
                reason = await self._loop.run_in_executor(self._pool, self._log.pressure)
            except LogUnavailable as error:
                reason = str(error)
            self._pressure = (self._loop.time(), reason)
        return self._pressure[1]

    async def commit(self) -> None:
        """Wait until what was appended is durable. Raises ``LogUnavailable`` when it is not, and then nothing of it is."""
        group = self._group
        if self._writing is None:
            decoder = group.decoder
            full = decoder.rows + decoder.reject_rows >= self._config.commit_events_max
            if full or decoder.nbytes >= self._commit_bytes:
                self._start()
            elif self._timer is None:
                self._timer = self._loop.call_later(self._interval_s, self._start)
        await asyncio.shield(group.done)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        group, self._group = self._group, _Group(self._new_decoder())
        self._writing = group
        self._writing_bytes = group.decoder.nbytes
        metrics.PENDING_BYTES.set(self._writing_bytes)
        writing = self._loop.run_in_executor(self._pool, self._write, group)
        writing.add_done_callback(lambda done: self._written(group, done))

    def _written(self, group: _Group, done: asyncio.Future[None]) -> None:
        self._writing = None
        self._writing_bytes = 0
        error = done.exception()
        if error is None:
            self._spare = group.decoder  # after an error nobody knows what it holds
            group.done.set_result(None)
        else:
            group.done.set_exception(error)
            group.done.exception()  # every request of the group may be gone by now
        waiting = self._group.decoder
        if waiting.rows or waiting.reject_rows:
            self._start()
        else:
            metrics.PENDING_BYTES.set(0)

    def _write(self, group: _Group) -> None:
        started = time.perf_counter()
        events, rejects = group.decoder.finish()
        events = stamped(events, group.events)
        rejects = stamped(rejects, group.rejects, pa.string())
        reason = self._log.pressure()
        if reason is not None:
            raise LogUnavailable(reason, _FULL_RETRY_S)
        rejected = ledger.counts(Hop.REJECTED, rejects)
        frames = [_counted(raw, ledger.counts(Hop.ACCEPTED, part)) for raw, part in self._frames(events)]
        if rejects.num_rows:
            letters = self._redaction.letters(at_ingest(rejects))
            frames.append(_counted(frame.encode(Topic.DEAD, letters), rejected))
        with self._log.transaction() as transaction:
            transaction.append(frames)
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - started)
        metrics.COMMIT_EVENTS.observe(events.num_rows)
        metrics.ACCEPTED.inc(events.num_rows)
        for count in rejected:
            metrics.REJECTED.labels(count.reason).inc(count.events)

    def _frames(self, events: pa.RecordBatch) -> list[tuple[Frame, pa.RecordBatch]]:
        """Frames for raw, each with its events."""
        if events.num_rows == 0:
            return []
        if self._partitions > 1:
            placed = by_key(events, "device_id", self._partitions)
            return [(frame.encode(Topic.RAW, part, partition=partition), part) for partition, part in placed]
        if events.num_rows < 2 * self._config.frame_events_min:
            return [(frame.encode(Topic.RAW, events), events)]
        parts = self._partitioner.split(events)
        small = [part for _, part in parts if part.num_rows < self._config.frame_events_min]
        frames = [
            (frame.encode(Topic.RAW, part, key=name), part)
            for name, part in parts
            if part.num_rows >= self._config.frame_events_min
        ]
        if small:
            rest = frame.to_batch(pa.Table.from_batches(small))
            frames.append((frame.encode(Topic.RAW, rest), rest))
        return frames

    async def close(self) -> None:
        """Wait until all that was appended is written."""
        while self._writing is not None or self._group.decoder.rows or self._group.decoder.reject_rows:
            if self._writing is None:
                self._start()
            if self._writing is not None:
                await asyncio.wait([self._writing.done])
        self._pool.shutdown()


def _counted(frame: Frame, fates: list[Count]) -> Frame:
    """The frame with what it adds to the ledger: each event of it was received, and what became of it."""
    received = [Count(Hop.RECEIVED, fate.hour, fate.events) for fate in fates]
    return replace(frame, counts=(*received, *fates))
