"""Rows as the real-time store takes them: checked, cut into pieces, and as a FROM expression."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventmill.core.errors import StoreError
from eventmill.core.schema import EVENT
from eventmill.core.typed import Typed

OFFSET: Final = "log_offset"
COLUMNS: Final = (*EVENT.names, OFFSET)
#: Rows of one insert; a log frame is never cut.
ROWS_MAX: Final = 500_000
_SCHEMA: Final = pa.schema([*EVENT, pa.field(OFFSET, pa.uint64(), nullable=False)])

#: The columns of ``Python(…)`` are all nullable; those that never are null shed that here.
_SELECT: Final = ", ".join(
    f"{field.name}" if field.nullable else f"assumeNotNull({field.name}) AS {field.name}" for field in _SCHEMA
)


def columns(typed: Typed) -> list[str]:
    """The names of the columns of an insert."""
    return [*COLUMNS, *(f"`{each.column}`" for each in typed.properties.values())]


def select(typed: Typed) -> str:
    """SQL for those columns, in that order, over rows as given. The JSON is parsed once for all typed properties."""
    if not typed.properties:
        return _SELECT
    members = ", ".join(f"`{each.name}` {each.kind.extracted}" for each in typed.properties.values())
    whole = f"JSONExtract(assumeNotNull(properties), 'Tuple({members})')"
    found = (f"tupleElement({whole}, {i}) AS `{each.column}`" for i, each in enumerate(typed.properties.values(), 1))
    return ", ".join([_SELECT, *found])


def checked(batch: pa.RecordBatch | pa.Table) -> pa.Table:
    """The batch as one table of EVENT's columns and ``log_offset``.

    Raises ``StoreError`` when a column is missing or of another type, holds nulls where it must not, or when
    ``log_offset`` is not ascending.
    """
    table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
    try:
        table = table.select(list(COLUMNS)).cast(_SCHEMA)
    except (KeyError, pa.ArrowException, ValueError) as error:
        raise StoreError(f"these rows are not EVENT with {OFFSET}: {error}") from error
    offsets = offsets_of(table)
    if len(offsets) and bool((offsets[1:] < offsets[:-1]).any()):
        raise StoreError(f"the rows are not in the order of {OFFSET}")
    return table


def offsets_of(table: pa.Table) -> npt.NDArray[np.uint64]:
    """The ``log_offset`` column as uint64."""
    offsets: npt.NDArray[np.uint64] = table.column(OFFSET).to_numpy()
    return offsets


def pieces(table: pa.Table, rows_max: int = ROWS_MAX) -> Iterator[pa.Table]:
    """The table in pieces of at most ``rows_max`` rows, cut between log offsets only, always at the same places.

    So the pieces' offset ranges do not overlap; rows of one offset that are more than ``rows_max`` stay together.
    """
    offsets = offsets_of(table)
    start = 0
    while start < len(offsets):
        end = start + rows_max
        if end >= len(offsets):
            end = len(offsets)
        elif offsets[end - 1] == offsets[end]:
            first = int(np.searchsorted(offsets, offsets[end], side="left"))
            end = first if first > start else int(np.searchsorted(offsets, offsets[end], side="right"))
        yield table.slice(start, end - start)
        start = end
