"""TLS and passwords pass through to every client that Eventmill has: all roles on brokers that take nothing else."""

from __future__ import annotations

import urllib.request

import orjson
import pytest

from faults.role import Role
from serving import eventmill
from testbed.kafka import Kafka
from testbed.secure import PASSWORD


@pytest.fixture(scope="module")
def secured():
    with Kafka(1, secure=True) as kafka:
        yield kafka


def settings(kafka, password=PASSWORD):
    return {
        "EVENTMILL_KAFKA__BOOTSTRAP": kafka.secure_bootstrap, "EVENTMILL_KAFKA__PARTITIONS": "2",
        "EVENTMILL_KAFKA__REPLICATION": "1", "EVENTMILL_KAFKA__MIN_INSYNC": "1", "EVENTMILL_DEDUP__CAPACITY": "100000",
        "EVENTMILL_KAFKA__PROPERTIES": ",".join(kafka.secure.client(password)),
    }  # fmt: skip


@pytest.mark.soak
def test_events_go_all_the_way_by_tls_and_scram(secured, tmp_path):
    environ = settings(secured) | {"EVENTMILL_PROCESS__SNAPSHOTS": str(tmp_path / "snapshots")}
    made = eventmill("topics", "create", **environ)
    assert made.returncode == 0, made.stderr
    assert eventmill("topics", "check", **environ).returncode == 0
    roles = {
        name: Role([name, "--port", "0", "--data", str(tmp_path / name)], tmp_path / f"{name}.txt", environ)
        for name in ("ingest", "process", "sink")
    }

    def ask(name, path, body=b""):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(roles[name].url + path, body, method="POST", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return orjson.loads(answer.read())

    try:
        for role in roles.values():
            role.start()
        batch = [{"type": "track", "event": "e", "userId": f"u{n}", "messageId": f"m{n}"} for n in range(100)]
        assert ask("ingest", "/v1/batch", orjson.dumps({"batch": batch}))["accepted"] == 100
        assert ask("sink", "/v1/flush") == {"stored": True}
        audit = orjson.loads(eventmill("audit", "--data", str(tmp_path / "sink"), "--json", **environ).stdout)
        assert audit["balanced"]
        assert audit["stores"]["lake"]["stored"] == 100
        said = "".join(role.said for role in roles.values())
        assert PASSWORD not in said
        assert [role.server.stop() for role in roles.values()] == [0, 0, 0]
    finally:
        for role in roles.values():
            role.server.kill()


@pytest.mark.soak
def test_a_wrong_password_is_an_error_that_says_so_and_does_not_show_it(secured):
    refused = eventmill("topics", "check", **settings(secured, "wr0ng"))
    assert refused.returncode == 2
    assert b"uthentication" in refused.stderr
    assert b"Traceback" not in refused.stderr
    assert b"wr0ng" not in refused.stderr
