"""The docs' figures come out of ``bench/results``: each ``<!-- name -->`` section is written anew from its file."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "results"
_SECTION: Final = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """The text with its sections made anew."""

    def section(found: re.Match[str]) -> str:
        kept = RESULTS / f"{found[2]}.json"
        if not kept.exists():
            return found[0]
        content = importlib.import_module(f"bench.{found[2]}").render(json.loads(kept.read_text()))
        return f"{found[1]}{content}\n{found[3]}"

    return _SECTION.sub(section, text)


def write(page: Path) -> None:
    """Bring a page's sections up to date."""
    page.write_text(rendered(page.read_text()))
    memory = RESULTS / "memory.json"
    if memory.exists():
        importlib.import_module("bench.memory").plot(json.loads(memory.read_text()))
