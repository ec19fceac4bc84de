"""Every benchmark runs in a tiny size, its contenders agree, and the docs show the figures that were kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench.__main__ import NAMES, main  # noqa: E402
from bench.decode import make_events, to_bodies  # noqa: E402

from bench import capacity, peers, report  # noqa: E402
from testbed.kafka import Kafka  # noqa: E402

#: What starts a group of processors, or a browser.
SLOW = ("groups", "transactions", "users")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.soak) if name in SLOW else name for name in NAMES],
)
def test_it_runs(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "--smoke", name])
    main()
    shown = capsys.readouterr().out
    assert shown.startswith(f"{name} …\n")
    assert any(digit in shown for digit in "123456789")


@pytest.mark.soak
@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_makes_each_event(name):
    bodies = to_bodies(make_events(2_000, 1), 100)
    with Kafka(1) as kafka:
        figures = peers.Peer(kafka, name, bodies, 100).measure(bodies)  # which counts what it made
    assert figures["bytes_in"] > 100
    assert figures["bytes"] > 100


def test_an_unknown_name_is_told(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "nonsense"])
    with pytest.raises(SystemExit):
        main()
    assert "decode" in capsys.readouterr().err


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.name)
def test_the_docs_show_the_figures_kept(page):
    assert report.rendered(page.read_text()) == page.read_text()


def test_twice_the_load_needs_twice_as_much():
    costs = capacity.costs(report.RESULTS)
    once, twice = (capacity.needs(costs, capacity.Load(events_s=rate)) for rate in (1e6, 2e6))
    assert once.cores["processors"] == pytest.approx(costs.process_ns / 1e3 / capacity.Load().busy, rel=1e-6)
    for name, cores in once.cores.items():
        assert twice.cores[name] == pytest.approx(2 * cores)
    assert (twice.raw_bytes_s, twice.filters_bytes, twice.brokers_disk_bytes) == pytest.approx(
        (2 * once.raw_bytes_s, 2 * once.filters_bytes, 2 * once.brokers_disk_bytes)
    )
    assert twice.sessions_bytes == once.sessions_bytes  # the devices are the same
    assert once.partitions % 12 == 0
    assert once.partitions >= once.cores["processors"]
