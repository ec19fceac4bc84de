"""The Iceberg table: opening it, its live files, and the one way to commit to it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import CommitFailedException, NamespaceAlreadyExistsError, TableAlreadyExistsError
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, FixedType, IntegerType, LongType, NestedField, StringType, TimestamptzType

from eventmill.core.config import LakeConfig
from eventmill.core.errors import EventmillError, StateError, StoreError, StoreUnavailable
from eventmill.core.lakefile import LakeFile
from eventmill.core.schema import EVENT, TIME, WORD
from eventmill.kernels.partition import OVERFLOW, Names
from eventmill.lake import offsets
from eventmill.lake.catalog import newest_metadata, open_catalog, open_storage
from eventmill.lake.storage import Storage

NAME: Final = ("eventmill", "events")
DATE: Final = "event_date"
GROUP: Final = "event_group"
#: The table's property with the exact duplicates removed, per hour of ``received_at``: JSON {ms: rows}.
REMOVED: Final = "eventmill.removed"
#: The same of rows that were forgotten.
FORGOTTEN: Final = "eventmill.forgotten"
#: Three years, as the ledger keeps them.
_COUNTED_HOURS_MAX: Final = 26_280
_ATTEMPTS: Final = 100
#: Snapshots whose files are remembered: that of a question must still be known when it has been planned.
_VIEWS_MAX: Final = 8
_MICROSECONDS: Final = pa.timestamp("us", tz="UTC")
#: What Iceberg has no type for.
_STORED: Final = {TIME: _MICROSECONDS, WORD: pa.string()}
#: Columns with minimum and maximum in files and manifests. The others' would cost more than the writing itself.
BOUNDED: Final = (DATE, GROUP, "timestamp", "received_at")

_PROPERTIES: Final = {
    # Retrying is ours: pyiceberg's own retry would append again without looking at the offsets.
    "commit.retry.num-retries": "0",
    # pyiceberg copies all metadata many times for a commit, so it is kept small: see maintain.py for what becomes of files.
    "write.metadata.previous-versions-max": "4",
    "write.metadata.metrics.default": "none",
    **{f"write.metadata.metrics.column.{name}": "full" for name in BOUNDED},
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "1",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "2",
}


def arrow_schema() -> pa.Schema:
    """The table's columns as Arrow writes them to Parquet, each with its Iceberg field id."""
    fields = [pa.field(DATE, pa.date32(), nullable=False), pa.field(GROUP, pa.string(), nullable=False)]
    fields += [field.with_type(_STORED.get(field.type, field.type)) for field in EVENT]
    return pa.schema([field.with_metadata({"PARQUET:field_id": str(i)}) for i, field in enumerate(fields, 1)])


def _iceberg_schema() -> Schema:
    types = {
        pa.date32(): DateType(), pa.string(): StringType(), pa.binary(16): FixedType(16),
        _MICROSECONDS: TimestamptzType(), pa.int64(): LongType(), pa.int32(): IntegerType(),
    }  # fmt: skip
    return Schema(
        *(
            NestedField(i, field.name, types[field.type], required=not field.nullable)
            for i, field in enumerate(arrow_schema(), 1)
        )
    )


COLUMNS: Final = arrow_schema()
_TIMESTAMP_ID: Final = COLUMNS.get_field_index("timestamp") + 1


def by_hour(table: Table, name: str) -> dict[int, int]:
    """Rows per hour of ``received_at`` (its start, ms since the epoch): exact duplicates that compaction has ``REMOVED``, or
    what was ``FORGOTTEN``."""
    return {int(hour): count for hour, count in json.loads(table.metadata.properties.get(name, "{}")).items()}


def added(table: Table, name: str, more: Counter[int]) -> dict[str, str]:
    """The table's property with ``more`` rows of each hour."""
    counts = Counter(by_hour(table, name))
    counts.update(more)
    return {name: json.dumps(dict(sorted(counts.items())[-_COUNTED_HOURS_MAX:]))}


class CommitUnknown(StoreUnavailable):
    """Whether a commit has landed could not be found out, so its files must stay."""


class Kind(StrEnum):
    """What a data file's name begins with."""

    APPENDED = "appended"
    #: Written by compaction.
    COMPACTED = "compacted"
    #: Written by compaction, with rows that are to be enriched again.
    FLAGGED = "flagged"
    #: Written for the cold tier.
    COLD = "cold"


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A data file of a snapshot. ``date`` in days since the epoch; ``path`` as it is, ``location`` as recorded;
    ``start_ms`` and ``end_ms`` are the first and last event time."""

    data_file: DataFile
    snapshot_id: int
    sequence: int
    storage: Storage
    path: str
    date: int
    group: str
    rows: int
    start_ms: int
    end_ms: int

    @property
    def location(self) -> str:
        """The path as recorded in the table."""
        return str(self.data_file.file_path)

    @property
    def kind(self) -> Kind:
        """Who wrote it."""
        return Kind(Path(self.path).name.partition("-")[0])

    @property
    def appended(self) -> bool:
        """Whether no compaction has been over it."""
        return self.kind is Kind.APPENDED


class LakeTable:
    """The table in a folder of its own, made when it is not there. Safe to share between threads and processes.

    The first ``partitions_max`` distinct event names have partitions of their own, all later ones share ``__other__``;
    the real name stays in ``event``. Raises ``StoreError`` when the folder does not hold a lake that can be read,
    ``StateError`` when the table's columns are another version's.
    """

    def __init__(self, folder: Path, partitions_max: int = 1_000, *, settings: LakeConfig | None = None) -> None:
        self.folder = folder.absolute()
        self.partitions_max = partitions_max
        self._settings = settings or LakeConfig()
        self.events = self.folder / "events"
        self._lock = threading.Lock()
        #: Held from staging to the commit's end, and while files are removed: neither sees the other half done.
        self.committing = threading.Lock()
        self._names: Names | None = None
        self._in_flight: list[set[str]] = []
        self._seen: Table | None = None
        self._manifests: dict[str, list[LiveFile]] = {}
        self._files: dict[str, tuple[LakeFile, ...]] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.storage = open_storage(self.folder, self._settings)
            self._catalog = open_catalog(self.folder, self._settings, self.storage)
            self._create()
        except EventmillError:
            raise
        except OSError as error:
            raise StoreError(f"cannot open the lake in {self.folder}: {error}") from error
        table = self.load()
        if table.location() != self.storage.recorded:
            raise StateError(
                f"the lake's catalog has the table at {table.location()}, the settings have it at {self.storage.recorded}: "
                "set lake.warehouse as it was, or name another catalog or data folder"
            )
        names = table.schema().column_names
        if names != COLUMNS.names:
            raise StateError(
                f"the lake's columns are {', '.join(names)}, this version's {', '.join(COLUMNS.names)}: "
                "run the version that wrote it, or use another data folder"
            )

    def _create(self) -> None:
        if self._catalog.table_exists(NAME):
            return
        if self.storage.remote and self.storage.list():
            raise StateError(
                f"{self.storage.recorded} holds files of a lake that this catalog does not know; restore the catalog that "
                "belongs to it, or name another place by lake.warehouse"
            )
        spec = PartitionSpec(
            PartitionField(1, 1000, IdentityTransform(), DATE), PartitionField(2, 1001, IdentityTransform(), GROUP)
        )
        order = SortOrder(SortField(_TIMESTAMP_ID, IdentityTransform()))
        try:
            self._catalog.create_namespace(NAME[0])
        except NamespaceAlreadyExistsError:
            pass
        try:
            self._catalog.create_table(
                NAME, _iceberg_schema(), location=self.storage.recorded, partition_spec=spec, sort_order=order,
                properties=_PROPERTIES,
            )  # fmt: skip
        except TableAlreadyExistsError:
            pass

    def load(self) -> Table:
        """The table as it is now; a view that does not change."""
        try:
            return self._catalog.load_table(NAME)
        except Exception as error:
            raise self._failure(f"the lake in {self.folder} does not read", error) from error

    def view(self) -> Table:
        """The same for those who only look: one object for all of them, made anew when there is something new."""
        try:
            newest = newest_metadata(self._catalog, NAME)
        except Exception as error:
            raise self._failure(f"the lake in {self.folder} does not read", error) from error
        seen = self._seen
        if seen is None or newest is None or seen.metadata_location != newest:
            self._seen = seen = self.load()
        return seen

    def _failure(self, what: str, error: BaseException) -> StoreError:
        """Waiting may help where the files or the catalog are on another machine."""
        failure = self.storage.failure(what, error)
        away = self._settings.catalog and not isinstance(failure, StoreUnavailable)
        return StoreUnavailable(str(failure)) if away else failure

    def close(self) -> None:
        """Release the catalog's connections."""
        self._catalog.close()

    @property
    def catalog(self) -> Catalog:
        """Where all tables of the lake are known."""
        return self._catalog

    def local(self, location: str) -> str:
        """The path of a location as recorded."""
        return self.storage.path(location)

    def data_location(self, name: str) -> str:
        """The location to record for a data file ``name``, relative to the data folder."""
        return f"{self.storage.recorded}/data/{name}"

    def cold_location(self, name: str) -> str:
        """The same in the cold tier."""
        return f"{self.storage.recorded}/cold/{name}"

    def watermark(self) -> int | None:
        """The newest ``received_at`` (ms since the epoch) appended; null for an empty lake.

        Everything that the log holds before the committed offset is in the lake; an event received earlier can still be
        on its way, by as much as ingest's and processing's batches last.
        """
        return offsets.received_through(self.view().current_snapshot())

    def size(self) -> dict[str, int] | None:
        """Files, bytes, rows and snapshots as the newest snapshot sums them up; ``None`` before the first one."""
        table = self.view()
        snapshot = table.current_snapshot()
        if snapshot is None or snapshot.summary is None:
            return None
        total = snapshot.summary.additional_properties
        return {
            "files": int(total.get("total-data-files", 0)),
            "bytes": int(total.get("total-files-size", 0)),
            "rows": int(total.get("total-records", 0)),
            "snapshots": len(table.metadata.snapshots),
            "written_at": snapshot.timestamp_ms,
        }

    def source_sql(self) -> str | None:
        """The newest snapshot as a FROM expression for chdb; null while there is none.

        It names one metadata file, so it reads one snapshot whatever is committed meanwhile, and never a file that a
        commit which failed has left. It stays readable until that snapshot expires.
        """
        table = self.view()
        return None if table.current_snapshot() is None else self._source_of(table)

    def _source_of(self, table: Table) -> str:
        return self.storage.source_sql(self.local(table.metadata_location))

    def snapshot_of(self, source: str) -> int | None:
        """The snapshot that such an expression, or one made of it, reads; null when that is not the newest."""
        table = self.view()
        snapshot = table.current_snapshot()
        return None if snapshot is None or self._source_of(table) not in source else int(snapshot.snapshot_id)

    def files_of(self, source: str) -> tuple[LakeFile, ...] | None:
        """The data files that such an expression reads; null when it is none of the newest few."""
        with self._lock:
            found = self._files.get(source)
        if found is not None:
            return found
        table = self.view()
        if table.current_snapshot() is None or self._source_of(table) != source:
            return None
        found = tuple(
            LakeFile(
                Path(file.path).name, file.date, file.group, file.rows, int(file.data_file.file_size_in_bytes),
                file.start_ms, file.end_ms, not file.appended,
            )
            for file in self.live_files(table)
        )  # fmt: skip
        with self._lock:
            self._files[source] = found
            while len(self._files) > _VIEWS_MAX:
                self._files.pop(next(iter(self._files)))
        return found

    def live_files(self, table: Table | None = None) -> list[LiveFile]:
        """The current snapshot's data files, oldest first."""
        view = table or self.load()
        snapshot = view.current_snapshot()
        if snapshot is None:
            return []
        manifests = snapshot.manifests(view.io)
        with self._lock:
            known = {each.manifest_path: self._manifests.get(each.manifest_path) for each in manifests}
        # A manifest never changes, and an append adds one; to read them all again would take a second for a thousand files.
        for each in manifests:
            if known[each.manifest_path] is None:
                entries = each.fetch_manifest_entry(view.io, discard_deleted=True)
                known[each.manifest_path] = [self._live_file(entry) for entry in entries]
        read = {path: files for path, files in known.items() if files is not None}
        with self._lock:
            self._manifests = read
        return sorted(
            (file for files in read.values() for file in files), key=lambda file: (file.sequence, file.location)
        )

    def _live_file(self, entry: Any) -> LiveFile:
        file = entry.data_file
        lower, upper = file.lower_bounds, file.upper_bounds
        return LiveFile(
            file, entry.snapshot_id, entry.sequence_number, self.storage, self.local(file.file_path),
            file.partition[0], file.partition[1], file.record_count,
            from_bytes(TimestamptzType(), lower[_TIMESTAMP_ID]) // 1000,
            from_bytes(TimestamptzType(), upper[_TIMESTAMP_ID]) // 1000,
        )  # fmt: skip

    def group_of(self, name: str) -> str:
        """The partition's name for events called ``name``."""
        with self._lock:
            names = self._names
        if names is None:
            names = Names(self.partitions_max)
            # Without the lock, which reading the files takes too.
            for group in sorted({file.group for file in self.live_files()} - {OVERFLOW}):
                names.bucket(group)
        with self._lock:
            if self._names is None:
                self._names = names
            return self._names.bucket(name)

    @contextmanager
    def in_flight(self) -> Iterator[set[str]]:
        """A set to put paths into that no clean-up in this process removes until the block ends."""
        mine: set[str] = set()
        with self._lock:
            self._in_flight.append(mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._in_flight = [paths for paths in self._in_flight if paths is not mine]

    def paths_in_flight(self) -> set[str]:
        """All of them."""
        with self._lock:
            return set().union(*self._in_flight)

    def commit(self, stage: Callable[[Table, Transaction], int | None]) -> int | None:
        """Commit what ``stage`` puts into the transaction; gives what ``stage`` gives, a snapshot's id.

        ``stage`` sees the newest table and is called again after every commit of someone else's that came between, so it
        checks everything anew each time; null from it ends without a commit. Raises ``StoreError``; ``CommitUnknown``
        when not even the outcome can be found out.
        """
        for _ in range(_ATTEMPTS):
            with self.committing:
                table = self.load()
                transaction = table.transaction()
                try:
                    snapshot_id = stage(table, transaction)
                except OSError as error:
                    raise self._failure("the lake took no commit", error) from error
                if snapshot_id is None:
                    return None
                try:
                    transaction.commit_transaction()
                except CommitFailedException:
                    continue
                except Exception as error:
                    if not self._landed(snapshot_id, error):
                        raise self._failure("the lake took no commit", error) from error
                return snapshot_id
        raise StoreError(f"the lake's table changed {_ATTEMPTS} times while one commit was tried; stop other writers")

    def _landed(self, snapshot_id: int, cause: Exception) -> bool:
        try:
            return self.load().snapshot_by_id(snapshot_id) is not None
        except StoreError as error:
            raise CommitUnknown(f"the lake's catalog failed during a commit ({cause}) and after it: {error}") from cause
