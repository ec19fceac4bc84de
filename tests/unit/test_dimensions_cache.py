"""The cache before Redis beside a dictionary with ends; the breaker; files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.config import Config, DimensionsConfig, load
from eventmill.core.errors import ConfigError
from eventmill.core.schema import Flag
from eventmill.process.dimensions.breaker import Breaker, State
from eventmill.process.dimensions.cache import ABSENT, NULL, Cache
from eventmill.process.dimensions.files import read_dimensions, write_dimensions
from eventmill.process.dimensions.source import open_dimensions
from eventmill.process.pipeline import build_stages

UNKNOWN = int(Flag.DIMENSIONS_UNKNOWN)
USERS = pa.table(
    {"user_id": ["a", "b", "007"], "country": ["DE", None, "FR"], "segment": ["new", "x", None], "tier": ["1", "", "z"]}
)
keys = st.one_of(st.none(), st.integers(0, 30).map("user-{}".format), st.just(""))
steps = st.lists(
    st.tuples(st.lists(keys, max_size=30), st.integers(0, 4), st.integers(1, 6)), max_size=40
)  # what is asked for, how much later, how long it holds


class Twin:
    """A dictionary of (number, end)."""

    def __init__(self):
        self.entries = {}

    def find(self, asked, now):
        live = {key: number for key, (number, end) in self.entries.items() if end > now}
        return [NULL if key is None else live.get(key, ABSENT) for key in asked]


def drive(taken, entries_max, put_twin=lambda twin, key, number, end: twin.entries.__setitem__(key, (number, end))):
    cache, twin, now, number = Cache(entries_max), Twin(), 0.0, 0
    for asked, later, holds in taken:
        now += later
        found = cache.find(pa.array(asked, pa.string()), now).tolist()
        yield cache, found, twin.find(asked, now)
        absent = list(dict.fromkeys(key for key, one in zip(asked, found, strict=True) if one == ABSENT))
        numbers = np.arange(number, number + len(absent), dtype=np.int32)
        number += len(absent)
        cache.put(pa.array(absent, pa.string()), numbers, np.full(len(absent), now + holds))
        for key, one in zip(absent, numbers.tolist(), strict=True):
            put_twin(twin, key, one, now + holds)


@given(steps)
def test_it_answers_as_a_dictionary_does(taken):
    for _, found, wanted in drive(taken, 1_000):
        assert found == wanted


@given(steps)
def test_bounded_it_forgets_but_never_errs(taken):
    for cache, found, wanted in drive(taken, 8):
        assert all(one in (ABSENT, twin) for one, twin in zip(found, wanted, strict=True))
        assert len(cache) <= 30


def test_a_twin_that_never_forgets_is_caught():
    """Negative control of the first property."""
    taken = [(["user-1"], 0, 1), (["user-1"], 2, 1)]
    forever = drive(taken, 1_000, lambda twin, key, number, _: twin.entries.__setitem__(key, (number, 1e9)))
    assert any(found != wanted for _, found, wanted in forever)


def test_memory_is_bounded_and_a_hit_stays_a_hit_over_many_merges():
    cache = Cache(10_000)
    for start in range(0, 100_000, 700):
        names = pa.array([f"user-{number}" for number in range(start, start + 700)])
        assert (cache.find(names, start) == ABSENT).all()
        cache.put(names, np.arange(start, start + 700, dtype=np.int32), np.full(700, start + 1e6))
        assert cache.find(names, start).tolist() == list(range(start, start + 700))
        assert len(cache) <= 10_000
        assert cache.nbytes < 10_000 * 150


def test_a_clock_that_goes_back_brings_nothing_back():
    cache = Cache(10)
    cache.put(pa.array(["a"]), np.zeros(1, np.int32), np.full(1, 5.0))
    assert cache.find(pa.array(["a"]), 4.0).tolist() == [0]
    assert cache.find(pa.array(["a"]), 5.0).tolist() == [ABSENT]
    assert cache.find(pa.array(["a"]), 1.0).tolist() == [ABSENT]


def test_the_breaker_opens_probes_and_closes():
    now, told = [0.0], []
    breaker = Breaker(3, 1.0, lambda: now[0], told.append)
    breaker.failed()
    breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert breaker.state is State.CLOSED
    breaker.failed()
    assert (breaker.state, breaker.due) == (State.OPEN, False)
    now[0] = 1.0
    assert breaker.due
    breaker.probe()
    assert not breaker.due
    breaker.failed()
    assert not breaker.due
    now[0] = 2.0
    breaker.probe()
    breaker.succeeded()
    # One more failure, and nobody waits again.
    breaker.failed()
    assert breaker.state is State.OPEN
    assert told == [State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.CLOSED, State.OPEN]


@pytest.mark.parametrize("name", ["users.parquet", "users.csv", "users.ndjson", "users.arrow"])
def test_every_format_reads_back(tmp_path, name):
    write_dimensions(USERS, tmp_path / name)
    read = read_dimensions(tmp_path / name)
    assert read.column("user_id").to_pylist() == ["a", "b", "007"]
    assert read.column("country").to_pylist() == ["DE", None, "FR"]
    assert read.column("segment").to_pylist() == ["new", "x", None]
    assert [value or None for value in read.column("tier").to_pylist()] == ["1", None, "z"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user_id,country,segment\na,b,c\n", "lacks the column 'tier'"),
        ("user_id,country,segment,tier\na,,,\na,,,\n", "twice"),
        ("user_id,country,segment,tier\n,DE,,\n", "without user_id"),
        ("user_id,country,segment,tier\na,b\n", "does? not read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, says):
    (tmp_path / "users.csv").write_text(text)
    with pytest.raises(ConfigError, match=says.replace("does? ", "do ")):
        read_dimensions(tmp_path / "users.csv")


def batch(*users, flags=0):
    return pa.record_batch(
        {"user_id": pa.array(users, pa.string()), "flags": pa.array([flags] * len(users), pa.int32())}
    )


def test_a_changed_file_is_read_within_the_ttl(tmp_path):
    path, now = tmp_path / "users.csv", [0.0]
    write_dimensions(USERS, path)
    dimensions = open_dimensions(DimensionsConfig(file=str(path), ttl="60s"), clock=lambda: now[0])
    assert dimensions.apply(batch("a", "c", None)).to_pylist()[0]["country"] == "DE"
    assert dimensions.apply(batch("a", "c", None)).column("flags").to_pylist() == [0, UNKNOWN, 0]
    write_dimensions(pa.table({**dict(zip(USERS.column_names, [["c"], ["longer"], ["s"], ["t"]], strict=True))}), path)
    assert dimensions.apply(batch("a")).column("flags").to_pylist() == [0]
    assert dimensions.mend(pa.array(["c", "d"])).apply(batch("c", "d", flags=UNKNOWN)).column("flags").to_pylist() == [
        0,
        UNKNOWN,
    ]
    now[0] = 60.0
    assert dimensions.apply(batch("c")).column("country").to_pylist() == ["longer"]
    path.write_text("nonsense")
    now[0] = 120.0
    assert dimensions.apply(batch("c")).column("country").to_pylist() == ["longer"]
    assert dimensions.mend(pa.array(["c"])) is None


@pytest.mark.parametrize("url", ["nonsense", "http://host", "redis://host:port/0"])
def test_a_url_that_is_none_is_said_and_not_shown(url):
    with pytest.raises(ConfigError, match=r"dimensions\.redis") as caught:
        open_dimensions(DimensionsConfig(redis=url))
    assert url not in str(caught.value)


def test_folds_leave_dimensions_out():
    from eventmill.core.stage import in_folds

    assert [stage.name for stage in build_stages(Config()) if not in_folds(stage)] == ["enrich"]


def test_settings_are_checked():
    assert load(environ={"EVENTMILL_DIMENSIONS__TTL": "10s"}).dimensions.ttl == "10s"
    with pytest.raises(ConfigError, match=r"dimensions\.timeout"):
        load(environ={"EVENTMILL_DIMENSIONS__TIMEOUT": "soon"})
