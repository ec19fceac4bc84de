"""Exactly once in the real-time store: SIGKILL at random points, and every state that a kill can leave.

What a kill leaves is a subset of the parts that the insert would have made (a part is atomic), and a duplicate check that
remembers some of them, or one too many. Both are made here by hand too, so that no window is too small to be tested.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from realtime_child import BATCHES, KILLS, ROWS, TYPED, batch, open_store
from test_realtime_properties import assert_typed
from test_realtime_store import assert_holds

from eventmill.core.errors import StoreUnavailable
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import events
from realtime_server import store_on
from testbed.clickhouse import ClickHouse


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, str(here / "realtime_child.py"), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        yield process


def wait_for_intent(folder: Path, child: int) -> None:
    """Until the process has begun another insert, or has ended."""
    progress = folder / "progress"
    before = progress.read_text().count("intent") if progress.exists() else 0
    while not progress.exists() or progress.read_text().count("intent") == before:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.001)


@pytest.mark.parametrize("where", ["embedded", pytest.param("server", marks=pytest.mark.soak)])
def test_killed_at_random_points(
    tmp_path: Path, forks: subprocess.Popen[str], where: str, request: pytest.FixtureRequest
) -> None:
    """A server goes on with what a killed client had sent it."""
    assert forks.stdin
    assert forks.stdout
    if where == "server":
        url = request.getfixturevalue("clickhouse")
        store_on(url)().close()
        (tmp_path / "url").write_text(url)
    rng = random.Random(5)
    torn = 0
    for _ in range(KILLS):
        forks.stdin.write("\n")
        forks.stdin.flush()
        child = int(forks.stdout.readline())
        wait_for_intent(tmp_path, child)
        time.sleep(rng.random() * 0.12)
        os.kill(child, signal.SIGKILL)
        assert int(forks.stdout.readline()) == -signal.SIGKILL
        torn += (tmp_path / "progress").read_text().split("\n")[-2].startswith("intent")
    forks.stdin.write("\n")
    forks.stdin.flush()
    forks.stdout.readline()
    assert forks.stdout.readline().strip() == "0"
    print(f"{torn} of {KILLS} kills within an insert")
    assert torn >= KILLS // 4
    with closing(open_store(tmp_path)) as store:
        assert_holds(store, *map(batch, range(BATCHES)))
        assert_typed(store, TYPED, *map(batch, range(BATCHES)))


def test_the_server_killed_in_the_middle_of_inserts(clickhouse_server: ClickHouse, clickhouse: str) -> None:
    """Whoever inserts waits, and brings the same rows again."""
    opened = store_on(clickhouse)
    rng, batches = random.Random(7), [batch(number) for number in range(KILLS)]
    with closing(opened()) as store:
        store.declare(TYPED)
        for number, rows in enumerate(batches):
            fatal = threading.Timer(rng.random() * 0.3, clickhouse_server.kill) if number % 2 else None
            if fatal is not None:
                fatal.start()
            try:
                store.insert(rows, f"token {number}")
            except StoreUnavailable:
                clickhouse_server.start()
                store.insert(rows, f"token {number}")
            if fatal is not None:
                fatal.join()
                clickhouse_server.start()
        assert_holds(store, *batches)
        assert_typed(store, TYPED, *batches)


FIRST, SECOND, THIRD = (events(ROWS, seed=seed, first_offset=12 * seed) for seed in range(3))


@contextmanager
def without_merges(folder: Path) -> Iterator[RealtimeStore]:
    with closing(RealtimeStore(folder)) as store:
        store.command("SYSTEM STOP MERGES")
        yield store


def parts_of(store: RealtimeStore) -> set[Path]:
    found = store.query_arrow("SELECT path FROM system.parts WHERE active AND database = 'eventmill'")
    return {Path(path) for path in found.column("path").to_pylist()}


@pytest.fixture(scope="module")
def two_inserts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A closed store with two inserts, and the parts of the second, relative to it."""
    folder = tmp_path_factory.mktemp("two") / "realtime"
    with without_merges(folder) as store:
        store.insert(FIRST, "first")
        before = parts_of(store)
        store.insert(SECOND, "second")
        new = parts_of(store) - before
    assert len(new) == 7  # events: three days; each roll-up: one month
    return folder, sorted(part.relative_to(folder) for part in new)


def copy_without(original: Path, copy: Path, parts: list[Path]) -> Path:
    """The store as it would be if the kill had come before these parts; the duplicate check remembers them."""
    shutil.copytree(original, copy, symlinks=True)
    for part in parts:
        shutil.rmtree(copy / part)
    # What the copy's metadata says must not lead back to the original.
    for link in (copy / "metadata").glob("*"):
        if link.is_symlink():
            target = str(link.readlink())
            link.unlink()
            link.symlink_to(target.replace(str(original), str(copy)))
    return copy


def days_of_events(parts: list[Path]) -> list[Path]:
    return [part for part in parts if len(part.name.split("_")[0]) == len("20260529")]


def forget(folder: Path) -> None:
    """The duplicate check loses what it has written last, as if the kill had come before that."""
    for log in folder.rglob("deduplication_logs/*.txt"):
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(lines[: len(lines) // 2]))


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("mask", [0b0000000, 0b0000001, 0b0100110, 0b1011010, 0b0011001, 0b1111111])
def test_every_state_that_a_kill_can_leave(
    two_inserts: tuple[Path, list[Path]], tmp_path: Path, mask: int, forgotten: bool
) -> None:
    original, parts = two_inserts
    gone = [part for place, part in enumerate(parts) if mask >> place & 1]
    copy = copy_without(original, tmp_path / "copy", gone)
    if forgotten:
        forget(copy)
    with closing(RealtimeStore(copy)) as store:
        store.insert(SECOND, "second")
        store.insert(THIRD, "third")
        assert_holds(store, FIRST, SECOND, THIRD)


def rows(store: RealtimeStore) -> int:
    count: int = store.query_arrow("SELECT count() FROM eventmill.events").column(0)[0].as_py()
    return count


def as_if_sure(store: RealtimeStore, batch: pa.RecordBatch) -> None:
    """Insert as in the middle of a run, where only ClickHouse's duplicate check stands against a repetition."""
    store._stored_through = -1
    store.insert(batch, "second")


def test_control_the_duplicate_check_alone_loses_rows(two_inserts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """The reason for asking the tables: the check remembers a part that is not there."""
    original, parts = two_inserts
    copy = copy_without(original, tmp_path / "copy", [days_of_events(parts)[0]])
    with closing(RealtimeStore(copy)) as store:
        as_if_sure(store, SECOND)
        assert rows(store) < 2 * ROWS


def test_control_the_duplicate_check_alone_doubles_rows(two_inserts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """And the other way round: it has forgotten a part that is there."""
    copy = copy_without(two_inserts[0], tmp_path / "copy", [])
    forget(copy)
    with closing(RealtimeStore(copy)) as store:
        as_if_sure(store, SECOND)
        assert rows(store) > 2 * ROWS


@pytest.mark.parametrize(("window", "copies"), [(1_000, 1), (0, 2)])
def test_control_the_window(tmp_path: Path, window: int, copies: int) -> None:
    """Window 0 turns the check off, and the same insert under the same token doubles."""
    with closing(RealtimeStore(tmp_path / "realtime", window=window)) as store:
        store.insert(FIRST, "first")
        store.insert(SECOND, "second")
        as_if_sure(store, SECOND)
        assert rows(store) == (1 + copies) * ROWS
        rolled = store.query_arrow("SELECT sum(events) FROM eventmill.events_1m").column(0)[0].as_py()
        assert rolled == (1 + copies) * ROWS
