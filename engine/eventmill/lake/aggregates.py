"""What stays of retired events: two Iceberg tables beside that of the events.

``eventmill.events_1m`` has a row a minute, event, platform and project, ``eventmill.sessions`` one a session and date. An
event is either in the events' table or in the aggregates, never in both, so what a question asks is the sum of the two. The
step from one to the other is a single commit: the events' table names, in its property ``eventmill.aggregates``, the aggregate
tables' metadata that belongs to it. The aggregates are written first, and count for nothing until that commit; what a crash
leaves of them is replaced by the next run, which goes on from the state that is named.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, Table
from pyiceberg.table.update.snapshot import ExpireSnapshots
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import BinaryType, DateType, LongType, NestedField, StringType, TimestamptzType

from eventmill.core.errors import StateError, StoreError
from eventmill.core.retention import Retired
from eventmill.lake.iceberg import DATE, LakeTable

#: The events' table's property: ``Retired`` as JSON.
AGGREGATES: Final = "eventmill.aggregates"
#: The minutes' property with the events that are retired, per hour of ``received_at``: JSON {ms: rows}.
HOURS: Final = "eventmill.retired"

_TIME: Final = pa.timestamp("us", tz="UTC")
_DATE: Final = pa.field(DATE, pa.date32(), nullable=False)
#: ``devices``, ``users`` and ``sessions`` are states of ClickHouse's uniqCombined64(16): of hashes, not of ids.
MINUTES: Final = pa.schema(
    [
        _DATE,
        pa.field("minute", _TIME, nullable=False),
        pa.field("event", pa.string(), nullable=False),
        pa.field("platform", pa.string()),
        pa.field("project", pa.string()),
        pa.field("events", pa.int64(), nullable=False),
        pa.field("devices", pa.binary(), nullable=False),
        pa.field("users", pa.binary(), nullable=False),
        pa.field("sessions", pa.binary(), nullable=False),
    ]
)
#: No device and no user: nothing here is of a person.
SESSIONS: Final = pa.schema(
    [
        _DATE,
        pa.field("session_id", pa.int64(), nullable=False),
        pa.field("project", pa.string()),
        pa.field("started", _TIME, nullable=False),
        pa.field("ended", _TIME, nullable=False),
        pa.field("events", pa.int64(), nullable=False),
    ]
)
_TYPES: Final = {
    pa.date32(): DateType(), pa.string(): StringType(), pa.int64(): LongType(), pa.binary(): BinaryType(),
    _TIME: TimestamptzType(),
}  # fmt: skip
_PROPERTIES: Final = {
    "commit.retry.num-retries": "0",
    "write.metadata.previous-versions-max": "4",
    "write.metadata.metrics.default": "none",
    **{f"write.metadata.metrics.column.{name}": "full" for name in (DATE, "minute", "started")},
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "2",
}
_BOUNDED: Final = (DATE, "minute", "started")
#: They are written once and read seldom.
_LEVEL: Final = 9


@dataclass(frozen=True, slots=True)
class AggregateFile:
    """A data file of an aggregate table."""

    data_file: DataFile
    date: int
    path: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return int(self.data_file.file_size_in_bytes)

    @property
    def rows(self) -> int:
        """How many it has."""
        return int(self.data_file.record_count)


def retired(table: Table) -> Retired:
    """What a state of the events' table says of what it no longer holds."""
    return Retired.parse(table.metadata.properties.get(AGGREGATES))


class AggregateTable:
    """One of the two tables, made when it is first written to. ``location`` is everywhere that of a metadata file ("": none).

    Every method may raise ``StoreError``.
    """

    def __init__(self, lake: LakeTable, name: str, columns: pa.Schema) -> None:
        self.lake, self.name, self.columns = lake, name, columns
        self.storage = lake.storage.beside(name)
        self._identifier = ("eventmill", name)

    def source_sql(self, location: str) -> str:
        """A FROM expression for chdb."""
        return self.storage.source_sql(self.storage.path(location))

    def at(self, location: str) -> Table:
        """The table as that metadata has it."""
        try:
            return StaticTable.from_metadata(location, self.storage.properties)
        except Exception as error:
            raise self.storage.failure(f"the lake's {self.name} at {location} does not read", error) from error

    def files(self, location: str) -> list[AggregateFile]:
        """Its data files."""
        return [] if not location else self._files(self.at(location))

    def _files(self, table: Table) -> list[AggregateFile]:
        snapshot = table.current_snapshot()
        if snapshot is None:
            return []
        return [
            AggregateFile(
                entry.data_file, entry.data_file.partition[0], self.storage.path(entry.data_file.file_path)
            )
            for manifest in snapshot.manifests(table.io)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        ]  # fmt: skip

    def read(self, files: Iterable[AggregateFile]) -> pa.Table:
        """The rows of files."""
        parts = [self.columns.empty_table()]
        for file in files:
            try:
                with self.storage.read(file.path) as source:
                    parts.append(pq.read_table(source).cast(self.columns))
            except (OSError, pa.ArrowException) as error:
                raise self.storage.failure(f"cannot read {file.path}", error, "restore it from a backup") from error
        return pa.concat_tables(parts)

    def hours(self, location: str) -> Counter[int]:
        """``HOURS`` of a state."""
        if not location:
            return Counter()
        found = json.loads(self.at(location).metadata.properties.get(HOURS, "{}"))
        return Counter({int(hour): count for hour, count in found.items()})

    def changed(
        self, location: str, gone: Iterable[AggregateFile], rows: pa.Table | None, properties: Mapping[str, str] | None = None
    ) -> str:  # fmt: skip
        """Commit the state at ``location`` without the files ``gone`` and with ``rows``; gives the new state's location."""
        table = self._opened()
        current = {file.path: file for file in self._files(table)}
        wanted = {file.path: file for file in self.files(location)}
        for file in gone:
            del wanted[file.path]
        written = [] if rows is None or not rows.num_rows else self._write(table, rows)
        transaction = table.transaction()
        if properties:
            transaction.set_properties(dict(properties))
        older = [each.snapshot_id for each in table.metadata.snapshots if each != table.current_snapshot()]
        if older:
            ExpireSnapshots(transaction).by_ids(older).commit()
        with transaction.update_snapshot().overwrite() as overwrite:
            overwrite.delete_by_predicate(AlwaysTrue())
            for path, file in current.items():
                if path not in wanted:
                    overwrite.delete_data_file(file.data_file)
            for path, file in wanted.items():
                if path not in current:
                    overwrite.append_data_file(file.data_file)
            for new in written:
                overwrite.append_data_file(new)
        try:
            transaction.commit_transaction()
        except CommitFailedException as error:
            raise StateError(
                f"somebody else has changed the lake's {self.name}; nothing was changed, run it again"
            ) from error
        except Exception as error:
            raise self.storage.failure(f"the lake's {self.name} took no commit", error) from error
        return str(self.lake.catalog.load_table(self._identifier).metadata_location)

    def _opened(self) -> Table:
        catalog = self.lake.catalog
        try:
            if not catalog.table_exists(self._identifier):
                schema = Schema(
                    *(
                        NestedField(number, field.name, _TYPES[field.type], required=not field.nullable)
                        for number, field in enumerate(self.columns, 1)
                    )
                )
                spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), DATE))
                catalog.create_table(
                    self._identifier,
                    schema,
                    location=self.storage.recorded,
                    partition_spec=spec,
                    properties=_PROPERTIES,
                )
        except TableAlreadyExistsError:
            pass
        except OSError as error:
            raise self.storage.failure(f"the lake's {self.name} cannot be made", error) from error
        return catalog.load_table(self._identifier)

    def _write(self, table: Table, rows: pa.Table) -> list[DataFile]:
        """A file a date."""
        plan = compute_statistics_plan(table.schema(), table.metadata.properties)
        ids = parquet_path_to_id_mapping(table.schema())
        run = uuid.uuid4().hex
        found = []
        for date in pc.unique(rows.column(DATE)):
            part = rows.filter(pc.equal(rows.column(DATE), date))
            location = f"{self.storage.recorded}/data/{date}/{self.name}-{run}.parquet"
            path = self.storage.path(location)
            collected: list[pq.FileMetaData] = []
            try:
                with self.storage.write(path) as sink:
                    pq.write_table(
                        part.cast(_with_ids(self.columns)), sink, compression="zstd", compression_level=_LEVEL,
                        store_schema=False, metadata_collector=collected,
                        write_statistics=[name for name in _BOUNDED if name in self.columns.names],
                        use_dictionary=[f.name for f in self.columns if f.type not in (pa.binary(), pa.int64())],
                    )  # fmt: skip
                    size = sink.tell()
            except OSError as error:
                raise self.storage.failure(f"cannot write {path}", error, "free space, or mend the disk") from error
            statistics = data_file_statistics_from_parquet_metadata(collected[0], plan, ids)
            days = int(np.datetime64(date.as_py(), "D").astype(np.int64))
            found.append(
                DataFile.from_args(
                    content=DataFileContent.DATA, file_path=location, file_format=FileFormat.PARQUET,
                    partition=Record(days), file_size_in_bytes=size, sort_order_id=None,
                    spec_id=table.metadata.default_spec_id, equality_ids=None, key_metadata=None,
                    **statistics.to_serialized_dict(),
                )
            )  # fmt: skip
        return found

    def referenced(self, location: str) -> set[str]:
        """Paths of all files that the named state needs, and those of the newest one."""
        if not self.lake.catalog.table_exists(self._identifier):
            return set()
        newest = self.lake.catalog.load_table(self._identifier)
        kept = {newest.metadata_location, *(entry.metadata_file for entry in newest.metadata.metadata_log)}
        states = [newest]
        if location:
            kept.add(location)
            states.append(self.at(location))
        for state in states:
            for snapshot in {each.snapshot_id: each for each in _needed(state, state is newest)}.values():
                kept.add(snapshot.manifest_list)
                for manifest in snapshot.manifests(state.io):
                    kept.add(manifest.manifest_path)
                    entries = manifest.fetch_manifest_entry(state.io, discard_deleted=True)
                    kept |= {entry.data_file.file_path for entry in entries}
        return {self.storage.path(each) for each in kept}


def _needed(state: Table, whole: bool) -> list:  # type: ignore[type-arg]
    return list(state.metadata.snapshots) if whole else [s for s in [state.current_snapshot()] if s is not None]


def _with_ids(columns: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_metadata({"PARQUET:field_id": str(i)}) for i, field in enumerate(columns, 1)])


@dataclass(frozen=True, slots=True)
class Aggregates:
    """Both tables."""

    minutes: AggregateTable
    sessions: AggregateTable

    @staticmethod
    def of(lake: LakeTable) -> Aggregates:
        """Those of a lake."""
        return Aggregates(AggregateTable(lake, "events_1m", MINUTES), AggregateTable(lake, "sessions", SESSIONS))

    def hours(self, table: Table) -> Counter[int]:
        """How many events a state of the events' table has retired, per hour of ``received_at`` (its start, ms)."""
        return self.minutes.hours(retired(table).minutes)

    def check(self, found: Retired) -> None:
        """Raises ``StoreError`` when a state that the events' table names cannot be read."""
        for table, location in ((self.minutes, found.minutes), (self.sessions, found.sessions)):
            if location and not table.storage.exists(table.storage.path(location)):
                raise StoreError(f"{location}, which holds the lake's aggregates, is gone; restore it from a backup")
