"""The docs' figures come out of ``bench/results``: each ``<!-- name -->`` section is written anew from its file."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

RESULTS: Final = Path(__file__).parent / "results"
PAGES: Final = tuple(
    Path(__file__).parents[1] / "docs" / name
    for name in ("performance.md", "dimensions.md", "capacity.md", "kafka.md", "storage.md")
)
IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
_SECTION: Final = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """The text with its sections made anew."""

    def section(found: re.Match[str]) -> str:
        module = importlib.import_module(f"bench.{found[2]}")
        kept = RESULTS / f"{found[2]}.json"
        if hasattr(module, "derive"):
            content = module.derive(RESULTS)
        elif kept.exists():
            content = module.render(json.loads(kept.read_text()))
        else:
            return found[0]
        return f"{found[1]}{content}\n{found[3]}"

    return _SECTION.sub(section, text)


def write(page: Path) -> None:
    """Bring a page's sections and pictures up to date."""
    page.write_text(rendered(page.read_text()))
    for kept in sorted(RESULTS.glob("*.json")):
        module = importlib.import_module(f"bench.{kept.stem}")
        if hasattr(module, "plot"):
            module.plot(json.loads(kept.read_text()))


@contextmanager
def picture(name: str) -> Iterator[Any]:
    """Axes to draw on; at the end the picture is ``docs/images/name.svg``, the same bytes for the same figures."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "eventmill"
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    yield axes
    axes.spines[["top", "right"]].set_visible(False)
    IMAGES.mkdir(parents=True, exist_ok=True)
    drawn.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    pyplot.close(drawn)
