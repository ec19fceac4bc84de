"""A headless Chromium for tests of the dashboard."""

from __future__ import annotations

import contextlib
import os
import shutil

from playwright.sync_api import expect, sync_playwright
from tests.needs import had

from testbed.packages import Unavailable, program

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync"]  # fmt: skip
_WAIT_MS = 20_000


def _installed():
    try:
        return program("chromium", "chromium")
    except Unavailable as error:
        raise Unavailable(f"{error}, or name a browser by EVENTMILL_CHROMIUM") from error


@contextlib.contextmanager
def chromium():
    """The browser; the test is skipped where there is none, and fails there in CI."""
    path = os.environ.get("EVENTMILL_CHROMIUM") or shutil.which("google-chrome") or had(_installed)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One page of the dashboard, with everything that the browser complained about."""

    def __init__(self, browser, url, **options):
        self.url = url
        self.context = browser.new_context(timezone_id="America/New_York", **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(_WAIT_MS)
        self.complaints = []
        self.page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("response", lambda given: self.complaints.append(given.text()) if given.status == 400 else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, place):
        """Go to a page and wait until nothing on it is loading.

        A new hash leaves the old page standing until the browser tells of it, so that what stands is marked first.
        """
        self.page.evaluate("document.querySelector('#main > div')?.setAttribute('data-left', '')")
        self.page.goto(f"{self.url}/#/{place}")
        self.page.wait_for_selector("#main > div:not([data-left]) h1")
        self.settle()
        return self.page

    def settle(self):
        expect(self.page.locator("main [aria-busy], main .wait")).to_have_count(0, timeout=_WAIT_MS)

    def text(self, selector="main"):
        return self.page.inner_text(selector)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
