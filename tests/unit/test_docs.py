"""Docs that cannot rot: their examples run, their commands exist, their tables are whole."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import eventmill
from eventmill.cli.main import COMMANDS
from eventmill.core.config import Config
from eventmill.core.schema import Reason
from eventmill.ingest.endpoints import EVENTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs():
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "from eventmill" in code]
    exec(compile(example, "README.md", "exec"), {})


def test_the_library_page_shows_each_public_name_by_an_example_that_runs():
    page = (ROOT / "docs" / "library.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for example in examples:
        exec(compile(example, "docs/library.md", "exec"), {})
    for name in set(eventmill.__all__) - {"Decoded", "__version__"}:
        assert any(f"import {name}\n" in example for example in examples), name


def test_every_command_is_in_the_readme():
    for name in COMMANDS:
        assert f"`eventmill {name}" in README, name


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "configuration.md").read_text()
    for section in dataclasses.fields(Config):
        if section.name == "data":
            continue
        assert f"## [{section.name}]" in text
        for key in dataclasses.fields(section.default_factory):
            assert f"| `{key.name}` | `{key.default!r}` |" in text, f"{section.name}.{key.name}"


def test_every_endpoint_and_reason_is_documented():
    text = (ROOT / "docs" / "http.md").read_text()
    for path in EVENTS:
        assert f"`{path}`" in text or f"POST {path}`" in text, path
    for reason in Reason:
        assert f"`{reason}`" in text, reason


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
