"""Saved questions: over HTTP of a real server, through its restart, each project its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from eventmill.cli.query import query
from eventmill.core.errors import QueryError
from eventmill.log.local import LocalLog
from eventmill.query import saved
from eventmill.query.relative import absolute
from eventmill.query.saved import Saved, SavedQuestions
from serving import Serving

CONFIG = """
[access.keys.shop]
key = "ks"
project = "shop"
scopes = ["read", "write"]

[access.keys.bank]
key = "kb"
project = "bank"
scopes = ["read", "write"]

[access.keys.root]
key = "ka"
scopes = ["admin"]

[access.keys.app]
key = "kw"
project = "shop"
scopes = ["write"]
"""
WEEK = {"kind": "trends", "query": {"from": "-7d", "to": "now", "interval": "day"}}
NOW = 1_790_000_000_000


def call(server: Serving, key: str, method: str, path: str, value: Any = None) -> tuple[int, Any]:
    body = b"" if value is None else orjson.dumps(value)
    return server.request(method, f"/v1/saved{path}", body, Authorization=f"Bearer {key}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    (folder / "eventmill.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    server = Serving(folder / "data", "--config", str(folder / "eventmill.toml"))
    batch = {"batch": [{"type": "track", "event": "Shopped", "messageId": str(n), "userId": "u"} for n in range(5)]}
    assert server.post("/v1/batch", batch, Authorization="Bearer ks")[0] == 200
    yield server
    server.kill()


def test_what_a_project_saves_only_it_can_see_run_and_delete(server: Serving) -> None:
    assert call(server, "ks", "GET", "") == (200, {"saved": []})
    status, made = call(server, "ks", "PUT", "/Caf%C3%A9%20100%25", WEEK)
    assert (status, made["name"], made["kind"], made["query"]) == (201, "Café 100%", "trends", WEEK["query"])
    assert call(server, "ks", "PUT", "/Caf%C3%A9%20100%25", WEEK)[0] == 200
    assert call(server, "ks", "GET", "/Caf%C3%A9%20100%25")[1]["name"] == "Café 100%"
    for other in ("kb", "ka"):
        assert call(server, other, "GET", "")[1] == {"saved": []}
        assert call(server, other, "GET", "/Caf%C3%A9%20100%25")[0] == 404
        assert call(server, other, "POST", "/Caf%C3%A9%20100%25/run", {})[0] == 404
        assert call(server, other, "DELETE", "/Caf%C3%A9%20100%25")[0] == 404
    assert call(server, "kw", "GET", "")[0] == 403
    assert call(server, "nobody", "GET", "")[0] == 401
    status, answer = call(server, "ks", "POST", "/Caf%C3%A9%20100%25/run", {"from": "-1d"})
    assert (status, answer["columns"]) == (200, ["time", "value"])
    assert len(answer["rows"]) in (1, 2)
    assert call(server, "ks", "DELETE", "/Caf%C3%A9%20100%25") == (200, {"deleted": "Café 100%"})
    assert call(server, "ks", "GET", "")[1] == {"saved": []}


def test_it_is_there_after_a_restart(folder: Path) -> None:
    arguments = ("--config", str(folder / "eventmill.toml"))
    first = Serving(folder / "again", *arguments)
    assert call(first, "ks", "PUT", "/kept", WEEK)[0] == 201
    assert call(first, "ks", "PUT", "/gone", WEEK)[0] == 201
    assert call(first, "ks", "DELETE", "/gone")[0] == 200
    first.kill()
    second = Serving(folder / "again", *arguments)
    assert [each["name"] for each in call(second, "ks", "GET", "")[1]["saved"]] == ["kept"]
    second.kill()


@pytest.mark.parametrize(
    ("method", "path", "value", "status", "says"),
    [
        ("PUT", "/x", {"kind": "trend", "query": {}}, 400, "kind is 'trend'; it is one of trends"),
        ("PUT", "/x", {"kind": "trends", "query": {"from": "-7x", "to": "now"}}, 400, "from is '-7x'; write a time like"),
        ("PUT", "/x", {"kind": "trends", "query": []}, 400, "the body must be a JSON object"),
        ("PUT", "/x", {"kind": "trends"}, 400, "the body must be a JSON object"),
        ("PUT", "/x", {"kind": "sql", "query": {"query": "DROP TABLE events"}}, 400, "must be a SELECT"),
        ("PUT", "/x", {"king": "sql"}, 400, "there is no key 'king'"),
        ("PUT", "/x%0Ay", WEEK, 400, "printable characters"),
        ("PUT", "/" + "x" * 101, WEEK, 400, "1 to 100"),
        ("PUT", "/..%2Fx", WEEK, 400, "none of them a slash"),
        ("PUT", "/x", {**WEEK, "query": {**WEEK["query"], "event": "x" * 70_000}}, 413, "at most 65536 bytes"),
        ("PUT", "", WEEK, 405, "by GET"),
        ("POST", "/x", WEEK, 405, "takes GET, PUT and DELETE"),
        ("GET", "/x/run", None, 405, "takes POST"),
        ("GET", "/x", None, 404, "no question is saved as 'x'"),
        ("PATCH", "/x", None, 405, "send GET, POST, PUT, DELETE"),
    ],
)  # fmt: skip
def test_mistakes(server: Serving, method: str, path: str, value: Any, status: int, says: str) -> None:
    found, answer = call(server, "kb", method, path, value)
    assert (found, says in answer["error"]) == (status, True), answer


def test_sql_is_run_with_other_parameters(server: Serving) -> None:
    query = {"query": "SELECT {n:UInt8} AS n", "parameters": {"n": 1}}
    assert call(server, "kb", "PUT", "/sql", {"kind": "sql", "query": query})[0] == 201
    assert call(server, "kb", "POST", "/sql/run")[1]["rows"] == [[1]]
    assert call(server, "kb", "POST", "/sql/run", {"parameters": {"n": 7}})[1]["rows"] == [[7]]
    assert call(server, "kb", "POST", "/sql/run", {"from": "-1d"})[0] == 400
    assert call(server, "kb", "POST", "/sql/run", {"query": "SELECT 1"})[0] == 400


def test_other_paths_take_no_put(server: Serving) -> None:
    for path in ("/v1/status", "/v1/dead"):
        assert server.request("DELETE", path, Authorization="Bearer ka")[0] == 405


def test_the_command(server: Serving) -> None:
    def told(*arguments: str, code: int = 0) -> str:
        found = CliRunner().invoke(query, ["saved", *arguments, "--url", server.url, "--key", "ka"])
        assert found.exit_code == code
        return found.output

    assert "saved my week" in told("save", "my week", "trends", orjson.dumps(WEEK["query"]).decode())
    assert "my week" in told("list")
    assert "rows from" in told("run", "my week", "--from", "-1d")
    assert "deleted my week" in told("delete", "my week")
    assert "nothing is saved" in told("list")
    assert "no question is saved as" in told("run", "my week", code=2)
    assert "JSON does not parse" in told("save", "x", "trends", "{", code=2)


def test_what_is_of_the_past_leaves_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "_PAST_MAX", 5)
    log = LocalLog(tmp_path / "log")
    mine, other = SavedQuestions(log), SavedQuestions(log)
    assert other.all(None) == []
    for number in range(50):
        mine.put("p" if number % 2 else None, Saved(f"q{number % 3}", "trends", {"n": number}, number))
        assert [each.query for each in other.all("p")] == [each.query for each in mine.all("p")]
    mine.delete("p", "q0")
    known = {each.name: each.query["n"] for each in SavedQuestions(log).all("p")}
    assert known == {"q1": 49, "q2": 47}
    assert {each.name: each.query["n"] for each in other.all("p")} == known
    assert len(SavedQuestions(log).all(None)) == 3
    log.close()


@given(st.integers(0, 500), st.sampled_from("mhdw"), st.sampled_from(["", "/minute", "/hour", "/day"]))
def test_relative_times_are_whole_minutes(number: int, unit: str, rounded: str) -> None:
    body = absolute({"from": f"-{number}{unit}{rounded}", "to": "now"}, NOW)
    again = absolute({"from": f"now-{number}{unit}{rounded}", "to": "now"}, NOW)
    assert body == again
    assert body["from"].endswith(":00Z")
    assert body["from"] <= body["to"]


def test_relative_times() -> None:
    for said, meant in (
        ("now", "2026-09-21T14:14:00Z"),
        ("-7d", "2026-09-14T14:14:00Z"),
        ("now/day", "2026-09-21T00:00:00Z"),
        ("-1d/day", "2026-09-20T00:00:00Z"),
        ("-90m/hour", "2026-09-21T12:00:00Z"),
        ("2026-01-01", "2026-01-01"),
    ):
        assert absolute({"to": said}, NOW)["to"] == meant
    for wrong in ("-", "now+1d", "-1y", "now/week", "nowhere", "-99999999d", "-999999w", "- 1d"):
        with pytest.raises(QueryError, match=r"write a time like|before 1970"):
            absolute({"to": wrong}, NOW)
