"""Dimensions in files: CSV, Parquet, NDJSON, Arrow."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from eventmill.core.errors import ConfigError, EventmillError
from eventmill.core.schema import DIMENSION_NAMES
from eventmill.kernels.enrich import Enricher

logger = logging.getLogger(__name__)

COLUMNS: Final = ("user_id", *DIMENSION_NAMES)
_SCHEMA: Final = pa.schema([(name, pa.string()) for name in COLUMNS])
_CSV: Final = pyarrow.csv.ConvertOptions(
    column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=True, null_values=[""],
    quoted_strings_can_be_null=False,
)  # fmt: skip


def read_dimensions(path: Path) -> pa.Table:
    """A table of user_id, country, segment, tier (strings), by the file's ending: .parquet, .ndjson, .jsonl, .arrow, .feather,
    else CSV (an empty field is null). Raises ``ConfigError``."""
    try:
        table = _read(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"the dimensions in {path} do not read: {error}") from error
    missing = [name for name in COLUMNS if name not in table.schema.names]
    if missing:
        raise ConfigError(f"{path} lacks the column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    try:
        table = table.select(COLUMNS).cast(_SCHEMA)
    except pa.ArrowException as error:
        raise ConfigError(f"the columns {', '.join(COLUMNS)} of {path} must be strings: {error}") from error
    if table.column("user_id").null_count:
        raise ConfigError(f"{path} has a row without user_id; leave it out")
    if table.num_rows != table.group_by("user_id").aggregate([]).num_rows:
        raise ConfigError(f"{path} has a user_id twice; keep one row a user")
    return table


def _read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path)
    if path.suffix in (".ndjson", ".jsonl"):
        return pyarrow.json.read_json(path)
    if path.suffix in (".arrow", ".feather"):
        return pyarrow.feather.read_table(path)
    return pyarrow.csv.read_csv(path, convert_options=_CSV)


def write_dimensions(table: pa.Table, path: Path) -> None:
    """Replace the file at once, in the format of its ending as in ``read_dimensions``. Raises ``ConfigError``."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            if path.suffix == ".parquet":
                pyarrow.parquet.write_table(table, file)
            elif path.suffix in (".ndjson", ".jsonl"):
                import orjson

                for batch in table.to_batches():
                    file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist())
            elif path.suffix in (".arrow", ".feather"):
                pyarrow.feather.write_feather(table, file, compression="lz4")
            else:
                pyarrow.csv.write_csv(table, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"the dimensions cannot be written to {path}: {error.strerror}") from error


class FileDimensions:
    """The file's users. It is looked at every ``ttl_s`` and read again when it has changed; one that does not read then leaves
    all as it was. A user who is not in it is unknown. Not thread-safe. Raises ``ConfigError`` when it does not read at first.
    """

    def __init__(self, path: Path, *, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._ttl_s, self._clock = path, ttl_s, clock
        self._stamp = self._look()
        self._enricher = Enricher(read_dimensions(path))
        self._next = clock() + ttl_s

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the dimension columns."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._ttl_s
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._enricher = Enricher(read_dimensions(self._path))
                except EventmillError as error:
                    logger.warning("the dimensions are as before: %s", error)
        return self._enricher.apply(batch)

    def mend(self, users: pa.Array) -> Enricher | None:
        """Those of ``users`` who are in the file as it is now."""
        try:
            table = read_dimensions(self._path)
        except EventmillError as error:
            logger.warning("%s; what is flagged is put right another time", error)
            return None
        table = table.filter(pc.is_in(table.column("user_id"), value_set=users))
        return Enricher(table) if table.num_rows else None

    def close(self) -> None:
        """Nothing is held open."""
