"""Which project each row of a batch belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from eventmill.core.schema import WORD

#: A project, and how many rows there are up to the end of its run; null: none.
Run = tuple[str | None, int]


def stamped(batch: pa.RecordBatch, runs: Sequence[Run], kind: pa.DataType = WORD) -> pa.RecordBatch:
    """The batch with the column ``project`` (``kind``), whose rows come in ``runs``; rows behind the last run have none."""
    names = sorted({project for project, _ in runs if project is not None})
    if not names:
        return batch.append_column(pa.field("project", kind), pa.nulls(batch.num_rows, WORD).cast(kind))
    ends = np.array([0, *(end for _, end in runs), batch.num_rows])
    of_run = [-1 if project is None else names.index(project) for project, _ in runs]
    codes = np.repeat(np.array([*of_run, -1], np.int32), np.diff(ends))
    column = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(names, pa.string()))
    return batch.append_column(pa.field("project", kind), column.cast(kind))
