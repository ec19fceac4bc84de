"""Keeping the lake's roll-ups (see ``core.lake_rollups``): new files are counted, files that are gone are forgotten.

A file counts as rolled up when the tables add up to as many events as the lake says that it has; what a crash has left half
done is deleted and done again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, Protocol

import pyarrow as pa

from eventmill.core.lake_rollups import LAKE_ROLL_UPS, file_key
from eventmill.core.lakefile import LakeFile

#: What one statement counts: its states are in memory at once.
_ROWS_MAX: Final = 2_000_000
_FILES_MAX: Final = 500
_SETTINGS: Final = (
    "SETTINGS max_insert_threads = 1, min_insert_block_size_rows = 10000000, min_insert_block_size_bytes = 0"
)


class Store(Protocol):
    """What is asked of the real-time store. Every method may raise ``StoreError``."""

    def query_arrow(self, sql: str) -> pa.Table:
        """Run a SELECT."""
        ...

    def command(self, statement: str) -> None:
        """Run a statement that answers nothing."""
        ...


class LakeRollUps:
    """Safe to share between threads; one of them at a time keeps them up, the others ask."""

    def __init__(self, store: Any) -> None:
        self._store: Store = store
        self._lock = threading.Lock()
        self._upkeep = threading.Lock()
        self._gone: frozenset[int] = frozenset()
        for table in LAKE_ROLL_UPS:
            store.command(table.create())
        self._rows = self._counted()

    def rows_of(self, file: LakeFile) -> int:
        """Events of a file that are rolled up; fewer than it has while it is not."""
        return self._rows.get(file_key(file.name), 0)

    def has(self, file: LakeFile) -> bool:
        """Whether the file is rolled up whole."""
        return self.rows_of(file) == file.rows

    def keep_up(self, source: str, files: Sequence[LakeFile], stopped: Callable[[], bool] = lambda: False) -> int:
        """Count the compacted ones of a snapshot's ``files``, which ``source`` reads, that are not; gives how many were.

        What was appended is soon replaced by compaction, so it is not counted. A file that no longer is in the snapshot is
        forgotten when it was not in that of the call before either: who has planned by an older snapshot is done by then.
        Raises ``StoreError``.
        """
        with self._upkeep:
            missing = [file for file in files if file.compacted and not self.has(file)]
            counted = 0
            for part in _parts(missing):
                if stopped():
                    break
                self._count(source, part)
                counted += len(part)
            self._forget({file_key(file.name) for file in files})
        return counted

    def _count(self, source: str, files: list[LakeFile]) -> None:
        keys = [file_key(file.name) for file in files]
        half = [key for key in keys if key in self._rows]
        if half:
            self._delete(half)
        for table in LAKE_ROLL_UPS:
            self._store.command(f"{table.fill(source, [file.name for file in files])} {_SETTINGS}")
        found = self._counted(keys)
        with self._lock:
            self._rows = self._rows | found

    def _forget(self, live: set[int]) -> None:
        gone = frozenset(self._rows) - live
        twice = gone & self._gone
        if twice:
            self._delete(sorted(twice))
            with self._lock:
                self._rows = {key: rows for key, rows in self._rows.items() if key not in twice}
        self._gone = gone - twice

    def _delete(self, keys: Collection[int]) -> None:
        for table in LAKE_ROLL_UPS:
            self._store.command(
                f"ALTER TABLE {table.name} DELETE WHERE file IN ({_list(keys)}) SETTINGS mutations_sync = 2"
            )

    def _counted(self, keys: Collection[int] | None = None) -> dict[int, int]:
        """The events of each file (of these, or all); of one that the two tables disagree about, the fewer or none."""
        where = "" if keys is None else f" WHERE file IN ({_list(keys)})"
        found: list[dict[int, int]] = []
        for table in LAKE_ROLL_UPS:
            rows = self._store.query_arrow(f"SELECT file, sum(events) FROM {table.name}{where} GROUP BY file")
            columns = [column.to_pylist() for column in rows.columns]
            found.append(dict(zip(*columns, strict=True)) if columns else {})
        one, other = found
        return {key: one.get(key, 0) if one.get(key) == other.get(key) else 0 for key in {*one, *other}}


def _parts(files: list[LakeFile]) -> Iterator[list[LakeFile]]:
    """A date after the other, in parts of so many rows and files at most."""
    part: list[LakeFile] = []
    for file in sorted(files, key=lambda file: file.date):
        if part and (sum(each.rows for each in part) + file.rows > _ROWS_MAX or len(part) == _FILES_MAX):
            yield part
            part = []
        part.append(file)
    if part:
        yield part


def _list(keys: Collection[int]) -> str:
    return ", ".join(map(str, keys))
