"""``python -m faults.child POINT N AFTER_MS ARGUMENTS…``: eventmill, which kills itself at a failpoint.

POINT is one of the names that the processor, or the real-time store's sink, gives its ``checkpoint``; the N-th time it is
reached SIGKILL comes, at once or ``AFTER_MS`` milliseconds later, whatever the process does by then. The points of a sink are
printed as they are reached, so that whoever looks can tell what the kill hit.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from eventmill.cli.main import main
from eventmill.log.kafka.outbox import Outbox
from eventmill.process.group import GroupProcessor
from eventmill.process.partition import PartitionState
from eventmill.process.pipeline import Processor
from eventmill.sinks.runner import RealtimeRunner

#: The sink's failpoints: the intent is durable and the insert comes; the rows are in, and the offset is not.
SINK_POINTS: Final = ("intent", "inserted")
#: What is printed for one of them.
REACHED: Final = "checkpoint: "


def arm(point: str, times: int, after_ms: int) -> None:
    """Whatever has such checkpoints in this process gets the failpoint."""
    left = times
    of_sink = point in SINK_POINTS

    def checkpoint(name: str) -> None:
        nonlocal left
        if of_sink:
            print(f"{REACHED}{name}", file=sys.stderr, flush=True)
        if name == point:
            left -= 1
            if left == 0:
                _die(after_ms)

    def with_failpoint(build: Callable[..., None]) -> Callable[..., None]:
        def armed(self: Any, *arguments: Any, **named: Any) -> None:
            build(self, *arguments, **{**named, "checkpoint": checkpoint})

        return armed

    processor: tuple[Any, ...] = (Processor, GroupProcessor, PartitionState, Outbox)
    for kind in (RealtimeRunner,) if of_sink else processor:
        kind.__init__ = with_failpoint(kind.__init__)


def _die(after_ms: int) -> None:
    if not after_ms:
        os.kill(os.getpid(), signal.SIGKILL)
    # By another process: nothing in this one can hold it up.
    command = ["sh", "-c", f"sleep {after_ms / 1000}; kill -9 {os.getpid()}"]
    os.posix_spawnp("sh", command, os.environ)


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    main(sys.argv[4:])
