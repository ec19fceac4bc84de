"""Users' dimensions in the engine: their metrics, and events that were stored while they were unknown.

Those are put right by compaction, in both stores from one answer: first it is asked who the flagged users are, then the lake is
put right, then the real-time store as far as the lake had come before. So what is flagged in the real-time store always
tells what the lake may hold. Neither roll-up holds a dimension of users, so nothing else changes.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.schema import DIMENSION_NAMES, Flag
from eventmill.kernels.enrich import Enricher
from eventmill.observe import metrics
from eventmill.process.dimensions.breaker import State
from eventmill.process.dimensions.source import Dimensions
from eventmill.process.put_right import answers
from eventmill.sinks.realtime.ddl import EVENTS
from eventmill.sinks.realtime.store import RealtimeStore

_UNKNOWN: Final = int(Flag.DIMENSIONS_UNKNOWN)
_REST: Final = 0x7FFFFFFF & ~_UNKNOWN
#: Users put right in one cycle; the others wait for the next one.
USERS_MAX: Final = 2_000_000
#: Users of one statement: their ids stand in it.
_PAGE: Final = 20_000
_USERS: Final = f"""
    SELECT user_id::String AS user_id FROM eventmill.events
    WHERE bitAnd(flags, {_UNKNOWN}) != 0 AND log_offset < {{end:UInt64}} AND user_id IS NOT NULL
    GROUP BY user_id ORDER BY user_id LIMIT {USERS_MAX}"""
_COUNT: Final = (
    f"SELECT count() FROM eventmill.events WHERE bitAnd(flags, {_UNKNOWN}) != 0 AND log_offset < {{end:UInt64}}"
)


class Counted:
    """Tells the metrics what a cache before Redis does."""

    def joined(self, hits: int, misses: int, unknown: int) -> None:
        """See ``Told``."""
        metrics.DIMENSION_HITS.inc(hits)
        metrics.DIMENSION_MISSES.inc(misses)
        metrics.DIMENSION_UNKNOWN.inc(unknown)

    def asked(self, users: int, seconds: float, failed: bool) -> None:
        """See ``Told``."""
        metrics.DIMENSION_LOOKUPS.inc(users)
        metrics.DIMENSION_SECONDS.observe(seconds)
        if failed:
            metrics.DIMENSION_ERRORS.labels("unanswered").inc()

    def nonsense(self, users: int) -> None:
        """See ``Told``."""
        metrics.DIMENSION_ERRORS.labels("nonsense").inc(users)

    def turned(self, state: State) -> None:
        """See ``Told``."""
        metrics.DIMENSION_BREAKER.set(int(state))


def known_now(store: RealtimeStore, dimensions: Dimensions, end: int) -> Enricher | None:
    """Of the users of the store's flagged events below the enriched topic's offset ``end``, those who are known now."""
    users = store.query_arrow(_USERS, {"end": end})
    if not users.num_rows:
        return None
    return dimensions.mend(users.column("user_id").combine_chunks().cast(pa.string()))


def revise_dimensions(store: RealtimeStore, known: Enricher, end: int) -> int:
    """Put right the store's flagged events below the enriched topic's offset ``end``; gives how many."""
    before = _count(store, end)
    users = store.query_arrow(_USERS, {"end": end})
    if not users.num_rows:
        return 0
    rows = answers(users.column("user_id").combine_chunks(), known)
    for start in range(0, rows.num_rows, _PAGE):
        store.command(_update(store.shape.altered(EVENTS), rows.slice(start, _PAGE), end))
    return before - _count(store, end)


def _count(store: RealtimeStore, end: int) -> int:
    return int(store.query_arrow(_COUNT, {"end": end}).column(0)[0].as_py())


def _update(alter: str, rows: pa.RecordBatch, end: int) -> str:
    """One statement that needs nothing beside it, so that one cut off by a crash goes on after it."""
    ids = _texts(rows.column("user_id"))
    sets = []
    for name in DIMENSION_NAMES:
        words = pc.fill_null(rows.column(name).cast(pa.string()), "").dictionary_encode()
        numbers = f"splitByChar(',', '{','.join(str(code + 1) for code in words.indices.to_pylist())}')"
        numbers = f"arrayMap(n -> toUInt32(n), {numbers})"
        word = f"arrayElement({_texts(words.dictionary)}, transform(assumeNotNull(user_id), {ids}, {numbers}, 1))"
        sets.append(f"{name} = nullIf({word}, '')")
    return (
        f"{alter} UPDATE {', '.join(sets)}, flags = bitAnd(flags, {_REST}) "
        f"WHERE bitAnd(flags, {_UNKNOWN}) != 0 AND log_offset < {end} AND user_id IN (SELECT arrayJoin({ids})) "
        "SETTINGS mutations_sync = 1, allow_nondeterministic_mutations = 1, max_query_size = 100000000"
    )


def _texts(values: pa.Array) -> str:
    """An array of strings in SQL, in which no text can mean anything: hexadecimal."""
    joined = ",".join(value.encode().hex() for value in values.to_pylist())
    return f"arrayMap(x -> unhex(x), splitByChar(',', '{joined}'))"
