"""A real browser for tests of what people see: Debian's Chromium, driven by Playwright."""

import os
import shutil
from urllib.parse import urlsplit

import pytest

NEEDED = os.environ.get("FILTER_SEARCH_NEEDS_BROWSER") == "1"


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        message = "no chromium on this machine; install Debian's, or leave these tests to a machine that has it"
        (pytest.fail if NEEDED else pytest.skip)(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page that in the end has asked no other host for anything, and had nothing to complain of."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    origins = [urlsplit(url)[:2] for url in asked if not url.startswith(("data:", "blob:"))]
    context.close()
    assert not complaints
    assert len(set(origins)) <= 1, asked
