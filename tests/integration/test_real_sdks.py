"""Real SDKs as clients: whatever they send is found again, field by field."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from serving import eventually

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "build" / "npm-sdks"
PACKAGES = ("@segment/analytics-node", "@rudderstack/rudder-sdk-node")
WHEN = datetime(2026, 11, 22, 10, 0, 0, 250_000, UTC)
CONTEXT = {
    "app": {"name": "Shop", "version": "5.3.0"},
    "os": {"name": "iOS", "version": "18.1"},
    "device": {"id": "idfv-1", "model": "iPhone15,2"},
    "locale": "de-DE",
}
TRACKED = {"price": 9.5, "tags": ["a", None], "nested": {"deep": True}}
COLUMNS = (
    "type, event, user_id, anonymous_id, device_id, toUnixTimestamp64Milli(original_timestamp) AS original, "
    "app_version, platform, os_version, device_model, locale, properties, context"
)


def cannot(reason):
    """A test that cannot have what it needs is skipped, but not where everything must run."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def modules():
    """The npm SDKs, installed once."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        cannot("node and npm are not installed")
    if not all((MODULES / "node_modules" / package).is_dir() for package in PACKAGES):
        for last in (False, False, True):
            shutil.rmtree(MODULES, ignore_errors=True)  # npm stumbles over what an interrupted install left
            MODULES.mkdir(parents=True)
            (MODULES / "package.json").write_text('{"private": true}')
            done = subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", *PACKAGES],
                cwd=MODULES,
                capture_output=True,
                text=True,
                check=False,
            )
            if not done.returncode:
                break
            if last:
                cannot(f"npm cannot install the SDKs: {done.stderr[-4000:]}")
    return MODULES


def found(server, count):
    """Rows by type, once ``count`` of them are stored."""
    eventually(lambda: server.engine("GET", "/v1/status")["ledger"]["received"] >= count)
    server.flush()
    status, answer = server.post("/v1/query/sql", {"query": f"SELECT {COLUMNS} FROM events"})
    assert status == 200, answer
    names = answer["columns"]
    rows = [dict(zip(names, row, strict=True)) for row in answer["rows"]]
    for row in rows:
        row["properties"], row["context"] = orjson.loads(row["properties"]), orjson.loads(row["context"])
    assert len(rows) == count
    return {row["type"]: row for row in rows}


def check_context(row):
    assert {key: row["context"][key] for key in CONTEXT} == CONTEXT
    columns = ("app_version", "platform", "os_version", "device_model", "locale")
    assert [row[name] for name in columns] == ["5.3.0", "iOS", "18.1", "iPhone15,2", "de-DE"]
    assert row["device_id"] == "idfv-1"
    assert row["original"] == int(WHEN.timestamp() * 1000)


@pytest.mark.parametrize("sdk", ["segment", "rudder"])
def test_node_sdks(serve, modules, sdk):
    server = serve("--write-key", "key")
    script = ROOT / "tests" / "sdk" / "send.mjs"
    done = subprocess.run(
        ["node", str(script), sdk, server.url, str(modules)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = found(server, 6)
    for kind, row in rows.items():
        check_context(row)
        assert row["user_id"] == f"{sdk}-user"
        if kind != "alias":
            assert row["anonymous_id"] == f"{sdk}-anonymous"
    assert rows["track"]["event"] == 'Größe ☃ "gewählt"'
    assert rows["track"]["properties"] == TRACKED
    assert rows["identify"]["properties"] == {"plan": "free", "email": "a@example.com"}
    screen = rows["screen"]["properties"]
    assert {key: screen[key] for key in ("name", "from")} == {"name": "Home", "from": "push"}
    assert orjson.dumps("Start") in orjson.dumps([screen, rows["screen"]["context"]])
    assert rows["page"]["properties"]["name"] == "Landing"
    assert rows["page"]["properties"]["url"] == "https://example.com/?q=1"
    assert rows["group"]["properties"] == {"seats": 3}
    assert rows["group"]["context"]["_unmapped"]["groupId"] == "g-1"
    assert rows["alias"]["context"]["_unmapped"]["previousId"] == "old-1"


def python_calls(client):
    def base():
        """Made anew each time, for the SDKs write into the context that they are given."""
        ids = {"user_id": "py-user", "anonymous_id": "py-anonymous"}
        return {**ids, "timestamp": WHEN, "context": copy.deepcopy(CONTEXT)}

    client.track(event='Größe ☃ "gewählt"', properties=TRACKED, **base())
    client.identify(traits={"plan": "free"}, **base())
    client.screen(name="Home", category="Start", properties={"from": "push"}, **base())
    client.page(name="Landing", properties={"url": "https://example.com/?q=1"}, **base())
    client.group(group_id="g-1", traits={"seats": 3}, **base())
    client.flush()
    client.shutdown()


def check_python(server):
    rows = found(server, 5)
    for row in rows.values():
        check_context(row)
        assert (row["user_id"], row["anonymous_id"]) == ("py-user", "py-anonymous")
    assert rows["track"]["event"] == 'Größe ☃ "gewählt"'
    assert rows["track"]["properties"] == TRACKED
    for kind, traits in (("identify", {"plan": "free"}), ("group", {"seats": 3})):
        assert traits in (rows[kind]["properties"], rows[kind]["context"].get("traits"))  # Rudder's in the context
    assert rows["screen"]["properties"] == {"name": "Home", "category": "Start", "from": "push"}
    assert rows["page"]["properties"] == {"name": "Landing", "url": "https://example.com/?q=1"}
    assert rows["group"]["context"]["_unmapped"]["groupId"] == "g-1"


def test_segment_python(serve):
    segment = pytest.importorskip("segment.analytics.client")
    server = serve("--write-key", "key")
    python_calls(segment.Client("key", host=server.url, gzip=True))
    check_python(server)


def test_rudder_python(serve):
    rudder = pytest.importorskip("rudderstack.analytics.client")
    server = serve("--write-key", "key")
    python_calls(rudder.Client("key", host=server.url, gzip=True))
    check_python(server)
