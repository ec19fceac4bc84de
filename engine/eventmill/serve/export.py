"""Everything of one user: the stored events and the dead letters, into a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from eventmill.core import frame, groups
from eventmill.core.config import Config
from eventmill.core.errors import ConfigError, DataFolderBusy, StoreError
from eventmill.core.ids import format_event_id
from eventmill.core.log import Log
from eventmill.core.schema import DEAD, EVENT, Flag, Topic
from eventmill.core.tombstones import client_event
from eventmill.lake.iceberg import LakeTable
from eventmill.lake.person import events_of
from eventmill.serve.engine_log import open_log
from eventmill.serve.folder import DataFolder, existing_stores
from eventmill.serve.remote import ask

_READ_EVENTS: Final = 10_000
_UNSTORED: Final = ((groups.PROCESS, Topic.RAW), (groups.RESCUE, Topic.SUSPECTS), (groups.LAKE, Topic.ENRICHED))


@dataclass(frozen=True, slots=True)
class ExportReport:
    """How much was written."""

    events: int
    dead_letters: int

    def as_dict(self) -> dict[str, int]:
        """For machines."""
        return asdict(self)


def export_user(config: Config, user_id: str, out: Path | BinaryIO) -> ExportReport:
    """Write every event whose ``user_id`` is that, once, and every dead letter whose ``userId`` is.

    A path ending in ``.parquet`` gets EVENT's columns, and beside it ``NAME.dead.parquet`` the letters, if there are any.
    Anything else gets a JSON object a line: ``{"event": {…}}``, then ``{"dead_letter": {…}}``. Files are for their owner's
    eyes only, and appear when they are whole. Every event stands in the lake, so that is what is read; what is still on its
    way there is stored first. Raises ``ConfigError``, ``StoreError``.
    """
    existing_stores(config)
    with _settled(config):
        log = open_log(config)
        lake = LakeTable(config.lake_dir, config.lake.partitions_max, settings=config.lake)
        try:
            events, letters = events_of(lake, user_id), _dead_letters(log, user_id)
            if not isinstance(out, Path):
                return _lines(events, letters, out)
            if out.suffix == ".parquet":
                return _tables(events, letters, out)
            with _whole(out) as draft, draft.open("wb") as file:
                return _lines(events, letters, file)
        finally:
            lake.close()
            log.close()


@contextlib.contextmanager
def _settled(config: Config) -> Iterator[None]:
    """Everything accepted so far stands in the lake: a running engine is asked for that, else the log must be empty."""
    try:
        folder = DataFolder(config.data)
    except DataFolderBusy:
        if not ask(config, "POST", "/v1/flush")["stored"]:
            raise StoreError(
                "the engine could not store what the log holds; see its messages, and export again"
            ) from None
        yield
        return
    with folder:
        log = open_log(config)
        try:
            waiting = sum(log.lag(group, topic, each) for group, topic in _UNSTORED for each in log.partitions(topic))
        finally:
            log.close()
        if waiting:
            raise StoreError(
                f"{waiting} events on the log are not stored yet; run `eventmill serve`, then export again"
            )
        yield


def _dead_letters(log: Log, user_id: str) -> Iterator[pa.Table]:
    for partition in log.partitions(Topic.DEAD):
        position, end = log.start_offset(Topic.DEAD, partition), log.end_offset(Topic.DEAD, partition)
        while position < end:
            frames = log.read(Topic.DEAD, partition, position, events_max=_READ_EVENTS, to_offset=end)
            if not frames:
                break
            position = frames[-1].offset + 1
            letters = frame.decode_all(frames, DEAD)
            mine = [client_event(payload).get("userId") == user_id for payload in letters.column("payload").to_pylist()]
            if any(mine):
                yield pa.Table.from_batches([letters.filter(pa.array(mine))])


def _lines(events: Iterator[pa.Table], letters: Iterator[pa.Table], out: BinaryIO) -> ExportReport:
    counts = {"event": 0, "dead_letter": 0}
    for kind, tables in (("event", events), ("dead_letter", letters)):
        for table in tables:
            for row in table.to_pylist():
                out.write(orjson.dumps({kind: _readable(row)}, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))
                counts[kind] += 1
    out.flush()
    return ExportReport(counts["event"], counts["dead_letter"])


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """JSON as objects, flags by name, times in ISO 8601 to the millisecond, nothing that is null."""
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if value is None:
            continue
        if name == "event_id":
            shown[name] = format_event_id(value)
        elif name == "flags":
            shown[name] = [flag.name for flag in Flag(value)]
        elif name in ("properties", "context", "payload"):
            shown[name] = orjson.Fragment(value)
        elif isinstance(value, datetime):
            shown[name] = value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        else:
            shown[name] = value
    return shown


def _tables(events: Iterator[pa.Table], letters: Iterator[pa.Table], out: Path) -> ExportReport:
    with _whole(out) as draft:
        stored = _parquet(events, EVENT, draft)
        first = next(letters, None)
        dead = 0
        if first is not None:
            with _whole(out.with_suffix(".dead.parquet")) as beside:
                dead = _parquet(_chain(first, letters), DEAD, beside)
    return ExportReport(stored, dead)


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _parquet(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> int:
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(schema))
            rows += table.num_rows
    return rows


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to that becomes ``path`` when the block ends well."""
    draft = path.with_name(path.name + ".part")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        yield draft
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; name another file by --out") from error
    finally:
        draft.unlink(missing_ok=True)
