"""docs/schemas.md on a running service: its commands as they stand there, and its redaction of what never comes to raw."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import orjson
import pytest

from eventmill.core import frame
from eventmill.core.config import load
from eventmill.core.schema import Reason, Topic
from eventmill.serve.engine_log import open_existing
from serving import Serving, eventmill, eventually

PAGE = (Path(__file__).parents[2] / "docs" / "schemas.md").read_text()
(REDACT,) = re.findall(r"```toml\n(\[dead\].*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^eventmill (?:schema|replay --dead) .*$", PAGE, re.MULTILINE)
COMMANDS += re.findall(r"`eventmill (schema publish new[^`]*|schema list)`", PAGE)
SECRET = "someone@example.com"
#: No name, and no identity: refused at ingest. The first has blanks and a number that must stay as they are.
NAMELESS = (
    b'{ "type":"track", "userId":"u",  "properties": {"price": 1.50, "email":"someone@example.com"},'
    b' "context": {"ip":"someone@example.com", "locale":"de"}}'
)
NOBODY = b'{"type":"identify","traits":{"a":"someone@example.com","b":[1,"someone@example.com"]}}'
#: What of a stored event the next version will not have: no price of this kind, no currency.
SCHEMA = {
    "type": "object",
    "required": ["currency"],
    "properties": {"price": {"type": "number"}, "currency": {"enum": ["EUR", "USD"]}, "email": {"type": "string"}},
}


def purchase(number, **properties):
    return {
        "type": "track", "event": "purchase", "userId": "u", "messageId": f"m{number}",
        "properties": {"email": SECRET, **properties},
    }  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs-schemas")
    (folder / "dead.toml").write_text(REDACT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENTMILL_DEAD__REDACT", ",".join(load(folder / "dead.toml", environ={}).dead.redact))
        patch.setenv("EVENTMILL_SCHEMAS__REFRESH_INTERVAL", "100ms")
        patch.setenv("EVENTMILL_DATA", str(folder / "data"))
        patch.chdir(folder)
        found = Serving(folder / "data")
        yield found
        found.kill()


def run(command, code=0):
    done = eventmill(*shlex.split(command.removeprefix("eventmill ")))
    assert done.returncode == code, (command, done.stdout, done.stderr)
    assert SECRET.encode() not in done.stdout + done.stderr, command
    return done.stdout.decode()


def test_what_ingest_refuses_is_redacted_before_it_is_written(server):
    status, answer = server.request("POST", "/v1/batch", b'{"batch":[%s,%s]}' % (NAMELESS, NOBODY))
    assert (status, answer["rejected"]) == (200, 2)
    shown = {letter["reason"]: letter["payload"] for letter in server.request("GET", "/v1/dead")[1]["letters"]}
    log = open_existing(load())
    try:
        frames = log.read(Topic.DEAD, 0, 0, events_max=10)
    finally:
        log.close()
    letters = [row for stored in frames for row in frame.decode(stored).to_pylist()]
    secret = b'"someone@example.com"'
    assert {row["reason"]: row["payload"] for row in letters} == {
        Reason.MISSING_EVENT: NAMELESS.replace(secret, b'"[redacted]"'),
        Reason.MISSING_IDENTITY: b'{"type":"identify","traits":{"a":"[redacted]","b":"[redacted]"}}',
    }
    assert [row["redacted"] for row in letters] == [True, True]
    assert shown == {row["reason"]: row["payload"].decode() for row in letters}


def test_the_commands_do_what_the_page_says(server):
    check, *replays, publish, listing = COMMANDS
    sent = [
        purchase(1), purchase(2, currency="EUR", price=5), purchase(3, currency="GBP"), purchase(4, currency="EUR", price="9")
    ]  # fmt: skip
    assert server.post("/v1/batch", {"batch": sent})[0] == 200
    server.flush()
    Path("new.json").write_bytes(orjson.dumps(SCHEMA))
    said = run(check, code=1)
    assert "of 4 events stored in the last 24 hours 3 would be rejected" in said
    for rule in ("/: required", "/currency: enum", "/price: type", '"email":"[redacted]"'):
        assert rule in said, said
    assert run(f"eventmill {publish}") == "purchase version 1 (purchase/1.json)\n"
    assert "purchase/1.json" in run(f"eventmill {listing}")

    numbers = itertools.count(5)

    def refused():
        number = next(numbers)
        assert server.post("/v1/batch", {"batch": [purchase(number, currency="EUR", price="9")]})[0] == 200
        server.flush()
        return server.engine("GET", "/v1/audit")["dead_reasons"].get("schema")

    assert eventually(refused) == 1
    as_it_is, under_the_new_schema, patched = (run(each) for each in replays)
    assert " 0 would be put back" in as_it_is
    assert " 0 would be put back" in under_the_new_schema  # it is the one in force
    assert " 1 put back, 0 still bad" in patched
    server.flush()
    stored = {
        row[0]: row[1] for row in server.sql("SELECT message_id, JSONExtractString(properties, 'email') FROM events")
    }
    # Raw still had the letter's event, as the client sent it.
    assert stored == {f"m{number}": SECRET for number in range(1, next(numbers))}
