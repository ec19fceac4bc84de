"""What a transaction of the embedded log writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

import orjson
import xxhash

from eventmill.core.clock import now_ms
from eventmill.core.errors import StateError
from eventmill.core.log import Count, Frame, Intent
from eventmill.core.schema import Topic
from eventmill.log import ddl

_INT64: Final = 1 << 64


def checksum(payload: bytes | memoryview) -> int:
    """XXH3-64 of a frame's payload, as SQLite's signed integer."""
    digest: int = xxhash.xxh3_64_intdigest(payload)
    return digest - _INT64 if digest >= _INT64 >> 1 else digest


class LocalTransaction:
    """``core.log.Transaction`` inside an open SQLite transaction."""

    def __init__(self, connection: sqlite3.Connection, topics: dict[Topic, int]) -> None:
        self._connection = connection
        self._topics = topics

    def append(self, frames: Iterable[Frame]) -> list[int]:
        """See ``core.log.Transaction.append``."""
        offsets = []
        appended_at = now_ms()
        for frame in frames:
            self.count(frame.counts)
            place = (self._topics[frame.topic], frame.partition)
            row = self._connection.execute(
                "SELECT next, events FROM heads WHERE topic = ? AND partition = ?", place
            ).fetchone()
            if row is None:
                raise StateError(f"{frame.topic} has no partition {frame.partition}")
            offset, total = row[0], row[1] + frame.events
            self._connection.execute(
                "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    ddl.frame_id(*place, offset), appended_at, frame.events, total, checksum(frame.payload),
                    frame.key, orjson.dumps(dict(frame.headers)), frame.payload,
                ),
            )  # fmt: skip
            self._connection.execute(
                "UPDATE heads SET next = ?, events = ? WHERE topic = ? AND partition = ?", (offset + 1, total, *place)
            )
            offsets.append(offset)
        return offsets

    def commit_offset(self, group: str, topic: Topic, partition: int, offset: int) -> None:
        """See ``core.log.Transaction.commit_offset``."""
        self._connection.execute(
            "INSERT INTO offsets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next",
            (group, self._topics[topic], partition, offset),
        )

    def count(self, counts: Iterable[Count]) -> None:
        """See ``core.log.Transaction.count``."""
        self._connection.executemany(
            "INSERT INTO ledger VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET events = events + excluded.events",
            [(count.hop, count.reason, count.hour, count.events) for count in counts],
        )

    def put_intent(self, intent: Intent) -> None:
        """See ``core.log.Transaction.put_intent``."""
        self._connection.execute(
            "INSERT OR REPLACE INTO intents VALUES (?, ?, ?, ?, ?)",
            (intent.group, self._topics[intent.topic], intent.partition, intent.from_offset, intent.to_offset),
        )

    def clear_intent(self, group: str, topic: Topic, partition: int) -> None:
        """See ``core.log.Transaction.clear_intent``."""
        self._connection.execute(
            "DELETE FROM intents WHERE consumer = ? AND topic = ? AND partition = ?",
            (group, self._topics[topic], partition),
        )

    def replace_frames(self, frames: Iterable[tuple[int, Frame]]) -> None:
        """Put other contents into frames (by row id); what stood there is overwritten with zeros on disk."""
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.executemany(
            "UPDATE frames SET events = ?, checksum = ?, payload = ? WHERE id = ?",
            [(other.events, checksum(other.payload), other.payload, row_id) for row_id, other in frames],
        )
        self._connection.execute("PRAGMA secure_delete = OFF")

    def delete_frames(self, first_id: int, end_id: int, older_than_ms: int, frames_max: int) -> int:
        """Delete the oldest frames of an id range that were appended before ``older_than_ms``; gives how many."""
        cursor = self._connection.execute(
            "DELETE FROM frames WHERE id IN (SELECT id FROM frames WHERE id >= ? AND id < ? AND appended_at < ? "
            "ORDER BY id LIMIT ?)",
            (first_id, end_id, older_than_ms, frames_max),
        )
        return cursor.rowcount
