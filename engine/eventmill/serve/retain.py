"""Keeping what the rules say, and no more: ``[retention]`` carried out in both stores.

The lake: see ``lake.retire`` and ``lake.cold``. The real-time store in this order, so that each step may be repeated after a
crash: which events go stands on the log, as a condition, in the transaction that enters their counts into the ledger; they are
deleted; that is noted on the log, too.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.log import Count
from eventmill.core.retention import DAY_MS, Rules, before, rules
from eventmill.core.schema import Hop
from eventmill.core.tombstones import record_retired, recorded
from eventmill.lake import cold, retire
from eventmill.lake.aggregates import Aggregates
from eventmill.lake.compact import compact
from eventmill.lake.maintain import maintain
from eventmill.lake.retire import Gone
from eventmill.observe import metrics
from eventmill.serve.place import in_lake
from eventmill.serve.stores import Stores
from eventmill.sinks.realtime import retire as realtime
from eventmill.sinks.realtime.sketches import Sketches

_ROLL_UPS: Final = "aggregates"


def planned(stores: Stores, config: Config, now_ms: int) -> dict[str, Any]:
    """What ``retain`` would do; nothing is changed. Raises ``ConfigError``, ``StoreError``."""
    wanted = rules(config)
    gone, waiting = retire.survey(stores.lake, Aggregates.of(stores.lake), wanted, now_ms)
    moved = cold.survey(stores.lake, wanted, now_ms)
    raw = Gone(retire.Rule.RAW, **realtime.survey(stores.realtime, _wanted(stores, config, wanted, now_ms, 0.0)))
    return _report([*gone, moved], [raw, _old_roll_ups(stores, wanted, now_ms)], waiting)


def retain(
    stores: Stores,
    config: Config,
    now_ms: int,
    *,
    catch_up_s: float = 0.0,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Do it; gives what was done. Safe beside inserts, appends and readers; one at a time.

    ``catch_up_s`` is how long to wait for the lake to have what the real-time store has.

    Raises ``ConfigError``, ``DataFolderBusy`` while the lake is being compacted, ``StoreError``; what has begun is ended by the
    next call.
    """
    wanted = rules(config)
    resume(stores)
    aggregates = Aggregates.of(stores.lake)
    if retire.survey(stores.lake, aggregates, wanted, now_ms)[1]:
        compact(stores.lake, gap_ms=parse_duration_ms(config.process.session_gap), now_ms=now_ms)
    roll = Sketches(stores.realtime)
    gone = retire.retire(stores.lake, aggregates, wanted, roll, now_ms=now_ms, checkpoint=checkpoint)
    moved = cold.move(stores.lake, wanted, now_ms=now_ms, checkpoint=checkpoint)
    maintain(stores.lake, now_ms=now_ms)
    raw = _retire_realtime(stores, _wanted(stores, config, wanted, now_ms, catch_up_s), checkpoint)
    roll_ups = _old_roll_ups(stores, wanted, now_ms)
    realtime.drop_roll_ups(stores.realtime, _first_ms(now_ms, wanted.aggregates_ms))
    report = _report([*gone, moved], [raw, roll_ups], 0)
    for each in report["rules"]:
        metrics.RETIRED.labels(each["store"], each["rule"]).inc(each["rows"])
    return report


def resume(stores: Stores) -> None:
    """Delete from the real-time store what is counted as retired and, after a crash, may still be there."""
    known = recorded(stores.log).retired
    if known and not known[-1].get("done"):
        _delete(stores, realtime.Wanted(**known[-1]))


def _delete(stores: Stores, wanted: realtime.Wanted) -> None:
    realtime.delete(stores.realtime, wanted)
    with stores.log.transaction() as transaction:
        transaction.append([record_retired(uuid.uuid4().hex, {"done": True})])


def _retire_realtime(stores: Stores, wanted: realtime.Wanted, checkpoint: Callable[[str], None]) -> Gone:
    found = realtime.survey(stores.realtime, wanted)
    if found["rows"]:
        hours = realtime.hours(stores.realtime, wanted)
        with stores.log.transaction() as transaction:
            transaction.append([record_retired(uuid.uuid4().hex, wanted.as_dict())])
            transaction.count([Count(Hop.RETIRED, hour, rows) for hour, rows in hours])
        checkpoint("realtime counted")
        _delete(stores, wanted)
        checkpoint("realtime deleted")
    return Gone(retire.Rule.RAW, **found)


def _first_ms(now_ms: int, kept_ms: int) -> int:
    return before(now_ms, kept_ms) * DAY_MS


def _wanted(stores: Stores, config: Config, wanted: Rules, now_ms: int, timeout_s: float) -> realtime.Wanted:
    """Only what the lake has, and what no question is asked about in the real-time store any more."""
    window_ms = parse_duration_ms(config.realtime.window)
    asked = min(now_ms - window_ms, stores.lake.watermark() or 0) // DAY_MS * DAY_MS
    first = min(_first_ms(now_ms, wanted.realtime_ms), max(asked, 0))
    flagged = min(_first_ms(now_ms, wanted.raw_ms), first)
    return realtime.Wanted(first, flagged, in_lake(stores.log, timeout_s))


def _old_roll_ups(stores: Stores, wanted: Rules, now_ms: int) -> Gone:
    tables = realtime.old_roll_ups(stores.realtime, _first_ms(now_ms, wanted.aggregates_ms))
    sizes = [size for partitions in tables.values() for size in partitions.values()]
    months = {name for partitions in tables.values() for name in partitions}
    sums = {name: sum(size[name] for size in sizes) for name in ("files", "rows", "bytes")}
    return Gone(_ROLL_UPS, len(months), **sums)


def _report(lake: list[Gone], in_realtime: list[Gone], waiting: int) -> dict[str, Any]:
    rows = [
        {
            "store": store, "rule": str(each.rule), "partitions": each.partitions, "files": each.files,
            "rows": each.rows, "bytes": each.bytes,
        }
        for store, found in (("lake", lake), ("realtime", in_realtime))
        for each in found
    ]  # fmt: skip
    return {"rules": rows, "waiting": waiting}
