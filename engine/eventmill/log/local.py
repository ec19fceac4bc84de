"""The embedded log: one SQLite file in WAL mode, shared by any number of processes on one machine.

Frames, offsets, intents and the ledger live in one database, so one SQLite transaction makes outputs, the input offset
and the counts durable together. ``synchronous=FULL`` syncs the write-ahead log at every commit: when an append returns,
the frames survive a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from eventmill.core import groups
from eventmill.core.clock import now_ms
from eventmill.core.errors import FrameError, LogUnavailable, StateError
from eventmill.core.log import Count, Frame, Intent, StoredFrame
from eventmill.core.schema import Hop, Topic
from eventmill.log import ddl
from eventmill.log.local_transaction import LocalTransaction, checksum
from eventmill.log.wake import Waker

_BUSY_S: Final = 30.0
_TRIM_FRAMES: Final = 256
_REWRITE_EVENTS: Final = 50_000


class LocalLog:
    """``core.log.Log`` on SQLite. Open one a process; it is safe to share between threads."""

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str = "eventmill",
        size_bytes_max: int = 50_000_000_000,
        backlog_events_max: int = 5_000_000,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.sqlite"
        self._prefix = prefix
        self._size_bytes_max = size_bytes_max
        self._backlog_events_max = backlog_events_max
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self._lock = threading.Lock()
        # Writers queue at a file lock: SQLite's own busy handler sleeps and retries, which starves and adds latency.
        self._gate = os.open(folder / "log.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._writer = self._connect()
        with self._exclusive():
            self._create()
        self._topics: dict[Topic, int] = {
            topic: self._writer.execute("SELECT id FROM topics WHERE name = ?", (self.topic_name(topic),)).fetchone()[0]
            for topic in Topic
        }
        self._waker = Waker(folder / "wake")

    def topic_name(self, topic: Topic) -> str:
        """The topic's full name, with the configured prefix."""
        return f"{self._prefix}.{topic}"

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            connection.execute("PRAGMA page_size = 65536")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # Frames are read once, so a cache would only hold what nobody asks for again.
            connection.execute("PRAGMA cache_size = -4096")
        except sqlite3.DatabaseError as error:
            raise LogUnavailable(
                f"the log {self.path} does not open: {error}; is the disk full or read-only?"
            ) from error
        return connection

    def _create(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version not in (0, ddl.VERSION):
            raise StateError(
                f"{self.path} was written by another version of Eventmill (layout {version}, this one reads "
                f"{ddl.VERSION}); use the version that wrote it, or another --data folder"
            )
        if version == 0:
            self._writer.executescript(ddl.TABLES)
        for topic in Topic:
            self._writer.execute("INSERT OR IGNORE INTO topics (name) VALUES (?)", (self.topic_name(topic),))
            self._writer.execute(
                "INSERT OR IGNORE INTO heads SELECT id, 0, 0, 0 FROM topics WHERE name = ?", (self.topic_name(topic),)
            )

    def _read(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            self._readers.append(connection)
        try:
            return connection.execute(statement, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise LogUnavailable(f"reading the log failed: {error}") from error

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise LogUnavailable("the log is closed")
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)

    def settle(self) -> None:
        """See ``core.log.Log.settle``."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[LocalTransaction]:
        """All or nothing, durable on return; other writers wait meanwhile, so do the work before."""
        with self._exclusive():
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield LocalTransaction(self._writer, self._topics)
                self._writer.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise LogUnavailable(f"the log cannot take the frames: {error}; free disk space?") from error
                raise
        self._waker.notify()

    def read(
        self, topic: Topic, partition: int, from_offset: int, *, events_max: int, to_offset: int | None = None
    ) -> list[StoredFrame]:
        """See ``core.log.Log.read``."""
        start, end = self.start_offset(topic, partition), self.end_offset(topic, partition)
        if not start <= from_offset <= end:
            raise StateError(
                f"offset {from_offset} lies outside {self.topic_name(topic)}/{partition}, which holds {start}..{end}: "
                "the log was replaced or trimmed behind a reader; restore the log, or start with an empty --data folder"
            )
        stop = end if to_offset is None else min(end, to_offset)
        base = ddl.frame_id(self._topics[topic], partition, 0)
        sizes = self._read("SELECT id, events FROM frames WHERE id >= ? AND id < ? ORDER BY id LIMIT 4096",
                           (base + from_offset, base + stop))  # fmt: skip
        total, last = 0, base + from_offset
        for row_id, events in sizes:
            total += events
            last = row_id + 1
            if total >= events_max:
                break
        rows = self._read(
            "SELECT id, appended_at, events, checksum, key, headers, payload FROM frames WHERE id >= ? AND id < ? "
            "ORDER BY id",
            (base + from_offset, last),
        )
        frames = []
        for row_id, appended_at, events, digest, key, headers, payload in rows:
            offset = row_id - base
            if checksum(payload) != digest:
                raise FrameError(f"frame {topic}/{partition}@{offset} is damaged on disk: its checksum differs")
            frames.append(
                StoredFrame(topic, partition, offset, appended_at, events, key, orjson.loads(headers), payload)
            )
        return frames

    def wait(
        self,
        topic: Topic,
        positions: Mapping[int, int],
        timeout_s: float,
        *,
        events_max: int = 1,
        linger_s: float = 0.0,
        enough: Callable[[], bool] = lambda: False,
    ) -> bool:
        """See ``core.log.Log.wait``."""

        def waiting() -> int:
            return sum(self._events_from(topic, partition, offset) for partition, offset in positions.items())

        if not self._waker.wait_until(
            lambda: any(self.end_offset(topic, each) > positions[each] for each in positions), timeout_s
        ):
            return False
        if linger_s and waiting() < events_max:
            self._waker.wait_until(lambda: enough() or waiting() >= events_max, linger_s)
        return True

    def wake(self) -> None:
        """See ``core.log.Log.wake``."""
        self._waker.wake()

    def wait_committed(self, group: str, topic: Topic, offsets: Mapping[int, int], timeout_s: float) -> bool:
        """See ``core.log.Log.wait_committed``."""
        return self._waker.wait_until(
            lambda: all(self.committed(group, topic, each) >= offsets[each] for each in offsets), timeout_s
        )

    def wait_consumed(self, consumers: Iterable[tuple[str, Topic]], timeout_s: float) -> bool:
        """See ``core.log.Log.wait_consumed``."""
        pairs = list(consumers)
        return self._waker.wait_until(
            lambda: all(self.lag(group, topic, part) == 0 for group, topic in pairs for part in self.partitions(topic)),
            timeout_s,
        )

    def _head(self, topic: Topic, partition: int) -> tuple[int, int]:
        rows = self._read(
            "SELECT next, events FROM heads WHERE topic = ? AND partition = ?", (self._topics[topic], partition)
        )
        if not rows:
            raise StateError(f"{self.topic_name(topic)} has no partition {partition}")
        return rows[0][0], rows[0][1]

    def start_offset(self, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.start_offset``."""
        end = self.end_offset(topic, partition)
        base = ddl.frame_id(self._topics[topic], partition, 0)
        rows = self._read("SELECT min(id) FROM frames WHERE id >= ? AND id < ?", (base, base + end))
        return end if rows[0][0] is None else rows[0][0] - base

    def end_offset(self, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.end_offset``."""
        return self._head(topic, partition)[0]

    def next_offset(self, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.next_offset``."""
        return self.end_offset(topic, partition)

    def committed(self, group: str, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.committed``."""
        rows = self._read(
            "SELECT next FROM offsets WHERE consumer = ? AND topic = ? AND partition = ?",
            (group, self._topics[topic], partition),
        )
        return rows[0][0] if rows else 0

    def intent(self, group: str, topic: Topic, partition: int) -> Intent | None:
        """See ``core.log.Log.intent``."""
        rows = self._read(
            "SELECT from_offset, to_offset FROM intents WHERE consumer = ? AND topic = ? AND partition = ?",
            (group, self._topics[topic], partition),
        )
        return Intent(group, topic, partition, rows[0][0], rows[0][1]) if rows else None

    def lag(self, group: str, topic: Topic, partition: int) -> int:
        """See ``core.log.Log.lag``."""
        return self._events_from(topic, partition, self.committed(group, topic, partition))

    def _events_from(self, topic: Topic, partition: int, consumed: int) -> int:
        _, total = self._head(topic, partition)
        if consumed == 0:
            return total
        row_id = ddl.frame_id(self._topics[topic], partition, consumed - 1)
        rows = self._read("SELECT events_through FROM frames WHERE id = ?", (row_id,))
        if rows:
            return int(total - rows[0][0])
        base = ddl.frame_id(self._topics[topic], partition, 0)
        rows = self._read("SELECT sum(events) FROM frames WHERE id >= ? AND id < ?",
                          (row_id + 1, base + ddl.OFFSET_MAX))  # fmt: skip
        return int(rows[0][0] or 0)

    def lag_seconds(self, group: str, topic: Topic, partition: int) -> float:
        """See ``core.log.Log.lag_seconds``."""
        base = ddl.frame_id(self._topics[topic], partition, 0)
        begin, end = base + self.committed(group, topic, partition), base + ddl.OFFSET_MAX
        rows = self._read("SELECT appended_at FROM frames WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1", (begin, end))
        return max(0.0, (now_ms() - rows[0][0]) / 1000) if rows else 0.0

    def pressure(self) -> str | None:
        """See ``core.log.Log.pressure``."""
        used = self.size_bytes()
        if used > self._size_bytes_max:
            return f"the log holds {used:,} bytes of at most {self._size_bytes_max:,} (log.size_bytes_max)"
        lag = self.lag(groups.PROCESS, Topic.RAW, 0)
        if lag > self._backlog_events_max:
            most = f"{self._backlog_events_max:,} (log.backlog_events_max)"
            return f"{lag:,} events wait for the processor, at most {most} may"
        return None

    def size_bytes(self) -> int:
        """Bytes in use (free pages not counted)."""
        (pages,), (free,), (size,) = (
            self._read(f"PRAGMA {name}")[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def ledger(self) -> list[Count]:
        """See ``core.log.Log.ledger``."""
        rows = self._read("SELECT hop, hour, events, reason FROM ledger ORDER BY hour, hop, reason")
        return [Count(Hop(hop), hour, events, reason) for hop, hour, events, reason in rows]

    def partitions(self, topic: Topic) -> Sequence[int]:
        """See ``core.log.Log.partitions``."""
        rows = self._read("SELECT partition FROM heads WHERE topic = ? ORDER BY partition", (self._topics[topic],))
        return [row[0] for row in rows]

    def offsets_between(self, topic: Topic, partition: int, from_ms: int, to_ms: int) -> list[int]:
        """Offsets of the frames appended within a time range (ms since the epoch, both ends included)."""
        base = ddl.frame_id(self._topics[topic], partition, 0)
        rows = self._read(
            "SELECT id FROM frames WHERE id >= ? AND id <= ? AND appended_at BETWEEN ? AND ? ORDER BY id",
            (base, base + ddl.OFFSET_MAX, from_ms, to_ms),
        )
        return [row[0] - base for row in rows]

    def trim(self, topic: Topic, partition: int, older_than_ms: int) -> int:
        """Delete frames appended before ``older_than_ms`` (ms since the epoch) that every group has consumed.

        The topic's newest frame always stays, so that offsets stay checkable. Gives the number of frames deleted.
        """
        base = ddl.frame_id(self._topics[topic], partition, 0)
        deleted = 0
        while True:
            consumed = self._read("SELECT min(next) FROM offsets WHERE topic = ? AND partition = ?",
                                  (self._topics[topic], partition))[0][0]  # fmt: skip
            newest = self.end_offset(topic, partition) - 1
            limit = newest if consumed is None else min(consumed, newest)
            with self.transaction() as transaction:
                count = transaction.delete_frames(base, base + max(limit, 0), older_than_ms, _TRIM_FRAMES)
            deleted += count
            if count < _TRIM_FRAMES:
                return deleted

    def rewrite(self, topic: Topic, partition: int, end: int, change: Callable[[StoredFrame], Frame | None]) -> int:
        """See ``core.log.Log.rewrite``."""
        changed, position = 0, 0
        base = ddl.frame_id(self._topics[topic], partition, 0)
        while (position := max(position, self.start_offset(topic, partition))) < end:
            frames = self.read(topic, partition, position, events_max=_REWRITE_EVENTS, to_offset=end)
            if not frames:
                break
            position = frames[-1].offset + 1
            pairs = [(base + stored.offset, change(stored)) for stored in frames]
            new = [(row_id, other) for row_id, other in pairs if other is not None]
            if new:
                with self.transaction() as transaction:
                    transaction.replace_frames(new)
                changed += len(new)
        if changed:
            with self._exclusive():
                # What was replaced still stands in the write-ahead log; a reader in the middle leaves it to a later one.
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return changed

    def close(self) -> None:
        """See ``core.log.Log.close``."""
        if self._closed:
            return
        self._waker.close()
        with self._lock:
            self._closed = True
            self._writer.close()
            for connection in self._readers:
                connection.close()
            os.close(self._gate)
