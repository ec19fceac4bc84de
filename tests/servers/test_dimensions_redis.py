"""Dimensions from a real Redis that is killed, slow, reset, emptied, or holds other types than it should."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest
import redis as redis_py

from eventmill.core.config import DimensionsConfig
from eventmill.core.errors import StoreError
from eventmill.core.schema import Flag
from eventmill.process.dimensions.breaker import State
from eventmill.process.dimensions.redis_table import RedisTable
from eventmill.process.dimensions.source import open_dimensions
from testbed.faults import FaultProxy
from testbed.process import eventually, free_port

UNKNOWN = int(Flag.DIMENSIONS_UNKNOWN)


class Heard:
    """What was told."""

    def __init__(self):
        self.hits = self.misses = self.unknown = self.users = self.failures = self.without_sense = 0
        self.states = []

    def joined(self, hits, misses, unknown):
        self.hits, self.misses, self.unknown = self.hits + hits, self.misses + misses, self.unknown + unknown

    def asked(self, users, seconds, failed):
        self.users, self.failures = self.users + users, self.failures + failed

    def nonsense(self, users):
        self.without_sense += users

    def turned(self, state):
        self.states.append(state)


class Rig:
    """Dimensions behind a fault proxy, with a clock that is set."""

    def __init__(self, server, **settings):
        self.server, self.now, self.heard = server, 0.0, Heard()
        self.client = redis_py.Redis.from_url(server.url)
        address = f"127.0.0.1:{free_port()}"
        self.proxy = FaultProxy({address: f"127.0.0.1:{server.port}"})
        self.proxy.start()
        config = DimensionsConfig(redis=f"redis://{address}/0", **{"timeout": "5s", "slow": "5s", **settings})
        self.store = open_dimensions(config, self.heard, clock=lambda: self.now)

    def put(self, user, country, segment="s", tier="t"):
        self.client.hset(f"eventmill:user:{user}", mapping={"country": country, "segment": segment, "tier": tier})

    def ask(self, *users):
        """(country, flag) of each."""
        rows = pa.record_batch(
            {"user_id": pa.array(users, pa.string()), "flags": np.full(len(users), int(Flag.LATE), np.int32)}
        )
        got = self.store.apply(rows)
        assert set(got.column("flags").to_pylist()) <= {int(Flag.LATE), int(Flag.LATE) | UNKNOWN}
        return [
            (country, bool(flags & UNKNOWN))
            for country, flags in zip(got.column("country").to_pylist(), got.column("flags").to_pylist(), strict=True)
        ]

    def close(self):
        self.store.close()
        self.client.close()
        self.proxy.close()


@pytest.fixture
def rig(redis):
    made = []

    def make(**settings):
        made.append(Rig(redis, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


KNOWN, STRANGER, LOST = ("DE", False), (None, False), (None, True)


def test_only_what_the_cache_lacks_is_asked_for_once(rig):
    dims = rig()
    dims.put("a", "DE")
    dims.put("b", "FR")
    assert dims.ask("a", "b", "a", None, "nobody", "a") == [
        KNOWN, ("FR", False), KNOWN, STRANGER, STRANGER, KNOWN,
    ]  # fmt: skip
    assert dims.ask("a", "b", "nobody", "a") == [KNOWN, ("FR", False), STRANGER, KNOWN]
    heard = dims.heard
    assert (heard.users, heard.hits, heard.misses, heard.unknown, heard.failures) == (3, 4, 5, 0, 0)
    assert dims.ask() == []


def test_a_change_reaches_new_events_within_the_ttl(rig):
    dims = rig(ttl="300s", negative_ttl="60s")
    dims.put("a", "DE")
    assert dims.ask("a", "new") == [KNOWN, STRANGER]
    dims.put("a", "FR")
    dims.put("new", "DE")
    dims.now = 59.9
    assert dims.ask("a", "new") == [KNOWN, STRANGER]
    dims.now = 60.0
    assert dims.ask("a", "new") == [KNOWN, KNOWN]
    dims.now = 300.0
    assert dims.ask("a") == [("FR", False)]
    dims.client.flushall()
    dims.now = 600.0
    assert dims.ask("a") == [STRANGER]


def test_a_key_without_sense_is_unknown_and_the_others_are_not(rig):
    dims = rig(negative_ttl="60s")
    dims.put("a", "DE")
    dims.client.set("eventmill:user:text", "DE")
    dims.client.rpush("eventmill:user:list", "DE")
    dims.put("bytes", b"\xff\xfe")
    dims.put("long", "x" * 300)
    assert dims.ask("text", "a", "list", "bytes", "long") == [LOST, KNOWN, LOST, LOST, LOST]
    assert (dims.heard.without_sense, dims.heard.failures, dims.store.breaker.state) == (4, 0, State.CLOSED)
    assert dims.ask("text") == [LOST]
    assert dims.heard.users == 5
    RedisTable(DimensionsConfig(redis=dims.server.url), timeout_s=5).load([(b"text", b"DE", b"", b"")], None)
    dims.now = 60.0
    assert dims.ask("text") == [KNOWN]


def closed_again(dims, user):
    """Moments pass until the breaker has closed."""

    def probe():
        dims.now += 1
        dims.ask(user)
        return dims.store.breaker.state is State.CLOSED

    eventually(probe, lambda: "the breaker closes")


def test_killed_it_is_left_alone_and_found_again(rig):
    dims = rig(breaker_errors=2)
    dims.put("a", "DE")
    assert dims.ask("a") == [KNOWN]
    dims.server.kill()
    assert dims.ask("a", "b") == [KNOWN, LOST]
    assert dims.ask("a", "b") == [KNOWN, LOST]
    assert dims.store.breaker.state is State.OPEN
    asked = dims.heard.users
    assert dims.ask("b", "c") == [LOST, LOST]
    assert dims.heard.users == asked, "with the breaker open nobody is asked for"
    assert dims.heard.unknown == 4
    dims.server.mend()
    dims.put("b", "DE")
    closed_again(dims, "zzz")
    dims.now += 100
    assert dims.ask("b") == [KNOWN]
    assert dims.heard.states[0] is State.CLOSED
    assert {State.OPEN, State.HALF_OPEN} <= set(dims.heard.states)


def test_stalled_a_batch_waits_no_longer_than_the_timeout_and_an_open_breaker_not_at_all(rig):
    dims = rig(timeout="200ms", breaker_errors=2)
    dims.put("a", "DE")
    dims.proxy.stall()
    begun = time.monotonic()
    assert dims.ask("a") == [LOST]
    assert dims.ask("b") == [LOST]
    eventually(lambda: dims.ask("c") == [LOST] and dims.store.breaker.state is State.OPEN, lambda: "it opens")
    assert time.monotonic() - begun < 30  # without a bound it would stand here for good
    dims.proxy.heal()
    closed_again(dims, "zzz")
    dims.now += 100
    assert dims.ask("a") == [KNOWN]


def test_slow_answers_count_and_then_it_is_left_alone_until_it_is_quick(rig):
    dims = rig(slow="100ms", breaker_errors=2)
    dims.put("a", "DE")
    dims.proxy.conditions.latency_s = 0.2
    assert dims.ask("a") == [KNOWN]
    assert dims.ask("b") == [STRANGER]
    assert dims.store.breaker.state is State.OPEN
    assert dims.ask("a", "c") == [KNOWN, LOST]
    dims.now += 1
    dims.ask("c")
    assert dims.store.breaker.state is State.HALF_OPEN
    eventually(lambda: dims.ask("c") == [LOST] and dims.store.breaker.state is State.OPEN, lambda: "the probe is slow")
    dims.proxy.heal()
    closed_again(dims, "c")
    dims.now += 100
    assert dims.ask("c") == [STRANGER]
    assert dims.heard.failures == 0


def test_a_slow_trickle_does_not_hold_a_batch(rig):
    """Each piece comes in time, the whole does not: a timeout of the socket alone would wait for all of it."""
    dims = rig(timeout="300ms")
    users = [f"user-{number}" for number in range(5_000)]
    for user in users[:10]:
        dims.put(user, "DE")
    dims.proxy.conditions.latency_s = 0.15
    got = dims.ask(*users)
    assert got[-1] == LOST
    assert dims.heard.failures == 1
    assert dims.heard.unknown > 0


def test_answers_that_came_before_the_end_count(rig):
    dims = rig(timeout="5s", breaker_errors=1)
    users = [f"user-{number}" for number in range(2_500)]
    RedisTable(DimensionsConfig(redis=dims.server.url), timeout_s=5).load(
        [(user.encode(), b"DE", b"s", b"t") for user in users], None
    )
    dims.client.set("eventmill:user:x", "1")
    asked = dims.store._table.ask

    def breaks_after_one_chunk(*given):
        for number, replies in enumerate(asked(*given)):
            if number:
                raise StoreError("gone")
            yield replies

    dims.store._table.ask = breaks_after_one_chunk
    got = dims.ask(*users)
    assert got == [KNOWN] * 1_000 + [LOST] * 1_500
    assert dims.store.breaker.state is State.OPEN


def test_reset_and_sliced_connections(rig):
    dims = rig(breaker_errors=100)
    dims.put("a", "DE")
    dims.proxy.conditions.slice_bytes = 3
    assert dims.ask("a") == [KNOWN]
    for round_ in range(20):
        dims.now += 1_000
        dims.proxy.reset()
        # A connection that was reset while idle costs at most this batch; the next one has another.
        first, second = dims.ask("a")[0], dims.ask("a")[0]
        assert first in (KNOWN, LOST), round_
        assert second == KNOWN


def test_refused_by_redis_itself_is_an_outage_and_the_password_stays_secret(rig, caplog):
    dims = rig()
    dims.client.config_set("requirepass", "s3cret")
    try:
        fresh = rig()
        assert fresh.ask("a") == [LOST]
        with pytest.raises(StoreError, match="does not answer") as caught:
            RedisTable(DimensionsConfig(redis=dims.server.url.replace("//", "//:wr0ng@")), timeout_s=5).ping()
        assert "wr0ng" not in str(caught.value) + caplog.text
    finally:
        redis_py.Redis.from_url(dims.server.url, password="s3cret").config_set("requirepass", "")


def test_any_user_id_is_asked_for_as_it_is(rig):
    dims = rig()
    users = ["", " ", "a\r\nFLUSHALL\r\n", "*1\r\n$8\r\nFLUSHALL\r\n", "ü\u20ac\U0001f600", "x" * 5_000, "\x00"]
    for user in users:
        dims.put(user, "DE")
    assert dims.ask(*users) == [KNOWN] * len(users)
    assert dims.client.dbsize() == len(users)


def test_more_combinations_than_are_kept_begin_anew(rig, monkeypatch):
    from eventmill.process.dimensions import cached

    monkeypatch.setattr(cached, "_WORDS_MAX", 5)
    dims = rig()
    for number in range(40):
        dims.put(number, f"country-{number}")
    for start in range(0, 40, 4):
        names = [str(number) for number in range(start, start + 4)]
        assert dims.ask(*names) == [(f"country-{name}", False) for name in names]
