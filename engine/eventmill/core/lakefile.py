"""What is known of the lake's data files without opening them: the lake tells it, the query service plans by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A data file of a snapshot. Its ``name`` has no folder, and no other file ever has it; what is in it never changes.

    ``date`` in days since the epoch and ``group`` are its partition; ``start_ms`` and ``end_ms`` the first and last event time.
    """

    name: str
    date: int
    group: str
    rows: int
    bytes: int
    start_ms: int
    end_ms: int
    compacted: bool
