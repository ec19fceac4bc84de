"""The stores' tables as SQL that others write sees them where events have been renamed: views, by the same names, in a
database of their own, which is that of names without one. ``eventmill.events`` and the like are as they are stored.

Each view has two legs, what was renamed and what was not, so that a condition on the event's name is pushed down to the sort
key of either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from eventmill.core.renames import Renames
from eventmill.kernels.partition import OVERFLOW
from eventmill.query.sql import DATABASE, LAKE, TABLES

RENAMED: Final = "eventmill_renamed"
#: The lake's snapshot, where ``lake.events`` is a view over it.
LAKE_AS_STORED: Final = f"{LAKE[0]}.events_as_stored"
#: Tables that have no events' names.
_NAMELESS: Final = ("sessions",)


def views(renames: Renames) -> list[str]:
    """Statements that make the views over the real-time store's tables."""
    found = [f"CREATE DATABASE IF NOT EXISTS {RENAMED}"]
    for table in TABLES:
        source = f"{DATABASE}.{table}"
        rows = f"SELECT * FROM {source}" if table in _NAMELESS else _rows(source, renames, "LowCardinality(String)")
        found.append(f"CREATE OR REPLACE VIEW {RENAMED}.{table} AS {rows}")
    return found


def lake_view(renames: Renames) -> str:
    """The statement that makes ``lake.events`` of ``LAKE_AS_STORED``."""
    groups = f"event_group IN ({_listed([*renames.resolved(), OVERFLOW])})"
    return f"CREATE OR REPLACE VIEW {'.'.join(LAKE)} AS {_rows(LAKE_AS_STORED, renames, 'String', groups)}"


def _rows(source: str, renames: Renames, kind: str, old_only: str = "1") -> str:
    """``old_only``: what holds for all rows with old names."""
    known = renames.resolved()
    old, now = _listed(known), _listed(known.values())
    name = f"CAST(transform(CAST(event, 'String'), [{old}], [{now}]), '{kind}')"
    # In queries of their own: in a condition beside it, ``event`` would be the new name.
    return (
        f"SELECT * FROM (SELECT * FROM {source} WHERE event NOT IN ({old})) UNION ALL "
        f"SELECT * REPLACE ({name} AS event) FROM (SELECT * FROM {source} WHERE event IN ({old}) AND {old_only})"
    )


def _listed(names: Iterable[str]) -> str:
    """Text in SQL that can mean nothing else."""
    return ", ".join(f"unhex('{name.encode().hex()}')" for name in names)
