"""Snapshots of all state, each tied to the offset at which it was taken.

A file is: magic, header length, header (JSON: offset, the stages' names and sizes), the states, XXH3-128 of all of it.
It is written aside, synced, renamed, and the folder synced; the two newest are kept, so that a damaged one is passed
over.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import orjson
import pyarrow as pa
import pyarrow.fs as pafs
import xxhash

from eventmill.core.errors import ConfigError, FrameError

_MAGIC: Final = b"EVMSNAP1"
_KEEP: Final = 2
_DIGEST_BYTES: Final = 16
_NAME: Final = re.compile(r"snapshot-(\d{20})\.bin")


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


class Shelf(Protocol):
    """Where snapshot files are kept. A file is there whole or not at all."""

    def names(self) -> list[str]:
        """All files."""
        ...

    def write(self, name: str, content: bytes, checkpoint: Callable[[str], None], *, durable: bool = True) -> None:
        """There on return for whoever looks; if not ``durable``, a power cut may damage it until ``sync``."""
        ...

    def sync(self, name: str) -> None:
        """Make a file durable; nothing happens when it is gone."""
        ...

    def read(self, name: str) -> bytes:
        """A file's bytes; ``OSError`` when it is gone."""
        ...

    def remove(self, name: str) -> None:
        """Nothing happens when it is gone."""
        ...


class FolderShelf:
    """A folder: written aside, synced, renamed, and the folder synced."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def names(self) -> list[str]:
        """All whole files; what a crash left aside is removed."""
        for stray in self._folder.glob("*.tmp"):
            stray.unlink(missing_ok=True)
        return [path.name for path in self._folder.iterdir()]

    def write(self, name: str, content: bytes, checkpoint: Callable[[str], None], *, durable: bool = True) -> None:
        """See ``Shelf.write``."""
        target = self._folder / name
        aside = target.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                file.write(content)
                checkpoint("snapshot written")
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            aside.replace(target)
        except OSError:
            aside.unlink(missing_ok=True)  # on a full disk it would take the room that is left
            raise
        checkpoint("snapshot renamed")
        if durable:
            _sync(self._folder)

    def sync(self, name: str) -> None:
        """See ``Shelf.sync``."""
        with contextlib.suppress(FileNotFoundError):
            _sync(self._folder / name)
            _sync(self._folder)

    def read(self, name: str) -> bytes:
        """See ``Shelf.read``."""
        return (self._folder / name).read_bytes()

    def remove(self, name: str) -> None:
        """See ``Shelf.remove``."""
        (self._folder / name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ObjectShelf:
    """A prefix in an object store, which shows an object when all of it is there."""

    def __init__(self, system: pafs.FileSystem, prefix: str) -> None:
        self._system, self._prefix = system, prefix.rstrip("/")

    def names(self) -> list[str]:
        """See ``Shelf.names``."""
        found = self._system.get_file_info(pafs.FileSelector(self._prefix, allow_not_found=True))
        return [info.base_name for info in found if info.type is pafs.FileType.File]

    def write(self, name: str, content: bytes, checkpoint: Callable[[str], None], *, durable: bool = True) -> None:
        """See ``Shelf.write``."""
        with self._system.open_output_stream(f"{self._prefix}/{name}") as stream:
            stream.write(content)
            checkpoint("snapshot written")
        checkpoint("snapshot renamed")

    def sync(self, name: str) -> None:
        """See ``Shelf.sync``; an object is durable once it is there."""

    def read(self, name: str) -> bytes:
        """See ``Shelf.read``."""
        with self._system.open_input_file(f"{self._prefix}/{name}") as file:
            return bytes(file.read())

    def remove(self, name: str) -> None:
        """See ``Shelf.remove``."""
        with contextlib.suppress(FileNotFoundError):
            self._system.delete_file(f"{self._prefix}/{name}")


def open_shelf(place: Path | str) -> Shelf:
    """A folder, or a URI that pyarrow knows (``s3://bucket/prefix``, ``gs://…``). Raises ``ConfigError``."""
    if isinstance(place, Path):
        return FolderShelf(place)
    try:
        system, prefix = pafs.FileSystem.from_uri(place)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"process.snapshots = {place!r} cannot be used: {error}") from error
    return FolderShelf(Path(prefix)) if isinstance(system, pafs.LocalFileSystem) else ObjectShelf(system, prefix)


def _file(offset: int) -> str:
    return f"snapshot-{offset:020d}.bin"


class Checkpoints:
    """The snapshots of one partition, in a folder of their own or under a URI."""

    def __init__(self, place: Path | str, *, checkpoint: Callable[[str], None] = lambda _: None) -> None:
        self._shelf = open_shelf(place)
        self._checkpoint = checkpoint

    def _files(self) -> list[tuple[int, str]]:
        """(offset, name), the newest first."""
        found = [_NAME.fullmatch(name) for name in self._shelf.names()]
        return sorted(((int(match[1]), match[0]) for match in found if match), reverse=True)

    def save(self, snapshot: Snapshot, *, durable: bool = True) -> int:
        """Write and drop all but the two newest; gives the offset of the oldest one kept. See ``Shelf.write``."""
        self._shelf.write(_file(snapshot.offset), pack(snapshot), self._checkpoint, durable=durable)
        kept = self._files()
        for _, name in kept[_KEEP:]:
            self._shelf.remove(name)
        return kept[:_KEEP][-1][0]

    def sync(self, offset: int) -> None:
        """Make the snapshot of that offset durable."""
        self._shelf.sync(_file(offset))

    def newest(self, committed: int, skipped: Callable[[str, str], None] = lambda _name, _why: None) -> Snapshot | None:
        """The newest good snapshot taken at or below ``committed``; ``skipped`` hears of each one passed over."""
        for offset, name in self._files():
            if offset > committed:
                skipped(name, f"it was taken at offset {offset}, beyond the committed {committed}")
                continue
            try:
                return unpack(self._shelf.read(name))
            except (FrameError, OSError) as error:
                skipped(name, str(error))
        return None

    def any(self) -> bool:
        """Whether there is any snapshot."""
        return bool(self._files())
