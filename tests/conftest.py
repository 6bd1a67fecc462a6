"""For all tests in this folder."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from filelock import FileLock
from playwright.sync_api import expect, sync_playwright
from traitlets import TraitError

from stn_tutorial.explorables import EXPLORABLES
from stn_tutorial.explorables.question import questions
from tools.firefox import EXECUTABLE, Firefox

ROOT = Path(__file__).parents[1]

# The same examples on every run and on every machine, and no limit on the time of a first call.
hypothesis.settings.register_profile(
    "book", derandomize=True, max_examples=25, deadline=None, database=None
)
hypothesis.settings.load_profile("book")


# The rule for every time-out here, in the Makefile and in the other tests: it is there to catch a
# hang, not a slow machine, and so at least ten times what the step takes on an idle one. (Where a
# loop tries again, one try may be shorter.)
PATIENCE = 300
"""Seconds that a browser may take for one step: a page, a click, a change that is waited for."""

expect.set_options(timeout=1000 * PATIENCE)


def patient(make):
    """`make`, which makes a page or a context, so that it has that patience too."""

    @functools.wraps(make)
    def made(*args, **options):
        page = make(*args, **options)
        page.set_default_timeout(1000 * PATIENCE)
        return page

    return made


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
            executable_path=CHROMIUM,
            args=flags,
            ignore_default_args=["--hide-scrollbars"],
            timeout=1000 * PATIENCE,
        )
        browser.new_page, browser.new_context = map(
            patient, (browser.new_page, browser.new_context)
        )
        yield browser
        browser.close()


@pytest.fixture
def shown(chromium, tmp_path):
    """Opens a page with one explorable alone; nothing may be said, or asked of any host."""
    contexts, noise = [], []

    def find(explorer, **options):
        path = tmp_path / "page.html"
        path.write_text(explorer.to_page(), encoding="utf-8")
        context = chromium.new_context(**{"viewport": {"width": 1000, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))

        def only_here(route):
            if not route.request.url.startswith(("file:", "data:", "blob:")):
                noise.append(route.request.url)
            route.continue_()

        page.route("**/*", only_here)
        page.goto(path.as_uri())
        expect(page.locator("[data-stn-ready]")).to_have_count(1)
        one = page.locator(".stn-explorable")
        expect(one.locator(".words")).not_to_have_text("")
        return one

    yield find
    for context in contexts:
        context.close()
    assert noise == []


@pytest.fixture
def refuses():
    """Checks that an explorable takes a value neither when it is made nor later, and says why."""

    def check(explorer, name, value, message):
        with pytest.raises(TraitError, match=re.escape(message)):
            explorer(**{name: value})
        one = explorer()
        before = repr(one)
        with pytest.raises(TraitError, match=re.escape(message)):
            setattr(one, name, value)
        assert repr(one) == before

    return check


@pytest.fixture
def last_slider():
    """Says how far below an explorable's upper edge its last slider is, in pixels."""

    def find(one):
        slider = one.locator("input[type=range]").last
        return slider.bounding_box()["y"] - one.bounding_box()["y"]

    return find


@pytest.fixture
def serious_faults():
    """Says what axe finds serious in a page's explorables: the rule, where, and what is so."""

    def find(page):
        # Without preload: it fetches style sheets anew, from addresses that it gets wrong.
        found = Axe().run(
            page, context={"include": [".stn-explorable"]}, options={"preload": False}
        )
        return [
            (fault["id"], node["html"], node.get("any"))
            for fault in found.response["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    return find


@pytest.fixture
def bar_lengths():
    """Says how long each bar of a chart of shares is, in per cent of what it could be."""

    def measure(bars):
        share = "one.getBoundingClientRect().width / one.parentNode.getBoundingClientRect().width"
        return bars.locator("i").evaluate_all(f"all => all.map((one) => 100 * {share})")

    return measure


@pytest.fixture(scope="module")
def firefox():
    """A Firefox, for the tests that need one; without any they are skipped, and say so."""
    if EXECUTABLE is None:
        pytest.skip("no Firefox on this machine")
    with Firefox() as browser:
        yield browser


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A folder with a page for each explorable, `theta.html`, `question.html`, …: each one file."""
    folder = tmp_path_factory.mktemp("pages")
    ask = next(name for name, one in questions().items() if one["kind"] == "theta")
    for kind, explorable in EXPLORABLES.items():
        given = [ask] if kind == "question" else []
        (folder / f"{kind}.html").write_text(explorable(*given).to_page(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The book, built once for all tests of a run as `make book` builds it, elsewhere."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the workers share
    built = folder / "book" / "_build" / "html"
    with FileLock(folder / "book.lock"):
        if not built.is_dir():
            command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "-W", "-n"]
            command += ["--keep-going", "--path-output", folder / "book.new"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (folder / "book.new").rename(folder / "book")
    return built


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
