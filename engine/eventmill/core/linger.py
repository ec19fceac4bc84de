"""Waiting for a full batch, but not for long: few large batches cost less than many small ones."""

from __future__ import annotations

import time
from collections.abc import Callable

from eventmill.core.log import Log
from eventmill.core.schema import Topic


def linger(
    log: Log,
    group: str,
    topic: Topic,
    partition: int,
    *,
    events_max: int,
    seconds: float,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Return when the group has ``events_max`` events before it, or ``seconds`` have passed, or ``enough()`` holds."""
    deadline = time.monotonic() + seconds
    seen = log.end_offset(topic, partition)
    while not enough() and log.lag(group, topic, partition) < events_max:
        left = deadline - time.monotonic()
        if left <= 0 or not log.wait(topic, partition, seen, left, enough):
            return
        seen = log.end_offset(topic, partition)
