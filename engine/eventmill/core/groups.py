"""Names of the consumer groups."""

from __future__ import annotations

from typing import Final

PROCESS: Final = "process"
#: Holds back the trimming of raw frames that the older kept snapshot still needs for its fold.
SNAPSHOT: Final = "process.snapshot"
RESCUE: Final = "rescue"
REALTIME: Final = "realtime"
LAKE: Final = "lake"
REPLAY: Final = "replay"
#: Those that events are in flight to.
CONSUMERS: Final = (PROCESS, RESCUE, REALTIME, LAKE)
