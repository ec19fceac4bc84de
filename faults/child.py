"""``python -m faults.child POINT N ARGUMENTS…``: eventmill, which kills itself at a failpoint of the processor.

POINT is one of the names that the processor gives its ``checkpoint``; the N-th time it is reached SIGKILL comes.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from eventmill.cli.main import main
from eventmill.process.pipeline import Processor


def arm(point: str, times: int) -> None:
    """Every processor of this process gets the failpoint."""
    left = times
    build = Processor.__init__

    def checkpoint(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def armed(self: Processor, *arguments: Any, **named: Any) -> None:
        build(self, *arguments, **{**named, "checkpoint": checkpoint})

    Processor.__init__ = armed  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    main(sys.argv[3:])
