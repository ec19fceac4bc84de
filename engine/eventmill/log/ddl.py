"""The embedded log's tables."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

#: A frame's row id is topic << 52 | partition << 40 | offset, so that a partition is one range of the primary key.
PARTITION_SHIFT: Final = 40
TOPIC_SHIFT: Final = 52
OFFSET_MAX: Final = (1 << PARTITION_SHIFT) - 1

#: ``events_through`` counts the partition's events up to and with the frame: lag is one subtraction.
TABLES: Final = f"""
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE heads (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE frames (
    id INTEGER PRIMARY KEY, appended_at INTEGER NOT NULL, events INTEGER NOT NULL, events_through INTEGER NOT NULL,
    checksum INTEGER NOT NULL, key BLOB, headers BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE offsets (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) WITHOUT ROWID;
CREATE TABLE intents (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL,
    from_offset INTEGER NOT NULL, to_offset INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) WITHOUT ROWID;
CREATE TABLE ledger (
    hop TEXT NOT NULL, reason TEXT NOT NULL, hour INTEGER NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (hop, reason, hour)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""


def frame_id(topic: int, partition: int, offset: int) -> int:
    """The row id of a frame."""
    return topic << TOPIC_SHIFT | partition << PARTITION_SHIFT | offset
