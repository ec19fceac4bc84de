"""Forgetting in a running engine, and in a data folder that none holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from eventmill.core import groups
from eventmill.core.config import Config
from eventmill.core.errors import QueryError, StoreError
from eventmill.core.schema import Topic
from eventmill.core.tombstones import Tombstone
from eventmill.serve import forget

if TYPE_CHECKING:
    from eventmill.serve.engine import Engine
    from eventmill.serve.stores import Stores

_UNSTORED = (
    (groups.PROCESS, Topic.RAW),
    (groups.RESCUE, Topic.SUSPECTS),
    (groups.REALTIME, Topic.ENRICHED),
    (groups.LAKE, Topic.ENRICHED),
)


def forget_now(stores: Stores, config: Config, wanted: Tombstone, *, dry_run: bool) -> dict[str, Any]:
    """In a folder that no engine holds. Raises ``StoreError`` when events on the log are not stored yet."""
    log = stores.log
    waiting = sum(log.lag(group, topic, each) for group, topic in _UNSTORED for each in log.partitions(topic))
    if waiting:
        raise StoreError(f"{waiting} events on the log are not stored yet; run `eventmill serve`, then forget again")
    return _forget(stores, config, wanted, dry_run)


def forget_running(engine: Engine, wanted: Tombstone, *, dry_run: bool) -> dict[str, Any]:
    """In an engine: all that is on its way is stored first, then nothing is consumed until it is done."""
    if not engine.flush():
        raise StoreError("the engine could not store what the log holds; see its messages, and forget again")
    with engine.alone, engine.quiet():
        return _forget(engine.stores, engine.config, wanted, dry_run)


def resume_running(engine: Engine) -> None:
    """End what a crash has interrupted, if anything."""
    if forget.pending(engine.config) and engine.flush():
        with engine.alone, engine.quiet():
            forget.resume(engine.stores, engine.config)


def _forget(stores: Stores, config: Config, wanted: Tombstone, dry_run: bool) -> dict[str, Any]:
    if dry_run:
        return forget.survey(stores, wanted)
    forget.resume(stores, config)
    return forget.forget(stores, config, wanted)


def asked(body: bytes) -> tuple[Tombstone, bool]:
    """The body of the engine's own ``/v1/forget``. Raises ``QueryError``."""
    try:
        given = orjson.loads(body)
        return Tombstone(**given["tombstone"]), bool(given["dry_run"])
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise QueryError(f"this is no tombstone: {error}; use `eventmill forget`") from error
