"""Writing Parquet files of one partition each, and describing them to Iceberg."""

from __future__ import annotations

import itertools
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from eventmill.core.errors import EventmillError, StoreError
from eventmill.core.schema import EVENT, WORD
from eventmill.core.threads import name_thread
from eventmill.kernels.gather import take
from eventmill.kernels.partition import OVERFLOW
from eventmill.lake.iceberg import BOUNDED, COLUMNS, DATE, CommitUnknown, Kind, LakeTable, LiveFile
from eventmill.lake.storage import Storage

DAY_MS: Final = 86_400_000
ROW_GROUP: Final = 131_072
#: Fewer partitions than that in a batch are left as they are.
FILES_FEW: Final = 32
#: More files than that are not written for a batch, but for one a date.
FILES_MAX: Final = 256
#: Fewer rows than that are not worth a file of their own.
ROWS_FEW: Final = 1_024
#: Kernels, Parquet and compression need no interpreter, so two threads keep two cores busy.
THREADS: Final = 2
#: Texts of which a file's own may be few or many.
_TEXTS: Final = {"message_id", "properties", "context"}
_DICTIONARY: Final = [field.name for field in COLUMNS if field.type == pa.string() and field.name not in _TEXTS] + [
    DATE,
    "flags",
]
#: Numbers that repeat in rows which are sorted by time. A dictionary of them is smaller than zstd makes them, and quicker.
_REPEATING: Final = ["session_id", "sent_at", "received_at"]
#: Rows looked at to find out whether a column's texts repeat, and how often they have to.
_SAMPLE: Final = 4_096
_REPEATS: Final = 4
#: The footer's entry with the bytes that the rows take in memory, of which encoded sizes say little.
_MEMORY: Final = b"eventmill.memory_bytes"
#: Columns that take few values in a batch, as a rule.
_FEW: Final = frozenset(field.name for field in EVENT if field.type == WORD)

Indices = npt.NDArray[np.int64]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one partition, COLUMNS' few-valued ones as dictionaries. ``date`` in days since the epoch."""

    date: int
    group: str
    rows: pa.Table


def partition(
    events: pa.Table,
    group_of: Callable[[str], str],
    *,
    files_few: int = FILES_FEW,
    files_max: int = FILES_MAX,
    rows_few: int = ROWS_FEW,
) -> list[Slice]:
    """The rows per partition; those of one chunk of ``events`` by event time, the chunks one after the other.

    Where there are more than ``files_few`` partitions, those of less than ``rows_few`` rows share their date's
    ``__other__``, and so do the smallest beyond ``files_max``: a late event here and there, or a batch of very many names,
    would otherwise become as many tiny files. So a partition's name says where rows lie, and ``event`` what they are.
    """
    if events.num_rows == 0:
        return []
    times = events.column("timestamp").cast(pa.int64()).to_numpy()
    dates, of_day = np.divmod(times, DAY_MS)
    narrow = encoded(events)
    names = narrow.column("event")
    codes: dict[str, int] = {OVERFLOW: 0}
    of_value = [codes.setdefault(group_of(name), len(codes)) for name in names.chunk(0).dictionary.to_pylist()]
    of_row = np.concatenate([chunk.indices.to_numpy() for chunk in names.chunks])
    first_date = int(dates.min())
    cells = (dates - first_date) * len(codes) + np.array(of_value, np.int64)[of_row]
    used, sizes = np.unique(cells, return_counts=True)
    if len(used) > files_few:
        by_size = np.argsort(-sizes, kind="stable")
        large = min(int(np.count_nonzero(sizes >= rows_few)), files_max)
        cells = np.where(np.isin(cells, used[by_size[large:]]), cells // len(codes) * len(codes), cells)
    groups = list(codes)
    return [
        Slice(first_date + cell // len(codes), groups[cell % len(codes)], pa.Table.from_batches(rows))
        for cell, rows in sorted(_gathered(narrow, cells, of_day).items())
    ]


def _gathered(narrow: pa.Table, cells: Indices, of_day: Indices) -> dict[int, list[pa.RecordBatch]]:
    """The rows of each cell, chunk by chunk: each chunk is put in the cells' order while it is in the cache, then cut."""
    found: dict[int, list[pa.RecordBatch]] = defaultdict(list)
    at = 0
    for chunk in narrow.to_batches():
        of_chunk = cells[at : at + len(chunk)]
        # by cell and time of day (27 bits)
        order = np.argsort((of_chunk << 27) | of_day[at : at + len(chunk)])
        at += len(chunk)
        ordered = take(chunk, order)
        in_order = of_chunk[order]
        begins = np.flatnonzero(np.diff(in_order, prepend=in_order[0] - 1))
        for begin, end in zip(begins, np.append(begins[1:], len(chunk)), strict=True):
            found[int(in_order[begin])].append(ordered.slice(begin, end - begin))
    return found


class FileWriter:
    """Writes data files of a table; safe to share between threads."""

    def __init__(self, lake: LakeTable, table: Table) -> None:
        self._lake = lake
        self._spec_id = table.metadata.default_spec_id
        self._plan = compute_statistics_plan(table.schema(), table.metadata.properties)
        self._ids = parquet_path_to_id_mapping(table.schema())

    def write_all(self, slices: list[Slice], paths: set[str]) -> list[DataFile]:
        """A file for each slice, on two threads. Every path is added to ``paths`` before its file is begun."""
        run = uuid.uuid4().hex

        def one(numbered: tuple[int, Slice]) -> DataFile:
            number, part = numbered
            return self.write(
                part.rows.combine_chunks(), part.date, part.group, f"{Kind.APPENDED}-{run}-{number:05d}", paths
            )

        # The largest first, so that the threads end together.
        by_size = sorted(enumerate(slices), key=lambda numbered: -numbered[1].rows.num_rows)
        with ThreadPoolExecutor(THREADS, "lake-write", name_thread, ("lake-write",)) as pool:
            return list(pool.map(one, by_size))

    def write(self, rows: pa.Table, date: int, group: str, name: str, paths: set[str]) -> DataFile:
        """One file of rows with EVENT's columns.

        ``name`` begins with a ``Kind``. Raises ``StoreError``.
        """
        return self.write_parts([rows], date, group, name, paths)

    def write_parts(self, parts: Iterable[pa.Table], date: int, group: str, name: str, paths: set[str]) -> DataFile:
        """The same of rows that come in parts, at least one; they are row groups, unless larger than ``ROW_GROUP``."""
        tier = self._lake.cold_location if name.startswith(Kind.COLD) else self._lake.data_location
        location = tier(placed(date, name))
        path = self._lake.storage.path(location)
        paths.add(path)
        metadata, size = write_file(self._lake.storage, path, parts, date, group)
        return self.described(location, metadata, size, date, group)

    def described(self, location: str, metadata: Any, size: int, date: int, group: str) -> DataFile:
        """A file that is written, with the metadata of its footer, as Iceberg wants it described."""
        statistics = data_file_statistics_from_parquet_metadata(metadata, self._plan, self._ids)
        return DataFile.from_args(
            content=DataFileContent.DATA, file_path=location, file_format=FileFormat.PARQUET,
            partition=Record(date, group), file_size_in_bytes=size, sort_order_id=None, spec_id=self._spec_id,
            equality_ids=None, key_metadata=None, **statistics.to_serialized_dict(),
        )  # fmt: skip


def placed(date: int, name: str) -> str:
    """A file's place below the table's data. The name of the group, which the client chose, is not in it."""
    return f"{np.datetime64(date, 'D').astype(str)}/{name}.parquet"


def write_file(storage: Storage, path: str, parts: Iterable[pa.Table], date: int, group: str) -> tuple[Any, int]:
    """Rows of one partition to a new file; gives the footer's metadata and the size. Raises ``StoreError``."""
    try:
        with storage.write(path) as sink:
            codec = _codec(path.rpartition("/")[2])
            metadata = _written(sink, (_columns(rows, date, group) for rows in parts), codec)
            return metadata, sink.tell()
    except OSError as error:
        raise storage.failure(f"cannot write {path}", error, "free space, or mend the disk") from error


def _written(sink: Any, parts: Iterator[pa.Table], codec: dict[str, Any]) -> Any:
    """The rows to Parquet; gives the file's metadata. What is a dictionary in the first part is one in all."""
    first = next(parts)
    texts = [name for name in _TEXTS if _repeats(first.column(name))] if codec["compression"] != "snappy" else []
    numbers = _REPEATING if codec["compression"] != "snappy" else []
    with pq.ParquetWriter(
        sink, first.schema, store_schema=False, use_dictionary=[*_DICTIONARY, *texts, *numbers],
        write_statistics=list(BOUNDED), **codec,
    ) as writer:  # fmt: skip
        memory = 0
        for rows in itertools.chain([first], parts):
            memory += rows.nbytes
            writer.write_table(rows.cast(first.schema), row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({_MEMORY: str(memory).encode()})
    return writer.writer.metadata


def _repeats(texts: pa.ChunkedArray) -> bool:
    sample = texts.slice(0, _SAMPLE)
    return bool(pc.count_distinct(sample, mode="all").as_py() * _REPEATS <= len(sample))


def memory_bytes(file: LiveFile) -> int:
    """What the file's rows take in memory."""
    with parquet(file) as opened:
        metadata = opened.metadata
    noted = (metadata.metadata or {}).get(_MEMORY)
    if noted is not None:
        return int(noted)
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def _codec(name: str) -> dict[str, Any]:
    """What is appended is compacted within the hour, so quick compression is best; the rest stays, what is cold for long."""
    if name.startswith(Kind.APPENDED):
        return {"compression": "snappy"}
    return {"compression": "zstd", "compression_level": 9 if name.startswith(Kind.COLD) else 1}


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What ``work`` gives for each item, on two threads. Raises what the first of them raised."""
    with ThreadPoolExecutor(THREADS, "lake", name_thread, ("lake",)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)


def encoded(rows: pa.Table) -> pa.Table:
    """The rows with one dictionary for all chunks of a column of few values: to gather numbers is cheaper than strings."""
    columns = [
        pc.dictionary_encode(column) if field.name in _FEW and not pa.types.is_dictionary(field.type) else column
        for field, column in zip(rows.schema, rows.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, rows.column_names).unify_dictionaries()


def _columns(rows: pa.Table, date: int, group: str) -> pa.Table:
    """The rows as they are written: COLUMNS, of which some are dictionaries."""
    count = rows.num_rows
    groups = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([group], pa.string()))
    columns = [pa.array(np.full(count, date, np.int32)).cast(pa.date32()), groups]
    columns += [_column(rows.column(field.name), field.type) for field in list(COLUMNS)[2:]]
    fields = [field.with_type(column.type) for field, column in zip(COLUMNS, columns, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    # A dictionary is written whole, so it must not be longer than what it spares.
    if pa.types.is_dictionary(column.type) and len(column.chunk(0).dictionary) * 4 <= len(column):
        return column
    return column.cast(kind)


@contextmanager
def uncommitted(lake: LakeTable) -> Iterator[set[str]]:
    """A set for the paths of files that are written and committed in the block.

    No clean-up in this process removes them meanwhile; what the block raises removes them, except for ``CommitUnknown``: the
    table may have taken them.
    """
    with lake.in_flight() as paths:
        try:
            yield paths
        except CommitUnknown:
            raise
        except Exception:
            remove(lake.storage, paths)
            raise


def remove(storage: Storage, paths: set[str]) -> None:
    """Delete files that no snapshot refers to. What cannot be deleted now is left to the clean-up."""
    for path in paths:
        with suppress(OSError):
            storage.remove(path)


def require(storage: Storage, paths: set[str]) -> None:
    """Raises ``StoreError`` when one of the files is gone."""
    for path in paths:
        try:
            there = storage.exists(path)
        except OSError as error:
            raise storage.failure(f"cannot look for {path}", error) from error
        if not there:
            raise StoreError(f"{path} was removed before its commit: a clean-up with too short a grace period ran")


@contextmanager
def parquet(file: LiveFile, *, dictionaries: list[str] | None = None) -> Iterator[pq.ParquetFile]:
    """A data file, opened. Raises ``StoreError``, also for what fails while it is read inside the block."""
    try:
        with (
            file.storage.read(file.path) as source,
            # From afar, what is needed is fetched in few large requests.
            pq.ParquetFile(source, read_dictionary=dictionaries, pre_buffer=file.storage.remote) as opened,
        ):
            yield opened
    except EventmillError:
        raise
    except (OSError, pa.ArrowException) as error:
        doing = f"cannot read the lake's file {file.path}"
        raise file.storage.failure(doing, error, "restore it from a backup") from error


def parquet_metadata(storage: Storage, path: str) -> Any:
    """A file's footer. Raises ``StoreError``."""
    try:
        with storage.read(path) as source, pq.ParquetFile(source) as opened:
            return opened.metadata
    except (OSError, pa.ArrowException) as error:
        raise storage.failure(f"cannot read the lake's file {path}", error) from error


def read(file: LiveFile, columns: list[str] | None = None) -> pa.Table:
    """A data file under EVENT's schema, or some of its columns as they are stored. Raises ``StoreError``."""
    with parquet(file, dictionaries=None if columns is not None else list(_FEW)) as opened:
        table = opened.read(columns if columns is not None else EVENT.names)
    if columns is not None:
        return table
    return pa.Table.from_arrays([table.column(field.name).cast(field.type) for field in EVENT], schema=EVENT)


def read_stored(file: LiveFile) -> list[pa.RecordBatch]:
    """EVENT's columns of a data file with the types that they are stored in, but for words, which are dictionaries.

    A batch has its own dictionaries. On the caller's thread. Raises ``StoreError``.
    """
    with parquet(file, dictionaries=list(_FEW)) as opened:
        batches: list[pa.RecordBatch] = opened.read(EVENT.names, use_threads=False).to_batches()
    return batches


def stream(file: LiveFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a data file, batch by batch. Raises ``StoreError``."""
    with parquet(file) as opened:
        yield from opened.iter_batches(ROW_GROUP, columns=columns, use_threads=False)


def by_index(indices: Indices, values: Indices) -> dict[int, Indices]:
    """The values of each index, in their order."""
    order = np.argsort(indices, kind="stable")
    used, starts = np.unique(indices[order], return_index=True)
    return dict(zip(used.tolist(), np.split(values[order], starts[1:]), strict=True)) if len(used) else {}
