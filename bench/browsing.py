"""The dashboard in Chromium: how long until its first view shows numbers, and until a new event shows by itself."""

from __future__ import annotations

import json
import os
import statistics
import time
import urllib.request
import uuid
from typing import Any, Final

from playwright.sync_api import sync_playwright

from testbed.packages import program

_FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_WAIT_MS: Final = 30_000
#: Every number of the overview is there, and its charts and tables are.
_SHOWN: Final = """() => {
  const values = [...document.querySelectorAll("main .figure .value")].map((each) => each.textContent);
  return values.length >= 4 && values.slice(1).every((text) => /[0-9]/.test(text))
    && document.querySelectorAll("main [aria-busy=true], main .wait").length === 0;
}"""


def browsed(url: str, *, times: int) -> dict[str, Any]:
    """``first_view_s`` (median, least, most), each in a browser context of its own, and ``live_s``."""
    path = os.environ.get("EVENTMILL_CHROMIUM") or program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        taken = [_first_view(browser, url) for _ in range(times)]
        live = _live(browser, url)
        browser.close()
    spread = {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}
    return {"first_view_s": {name: round(value, 3) for name, value in spread.items()}, "live_s": round(live, 2)}


def _first_view(browser: Any, url: str) -> float:
    context = browser.new_context()
    page = context.new_page()
    started = time.perf_counter()
    page.goto(f"{url}/", wait_until="commit")
    page.wait_for_function(_SHOWN, timeout=_WAIT_MS)
    seconds = time.perf_counter() - started
    context.close()
    return seconds


def _live(browser: Any, url: str) -> float:
    """Seconds from sending an event until the page, which is open, shows it."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/#/live")
    page.wait_for_selector("main h1")
    name = f"Seen {uuid.uuid4().hex[:8]}"
    body = {"batch": [{"type": "track", "event": name, "anonymousId": "bench", "messageId": str(uuid.uuid4())}]}
    request = urllib.request.Request(
        f"{url}/v1/batch", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    started = time.perf_counter()
    urllib.request.urlopen(request).read()
    page.wait_for_function(
        "(name) => document.querySelector('main').textContent.includes(name)", arg=name, timeout=_WAIT_MS
    )
    seconds = time.perf_counter() - started
    context.close()
    return seconds
