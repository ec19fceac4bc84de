"""kill -9 of ``serve`` at random moments under load: by the oracle, nothing acknowledged is lost and nothing is doubled."""

from __future__ import annotations

import random
import socket
import subprocess
import sys

import orjson
import pytest

from serving import Serving, eventmill, eventually


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def load(port, folder, events, rate):
    """The generator as a process of its own; it tries again whatever it is not sure of, as SDKs do."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "eventmill", "generate", "--events", str(events), "--rate", str(rate), "--seed", "11",
            "--url", f"http://127.0.0.1:{port}", "--truth", str(folder / "truth.parquet"), "--give-up", "300s", "--json",
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip


def kill_and_restart(data, kills, events, rate):
    port = free_port()
    rng = random.Random(3)
    server = Serving(data, "--port", str(port))
    generator = load(port, data, events, rate)
    try:
        for number in range(kills):
            # A random share of the traffic later, wherever the server is at that moment.
            target = events * (number + rng.random()) / (kills + 1)
            eventually(lambda one=server, least=target: one.engine("GET", "/v1/status")["ledger"]["received"] >= least)
            server.kill()
            server = Serving(data, "--port", str(port))
        output, _ = generator.communicate()
        sent = orjson.loads(output)
        server.flush()
        verdicts = server.engine("POST", f"/v1/judge?truth={data / 'truth.parquet'}")
        audit = server.engine("GET", "/v1/audit")
        assert server.stop() == 0
    finally:
        server.kill()
        generator.kill()
    return sent, verdicts, audit


def check(sent, verdicts, audit, data):
    assert sent["unknown"] == sent["refused"] == 0
    for verdict in verdicts.values():
        assert verdict["good"], verdict
        assert verdict["stored"] == verdict["unique"] == verdict["acked"]
    assert audit["balanced"], audit
    offline = eventmill("audit", "--data", str(data), "--json")
    assert offline.returncode == 0, offline.stderr
    assert orjson.loads(offline.stdout)["stores"] == audit["stores"]


def test_three_kills(tmp_path):
    check(*kill_and_restart(tmp_path, kills=3, events=60_000, rate=8_000), tmp_path)


@pytest.mark.soak
def test_twenty_kills(tmp_path):
    check(*kill_and_restart(tmp_path, kills=20, events=600_000, rate=10_000), tmp_path)
