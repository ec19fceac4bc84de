"""Processes that insert into a real-time store until they are killed.

python realtime_child.py FOLDER: for each line on standard input a new process (a fork, so that it starts quickly) opens the
store and inserts what is left, batch by batch, noting ``intent N`` before and ``stored N`` after each in FOLDER/progress.
Its id is printed; once it has ended, its exit status.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow as pa

from eventmill.core.typed import Kind, Typed, TypedProperty
from eventmill.sinks.realtime.server import Server, parse_url
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import events

#: Set it higher for a longer run.
KILLS = int(os.environ.get("EVENTMILL_TEST_KILLS", "6"))
BATCHES = 3 * KILLS
ROWS = 6_000
PER_OFFSET = 500
#: So that every kind of roll-up is filled.
TYPED = Typed.of(
    [TypedProperty("price", Kind.NUMBER, ("tap", "purchase")), TypedProperty("category", Kind.WORD, ("tap",))]
)


def batch(number: int) -> pa.RecordBatch:
    """The rows of one insert: three days, so several partitions."""
    offsets = ROWS // PER_OFFSET
    return events(ROWS, seed=number, first_offset=number * offsets, per_offset=PER_OFFSET, days=3, devices=3_000)


def note(folder: Path, line: str) -> None:
    """Durably."""
    with (folder / "progress").open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def open_store(folder: Path) -> RealtimeStore:
    """In the folder, or on the server that FOLDER/url names."""
    url = folder / "url"
    if not url.exists():
        return RealtimeStore(folder / "realtime")
    return RealtimeStore(folder / "realtime", connections=Server(parse_url(url.read_text())))


def run(folder: Path) -> None:
    """Insert the rest, beginning with the last intent."""
    progress = folder / "progress"
    lines = progress.read_text().split("\n") if progress.exists() else []
    stored = sum(line.startswith("stored") for line in lines)
    store = open_store(folder)
    store.declare(TYPED)
    for number in range(stored, BATCHES):
        rows = batch(number)
        note(folder, f"intent {number}")
        store.insert(rows, f"token {number}")
        note(folder, f"stored {number}")
    store.close()


def main(folder: Path) -> None:
    """See the module."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            run(folder)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
