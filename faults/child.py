"""``python -m faults.child POINT N ARGUMENTS…``: eventmill, which kills itself at a failpoint of the processor.

POINT is one of the names that the processor gives its ``checkpoint``; the N-th time it is reached SIGKILL comes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from eventmill.cli.main import main
from eventmill.log.kafka.outbox import Outbox
from eventmill.process.group import GroupProcessor
from eventmill.process.partition import PartitionState
from eventmill.process.pipeline import Processor


def arm(point: str, times: int) -> None:
    """Whatever has checkpoints in this process gets the failpoint."""
    left = times

    def checkpoint(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def with_failpoint(build: Callable[..., None]) -> Callable[..., None]:
        def armed(self: Any, *arguments: Any, **named: Any) -> None:
            build(self, *arguments, **{**named, "checkpoint": checkpoint})

        return armed

    for kind in (Processor, GroupProcessor, PartitionState, Outbox):
        kind.__init__ = with_failpoint(kind.__init__)  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    main(sys.argv[3:])
