"""Chromium and the built site; without either, these tests are skipped, and say so.

`make docs` builds the site. Chromium is looked for on the PATH under its usual names; CHROMIUM names another.
"""

import importlib.util
import os
import shutil

import pytest
from helpers.source import ROOT

if importlib.util.find_spec("playwright") is None:  # `make test` does not install it
    collect_ignore_glob = ["test_*.py"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HTML = ROOT / "_site" / "html"


@pytest.fixture(scope="session")
def site():
    """The folder of the built site."""
    if not (HTML / "index.html").exists():
        pytest.skip("the site is not built: make docs")
    return HTML


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on the PATH; CHROMIUM=/path/to/one names it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_address(chromium):
    """Open an address at a width, light or dark; errors of its console fail the test."""
    contexts, errors = [], []

    def opened(address, *, width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def open_page(open_address, site):
    """Open a page of the site from the disk; errors as `open_address`."""

    def opened(name, **options):
        return open_address(
            (site / name).as_uri() if "?" not in name else site.as_uri() + "/" + name, **options
        )

    return opened
