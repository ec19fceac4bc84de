"""Retiring raw events from the real-time store once the lake has them, and roll-ups that are too old.

Which rows go is a condition that no later insert can meet: events of old dates, received long ago, below a place in the store's
order that the lake has passed. So counting, recording and deleting are steps that may be repeated after a crash.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from eventmill.core.schema import Flag
from eventmill.sinks.realtime import ddl
from eventmill.sinks.realtime.store import RealtimeStore

_HOURS: Final = "toInt64(toUnixTimestamp(toStartOfHour(received_at))) * 1000"
_UNKNOWN: Final = int(Flag.DIMENSIONS_UNKNOWN | Flag.SCHEMA_UNKNOWN)
_PARTS: Final = (
    "SELECT toString(partition) AS partition, sum(rows) AS rows, sum(bytes_on_disk) AS bytes, count() AS files "
    "FROM system.parts WHERE active AND database = {database:String} AND table = {table:String} GROUP BY partition"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Events that happened and were received before ``before_ms``, with a ``log_offset`` below ``place``.

    What waits for its dimensions or its schema stays until ``flagged_before_ms``: only what is here is asked for again.
    """

    before_ms: int
    flagged_before_ms: int
    place: int

    def condition(self) -> str:
        """As SQL."""
        first = _moment(self.before_ms)
        return (
            f"timestamp < {first} AND received_at < {first} AND log_offset < {self.place} "
            f"AND (bitAnd(flags, {_UNKNOWN}) = 0 OR timestamp < {_moment(self.flagged_before_ms)})"
        )

    def as_dict(self) -> dict[str, int]:
        """To be kept."""
        return asdict(self)


def _moment(ms: int) -> str:
    return f"fromUnixTimestamp64Milli(toInt64({ms}), 'UTC')"


def hours(store: RealtimeStore, wanted: Wanted) -> list[tuple[int, int]]:
    """(hour of receipt in ms since the epoch, rows) of what is covered. Raises ``StoreError``."""
    found = store.query_arrow(
        f"SELECT {_HOURS} AS hour, count() FROM {ddl.EVENTS} WHERE {wanted.condition()} GROUP BY 1 ORDER BY 1"
    )
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True)) if found.num_rows else []


def survey(store: RealtimeStore, wanted: Wanted) -> dict[str, int]:
    """``partitions``, ``files`` (parts), ``rows`` and about how many ``bytes`` ``delete`` would take. Raises ``StoreError``."""
    covered = _covered(store, wanted)
    sizes = _sizes(store, ddl.EVENTS)
    found = {"partitions": len(covered), "files": 0, "rows": 0, "bytes": 0}
    for partition, (gone, _) in covered.items():
        size = sizes.get(partition, {"rows": gone, "bytes": 0, "files": 0})
        found["files"] += size["files"]
        found["rows"] += gone
        found["bytes"] += size["bytes"] * gone // max(size["rows"], 1)
    return found


def _covered(store: RealtimeStore, wanted: Wanted) -> dict[str, tuple[int, int]]:
    """By partition: rows that are covered, and rows in all."""
    found = store.query_arrow(
        f"SELECT toString({ddl.EVENTS_PARTITION}) AS partition, countIf({wanted.condition()}) AS gone, count() AS rows "
        f"FROM {ddl.EVENTS} WHERE timestamp < {_moment(wanted.before_ms)} GROUP BY 1 HAVING gone > 0"
    )
    return {row["partition"]: (row["gone"], row["rows"]) for row in found.to_pylist()} if found.num_rows else {}


def _sizes(store: RealtimeStore, table: str) -> dict[str, dict[str, Any]]:
    database, _, name = table.partition(".")
    found = store.query_arrow(_PARTS, {"database": database, "table": store.shape.stored(name)})
    return {row["partition"]: row for row in found.to_pylist()} if found.num_rows else {}


def delete(store: RealtimeStore, wanted: Wanted) -> None:
    """Drop each partition that is covered whole; of others, which late events still come to, delete what is covered.

    Safe to repeat, and beside inserts. Raises ``StoreError``.
    """
    for partition in _covered(store, wanted):
        with store.nothing_inserted():
            gone, rows = _covered(store, wanted).get(partition, (0, -1))
            if gone == rows:
                store.command(f"{store.shape.altered(ddl.EVENTS)} DROP PARTITION '{partition}'")
                continue
        store.command(
            f"{store.shape.altered(ddl.EVENTS)} DELETE IN PARTITION '{partition}' WHERE {wanted.condition()} "
            "SETTINGS mutations_sync = 2"
        )


def old_roll_ups(store: RealtimeStore, before_ms: int) -> dict[str, dict[str, dict[str, Any]]]:
    """By roll-up and partition, what has only rows from before: ``rows``, ``bytes``, ``files``. Raises ``StoreError``."""
    month = int(_month(before_ms))
    return {
        table.name: {name: size for name, size in _sizes(store, table.name).items() if int(name) < month}
        for table in store.roll_ups
    }


def _month(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y%m")


def drop_roll_ups(store: RealtimeStore, before_ms: int) -> None:
    """Drop them. Safe to repeat. Raises ``StoreError``."""
    for table, partitions in old_roll_ups(store, before_ms).items():
        for partition in partitions:
            store.command(f"{store.shape.altered(table)} DROP PARTITION {partition}")
