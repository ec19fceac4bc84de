"""User dimensions: country, segment and tier by ``user_id``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from eventmill.core.errors import ConfigError
from eventmill.core.schema import DIMENSION_NAMES
from eventmill.core.stage import Outcome
from eventmill.kernels.enrich import Enricher


class Enrich:
    """Stateless: the dimensions are read once, at start."""

    name: Final = "enrich"

    def __init__(self, dimensions_file: str) -> None:
        self._enricher = Enricher(load_dimensions(Path(dimensions_file))) if dimensions_file else Enricher.empty()

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Adds the dimension columns."""
        return Outcome(self._enricher.apply(batch))


def load_dimensions(path: Path) -> pa.Table:
    """A table of user_id, country, segment, tier (strings) from Parquet or CSV. Raises ``ConfigError``."""
    try:
        table = pyarrow.parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"process.dimensions_file = {str(path)!r} does not read: {error}") from error
    missing = [name for name in ("user_id", *DIMENSION_NAMES) if name not in table.schema.names]
    if missing:
        raise ConfigError(
            f"process.dimensions_file = {str(path)!r} lacks the column {missing[0]!r}; "
            f"it needs user_id, {', '.join(DIMENSION_NAMES)}"
        )
    columns = ("user_id", *DIMENSION_NAMES)
    table = table.select(columns).cast(pa.schema([(name, pa.string()) for name in columns]))
    if table.num_rows != table.group_by("user_id").aggregate([]).num_rows:
        raise ConfigError(f"process.dimensions_file = {str(path)!r} has a user_id twice; keep one row a user")
    return table
