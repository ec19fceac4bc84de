"""The mark of a partition that began with the state of another (``growth``).

It is a record of the partition's schemas, which are kept for ever.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from eventmill.core import frame
from eventmill.core.errors import StateError
from eventmill.core.log import Frame, Log
from eventmill.core.schema import SCHEMAS, Topic
from eventmill.process.schemas.book import Epoch, epochs, record

#: The header of a mark: the old partition and where it ended, ``3@12345``.
ORIGIN: Final = "origin"


def mark(log: Log, partition: int, committed: int, heir: int) -> Frame:
    """The record that ``heir`` begins with what ``partition`` had at ``committed``, its schemas in force included."""
    known = epochs(log, partition)
    made = (
        record(Epoch(0, known[-1].schemas), heir)
        if known
        else frame.encode(Topic.SCHEMAS, pa.RecordBatch.from_pylist([], SCHEMAS), partition=heir)
    )
    headers = {**made.headers, ORIGIN: f"{partition}@{committed}"}
    return Frame(made.topic, made.payload, made.events, made.key, headers, made.partition)


def require_no_inheritance(log: Log, partition: int) -> None:
    """To be called where no snapshot is found. Raises ``StateError`` when the partition began with the state of another."""
    begin, end = log.start_offset(Topic.SCHEMAS, partition), log.end_offset(Topic.SCHEMAS, partition)
    for stored in log.read(Topic.SCHEMAS, partition, begin, events_max=1, to_offset=end) if begin < end else []:
        if ORIGIN in stored.headers:
            raise StateError(
                f"partition {partition} of raw began with the state of another ({stored.headers[ORIGIN]}) when partitions "
                "were added, and its snapshots are lost; restore process.snapshots from a backup"
            )
