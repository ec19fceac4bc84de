"""More partitions: what a new partition inherits, so that no device's state is torn.

A key's partition is its hash modulo their number. When that number becomes a multiple of what it was, all devices of the new
partition ``q`` come from the old one ``q % old``. So ``q`` begins with a copy of the old partition's state at its end: the
filter knows the ids of all its devices' events, the sessions that are open go on. What either of the two knows about devices
of the other is never asked again, and ages out.

The copy is a snapshot at offset 0. A mark (``origin``) says that it was there: a fold without it would begin with no
state where there was some.
"""

from __future__ import annotations

from collections.abc import Iterator

from eventmill.core.errors import ConfigError
from eventmill.process.checkpoint import Snapshot
from eventmill.process.partition import PartitionState


def heirs(partition: int, old: int, new: int) -> Iterator[int]:
    """The new partitions whose devices come from ``partition``.

    Raises ``ConfigError`` unless ``new`` is a multiple of ``old``: else a new partition's devices come from several old ones.
    """
    if new % old:
        below, above = new - new % old, new + old - new % old
        fits = f"{below} or {above}" if below > old else str(above)
        raise ConfigError(
            f"raw has {old} partitions, and {new} is no multiple of that: the state of a device could not be handed over "
            f"whole; set kafka.partitions to {fits}"
        )
    return iter(range(partition + old, new, old))


def bequeath(state: PartitionState, committed: int) -> Snapshot:
    """The state of an old partition at its end, as its heirs begin with it. Raises ``StateError`` when it cannot be built."""
    state.recover(committed)
    return Snapshot(0, state.taken().states)
