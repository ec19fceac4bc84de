"""Where events belong in raw: all of a device in one partition, since its sessions and its retries are judged there."""

from __future__ import annotations

import pyarrow as pa

from eventmill.core import frame
from eventmill.core.log import Frame
from eventmill.core.schema import Topic
from eventmill.kernels.partition import by_key


def raw_frames(events: pa.RecordBatch, partitions: int) -> list[Frame]:
    """The events (LOGGED) as a frame for each partition that gets any."""
    return [
        frame.encode(Topic.RAW, part, partition=partition)
        for partition, part in by_key(events, "device_id", partitions)
    ]
