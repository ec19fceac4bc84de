"""Quix Streams in an environment of its own: it wants an older librdkafka than Eventmill is tested with."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from testbed.packages import Unavailable, locked

VERSION: Final = "3.28.1"


def python() -> str:
    """The interpreter that has it; made under the cache the first time. Raises Unavailable."""
    name = f"quixstreams-{VERSION}-{sys.version_info.major}.{sys.version_info.minor}"
    with locked(name) as cache:
        found = cache / name / "bin" / "python"
        done = cache / name / "complete"
        if not done.exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(cache / name)],
                [str(found), "-m", "pip", "install", "-q", f"quixstreams=={VERSION}"],
            ):
                made = subprocess.run(command, capture_output=True, text=True, check=False)
                if made.returncode:
                    raise Unavailable(f"`{' '.join(command)}` failed: {made.stderr[-500:]}")
            done.touch()
    return str(found)
