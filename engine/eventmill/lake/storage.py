"""Where the lake's files lie: a folder or a bucket; paths as recorded in the table, paths as they are.

Iceberg records absolute paths. When the data folder was moved since, ``FolderIO`` finds the files under its new place, and
goes on recording paths under the old one, so that the whole table agrees with itself. What is written is durable when it is
closed: in a folder it is synced, in a bucket it does not exist before.
"""

from __future__ import annotations

import io
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO, PyArrowLocalFileSystem

from eventmill.core.errors import StoreError

RECORDED: Final = "eventmill.recorded"
ACTUAL: Final = "eventmill.actual"


class Storage(ABC):
    """The table's root folder, wherever it is. ``recorded`` is its location as the table has it.

    Paths are strings, absolute, as ``path`` gives them. All that reads or writes raises ``OSError``.
    """

    recorded: str
    #: Whether a request costs a round trip, and the other side may be away for a while.
    remote: bool
    #: What pyiceberg needs to do its own reading and writing.
    properties: dict[str, str]

    @abstractmethod
    def path(self, location: str) -> str:
        """The path of a recorded location. Raises ``StoreError`` when it lies outside the table's folder."""

    @abstractmethod
    def beside(self, name: str) -> Storage:
        """The place of another table, of the same lake."""

    @abstractmethod
    def failure(self, what: str, error: BaseException, cure: str = "") -> StoreError:
        """The error to raise when something failed: ``StoreUnavailable`` where waiting may help."""

    def relative(self, path: str) -> str:
        """A path below the root."""
        return path.removeprefix(self.path(f"{self.recorded}/"))

    @abstractmethod
    def write(self, path: str) -> Any:
        """A context that gives a stream to a new file, which is durable once the context has ended."""

    @abstractmethod
    def read(self, path: str) -> Any:
        """A file opened for random access."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete; a file that is gone already is no error."""

    @abstractmethod
    def list(self) -> list[tuple[str, int]]:
        """Path and bytes of every file under the root, sorted."""

    @abstractmethod
    def modified_ms(self, path: str) -> int:
        """When it was written, ms since the epoch."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether it is there."""

    @abstractmethod
    def source_sql(self, metadata: str) -> str:
        """chdb's FROM expression for the snapshot of a metadata file (its path)."""


class Folder(Storage):
    """A local folder, ``recorded`` in the table under a name that it may have had before it was moved."""

    remote = False

    def __init__(self, folder: Path, recorded: str) -> None:
        self.folder, self.recorded = folder, recorded
        # Of all tables, which lie beside one another.
        self.properties = {
            "py-io-impl": f"{FolderIO.__module__}.{FolderIO.__name__}",
            RECORDED: recorded.rpartition("/")[0], ACTUAL: str(folder.parent),
        }  # fmt: skip

    def path(self, location: str) -> str:
        """See ``Storage``."""
        return _local(self.recorded, str(self.folder), location)

    def beside(self, name: str) -> Folder:
        """See ``Storage``."""
        return Folder(self.folder.parent / name, f"{self.recorded.rpartition('/')[0]}/{name}")

    def failure(self, what: str, error: BaseException, cure: str = "") -> StoreError:
        """See ``Storage``."""
        return StoreError(f"{what}: {error}; {cure}" if cure else f"{what}: {error}")

    @contextmanager
    def write(self, path: str) -> Iterator[pa.NativeFile]:
        """See ``Storage``."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(path, "wb") as sink:
            yield sink
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: str) -> pa.NativeFile:
        """See ``Storage``."""
        return pa.OSFile(path)

    def remove(self, path: str) -> None:
        """See ``Storage``."""
        Path(path).unlink(missing_ok=True)

    def list(self) -> list[tuple[str, int]]:
        """See ``Storage``. A file that goes while the folder is listed is left out."""
        found = []
        # The cold tier may be a link to another disk.
        for place, _, names in os.walk(self.folder, followlinks=True):
            for name in names:
                path = Path(place) / name
                if path.exists():
                    found.append((str(path), path.stat().st_size))
        return sorted(found)

    def modified_ms(self, path: str) -> int:
        """See ``Storage``."""
        return Path(path).stat().st_mtime_ns // 1_000_000

    def exists(self, path: str) -> bool:
        """See ``Storage``."""
        return Path(path).exists()

    def source_sql(self, metadata: str) -> str:
        """See ``Storage``."""
        file = metadata.removeprefix(f"{self.folder}/")
        return f"icebergLocal({_quoted(str(self.folder))}, SETTINGS iceberg_metadata_file_path = {_quoted(file)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _local(recorded: str, actual: str, location: str) -> str:
    prefix = recorded + "/"
    if not location.startswith(prefix):
        raise StoreError(f"the lake refers to {location}, outside its folder {recorded}; it is not ours")
    return f"{actual}/{location[len(prefix) :]}"


class FolderIO(PyArrowFileIO):  # type: ignore[misc]
    """pyiceberg's view of a ``Folder``: ``properties`` name it as recorded and as it is."""

    def __init__(self, properties: dict[str, str]) -> None:
        super().__init__(properties)
        self._recorded, self._actual = properties[RECORDED], properties[ACTUAL]

    def local(self, location: str) -> str:
        """The path of a recorded location. Raises ``StoreError`` when it lies outside the table's folder."""
        return _local(self._recorded, self._actual, location)

    def new_input(self, location: str) -> PyArrowFile:
        """To read."""
        return PyArrowFile(location, self.local(location), PyArrowLocalFileSystem())

    def new_output(self, location: str) -> DurableFile:
        """To write."""
        return DurableFile(location, self.local(location), PyArrowLocalFileSystem())

    def delete(self, location: str) -> None:
        """Remove; a file that is gone already is no error."""
        file = location if isinstance(location, str) else location.location
        Path(self.local(file)).unlink(missing_ok=True)


class DurableFile(PyArrowFile):  # type: ignore[misc]
    """A file whose bytes are on disk when ``close`` returns: the catalog must never point to less."""

    def create(self, overwrite: bool = False) -> io.BufferedWriter:
        """A stream to a new file."""
        path = Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return io.BufferedWriter(_Synced(path, "wb" if overwrite else "xb"), 1 << 20)


class _Synced(io.FileIO):
    def close(self) -> None:
        if not self.closed:
            os.fsync(self.fileno())
        super().close()


def recorded_folder(catalog: Path, events: Path) -> str:
    """The table's folder as its catalog records it; ``events`` itself for a new catalog."""
    if not catalog.exists():
        return str(events)
    connection = sqlite3.connect(f"{catalog.as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        row = connection.execute("SELECT metadata_location FROM iceberg_tables WHERE table_name = 'events'").fetchone()
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return str(events)
        raise StoreError(f"{catalog} is not the lake's catalog ({error}); restore it from a backup") from error
    finally:
        connection.close()
    return str(row[0]).rsplit("/metadata/", 1)[0] if row else str(events)
