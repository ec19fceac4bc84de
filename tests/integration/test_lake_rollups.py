"""The lake's roll-ups: which files they have, through compaction, crashes and files that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventmill.core.config import QueryConfig
from eventmill.core.lake_rollups import DAYS, LAKE_ROLL_UPS, file_key
from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from eventmill.query.service import QueryService
from eventmill.sinks.realtime.lake_rollups import LakeRollUps
from eventmill.sinks.realtime.store import RealtimeStore
from lake_events import DAY_MS, GAP_MS, START_MS, batch, row

NOW = START_MS + 30 * DAY_MS
BODY = {"from": "2026-05-27", "to": "2026-05-30", "interval": "day"}


class World:
    def __init__(self, folder: Path) -> None:
        self.store, self.lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        self.rolled = LakeRollUps(self.store)
        self.service = QueryService(
            self.store, self.lake.source_sql, QueryConfig(), window_ms=DAY_MS, clock=lambda: NOW,
            files_of=self.lake.files_of, is_rolled_up=lambda file: self.rolled.has(file),
        )  # fmt: skip
        self._appended = 0

    def append(self, *numbers: int, day: int = 0) -> None:
        rows = [row(n, device_id=f"d{n % 3}", timestamp=START_MS + day * DAY_MS + n * 1_000) for n in numbers]
        self.lake.append(batch(rows), group="lake", ranges={0: (self._appended, self._appended + 1)})
        self._appended += 1

    def compact(self) -> None:
        compact(self.lake, gap_ms=GAP_MS, now_ms=NOW)

    def keep_up(self) -> int:
        source = self.lake.source_sql()
        assert source is not None
        return self.rolled.keep_up(source, self.lake.files_of(source) or ())

    def values(self, measure: str = "events") -> list[Any]:
        return [value for _, value in self.service.ask("trends", BODY | {"measure": measure})["rows"]]

    def tables(self) -> set[str]:
        return {each["table"] for each in self.service.explain("trends", BODY)["tables"]}

    def kept(self) -> set[int]:
        table = self.store.query_arrow(f"SELECT DISTINCT file FROM {DAYS.name}")
        return set(table.column(0).to_pylist()) if table.num_rows else set()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    made = World(tmp_path)
    yield made
    made.service.close()
    made.store.close()
    made.lake.close()


def test_what_is_compacted_is_rolled_up_and_what_came_since_is_read(world):
    world.append(1, 2, 3)
    world.append(2, 4, day=1)  # 2 is a duplicate that only compaction finds
    assert world.keep_up() == 0
    assert world.tables() == {"lake.events"}
    world.compact()
    assert world.values() == [3, 1, 0] or world.values() == [2, 2, 0]
    exact = world.values(), world.values("devices"), world.values("sessions")
    assert world.keep_up() == 2
    assert world.tables() == {DAYS.name}
    assert (world.values(), world.values("devices"), world.values("sessions")) == exact
    world.append(5, day=2)
    assert world.tables() == {DAYS.name, "lake.events"}
    assert world.values() == [*exact[0][:2], 1]


def test_files_that_are_gone_are_forgotten_one_round_later(world):
    world.append(1, 2)
    world.compact()
    world.keep_up()
    before = world.kept()
    world.append(3)
    world.compact()
    assert world.keep_up() == 1
    # Who has planned by the snapshot before still finds what it needs.
    assert before < world.kept()
    assert world.values() == [3, 0, 0]
    world.keep_up()
    assert world.kept().isdisjoint(before)
    assert world.values() == [3, 0, 0]


@pytest.mark.parametrize("table", LAKE_ROLL_UPS, ids=lambda table: table.name)
@pytest.mark.parametrize("again", [False, True], ids=["missing", "twice"])
def test_what_a_crash_has_left_half_done_is_done_again(world, table, again):
    world.append(*range(10))
    world.compact()
    source = world.lake.source_sql()
    (file,) = world.lake.files_of(source)
    # One table has the file, or has it twice; the other has not.
    for _ in range(1 + again):
        world.store.command(table.fill(source, [file.name]))
    world.rolled = LakeRollUps(world.store)
    assert not world.rolled.has(file)
    assert world.values() == [10, 0, 0]
    assert world.tables() == {"lake.events"}
    assert world.keep_up() == 1
    assert LakeRollUps(world.store).has(file)
    assert (world.values(), world.tables()) == ([10, 0, 0], {DAYS.name})


def test_clickhouse_names_files_as_we_do(world):
    name = "compacted-ü-00001.parquet"
    (found,) = world.store.query_arrow("SELECT xxh3({name:String})", {"name": name}).column(0).to_pylist()
    assert found == file_key(name)


def test_events_are_counted_by_the_files_of_one_snapshot_only(world):
    """A negative control: roll-ups of files that are gone would count their events twice."""
    world.append(1, 2)
    world.compact()
    world.keep_up()
    world.append(3)
    world.compact()
    world.keep_up()
    (every,) = world.store.query_arrow(f"SELECT sum(events) FROM {DAYS.name}").column(0).to_pylist()
    assert every == 5
    assert world.values() == [3, 0, 0]
