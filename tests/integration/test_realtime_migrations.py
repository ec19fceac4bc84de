"""The store's schema as migrations: an old folder comes along, what was interrupted is repeated, a newer one is refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from test_realtime_store import assert_holds

from eventmill.core.errors import StoreError
from eventmill.sinks.realtime import migrations
from eventmill.sinks.realtime.shape import Shape
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import events
from realtime_v0 import make_old_store
from testbed.process import eventually

FIRST, SECOND, THIRD = (events(2_000, seed=seed, first_offset=4 * seed) for seed in range(3))


def versions(store: RealtimeStore) -> list[int]:
    return migrations.applied(store._clients)


def test_a_folder_from_before_there_were_versions(tmp_path: Path) -> None:
    make_old_store(tmp_path / "realtime", FIRST, SECOND)
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        assert versions(store) == [each.version for each in migrations.MIGRATIONS]
        assert_holds(store, FIRST, SECOND)
        store.insert(SECOND, "again")
        store.insert(THIRD, "third")
        assert_holds(store, FIRST, SECOND, THIRD)
        assert migrations.differences(store._clients) == []


@pytest.mark.parametrize("statements", range(1, 13, 3))
def test_interrupted_after_any_statement(tmp_path: Path, statements: int) -> None:
    """As if the process had been killed there: what has been done is done again."""
    make_old_store(tmp_path / "realtime", FIRST)

    class Dies:
        def __init__(self, store: RealtimeStore) -> None:
            self.query = store._clients.query
            self._command, self.left = store._clients.command, statements

        def command(self, statement: str) -> None:
            if not self.left:
                raise InterruptedError
            self.left -= 1
            self._command(statement)

    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.command("DROP TABLE eventmill.migrations SYNC")
        with pytest.raises(InterruptedError):
            list(migrations.apply(Dies(store), Shape()))
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        assert_holds(store, FIRST)
        store.insert(SECOND, "second")
        assert_holds(store, FIRST, SECOND)


def test_nothing_is_pending_the_second_time(tmp_path: Path) -> None:
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        assert list(migrations.apply(store._clients, Shape())) == []
        assert versions(store) == [each.version for each in migrations.MIGRATIONS]


def test_a_newer_stores_folder_is_refused(tmp_path: Path) -> None:
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.command("INSERT INTO eventmill.migrations (version, name) VALUES (99, 'of tomorrow')")
    with pytest.raises(StoreError, match=r"version 99, this Eventmill knows \d+: a newer one has been here"):
        RealtimeStore(tmp_path / "realtime")


def test_what_somebody_changed_is_told(tmp_path: Path) -> None:
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.command("ALTER TABLE eventmill.sessions DROP COLUMN user_id")
        assert migrations.differences(store._clients) == [
            "eventmill.sessions lacks the column user_id SimpleAggregateFunction(max, Nullable(String))"
        ]


def test_what_was_stored_before_there_were_indexes_gets_them(tmp_path: Path) -> None:
    make_old_store(tmp_path / "realtime", FIRST)
    with closing(RealtimeStore(tmp_path / "realtime")) as store:

        def without() -> int:
            found = store.query_arrow(
                "SELECT count() FROM system.parts WHERE active AND database = 'eventmill' AND table = 'events' "
                "AND secondary_indices_compressed_bytes < 1000"  # that of log_offset takes less
            )
            return int(found.column(0)[0].as_py())

        eventually(lambda: without() == 0, lambda: f"{without()} parts lack their indexes")
        assert_holds(store, FIRST)
        # What is inserted gets them when it is merged.
        store.command("SYSTEM STOP MERGES eventmill.events")
        store.insert(SECOND, "second")
        assert without() == 3
        store.command("SYSTEM START MERGES eventmill.events")
        store.command("OPTIMIZE TABLE eventmill.events FINAL")
        assert without() == 0


def test_an_index_that_is_not_there_is_told(tmp_path: Path) -> None:
    with closing(RealtimeStore(tmp_path / "realtime")) as store:
        store.command("ALTER TABLE eventmill.events DROP INDEX by_device_id")
        (told,) = migrations.differences(store._clients)
        assert told == (
            "eventmill.events lacks the index by_device_id (device_id TYPE bloom_filter(0.01) GRANULARITY 1)"
        )
