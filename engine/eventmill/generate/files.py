"""Request bodies in a file, one a line: JSON has no raw line feeds, so the file is read by any tool."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eventmill.core.errors import ConfigError
from eventmill.generate.stream import Block, Spec, stream
from eventmill.generate.truth import TruthFile


def write(
    spec: Spec, out: Path, truth: TruthFile | None, *, progress: Callable[[int], None] = lambda _: None
) -> tuple[int, int]:
    """Write a run's bodies, and the truth about them; gives (requests, events)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    requests = events = 0
    writer = truth.create() if truth is not None else None
    try:
        with out.open("wb", buffering=1 << 20) as file:
            for block in stream(spec):
                _write_block(file.write, block)
                if writer is not None:
                    writer.write_table(block.truth)
                requests += len(block.bodies)
                events += block.truth.num_rows
                progress(block.truth.num_rows)
    finally:
        if writer is not None:
            writer.close()
    return requests, events


def _write_block(write_bytes: Callable[[bytes], object], block: Block) -> None:
    for body in block.bodies:
        write_bytes(body)
        write_bytes(b"\n")


class Bodies:
    """The lines of such a file as a sequence, without reading it into memory."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read requests from {path}: {error}") from error
        self._view = memoryview(self._map)
        self._ends = self._line_ends(np.frombuffer(self._map, np.uint8))

    @staticmethod
    def _line_ends(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        step = 64 << 20
        found = [np.flatnonzero(content[at : at + step] == ord("\n")) + at for at in range(0, len(content), step)]
        return np.concatenate(found)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> memoryview:
        if not 0 <= number < len(self._ends):
            raise IndexError(number)
        begin = int(self._ends[number - 1]) + 1 if number else 0
        return self._view[begin : int(self._ends[number])]

    def __iter__(self) -> Iterator[memoryview]:
        return (self[number] for number in range(len(self)))
