"""Flagged events put right on a cluster: the driver asks once what is known now, the executors' kernels join and judge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa

from eventmill.core.schema import Flag
from eventmill.kernels.enrich import Enricher
from eventmill.lake.iceberg import DATE, Kind, LakeTable
from eventmill.process.dimensions.source import Dimensions
from eventmill.process.put_right import answers, put_right
from eventmill.process.schemas.ruling import Ruling
from eventmill.process.schemas.sets import SchemaSet, load_set

#: Users put right in one run; the others wait for the next one.
USERS_MAX: Final = 2_000_000
_DIMENSIONS: Final = int(Flag.DIMENSIONS_UNKNOWN)
_SCHEMA: Final = int(Flag.SCHEMA_UNKNOWN)


@dataclass(frozen=True, slots=True)
class PutRight:
    """A ``lake.merge.Enrich`` that can travel: ``users`` (an Arrow stream of ``user_id`` and dimensions) and ``schemas`` (as
    ``SchemaSet.dump`` gives them); empty: none."""

    users: bytes
    schemas: bytes

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows by what is known. Not thread-safe; Spark's workers have one thread."""
        return put_right(batch, *_made(self.users, self.schemas))


@lru_cache(maxsize=1)
def _made(users: bytes, schemas: bytes) -> tuple[Ruling | None, Enricher | None]:
    """What the kernels make of it, once in each process."""
    return (
        Ruling(load_set(schemas)) if schemas else None,
        Enricher(pa.ipc.open_stream(users).read_all()) if users else None,
    )


def known_now(spark: Any, lake: LakeTable, dimensions: Dimensions, schemas: SchemaSet) -> PutRight | None:
    """What can be said now of the lake's flagged rows, those appended since the last compaction included; null: nothing.

    ``spark`` is a session with Iceberg's runtime. Raises ``StoreError``.
    """
    from pyspark.sql import functions

    table = lake.load()
    dates = {file.date for file in lake.live_files(table) if file.appended or file.kind is Kind.FLAGGED}
    if not dates:
        return None
    days = [np.datetime64(date, "D").astype(object) for date in sorted(dates)]
    rows = spark.read.format("iceberg").load(lake.local(table.metadata_location))
    rows = rows.where(functions.col(DATE).isin(days)).select("user_id", "flags")
    flagged = rows.where(functions.col("flags").bitwiseAND(_DIMENSIONS) != 0).where("user_id IS NOT NULL")
    users = flagged.select("user_id").distinct().orderBy("user_id").limit(USERS_MAX).toArrow().column("user_id")
    ids = users.cast(pa.string()).combine_chunks()
    known = dimensions.mend(ids) if len(ids) else None
    judges = schemas.available
    judges = judges and not rows.where(functions.col("flags").bitwiseAND(_SCHEMA) != 0).isEmpty()
    if known is None and not judges:
        return None
    return PutRight(b"" if known is None else _stream(answers(ids, known)), schemas.dump() if judges else b"")


def _stream(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    found: bytes = sink.getvalue().to_pybytes()
    return found
