"""Chromium for tests of pages: the system's own, driven by Playwright; where there is none the test skips."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextlib.contextmanager
def opened(url: str, colours: str = "light", width: int = 1200) -> Iterator[Any]:
    """A page in headless Chromium. Leaving asserts that its scripts raised nothing and that it asked for nothing but
    itself: data URLs and addresses that begin as its own does."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium on PATH (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=_OPTIONS)
        page = browser.new_page(color_scheme=colours, viewport={"width": width, "height": 900})
        errors, requests = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        yield page
        own = "/".join(url.split("/")[:3]) + "/"
        foreign = [address for address in requests if not address.startswith((own, "data:", "blob:"))]
        browser.close()
    assert not errors
    assert not foreign
