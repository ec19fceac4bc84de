"""The truth file: what was sent, and what the server said to it. The oracle judges the stores by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from eventmill.kernels.sessionize import session_ids

KIND: Final = ("unique", "duplicate", "bad", "late")
OUTCOME: Final = ("unknown", "acked", "refused")

#: One row an event sent. ``time`` is when it happened by a right clock, ms; ``request`` the number of its request.
TRUTH: Final = pa.schema(
    [
        ("id", pa.binary(16)),
        ("payload_hash", pa.int64()),
        ("device", pa.string()),
        ("time", pa.int64()),
        ("event", pa.string()),
        ("kind", pa.string()),
        ("request", pa.int64()),
    ]
)


def payload_hashes(event: Any, device: Any, properties: Any, original_ms: Any) -> pa.Array:
    """XXH3-64 (63 bits) of an event's name, device, properties and own time: what must arrive as it was sent.

    Strings, and int64 ms. The kernel that makes session ids hashes just that: a text and a time.
    """
    text = pc.binary_join_element_wise(event, device, properties, "\x1f")
    text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    times = original_ms.combine_chunks() if isinstance(original_ms, pa.ChunkedArray) else original_ms
    return session_ids(text, pc.fill_null(times.cast(pa.int64()), 0).to_numpy(zero_copy_only=False))


class TruthFile:
    """Written before anything is sent; the requests' outcomes stand beside it, a byte each, as they become known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._outcomes = path.with_name(path.name + ".outcomes")

    def create(self) -> pyarrow.parquet.ParquetWriter:
        """A writer for TRUTH tables."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return pyarrow.parquet.ParquetWriter(self.path, TRUTH, compression="zstd")

    def outcomes(self, requests: int) -> np.memmap[Any, np.dtype[np.uint8]]:
        """A byte a request, indices of OUTCOME, all unknown; it is memory-mapped, so a killed sender leaves it right."""
        return np.memmap(self._outcomes, np.uint8, "w+", shape=(requests,))

    def read(self) -> pa.Table:
        """The truth with a column ``outcome``."""
        table = pyarrow.parquet.read_table(self.path)
        if "outcome" in table.schema.names:
            return table
        known = np.fromfile(self._outcomes, np.uint8) if self._outcomes.exists() else np.zeros(0, np.uint8)
        request = table.column("request").to_numpy()
        outcome = np.zeros(len(request), np.uint8)
        inside = request < len(known)
        outcome[inside] = known[request[inside]]
        return table.append_column("outcome", pa.array(np.array(OUTCOME)[outcome]))

    def finish(self) -> None:
        """Write the outcomes into the Parquet file itself."""
        table = self.read()
        aside = self.path.with_name(self.path.name + ".tmp")
        pyarrow.parquet.write_table(table, aside, compression="zstd")
        aside.replace(self.path)
        self._outcomes.unlink(missing_ok=True)
