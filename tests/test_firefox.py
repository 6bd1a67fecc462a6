"""The explorables in Firefox, from disk: alive, moved by keys and mouse, as in Chromium.

Each is opened in both browsers, and the same is done to it in both by real events. What it says and
the numbers that it shows must be the same, and its pictures alike. Playwright drives no Firefox but
its own, so `tools.firefox` drives the one that is here.
"""

import json
import re
import time

import numpy as np
import pytest

from stn_tutorial.explorables import EXPLORABLES
from stn_tutorial.explorables.pictures import embedded_image, embedded_pictures
from tools.firefox import PATIENCE

SIZE = (1000, 1100)

# What a reader gets: the words, the numbers, what is pressed, where the handles are said to be.
TOLD = """() => {
  const root = document.querySelector('.stn-explorable').shadowRoot;
  const all = (selector, read) => [...root.querySelectorAll(selector)].map(read);
  return {
    words: all('.words, .facts:not(.measured), .feedback', (one) => one.textContent),
    numbers: all('input[role=spinbutton]', (one) => one.value),
    handles: all('.handle', (one) => one.getAttribute('aria-valuetext')),
    pressed: all('[aria-pressed]', (one) => one.getAttribute('aria-pressed')),
    table: all('td, .six span, .odds span', (one) => one.textContent),
  };
}"""

# Each canvas that is seen, shrunk to 24×24 grey values by its own pixels' means.
PICTURES = """() => {
  const root = document.querySelector('.stn-explorable').shadowRoot;
  const seen = [...root.querySelectorAll('canvas')].filter((one) => one.getClientRects().length);
  return seen.map((one) => {
    const side = 24;
    // A copy: a canvas that is read itself would be painted otherwise from then on.
    const copy = Object.assign(document.createElement('canvas'),
      { width: one.width, height: one.height });
    const context = copy.getContext('2d', { willReadFrequently: true });
    context.fillStyle = '#fff';
    context.fillRect(0, 0, copy.width, copy.height);
    context.drawImage(one, 0, 0);
    const { data } = context.getImageData(0, 0, copy.width, copy.height);
    const [sums, counts] = [new Array(side * side).fill(0), new Array(side * side).fill(0)];
    for (let y = 0; y < copy.height; y++) {
      for (let x = 0; x < copy.width; x++) {
        const cell = Math.floor(side * y / copy.height) * side + Math.floor(side * x / copy.width);
        const k = 4 * (y * copy.width + x);
        sums[cell] += (data[k] + data[k + 1] + data[k + 2]) / 3;
        counts[cell]++;
      }
    }
    return sums.map((sum, cell) => sum / Math.max(counts[cell], 1));
  });
}"""

# Two frames, in which what was done is computed and painted, and then no timer of a glide is left.
SETTLED = """async (told) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  let before;
  for (let same = 0; same < 4;) {
    await frame();
    const now = JSON.stringify(eval(told)());
    same = now === before ? same + 1 : 0;
    before = now;
  }
  return true;
}"""

# The middle of what has this accessible name or text, on the screen, once it is scrolled to.
PLACE = """(name) => {
  const root = document.querySelector('.stn-explorable').shadowRoot;
  const one = [...root.querySelectorAll('input, button, label, canvas')].find((it) =>
    it.getAttribute('aria-label') === name || it.textContent === name || it.title === name);
  one.scrollIntoView({ block: 'center' });
  const box = one.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}"""

FOCUS = """(name) => {
  const root = document.querySelector('.stn-explorable').shadowRoot;
  [...root.querySelectorAll('input, button')].find((it) => it.ariaLabel === name).focus();
}"""


class InChromium:
    """A page of Playwright's, by the names that a tab of `tools.firefox` has."""

    def __init__(self, page):
        self.page = page

    def evaluate(self, function, *arguments):
        return self.page.evaluate(
            f"async (given) => JSON.parse(JSON.stringify(await ({function})(...given)) ?? 'null')",
            list(arguments),
        )

    def press(self, key):
        self.page.keyboard.press(key)

    def type(self, text):
        self.page.keyboard.type(text)

    def drag(self, *places):
        (x, y), *others = [(round(x), round(y)) for x, y in places]
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for x, y in others:
            self.page.mouse.move(x, y)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def both(chromium, firefox, pages):
    """Open an explorable in both browsers; in Firefox nothing may be said, or asked of any host."""
    context = chromium.new_context(viewport=dict(zip(("width", "height"), SIZE, strict=True)))

    def find(kind):
        url = (pages / f"{kind}.html").as_uri()
        page = context.new_page()
        page.goto(url)
        tabs = [InChromium(page), firefox.open(url, *SIZE)]
        page.locator("[data-stn-ready]").wait_for(state="attached")
        tabs[1].wait_for("() => document.querySelector('[data-stn-ready]') !== null")
        return tabs

    yield find
    context.close()


def told(tabs):
    """What each says, as soon as it has come to rest."""
    for tab in tabs:
        assert tab.evaluate(SETTLED, TOLD)
    return [tab.evaluate(TOLD) for tab in tabs]


def numbers(one):
    """All numbers in what is told, and the text around them."""
    text = json.dumps(one, ensure_ascii=False).replace("−", "-")
    found = r"-?\d+(?:\.\d+)?"
    return [float(value) for value in re.findall(found, text)], re.sub(found, "#", text)


def alike(tabs, most):
    """Wait until no picture differs between the browsers by more than this, in grey values, as a
    mean over it; return Chromium's. What is computed in the pauses may come later than the words.
    """
    until = time.monotonic() + PATIENCE
    while True:
        shown = [[np.array(one) for one in tab.evaluate(PICTURES)] for tab in tabs]
        gaps = [np.abs(a - b).mean() for a, b in zip(*shown, strict=True)]
        if max(gaps, default=0) <= most:
            return shown[0]
        assert time.monotonic() < until, gaps


# What is done to each: a slider that is moved by keys, a number that is written, a button that is
# pressed, and a handle that is dragged so far, in pixels of the screen.
DEEDS = {
    "theta": ("θ, row 1, column 2", "0.35", "Shear", "Tip of the grid's x axis"),
    "pooling": (None, None, "3 taps", None),
    "mapping": ("Turn in degrees, counter-clockwise", "-37", "Half as large", None),
    "bilinear": ("x of the point, in pixels", "2.3", "Bicubic", "Point"),
    "descent": (None, None, "4 pixels", "The picture"),
    "corners": ("x of the chosen corner", "-0.6", "Keystone", "Corner 4, lower right"),
    "spline": ("y of the chosen point", "0.1", "Twist", "Point 11 of 16, row 3, column 3"),
    "network": ("Size", "0.8", "Clear", "Turn and size"),
    "localise": ("Angle α of the window, in degrees", "100", "Step", "Turn of the window"),
    "pair": ("Size", "0.8", "Digit 2", "Turn and size of digit 1"),
    "windows": ("x of window 1", "-0.25", "Head and wing", "Window 2"),
    "regions": ("left edge of the box, in pixels", "12", "mean", "Lower right corner"),
    "question": ("θ, row 1, column 1", "0.5", "Show the answer", None),
}


def test_every_explorable_is_tried():
    assert set(DEEDS) == set(EXPLORABLES)


@pytest.mark.parametrize("kind", sorted(DEEDS))
def test_as_in_chromium(both, kind):
    slider, number, button, handle = DEEDS[kind]
    tabs = both(kind)
    state = told(tabs)[0]
    pictures = alike(tabs, 2)

    def changed(exactly=True):
        """What is told has changed, in both alike; and so have the pictures."""
        nonlocal state, pictures
        now = told(tabs)
        assert now[0] != state
        (values, words), (others, same_words) = map(numbers, now)
        assert words == same_words
        # To a pixel of the screen, where the browsers may round the place of a handle.
        np.testing.assert_allclose(others, values, *((0, 0) if exactly else (0.02, 0.03)))
        state, before, pictures = now[0], pictures, alike(tabs, 2 if exactly else 4)
        return max([np.abs(a - b).mean() for a, b in zip(before, pictures, strict=True)], default=0)

    assert state == told(tabs)[1]
    if slider:
        for tab in tabs:
            tab.evaluate(FOCUS, slider)
            for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
                tab.press(key)
        changed()
        for tab in tabs:
            tab.evaluate(FOCUS, f"{slider}, as a number")
            tab.type(number)
            tab.press("Enter")
        assert changed() > 1
    if handle:
        for tab in tabs:
            x, y = tab.evaluate(PLACE, handle)
            tab.drag((x, y), (x - 10, y + 6), (x - 25, y + 15))
        assert changed(exactly=False) > 1
    for tab in tabs:
        tab.drag(tab.evaluate(PLACE, button))
    changed(exactly=not handle)
    assert tabs[1].noise() == []
    tabs[0].page.close()
    tabs[1].close()


DECODE = """async (src) => {
  const image = new Image();
  image.src = src;
  await image.decode();
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


@pytest.mark.parametrize("side", [32, 128])
def test_values_that_are_shown_are_pythons(both, side):
    """Of the photographs too, which lose a little on their way into a page."""
    tabs = both("theta")
    for name, one in embedded_pictures(side).items():
        expected = np.asarray(embedded_image(name, side).convert("RGB"))
        for tab in tabs:
            found = np.reshape(tab.evaluate(DECODE, one["src"]), (side, side, 4))
            np.testing.assert_array_equal(found[..., :3], expected)
    tabs[0].page.close()
    tabs[1].close()


def test_what_a_page_says_and_asks_is_heard(firefox, tmp_path):
    """Otherwise a page that fails, or that asks another host, would pass for a quiet one."""
    path = tmp_path / "page.html"
    path.write_text('<!doctype html><meta charset="utf-8"><title>A page</title>', encoding="utf-8")
    tab = firefox.open(path.as_uri())
    assert tab.noise() == []
    tab.evaluate(
        """() => new Promise((done) => {
          console.warn("a warning");
          setTimeout(() => { throw new Error("a failure"); });
          const image = new Image();
          image.onerror = () => done();
          image.src = "http://127.0.0.1:61234/picture.png";
        })"""
    )
    noise = "\n".join(tab.noise())
    for part in ("a warning", "a failure", "asked: http://127.0.0.1:61234/picture.png"):
        assert part in noise
    with pytest.raises(RuntimeError, match="none of that name"):
        tab.evaluate("() => { throw new Error('none of that name'); }")
    tab.close()


def test_theme_goes_along_from_page_to_page(firefox, book):
    """From disk, where a browser might give each page a storage of its own."""
    tab = firefox.open((book / "book" / "glossary.html").as_uri())
    told = "() => [location.pathname, document.documentElement.dataset.theme]"
    chosen = """(theme) => {
      const button = document.querySelector('.theme-switch-button');
      for (let k = 0; k < 3 && document.documentElement.dataset.mode !== theme; k++) button.click();
    }"""
    follow = """(name) => [...document.querySelectorAll('a')]
      .find((one) => one.pathname.endsWith(name)).click()"""
    # A page that is left while its formulas' fonts come says that they did not.
    settled = """() => Promise.resolve(window.MathJax?.startup?.promise)
      .then(() => document.fonts.ready).then(() => document.fonts.status)"""
    before = tab.evaluate(told)
    for theme, page in zip(
        ("dark", "light"), ("questions.html", "01_the_invariance_problem.html"), strict=True
    ):
        assert tab.evaluate(settled) == "loaded"
        tab.evaluate(chosen, theme)
        tab.evaluate(follow, page)
        tab.wait_for(
            "(name) => location.pathname.endsWith(name) && document.readyState === 'complete'", page
        )
        assert tab.evaluate(told)[1] == theme
    assert before[0].endswith("glossary.html")
    assert tab.noise() == []
    tab.close()
