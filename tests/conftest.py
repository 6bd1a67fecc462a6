"""For all tests in this folder."""

import functools
import http.server
import os
import shutil
import threading

import hypothesis
import pytest
import torch
from playwright.sync_api import sync_playwright

# The same examples on every run and on every machine, and no limit on the time of a first call.
hypothesis.settings.register_profile(
    "book", derandomize=True, max_examples=25, deadline=None, database=None
)
hypothesis.settings.load_profile("book")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch):
    """Wait for no disk: a busy one takes half a second for a file, and no test pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def chromium():
    """A browser, for the tests that need one; without any they are skipped, and say so.

    It shows scroll bars, which Playwright would hide, as most desktops show them: what they cover,
    and the lines that they push apart, is to be seen by the tests too.
    """
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=flags, ignore_default_args=["--hide-scrollbars"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(site):
    """The address of `site`, the module's own folder of pages, over http on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
