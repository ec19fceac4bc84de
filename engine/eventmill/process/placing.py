"""Where events belong in raw: all of a device in one partition, since its sessions and its retries are judged there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from eventmill.core import frame
from eventmill.core.log import Frame, Rows, Shared, StoredFrame
from eventmill.core.schema import LOGGED, Topic
from eventmill.kernels.gather import take
from eventmill.kernels.partition import by_key, key_partitions


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
    for shared, group in itertools.groupby(frames, lambda stored: stored.rows and stored.rows.shared):
        if shared is None:
            here += group
        else:
            mine, others = _placed(list(group), partitions)
            here += mine
            elsewhere += others
    return here, elsewhere


def _placed(frames: list[StoredFrame], partitions: int) -> tuple[list[StoredFrame], list[Frame]]:
    """The same for frames whose rows are of one batch."""
    events = frame.decode_all(frames, LOGGED)
    rows = [stored.events for stored in frames]
    homes = np.repeat(np.array([stored.partition for stored in frames], np.int32), rows)
    stays = key_partitions(events.column("device_id"), partitions) == homes
    if stays.all():  # as a rule
        return frames, []
    mine = Shared()
    mine.batch = take(events, np.flatnonzero(stays))
    ends = np.concatenate([[0], np.cumsum(stays)])[np.cumsum(rows)].tolist()
    here = [
        replace(stored, events=end - begin, rows=Rows(mine, begin, end - begin))
        for stored, begin, end in zip(frames, [0, *ends], ends, strict=False)
    ]
    return here, raw_frames(take(events, np.flatnonzero(~stays)), partitions)
