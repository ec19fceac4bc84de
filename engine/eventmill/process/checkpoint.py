"""Snapshots of all state, each tied to the offset at which it was taken.

A file is: magic, header length, header (JSON: offset, the stages' names and sizes), the states, XXH3-128 of all of it.
It is written aside, synced, renamed, and the folder synced; the two newest are kept, so that a damaged one is passed
over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import xxhash

from eventmill.core.errors import FrameError

_MAGIC: Final = b"EVMSNAP1"
_KEEP: Final = 2
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The states of all stateful stages after folding everything below ``offset``."""

    offset: int
    states: Mapping[str, bytes]


def pack(snapshot: Snapshot) -> bytes:
    """The snapshot as a file's bytes."""
    sizes = {name: len(state) for name, state in snapshot.states.items()}
    header = orjson.dumps({"offset": snapshot.offset, "sizes": sizes})
    content = b"".join((_MAGIC, len(header).to_bytes(4, "little"), header, *snapshot.states.values()))
    return content + xxhash.xxh3_128_digest(content)


def unpack(content: bytes) -> Snapshot:
    """The snapshot of a file's bytes. Raises ``FrameError`` for anything that ``pack`` did not write."""
    view = memoryview(content)
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if len(view) < len(_MAGIC) + 4 + _DIGEST_BYTES or bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise FrameError("not a snapshot")
    if xxhash.xxh3_128_digest(body) != bytes(digest):
        raise FrameError("the snapshot is damaged: its checksum differs")
    start = len(_MAGIC) + 4
    end = start + int.from_bytes(view[len(_MAGIC) : start], "little")
    header = orjson.loads(view[start:end])
    states = {}
    for name, size in header["sizes"].items():
        states[name] = bytes(view[end : end + size])
        end += size
    return Snapshot(header["offset"], states)


class Checkpoints:
    """The folder of snapshots."""

    def __init__(self, folder: Path, *, checkpoint: Callable[[str], None] = lambda _: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._checkpoint = checkpoint

    def _files(self) -> list[tuple[int, Path]]:
        """(offset, path), the newest first."""
        found = [(int(path.stem.removeprefix("snapshot-")), path) for path in self._folder.glob("snapshot-*.bin")]
        return sorted(found, reverse=True)

    def save(self, snapshot: Snapshot) -> int:
        """Write durably and drop all but the two newest; gives the offset of the oldest one kept."""
        target = self._folder / f"snapshot-{snapshot.offset:020d}.bin"
        aside = target.with_suffix(".tmp")
        with aside.open("wb") as file:
            file.write(pack(snapshot))
            self._checkpoint("snapshot written")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
        self._checkpoint("snapshot renamed")
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        kept = self._files()
        for _, path in kept[_KEEP:]:
            path.unlink(missing_ok=True)
        return kept[:_KEEP][-1][0]

    def newest(
        self, committed: int, skipped: Callable[[Path, str], None] = lambda _path, _why: None
    ) -> Snapshot | None:
        """The newest good snapshot taken at or below ``committed``; ``skipped`` hears of each one passed over."""
        for stray in self._folder.glob("*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                stray.unlink()
        for offset, path in self._files():
            if offset > committed:
                skipped(path, f"it was taken at offset {offset}, beyond the committed {committed}")
                continue
            try:
                return unpack(path.read_bytes())
            except (FrameError, OSError) as error:
                skipped(path, str(error))
        return None

    def any(self) -> bool:
        """Whether there is any snapshot file."""
        return bool(self._files())
