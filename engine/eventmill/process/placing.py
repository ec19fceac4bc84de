"""Where events belong in raw: all of a device in one partition, since its sessions and its retries are judged there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from eventmill.core import frame
from eventmill.core.log import Frame, StoredFrame
from eventmill.core.schema import LOGGED, Topic
from eventmill.kernels.partition import by_key


def raw_frames(events: pa.RecordBatch, partitions: int) -> list[Frame]:
    """The events (LOGGED) as a frame for each partition that gets any."""
    return [
        frame.encode(Topic.RAW, part, partition=partition)
        for partition, part in by_key(events, "device_id", partitions)
    ]


def placed(frames: Sequence[StoredFrame], partitions: int) -> tuple[list[StoredFrame], list[Frame]]:
    """The frames with those events only that belong in their partition, and frames for the others, wherever they do belong.

    Only what others have written can be out of place: their key may be the event's name, or any. A function of frames and
    ``partitions`` alone, so a fold takes what the first run took.
    """
    here: list[StoredFrame] = []
    elsewhere: list[Frame] = []
    for stored in frames:
        if not stored.foreign or not stored.events:
            here.append(stored)
            continue
        parts = dict(by_key(frame.decode_all([stored], LOGGED), "device_id", partitions))
        mine = parts.pop(stored.partition, None)
        if not parts:  # all are, as a rule
            here.append(stored)
            continue
        left = frame.encode(Topic.RAW, pa.RecordBatch.from_pylist([], LOGGED) if mine is None else mine)
        here.append(replace(stored, payload=bytes(left.payload), events=left.events))
        elsewhere += [frame.encode(Topic.RAW, part, partition=partition) for partition, part in parts.items()]
    return here, elsewhere
