"""Forgetting a user, an event or a time range: both stores, the log, the dead letters, and whatever would bring it back.

In this order, so that each step may be repeated after a crash: the tombstone stands on the log, from where the sinks apply it;
what there is is counted, and the counts are recorded in the transaction that enters them into the ledger; then the real-time
store, the lake and the log are rid of it. The receipt is written before and after.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from eventmill.core import frame, groups
from eventmill.core.clock import now_ms, parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.errors import ConfigError, StoreError
from eventmill.core.log import Count, Frame, Log, StoredFrame
from eventmill.core.renames import AS_STORED, Renames
from eventmill.core.schema import DEAD, Hop, Topic
from eventmill.core.tombstones import Mask, Tombstone, Tombstones, digest, record, recorded
from eventmill.lake.compact import compact
from eventmill.lake.forget import count_aggregates, covered, forget_aggregates
from eventmill.lake.maintain import maintain
from eventmill.query.saved import SavedQuestions
from eventmill.serve import retain
from eventmill.serve.stores import Stores
from eventmill.sinks.realtime import forget as realtime

_READ_EVENTS: Final = 50_000
#: Topics that hold events, and who must have taken a frame before it is touched.
_TOPICS: Final = {
    Topic.RAW: (groups.PROCESS,),
    Topic.SUSPECTS: (groups.RESCUE,),
    Topic.ENRICHED: (groups.REALTIME, groups.LAKE),
    Topic.DEAD: (),
}


def tombstone(
    user: str | None, event: str | None, from_ms: int | None, to_ms: int | None, renames: Renames = AS_STORED
) -> Tombstone:
    """Of what there is now; of an event also what stands under the names that it had before.

    Raises ``ConfigError`` when nothing is named, or nothing can be meant.
    """
    if user is None and event is None and from_ms is None and to_ms is None:
        raise ConfigError(
            "say what to forget: --user ID, --event NAME, --from TIME, --to TIME, or some of them together"
        )
    if "" in (user, event):
        raise ConfigError("an empty user or event is nobody's and nothing's; name one")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise ConfigError("--from must lie before --to")
    older = () if event is None else renames.older(event)
    return Tombstone(uuid.uuid4().hex, now_ms(), None if user is None else digest(user), event, from_ms, to_ms, older)


def survey(stores: Stores, wanted: Tombstone) -> dict[str, Any]:
    """What is there of it, by store and topic. Nothing may be consumed meanwhile."""
    files = stores.lake.live_files()
    rows = covered(files, wanted)
    topics: dict[str, dict[str, int]] = {}
    for topic, partition, end in _places(stores.log):
        found = _count(stores.log, topic, partition, end, wanted)
        sums = topics.setdefault(str(topic), {"frames": 0, "events": 0})
        sums["frames"] += found[0]
        sums["events"] += found[1]
    return {
        "realtime": realtime.count(stores.realtime, wanted),
        "lake": {"files": len(rows), "rows": sum(map(len, rows.values()))},
        "aggregates": count_aggregates(stores.lake, wanted),
        "topics": topics,
        "saved_questions": len(SavedQuestions(stores.log).naming(_named(wanted))),
    }


def _named(wanted: Tombstone) -> Callable[[str], bool]:
    """Whether a value names the user that is to be forgotten altogether; what is known of them is the digest."""
    if wanted.user is None or wanted.event is not None or wanted.from_ms is not None or wanted.to_ms is not None:
        return lambda _: False
    return lambda text: digest(text) == wanted.user


def forget(
    stores: Stores, config: Config, wanted: Tombstone, *, checkpoint: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Delete it; gives the receipt. Nothing may be consumed meanwhile, and every insert must have come to its end.

    Raises ``StoreError``. What has begun is ended by ``resume``.
    """
    receipt = _write(config, {"id": wanted.id, "at_ms": wanted.before_ms, "done": False, "what": _what(wanted)}, wanted)
    checkpoint("receipt")
    return _carry_out(stores, config, wanted, receipt, checkpoint)


def resume(
    stores: Stores, config: Config, *, checkpoint: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """End what a crash has interrupted; gives the receipts."""
    receipts = []
    for path in pending(config):
        draft = orjson.loads(path.read_bytes())
        wanted = Tombstone(**draft.pop("tombstone"))
        receipts.append(_carry_out(stores, config, wanted, draft, checkpoint))
    return receipts


def pending(config: Config) -> list[Path]:
    """Receipts of what has begun and not ended."""
    return sorted((config.data / "forgotten").glob("*.pending.json"))


def _carry_out(
    stores: Stores, config: Config, wanted: Tombstone, receipt: dict[str, Any], checkpoint: Callable[[str], None]
) -> dict[str, Any]:
    _refuse_open_inserts(stores.log)
    retain.resume(stores)  # what is counted as retired is not to be counted as forgotten, too
    known = recorded(stores.log)
    if all(each.id != wanted.id for each in known.tombstones):
        with stores.log.transaction() as transaction:
            transaction.append([record(wanted)])
    stores.tombstones.add(wanted)
    checkpoint("tombstone")
    counted = known.counted.get(wanted.id)
    if counted is None:
        counted = survey(stores, wanted)
        with stores.log.transaction() as transaction:
            transaction.append([record(wanted, counted)])
            transaction.count([Count(Hop.FORGOTTEN, hour, rows) for hour, rows in counted["realtime"]["hours"]])
    checkpoint("counted")
    realtime.delete(stores.realtime, wanted)
    checkpoint("realtime")
    compact(stores.lake, gap_ms=parse_duration_ms(config.process.session_gap), now_ms=now_ms(), forget=wanted)
    forget_aggregates(stores.lake, wanted)
    checkpoint("lake")
    # What held the rows must go now, and not when its time has come.
    tidied = maintain(stores.lake, now_ms=now_ms(), snapshots_kept=1, grace_ms=0)
    checkpoint("files")
    kept = _scrub(stores.log, wanted, counted["topics"])
    if counted.get("saved_questions"):
        SavedQuestions(stores.log).forget(_named(wanted))
    checkpoint("log")
    receipt |= {
        "done": True,
        "done_at_ms": now_ms(),
        "realtime": {name: counted["realtime"][name] for name in ("rows", "parts")},
        "lake": {
            **counted["lake"], "files_deleted": tidied.files_removed, "snapshots_expired": tidied.snapshots_expired
        },
        "aggregates": counted.get("aggregates", {"files": 0, "events": 0}),
        "topics": counted["topics"],
        "dead_letters": counted["topics"][Topic.DEAD]["events"],
        "saved_questions": counted.get("saved_questions", 0),
        "left_to_retention": kept,
    }  # fmt: skip
    return _write(config, receipt, None)


def _what(wanted: Tombstone) -> dict[str, Any]:
    named = {
        "user_sha256": wanted.user, "event": wanted.event, "older_names": list(wanted.older) or None,
        "from_ms": wanted.from_ms, "to_ms": wanted.to_ms,
    }  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}


def _refuse_open_inserts(log: Log) -> None:
    for partition in log.partitions(Topic.ENRICHED):
        if log.intent(groups.REALTIME, Topic.ENRICHED, partition) is not None:
            raise StoreError("an insert into the real-time store is not at its end; try again when the engine is well")


def _places(log: Log) -> list[tuple[Topic, int, int]]:
    """Topic, partition, and the offset below which nobody has still to read."""
    return [
        (topic, each, min((log.committed(group, topic, each) for group in takers), default=log.end_offset(topic, each)))
        for topic, takers in _TOPICS.items()
        for each in log.partitions(topic)
    ]


def _gone(topic: Topic, batch: pa.RecordBatch, wanted: Tombstone) -> Mask:
    """Which rows of a topic's batch go."""
    if topic is Topic.DEAD:
        return Tombstones([wanted]).mask_of_letters(frame.conform(batch, DEAD))
    return wanted.mask(batch)


def _count(log: Log, topic: Topic, partition: int, end: int, wanted: Tombstone) -> tuple[int, int]:
    frames = events = 0
    position = log.start_offset(topic, partition)
    while position < end:
        found = log.read(topic, partition, position, events_max=_READ_EVENTS, to_offset=end)
        if not found:
            break
        position = found[-1].offset + 1
        for together, batch in frame.batches(found):
            gone = np.flatnonzero(_gone(topic, batch, wanted))
            frames += len({each.offset for each in frame.owners(together, gone)})
            events += len(gone)
    return frames, events


def _scrub(log: Log, wanted: Tombstone, counted: dict[str, dict[str, int]]) -> list[str]:
    """Take it out of the log's frames; gives the topics that hold it until their retention is over."""

    def change(stored: StoredFrame) -> Frame | None:
        batch = frame.decode(stored)
        gone = _gone(stored.topic, batch, wanted)
        return frame.encode(stored.topic, batch.filter(pa.array(~gone))) if gone.any() else None

    places = _places(log)
    for topic, partition, end in places:
        if counted[topic]["events"]:
            log.rewrite(topic, partition, end, change)
    left = (
        str(topic)
        for topic, partition, end in places
        if counted[topic]["events"] and _count(log, topic, partition, end, wanted)[1]
    )
    return sorted(set(left))


def _write(config: Config, receipt: dict[str, Any], wanted: Tombstone | None) -> dict[str, Any]:
    """Durable, for its owner's eyes only; with a tombstone it is one of what has only begun."""
    folder = config.data / "forgotten"
    folder.mkdir(exist_ok=True)
    unfinished, finished = folder / f"{receipt['id']}.pending.json", folder / f"{receipt['id']}.json"
    content = receipt if wanted is None else receipt | {"tombstone": wanted.as_dict()}
    draft = folder / f"{receipt['id']}.part"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, orjson.dumps(content, option=orjson.OPT_INDENT_2))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(unfinished if wanted is not None else finished)
    if wanted is None:
        unfinished.unlink(missing_ok=True)
    return receipt | {"receipt": str(finished)}
