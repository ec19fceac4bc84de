"""User dimensions: country, segment and tier by ``user_id``."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from eventmill.core.stage import Outcome
from eventmill.process.dimensions.source import Dimensions


class Enrich:
    """Stateless, and left out of folds: what it adds is read by no later stage, and Redis may have changed since."""

    name: Final = "enrich"
    output_only: Final = True

    def __init__(self, dimensions: Dimensions) -> None:
        self._dimensions = dimensions

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Adds the dimension columns."""
        return Outcome(self._dimensions.apply(batch))
