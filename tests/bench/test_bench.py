"""Every benchmark runs in a tiny size, its contenders agree, and the docs show the figures that were kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench.__main__ import NAMES, main  # noqa: E402

from bench import report  # noqa: E402


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "--smoke", name])
    main()
    shown = capsys.readouterr().out
    assert shown.startswith(f"{name} …\n")
    assert any(digit in shown for digit in "123456789")


def test_an_unknown_name_is_told(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "nonsense"])
    with pytest.raises(SystemExit):
        main()
    assert "decode" in capsys.readouterr().err


def test_the_docs_show_the_figures_kept():
    for path in report.PAGES:
        page = path.read_text()
        assert report.rendered(page) == page, path
