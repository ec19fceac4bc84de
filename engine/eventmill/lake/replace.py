"""Replacing data files of the events' table by others, in one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction

from eventmill.core.errors import StateError
from eventmill.lake import offsets
from eventmill.lake.iceberg import LakeTable, LiveFile
from eventmill.lake.versions import changed


def replace_files(
    lake: LakeTable,
    table: Table,
    transaction: Transaction,
    replaced: list[LiveFile],
    files: Iterable[DataFile],
    *,
    entries: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
) -> int:
    """Stage it on the newest snapshot, whose entries are copied forward, with more ``entries`` of the summary and
    ``properties`` of the table; gives the snapshot's id. Raises ``StateError`` when one of the replaced files is no longer
    there."""
    live = {file.location for file in lake.live_files(table)}
    if not live.issuperset(file.location for file in replaced):
        raise StateError("another compaction has replaced files that this one read; nothing was changed, run it again")
    if properties:
        transaction.set_properties(dict(properties))
    written = list(files)
    dates = changed([*(old.date for old in replaced), *(new.partition[0] for new in written)])
    summary = {**offsets.carried(table.current_snapshot()), **(entries or {}), **dates}
    with transaction.update_snapshot(snapshot_properties=summary).overwrite() as overwrite:
        # Else a filter of one term for each partition would be evaluated for every manifest.
        overwrite.delete_by_predicate(AlwaysTrue())
        for old in replaced:
            overwrite.delete_data_file(old.data_file)
        for new in written:
            overwrite.append_data_file(new)
    return int(overwrite.snapshot_id)
