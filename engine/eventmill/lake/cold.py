"""The cold tier: files that are hardly read any more, written once again to take less room, in a place of their own.

They lie in ``cold/`` beside ``data/``: a folder that may be a link to a cheaper disk, a prefix of a bucket to which a lifecycle
rule of the store's own may apply. Rows are ordered by device, so that all that repeats within one compresses to nearly nothing.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table, Transaction

from eventmill.core.errors import ConfigError
from eventmill.core.retention import Rules, before
from eventmill.lake.compact import FILE_ROWS_MAX
from eventmill.lake.files import FileWriter, encoded, memory_bytes, read, require, uncommitted
from eventmill.lake.iceberg import Kind, LakeTable, LiveFile
from eventmill.lake.lock import exclusive
from eventmill.lake.replace import replace_files
from eventmill.lake.retire import Checkpoint, Gone, Rule

#: What a file may take in memory: all of its rows are ordered at once.
FILE_BYTES_MAX: Final = 1 << 29


def due(files: Iterable[LiveFile], rules: Rules, now_ms: int) -> list[list[LiveFile]]:
    """The files to be moved, by date, oldest first. What is to be enriched again, and a date with new files, wait."""
    first = before(now_ms, rules.cold_ms)
    by_date: dict[int, list[LiveFile]] = defaultdict(list)
    for file in files:
        if file.date < first:
            by_date[file.date].append(file)
    settled = (members for _, members in sorted(by_date.items()) if not any(file.appended for file in members))
    found = ([file for file in members if file.kind is Kind.COMPACTED] for members in settled)
    return [members for members in found if members]


def survey(lake: LakeTable, rules: Rules, now_ms: int) -> Gone:
    """What ``move`` would move once what is to be retired has gone. Raises ``StoreError``."""
    raw_before = before(now_ms, rules.raw_ms)
    return _gone(due((file for file in lake.live_files() if file.date >= raw_before), rules, now_ms))


def move(lake: LakeTable, rules: Rules, *, now_ms: int, checkpoint: Checkpoint = lambda _: None) -> Gone:
    """Move what is due to the cold tier, in one commit a date; gives what was moved, its bytes as they were.

    Safe beside appends and readers, and to repeat. Raises ``DataFolderBusy``, ``StateError``, ``StoreError``; ``ConfigError``
    when the cold folder cannot be.
    """
    with exclusive(lake.folder):
        found = due(lake.live_files(), rules, now_ms)
        if found:
            _link(lake, rules.cold_folder)
        for members in found:
            _move(lake, members, checkpoint)
    return _gone(found)


def _gone(found: list[list[LiveFile]]) -> Gone:
    files = [file for members in found for file in members]
    size = sum(file.data_file.file_size_in_bytes for file in files)
    return Gone(Rule.COLD, len(found), len(files), sum(file.rows for file in files), size)


def _link(lake: LakeTable, folder: str) -> None:
    """Let ``cold/`` be a link to ``folder``, if one is named."""
    if not folder:
        return
    if lake.storage.remote:
        raise ConfigError(
            "retention.cold_folder is for a lake in a folder; in a bucket give the prefix cold/ a lifecycle rule"
        )
    target, place = Path(folder).expanduser().absolute(), lake.events / "cold"
    if place.is_symlink() and place.resolve() == target.resolve():
        return
    if place.exists():
        raise ConfigError(
            f"the cold tier lies in {place.resolve()}, not in retention.cold_folder = {folder!r}: move that folder's content "
            f"there, put the link {place} in its place, and run it again"
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise ConfigError(f"retention.cold_folder = {folder!r} cannot be used: {error}") from error


def _move(lake: LakeTable, members: list[LiveFile], checkpoint: Checkpoint) -> None:
    with uncommitted(lake) as paths:
        writer, run = FileWriter(lake, lake.load()), uuid.uuid4().hex
        files = [
            writer.write(_ordered(pack), pack[0].date, pack[0].group, f"{Kind.COLD}-{run}-{number:05d}", paths)
            for number, pack in enumerate(_packs(members))
        ]
        checkpoint("cold files written")

        def stage(newest: Table, transaction: Transaction) -> int:
            require(lake.storage, paths)
            return replace_files(lake, newest, transaction, members, files)

        lake.commit(stage)
    checkpoint("cold")


def _packs(members: list[LiveFile]) -> list[list[LiveFile]]:
    by_group: dict[str, list[LiveFile]] = defaultdict(list)
    for file in members:
        by_group[file.group].append(file)
    packs = []
    for files in by_group.values():
        pack: list[LiveFile] = []
        rows = size = 0
        for file in files:
            more = memory_bytes(file)
            if pack and (rows + file.rows > FILE_ROWS_MAX or size + more > FILE_BYTES_MAX):
                packs.append(pack)
                pack, rows, size = [], 0, 0
            pack.append(file)
            rows, size = rows + file.rows, size + more
        packs.append(pack)
    return packs


def _ordered(pack: list[LiveFile]) -> pa.Table:
    rows = encoded(pa.concat_tables([read(file) for file in pack]).combine_chunks())
    order = pc.sort_indices(
        pa.table({"device": rows.column("device_id"), "at": rows.column("timestamp")}),
        sort_keys=[("device", "ascending"), ("at", "ascending")],
    )
    return rows.take(order)
