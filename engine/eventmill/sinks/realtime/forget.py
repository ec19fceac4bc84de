"""Deleting what a tombstone covers from the real-time store, and putting its roll-ups right.

Roll-ups first, then the events: while the events are there, what has to be put right can be found again, so all of it may be
repeated after a crash. Each partition of a roll-up is replaced in one step by a copy that was computed beside it. Nothing may
be inserted meanwhile.
"""

from __future__ import annotations

from typing import Any, Final

from eventmill.core.tombstones import SALT, Tombstone
from eventmill.sinks.realtime import ddl
from eventmill.sinks.realtime.rollups import RollUp
from eventmill.sinks.realtime.store import RealtimeStore

_HOURS: Final = "toInt64(toUnixTimestamp(toStartOfHour(received_at))) * 1000"

_LENGTH_S: Final = {"minute": 60, "hour": 3_600, "day": 86_400}


def condition(tombstone: Tombstone) -> str:
    """What it covers of ``eventmill.events``, as SQL; the same as ``Tombstone.mask``. It holds no text that anybody chose."""
    before = _moment(tombstone.before_ms)
    terms = [f"(timestamp < {before} OR received_at < {before})"]
    if tombstone.from_ms is not None:
        terms.append(f"timestamp >= {_moment(tombstone.from_ms)}")
    if tombstone.to_ms is not None:
        terms.append(f"timestamp < {_moment(tombstone.to_ms)}")
    terms += _named(tombstone)
    if tombstone.user is not None:
        terms.append(_user(tombstone.user))
    return " AND ".join(terms)


def _named(tombstone: Tombstone) -> list[str]:
    names = ", ".join(f"unhex('{name.encode().hex()}')" for name in tombstone.names)
    return [f"event IN ({names})"] if names else []


def _user(digest: str) -> str:
    return f"lower(hex(SHA256(concat('{SALT}', ifNull(user_id, ''))))) = '{digest}' AND user_id IS NOT NULL"


def _moment(ms: int) -> str:
    return f"fromUnixTimestamp64Milli(toInt64({ms}), 'UTC')"


def count(store: RealtimeStore, tombstone: Tombstone) -> dict[str, Any]:
    """``rows`` covered, in how many ``parts``, and ``hours``: (hour of receipt in ms since the epoch, rows). Raises
    ``StoreError``."""
    where = condition(tombstone)
    hours = store.query_arrow(f"SELECT {_HOURS} AS hour, count() FROM {ddl.EVENTS} WHERE {where} GROUP BY 1 ORDER BY 1")
    pairs = list(zip(*(column.to_pylist() for column in hours.columns), strict=True)) if hours.num_rows else []
    parts = store.query_arrow(f"SELECT uniqExact(_part) FROM {ddl.EVENTS} WHERE {where}")
    return {"rows": sum(rows for _, rows in pairs), "parts": parts.column(0)[0].as_py(), "hours": pairs}


def delete(store: RealtimeStore, tombstone: Tombstone) -> None:
    """Delete the rows, and put the roll-ups right where the events that they were made of are all there. Of retired events,
    and on a cluster, the numbers go where all of a minute, an hour or a day is covered; else they stay, without the user's
    id. Safe to repeat. Raises ``StoreError``."""
    where = condition(tombstone)
    for table in store.roll_ups:
        if not store.shape.cluster:  # where no statement replaces a part of the roll-ups of all servers in one step
            _put_right(store, table, where)
        if tombstone.user is None and table is not ddl.SESSIONS:
            _drop_whole(store, table, tombstone)
    if tombstone.user is not None:
        # A session that the user's id stands in no longer has an event of theirs before the tombstone: see above.
        store.command(
            f"{store.shape.altered(ddl.SESSIONS.name)} UPDATE user_id = NULL WHERE {_user(tombstone.user)} "
            f"AND started < {_moment(tombstone.before_ms)} AND (session_id, day) NOT IN (SELECT session_id, "
            f"toDate(timestamp) FROM {store.shape.stored(ddl.EVENTS)} WHERE {_user(tombstone.user)} AND NOT ({where})) "
            "SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1"
        )
    store.command(f"{store.shape.altered(ddl.EVENTS)} DELETE WHERE {where} SETTINGS mutations_sync = 2")


def _drop_whole(store: RealtimeStore, table: RollUp, tombstone: Tombstone) -> None:
    """Rows of which every event is covered go, also where the events themselves are retired."""
    column, length_s = table.keys[0], _LENGTH_S[table.keys[0]]
    start = f"toInt64(toUnixTimestamp(toDateTime({column}, 'UTC')))"
    end_s = min(tombstone.before_ms, tombstone.before_ms if tombstone.to_ms is None else tombstone.to_ms) // 1_000
    terms = [f"{start} + {length_s} <= {end_s}"]
    if tombstone.from_ms is not None:
        terms.append(f"{start} >= {-(-tombstone.from_ms // 1_000)}")
    terms += _named(tombstone)
    where = " AND ".join(terms)
    found = store.query_arrow(f"SELECT count() FROM {table.name} WHERE {where}")
    if found.column(0)[0].as_py():
        store.command(f"{store.shape.altered(table.name)} DELETE WHERE {where} SETTINGS mutations_sync = 2")


def _put_right(store: RealtimeStore, table: RollUp, where: str) -> None:
    """Each partition with rows of what goes: those are taken out, and made anew of the events that stay."""
    own, made = ", ".join(table.keys), ", ".join(table.keys_of_events)
    beside = f"{table.name}_forget"
    events = table.rows(ddl.EVENTS)
    partitions = store.query_arrow(f"SELECT DISTINCT {table.partition} FROM {events} WHERE {where}")
    for partition in partitions.column(0).to_pylist() if partitions.num_rows else []:
        mine = f"(SELECT * FROM {ddl.EVENTS} WHERE {table.partition} = {partition})"
        whole = f"""(
            SELECT {own} FROM (
                SELECT {table.keyed}, toInt64(count()) AS made, countIf({where}) AS gone FROM {table.rows(mine)}
                GROUP BY {own} HAVING gone > 0
            ) AS of_events ALL INNER JOIN (
                SELECT {own}, toInt64(sum(events)) AS there FROM {table.name}
                WHERE {table.own_partition} = {partition} GROUP BY {own}
            ) AS of_roll_up USING ({own}) WHERE made = there)"""
        kept = f"(SELECT * FROM {mine} WHERE NOT ({where}))"
        store.command(f"DROP TABLE IF EXISTS {beside} SYNC")
        store.command(f"CREATE TABLE {beside} AS {table.name}")
        store.command(
            f"INSERT INTO {beside} SELECT * FROM {table.name} "
            f"WHERE {table.own_partition} = {partition} AND ({own}) NOT IN {whole}"
        )
        store.command(f"INSERT INTO {beside} {table.query(kept, f'({made}) IN {whole}')}")
        # ClickHouse refuses to replace a partition by nothing.
        left = store.query_arrow(f"SELECT count() FROM {beside}").column(0)[0].as_py()
        change = f"REPLACE PARTITION {partition} FROM {beside}" if left else f"DROP PARTITION {partition}"
        store.command(f"ALTER TABLE {table.name} {change}")
        store.command(f"DROP TABLE {beside} SYNC")
