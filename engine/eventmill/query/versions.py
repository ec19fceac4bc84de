"""Versions of what a question reads: equal as long as no row of it has come, gone or changed.

Of the real-time store ClickHouse itself tells: the newest block and the newest mutation of each partition. Merging parts
changes neither. Of the lake the snapshots tell, each of which names the dates that it has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from eventmill.query.asker import Store
from eventmill.query.routing import Route, Span
from eventmill.query.scan import Plan
from eventmill.query.sql import DATABASE

DAY_MS: Final = 86_400_000
#: Given the lake as a FROM expression, the version of its rows of the dates from the first to the last (days since the epoch,
#: both included); null when that is no longer the newest snapshot.
LakeVersion = Callable[[str, int, int], Hashable | None]
_PARTS: Final = (
    "SELECT table, partition, max(max_block_number) AS block, "
    # A part is called PARTITION_FIRST_LAST_LEVEL, and _MUTATION where there was one.
    "max(toUInt64OrZero(arrayElement(splitByChar('_', name), 5))) AS mutation FROM system.parts "
    "WHERE active AND database = {database:String} AND table IN {tables:Array(String)} GROUP BY table, partition ORDER BY ALL"
)
_DAY: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_MONTH: Final = re.compile(r"(\d{4})(\d\d)")
_TABLE: Final = re.compile(rf"\b{DATABASE}\.(\w+)")


def _may_hold(partition: str, span: Span) -> bool:
    """Whether a partition may have events of a span; one of which we do not know what it holds may."""
    day, month = _DAY.fullmatch(partition), _MONTH.fullmatch(partition)
    if day:
        start = date(*map(int, day.groups()))
        end = start + timedelta(1)
    elif month:
        year, number = map(int, month.groups())
        if not 1 <= number <= 12:
            return True
        start, end = date(year, number, 1), date(year + number // 12, number % 12 + 1, 1)
    else:
        return True
    return _ms(start) < span.end and _ms(end) > span.start


def _ms(at: date) -> int:
    return int(datetime(at.year, at.month, at.day, tzinfo=UTC).timestamp()) * 1_000


def version_of(store: Store, lake: LakeVersion, source: str | None, way: Route, plan: Plan) -> Hashable | None:
    """The version of all that a plan reads on its way, from ``source`` as the lake; null when that cannot be told. May raise
    ``StoreError``."""
    found: list[Hashable] = []
    if way.lake is not None and source is not None:
        of_lake = lake(source, way.lake.start // DAY_MS, (way.lake.end - 1) // DAY_MS)
        if of_lake is None:
            return None
        found.append(of_lake)
    if way.realtime is not None:
        tables = sorted(set(_TABLE.findall(plan.sql)))
        rows = store.query_arrow(_PARTS, {"database": DATABASE, "tables": tables})
        for row in rows.to_pylist() if rows.num_rows else []:
            found += [tuple(row.values())] if _may_hold(row["partition"], way.realtime) else []
    return tuple(found)
