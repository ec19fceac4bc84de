"""What Eventmill keeps in the summary of every snapshot, and how to read it.

``eventmill.offset.<topic>.<partition>`` is the next offset to store. The newest snapshot alone says how far the lake is,
so whoever commits copies all of it forward; a snapshot without offsets was made by something that did not, and nothing
may be appended on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eventmill.core.errors import StateError

PREFIX: Final = "eventmill."
OFFSET: Final = "eventmill.offset."
GROUP: Final = "eventmill.group"
RECEIVED_THROUGH: Final = "eventmill.received_through"
#: The snapshot that the newest compaction read, and when (ms since the epoch).
COMPACTED_THROUGH: Final = "eventmill.compacted_through"
COMPACTED_AT: Final = "eventmill.compacted_at"


def key(topic: str, partition: int) -> str:
    """The summary's key of a topic's partition."""
    return f"{OFFSET}{topic}.{partition}"


def carried(snapshot: Any) -> dict[str, str]:
    """Our entries of a snapshot (or none), to be copied into the next one. Raises ``StateError`` when offsets are missing."""
    if snapshot is None:
        return {}
    ours = {name: value for name, value in _entries(snapshot).items() if name.startswith(PREFIX)}
    if not has_offsets(snapshot):
        raise StateError(
            f"snapshot {snapshot.snapshot_id} of the lake carries no offsets, so nothing tells which events it holds: "
            "something else than Eventmill has written to the table. Roll the table back to its newest snapshot that has "
            "eventmill.offset entries in its summary"
        )
    return ours


def has_offsets(snapshot: Any) -> bool:
    """Whether the snapshot says how far the lake is."""
    return any(name.startswith(OFFSET) for name in _entries(snapshot))


def committed(snapshot: Any, topic: str, partition: int) -> int:
    """The next offset to store (0 at first)."""
    return int(carried(snapshot).get(key(topic, partition), 0))


def covers(snapshot: Any, topic: str, ranges: Mapping[int, tuple[int, int]], group: str) -> bool:
    """Whether the ranges (from inclusive, to exclusive, by partition) are in the lake already; false when they are next.

    Raises ``StateError`` when one leaves a gap or overlaps, or when another group's offsets are there.
    """
    ours = carried(snapshot)
    owner = ours.get(GROUP, group)
    if owner != group:
        raise StateError(
            f"the lake is fed by group {owner!r}, not {group!r}; use a data folder of its own for {group!r}"
        )
    following = {partition: int(ours.get(key(topic, partition), 0)) for partition in ranges}
    if all(to_offset <= following[partition] for partition, (_, to_offset) in ranges.items()):
        return True
    for partition, (from_offset, to_offset) in ranges.items():
        if from_offset != following[partition]:
            what = "leaves a gap" if from_offset > following[partition] else "overlaps what is stored"
            raise StateError(
                f"{topic}/{partition} [{from_offset}, {to_offset}) {what}: "
                f"the lake's next offset is {following[partition]}; read from there"
            )
    return False


def advanced(ours: dict[str, str], group: str, topic: str, ranges: Mapping[int, tuple[int, int]]) -> dict[str, str]:
    """The entries after appending the ranges."""
    return {**ours, GROUP: group, **{key(topic, partition): str(end) for partition, (_, end) in ranges.items()}}


def received_through(snapshot: Any) -> int | None:
    """The newest ``received_at`` appended, ms since the epoch."""
    value = None if snapshot is None else _entries(snapshot).get(RECEIVED_THROUGH)
    return None if value is None else int(value)


def _entries(snapshot: Any) -> dict[str, str]:
    return {} if snapshot.summary is None else dict(snapshot.summary.additional_properties)
