"""How far the lake is, in the real-time store's own order."""

from __future__ import annotations

from eventmill.core import groups
from eventmill.core.log import Log
from eventmill.core.schema import Topic


def in_lake(log: Log, timeout_s: float) -> int:
    """A place (``log_offset``) below which the lake has every event of the real-time store; 0: nobody can say.

    With several partitions the stores take them in different order, so it is the place up to which the real-time store is
    now, once the lake has all of that, too, which is waited for up to ``timeout_s``: under load the lake is always some
    seconds behind.
    """
    partitions = log.partitions(Topic.ENRICHED)
    if len(partitions) == 1:
        return log.committed(groups.LAKE, Topic.ENRICHED, partitions[0])
    ends = {each: log.committed(groups.REALTIME, Topic.ENRICHED, each) for each in partitions}
    return sum(ends.values()) if log.wait_committed(groups.LAKE, Topic.ENRICHED, ends, timeout_s) else 0
