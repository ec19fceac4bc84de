"""Where the lake's files lie: paths as recorded in the table, paths as they are, and files that survive a power cut.

Iceberg records absolute paths. When the data folder was moved since, ``FolderIO`` finds the files under its new place, and
goes on recording paths under the old one, so that the whole table agrees with itself.
"""

from __future__ import annotations

import io
import os
import sqlite3
from pathlib import Path
from typing import Final

from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO, PyArrowLocalFileSystem

from eventmill.core.errors import StoreError

RECORDED: Final = "eventmill.recorded"
ACTUAL: Final = "eventmill.actual"


class FolderIO(PyArrowFileIO):  # type: ignore[misc]
    """Files of one table folder: ``properties`` name it as recorded and as it is."""

    def __init__(self, properties: dict[str, str]) -> None:
        super().__init__(properties)
        self._recorded, self._actual = properties[RECORDED], properties[ACTUAL]

    def local(self, location: str) -> str:
        """The path of a recorded location. Raises ``StoreError`` when it lies outside the table's folder."""
        prefix = self._recorded + "/"
        if not location.startswith(prefix):
            raise StoreError(f"the lake refers to {location}, outside its folder {self._recorded}; it is not ours")
        return f"{self._actual}/{location[len(prefix) :]}"

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
        row = connection.execute("SELECT metadata_location FROM iceberg_tables").fetchone()
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return str(events)
        raise StoreError(f"{catalog} is not the lake's catalog ({error}); restore it from a backup") from error
    finally:
        connection.close()
    return str(row[0]).rsplit("/metadata/", 1)[0] if row else str(events)
