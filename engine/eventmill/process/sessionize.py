"""Sessions per device, in event time."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from eventmill.core.stage import Outcome
from eventmill.kernels.sessionize import Sessionizer


class Sessionize:
    """Stateful. Real-time session ids are provisional where late events join sessions; the lake's are exact."""

    name: Final = "sessionize"

    def __init__(self, sessionizer: Sessionizer) -> None:
        self._sessionizer = sessionizer

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Adds ``session_id``."""
        return Outcome(self._sessionizer.assign(batch))

    def snapshot(self) -> bytes:
        """All open sessions."""
        return self._sessionizer.snapshot()

    def restore(self, state: bytes) -> None:
        """See ``Sessionizer.restore``."""
        self._sessionizer.restore(state)
