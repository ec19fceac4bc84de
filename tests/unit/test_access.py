"""Scopes of keys: which key passes where, what the others are told, and how often one may ask."""

from __future__ import annotations

import base64
import itertools

import orjson
import pytest

from eventmill.core.config import AccessConfig
from eventmill.core.errors import ConfigError
from eventmill.net.access import CHANGES, Access
from eventmill.net.keys import HASHED, Keys, WriteKeys, fingerprint
from eventmill.net.messages import Request
from serving import eventmill

ASKS = (
    "/v1/query/sql",
    "/v1/query/trends",
    "/v1/live",
    "/v1/trace/x",
    "/v1/status",
    "/v1/audit",
    "/v1/pipeline",
    "/v1/dead",
)
WRITE, READ, ADMIN = "w", "r", "a"


def hashed(key):
    return f"{HASHED}{fingerprint(key).hex()}"


def asked(path, key=None, kind="application/json", scheme="Bearer"):
    text = base64.b64encode(f"{key}:".encode()).decode() if scheme == "Basic" else key
    headers = {} if key is None else {"authorization": f"{scheme} {text}"}
    return Request("POST", path, {}, {**headers, "content-type": kind}, b"{}")


def access(read=(READ,), admin=(ADMIN,), write=(WRITE,), **limits):
    return Access(AccessConfig(read_keys=read, admin_keys=admin, **limits), WriteKeys(write))


def status(door, *given, **more):
    refusal = door.refuse(asked(*given, **more))
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize("make", [str, hashed])
@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_each_key_passes_where_its_scope_reaches_and_nowhere_else(make, scheme):
    door = access((make(READ),), (make(ADMIN),), (make(WRITE),))
    expected = {
        None: (401, 401), "other": (401, 401), "": (401, 401), WRITE: (403, 403), READ: (200, 403), ADMIN: (200, 200),
    }  # fmt: skip
    for key, (asks, changes) in expected.items():
        assert {status(door, path, key, scheme=scheme) for path in ASKS} == {asks}, key
        assert {status(door, path, key, scheme=scheme) for path in CHANGES} == {changes}, key


def test_a_hash_itself_is_no_key():
    assert status(access((hashed(READ),)), ASKS[0], hashed(READ)) == 401


def test_a_change_by_another_spelling_is_still_a_change():
    assert status(access(), "/v1/replay/", READ) == 403


def test_without_keys_whoever_reaches_the_server_may_ask_and_a_write_key_may_change():
    door = access((), ())
    assert door.open
    assert {status(door, path) for path in ASKS} == {200}
    assert [status(door, "/v1/replay", key) for key in (None, "other", WRITE)] == [401, 401, 200]
    assert status(access((), (), ()), "/v1/replay") == 200


def test_read_keys_without_admin_keys_leave_changes_to_nobody():
    refusal = access(admin=()).refuse(asked("/v1/replay", READ))
    assert refusal.status == 403
    assert "access.admin_keys" in orjson.loads(refusal.body)["error"]


def test_admin_keys_alone_close_the_door_too():
    door = access(read=())
    assert [status(door, ASKS[0], key) for key in (None, ADMIN)] == [401, 200]


def test_any_write_key_being_accepted_opens_nothing_else():
    assert [status(access(write=()), path, "anything") for path in (ASKS[0], "/v1/replay")] == [401, 401]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""])
def test_what_a_page_of_another_site_can_send_changes_nothing(kind):
    assert status(access((), (), ()), "/v1/replay", None, kind) == 415


def test_a_key_may_ask_so_often_and_then_again_as_time_passes():
    times = itertools.chain([0.0] * 7, [9.0, 10.0, 10.0, 1000.0], itertools.repeat(1000.0))
    door = Access(
        AccessConfig(read_keys=(READ, "other"), requests_per_minute=6), WriteKeys(()), now=lambda: next(times)
    )
    assert [status(door, ASKS[0], READ) for _ in range(7)] == [200] * 6 + [429]
    refusal = door.refuse(asked(ASKS[0], READ))
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, "1")
    assert [status(door, ASKS[0], READ) for _ in range(2)] == [200, 429]
    # What was left unused does not add up beyond a minute's worth; another key has its own.
    assert [status(door, ASKS[0], READ) for _ in range(7)] == [200] * 6 + [429]
    assert status(door, ASKS[0], "other") == 200


@pytest.mark.parametrize("wrong", ["", " ", "sha256:", "sha256:12", "sha256:" + "x" * 64, "sha256:" + "0" * 65])
def test_a_key_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ConfigError):
        Keys([wrong])


def test_a_new_key_fits_its_hash():
    made = orjson.loads(eventmill("keys", "new", "--json").stdout)
    assert Keys([made["hash"]]).accepts(made["key"])
    assert len(made["key"]) >= 32
    assert orjson.loads(eventmill("keys", "new", "--json").stdout)["key"] != made["key"]
    assert b"access.read_keys" in eventmill("keys", "new").stdout
