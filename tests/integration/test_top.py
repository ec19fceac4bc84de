"""``eventmill top`` against a running server."""

from __future__ import annotations

import datetime

import orjson
import pytest

from eventmill.cli.top import Rates, Snapshot
from serving import eventmill


def sent(number: int) -> dict:
    at = datetime.datetime.now(datetime.UTC).isoformat()
    return {
        "type": "track",
        "event": "Opened",
        "anonymousId": "a",
        "messageId": f"m{number}",
        "originalTimestamp": at,
        "sentAt": at,
    }


def test_one_look_shows_the_ledger_the_lags_and_the_latency(serve):
    server = serve()
    batch = [sent(number) for number in (1, 2, 2)] + [{"type": "nonsense"}]
    assert server.post("/v1/batch", {"batch": batch})[0] == 200
    server.flush()
    looked = eventmill("top", "--url", server.url, "--json")
    assert looked.returncode == 0, looked.stderr
    found = orjson.loads(looked.stdout)
    assert [found["totals"][hop] for hop in ("received", "rejected", "enriched", "duplicate")] == [4, 1, 2, 1]
    assert found["in_flight"] == 0
    assert 0 < found["request_to_queryable_ms"]["p50"] <= found["request_to_queryable_ms"]["p99"]
    shown = eventmill("top", "--url", server.url, "--once", COLUMNS="120")
    text = shown.stdout.decode()
    assert shown.returncode == 0, shown.stderr
    for part in ("received", "25.00%", "real-time store", "request to queryable", "lake 2 rows", "unknown_type 1"):
        assert part in text, text
    nowhere = eventmill("top", "--url", "http://127.0.0.1:1")
    assert (nowhere.returncode, b"does not answer" in nowhere.stderr) == (2, True)


def look(at: float, *received: int) -> Snapshot:
    hours = [{"hour": place, "received": events, "rejected": 0} for place, events in enumerate(received)]
    return Snapshot(at, {"hours": hours}, None)


@pytest.mark.parametrize(
    ("looks", "rate"),
    [
        ([look(1.0)], None),
        ([look(1.0), look(3.0)], None),
        ([look(1.0, 10), look(3.0, 30)], 10.0),
        ([look(1.0, 10, 20), look(3.0, 10, 20, 5)], 2.5),
        ([look(1.0, 100, 20), look(3.0, 20)], 0.0),
        ([look(1.0), look(2.0, 7)], 7.0),
    ],
)
def test_rates_are_of_the_time_between_two_looks(looks, rate):
    rates = Rates()
    for each in looks:
        rates.take(each)
    assert rates.now.get("received") == rate
