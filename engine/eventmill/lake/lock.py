"""One compaction or clean-up at a time, over all processes."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventmill.core.errors import DataFolderBusy


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lake's maintenance lock; a crash releases it. Raises ``DataFolderBusy`` when someone holds it."""
    with (folder / "maintenance.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderBusy(
                f"the lake in {folder} is being compacted or cleaned by someone else; try again when that has ended"
            ) from None
        yield
