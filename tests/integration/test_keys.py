"""Keys of a real server: what each may do, whose events it sees, and how often it may ask."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventmill.core.config import load
from eventmill.core.errors import ConfigError
from eventmill.net.grants import CALLER, parse
from eventmill.net.keys import HASHED, fingerprint
from serving import Serving, eventmill

CONFIG = f"""
[access.keys.shop-app]
key = "ws"
project = "shop"
scopes = ["write"]

[access.keys.shop-analyst]
key = "{HASHED}{fingerprint("rs").hex()}"
project = "shop"
scopes = ["read"]
concurrency_max = 1

[access.keys.bank-app]
key = "wb"
project = "bank"
scopes = ["write", "read"]

[access.keys.hasty]
key = "h"
project = "bank"
scopes = ["read", "write"]
requests_per_minute = 2

[access.keys.root]
key = "a"
scopes = ["admin"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "eventmill.toml").write_text(CONFIG)
    server = Serving(folder / "data", "--config", str(folder / "eventmill.toml"))
    try:
        for number in range(12):
            key, event = ("ws", "Shopped") if number % 3 else ("wb", "Banked")
            batch = {"batch": [one(number, event), {"type": "nonsense", "of": event}]}
            if number % 2:
                status, answer = server.post("/v1/batch", batch, Authorization=bearer(key))
            else:
                status, answer = server.post("/v1/batch", {**batch, "writeKey": key})
            assert (status, answer["accepted"], answer["rejected"]) == (200, 1, 1)
        server.flush()
        yield server
    finally:
        server.kill()


def one(number: int, event: str) -> dict[str, Any]:
    # The same people and devices in both projects.
    return {
        "type": "track", "event": event, "userId": f"u{number % 2}", "anonymousId": "phone", "messageId": f"m{number}",
        "properties": {"of": event},
    }  # fmt: skip


def bearer(key: str) -> str:
    return f"Bearer {key}"


def ask(server: Serving, key: str | None, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    if key is not None:
        headers["Authorization"] = bearer(key)
    return server.request(method, path, body, Content_Type="application/json", **headers)


@pytest.mark.parametrize(
    ("key", "answers"),
    [
        (None, (401, 401, 401, 401, 401)),
        ("unknown", (401, 401, 401, 401, 401)),
        ("ws", (403, 403, 403, 403, 200)),
        ("rs", (200, 200, 403, 403, 401)),
        ("wb", (200, 200, 403, 403, 200)),
        ("a", (200, 200, 200, 200, 401)),
    ],
)
def test_each_key_passes_where_its_scope_reaches(server: Serving, key: str | None, answers: tuple[int, ...]) -> None:
    asked = [
        ("POST", "/v1/query/sql", b'{"query": "SELECT 1"}'),
        ("GET", "/v1/dead", b""),
        ("GET", "/v1/status", b""),
        ("POST", "/v1/replay", b'{"reasons": ["too_deep"]}'),
        ("POST", "/v1/batch", b'{"batch": []}'),
    ]
    assert tuple(ask(server, key, *each)[0] for each in asked) == answers


def test_each_project_sees_its_own_events_in_both_stores(server: Serving) -> None:
    query = b'{"query": "SELECT event, count() FROM events GROUP BY event ORDER BY event"}'
    for store in (b"events", b"lake.events"):
        found = {
            key: ask(server, key, "POST", "/v1/query/sql", query.replace(b"events GR", store + b" GR"))
            for key in ("rs", "wb", "a")
        }
        assert {key: answer["rows"] for key, (_, answer) in found.items()} == {
            "rs": [["Shopped", 8]], "wb": [["Banked", 4]], "a": [["Banked", 4], ["Shopped", 8]],
        }  # fmt: skip
    for table in ("events_1m", "sessions"):
        rows = [
            ask(server, key, "POST", "/v1/query/sql", f'{{"query": "SELECT sum(events) FROM {table}"}}'.encode())[1][
                "rows"
            ]
            for key in ("rs", "wb", "a")
        ]
        assert [int(row[0][0]) for row in rows] == [8, 4, 12]


def test_dead_letters_and_the_live_tail_are_of_the_project(server: Serving) -> None:
    for key, event, count in (("rs", "Shopped", 8), ("wb", "Banked", 4)):
        status, letters = ask(server, key, "GET", "/v1/dead?limit=100")
        assert status == 200
        assert [event in letter["payload"] for letter in letters["letters"]] == [True] * count
        _, tail = ask(server, key, "GET", "/v1/live?after=0")
        assert event.encode() in tail
        assert {"rs": b"Banked", "wb": b"Shopped"}[key] not in tail
    assert len(ask(server, "a", "GET", "/v1/dead?limit=100")[1]["letters"]) == 12


def test_nobody_borrows_a_name(server: Serving) -> None:
    """The header by which the door tells who asks means nothing from outside."""
    query = b'{"query": "SELECT count() FROM events"}'
    for name in ("root", "bank-app", "", "nobody"):
        status, answer = ask(server, "rs", "POST", "/v1/query/sql", query, **{CALLER: name})
        assert (status, answer["rows"]) == (200, [[8]])


def test_a_single_event_is_traced_for_those_without_a_project_only(server: Serving) -> None:
    assert [ask(server, key, "GET", "/v1/trace/m0")[0] for key in ("rs", "wb", "a")] == [403, 403, 200]


def test_no_key_in_the_url(server: Serving) -> None:
    for name in ("key", "writeKey", "access_token", "authorization"):
        assert ask(server, None, "GET", f"/v1/dead?{name}=a")[0] == 401


def test_a_basic_user_name_is_a_key_too(server: Serving) -> None:
    basic = "Basic " + base64.b64encode(b"rs:").decode()
    assert server.request("GET", "/v1/dead", Authorization=basic)[0] == 200


def test_each_key_has_a_limit_of_its_own(server: Serving) -> None:
    answers = [ask(server, "h", "GET", "/v1/dead")[0] for _ in range(4)]
    assert answers == [200, 200, 429, 429]
    assert ask(server, "h", "POST", "/v1/batch", b'{"batch": []}')[0] == 429
    assert ask(server, "wb", "GET", "/v1/dead")[0] == 200


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("Web key=x scopes=read", "no name"),
        ("web scopes=read", "empty"),
        ("web key=x", "scopes must be"),
        ("web key=x scopes=read+root", "scopes must be"),
        ("web key=x scopes=read project=a'b", "project must be"),
        ("web key=x scopes=read project=../x", "project must be"),
        ("web key=x scopes=admin project=shop", "no project"),
        ("web key=x scopes=read rows=5", "does not fit"),
        ("web key=x key=y scopes=read", "does not fit"),
        ("web key=x scopes=read seconds_max=0", "above zero"),
        ("web key=sha256:12 scopes=read", "64 hex"),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused_without_being_shown(entry: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refusal:
        parse([entry])
    assert "key=x" not in str(refusal.value)


def test_tables_and_lines_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "tables.toml").write_text(CONFIG)
    tables = load(tmp_path / "tables.toml", environ={}).access.keys
    again = load(environ={"EVENTMILL_ACCESS__KEYS": ",".join(tables)}).access.keys
    assert parse(tables) == parse(again)
    assert "key=ws" not in repr(load(tmp_path / "tables.toml", environ={}))
    (tmp_path / "bad.toml").write_text('[access.keys.web]\nkey = "a b"\nscopes = ["read"]\n')
    assert b"blanks" in eventmill("serve", "--config", str(tmp_path / "bad.toml"), "--data", str(tmp_path / "d")).stderr
