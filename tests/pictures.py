"""``python -m tests.pictures``: the pictures of the dashboard in ``docs/images``, made anew.

A server is started in a temporary folder, gets a shop's traffic, and each page is looked at in a real browser.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from tests.browser import Tab, chromium
from tests.serving import Serving, eventmill

IMAGES = Path(__file__).parents[1] / "docs" / "images"
EVENTS = 60_000
COLOURS = 128
#: Picture to the page that it shows, and what of it; the whole screen where nothing is said.
PICTURES = {
    "dashboard-overview": ("overview", None),
    "dashboard-pipeline": ("pipeline", None),
    "query-trends": ("explore?event=Product+Viewed&range=24h&interval=hour&by=platform&chart=bar", ".chart"),
    "query-funnel": ("funnels?range=24h", "section.card:has(.funnel)"),
    "query-retention": ("retention?range=7d", "section.card:has(.heat)"),
    "query-sessions": ("sessions?range=24h&by=platform", ".w8 .chart"),
    "query-timeline": ("users?id=user-20", ".card:has(.timeline)"),
    "query-paths": ("paths?event=Product+Viewed&depth=3&range=24h", "main .grid"),
    "query-sql": ("sql?q=SELECT+event,+count()+AS+events,+uniq(device_id)+AS+devices%0AFROM+events%0AGROUP+BY+event%0A"
                  "ORDER+BY+events+DESC%0ALIMIT+8", ".split > .stack"),
}  # fmt: skip


def main() -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        serving = Serving(Path(folder))
        try:
            sent = eventmill(
                "generate", "--url", serving.url, "--events", str(EVENTS), "--span", "44h", "--bad", "0.01"
            )
            assert sent.returncode == 0, sent.stderr
            serving.flush()
            with Tab(browser, serving.url, viewport={"width": 1200, "height": 800}) as tab:
                for name, (place, part) in PICTURES.items():
                    page = tab.open(place)
                    shot = page.screenshot() if part is None else page.locator(part).first.screenshot()
                    _keep(IMAGES / f"{name}.png", shot)
        finally:
            serving.kill()


def _keep(path: Path, shot: bytes) -> None:
    """Few colours do for a page, and make a file of a fifth."""
    image = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
