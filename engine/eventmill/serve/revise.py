"""Events that were stored while nobody knew their schema are judged when it is known, in both stores.

They have been counted as stored, and stay so: the flag SCHEMA_UNKNOWN goes, and where the schema is broken SCHEMA_BROKEN comes
in its place. The lake is put right by compaction; then the real-time store, only as far as the lake had come before, so that
what is flagged there still tells what the lake may hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from eventmill.core.frame import conform, to_batch
from eventmill.core.schema import EVENT, Flag
from eventmill.process.put_right import revised
from eventmill.process.schemas.ruling import Ruling
from eventmill.sinks.realtime.ddl import EVENTS
from eventmill.sinks.realtime.store import RealtimeStore

_ROWS: Final = 20_000
_UNKNOWN: Final = int(Flag.SCHEMA_UNKNOWN)
_BROKEN: Final = int(Flag.SCHEMA_BROKEN)
_FLAGGED: Final = f"""
    SELECT log_offset, event_id, event::String AS event, properties, context, flags FROM eventmill.events
    WHERE bitAnd(flags, {_UNKNOWN}) != 0 AND log_offset < {{end:UInt64}}
      AND (log_offset, event_id) > ({{offset:UInt64}}, unhex({{id:String}}))
    ORDER BY log_offset, event_id LIMIT {_ROWS}"""


def any_flagged(store: RealtimeStore, flag: Flag = Flag.SCHEMA_UNKNOWN) -> bool:
    """Whether the real-time store holds events with that flag; by default those that nobody has judged."""
    table = store.query_arrow(f"SELECT count() FROM eventmill.events WHERE bitAnd(flags, {int(flag)}) != 0")
    return bool(table.num_rows and table.column(0)[0].as_py())


def revise_realtime(store: RealtimeStore, ruling: Ruling, end: int) -> int:
    """Judge the store's flagged events below the enriched topic's offset ``end``; gives how many are known now."""
    known = 0
    for rows in _flagged(store, end):
        changed = revised(conform(to_batch(rows.select(["event", "properties", "context", "flags"])), EVENT), ruling)
        before = rows.column("flags").to_numpy()
        after = changed.column("flags").to_numpy()
        for put, gone in ((_BROKEN, _UNKNOWN), (0, _UNKNOWN)):
            chosen = (after & _UNKNOWN == 0) & (before & _UNKNOWN != 0) & ((after & _BROKEN != 0) == (put != 0))
            if chosen.any():
                ids = rows.column("event_id").filter(pa.array(chosen)).to_pylist()
                # As one text: thousands of terms would be too much for ClickHouse's parser.
                listed = f"splitByChar(',', '{','.join(identity.hex() for identity in ids)}')"
                store.command(
                    f"{store.shape.altered(EVENTS)} UPDATE flags = bitOr(bitAnd(flags, {~gone & 0x7FFFFFFF}), {put}) "
                    f"WHERE bitAnd(flags, {gone}) != 0 "
                    f"AND event_id IN (SELECT toFixedString(unhex(arrayJoin({listed})), 16)) "
                    "SETTINGS mutations_sync = 1, allow_nondeterministic_mutations = 1, max_query_size = 100000000"
                )
                known += len(ids)
    return known


def _flagged(store: RealtimeStore, end: int) -> Iterator[pa.Table]:
    offset, identity = 0, ""
    while True:
        rows = store.query_arrow(_FLAGGED, {"end": end, "offset": offset, "id": identity})
        if rows.num_rows == 0:
            return
        last = rows.slice(rows.num_rows - 1).to_pylist()[0]
        offset, identity = last["log_offset"], last["event_id"].hex()
        yield rows
