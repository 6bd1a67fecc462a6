"""Each explorable alone on a page: what it carries, and what is in view together on a phone."""

import pytest
from playwright.sync_api import expect

from stn_tutorial.explorables import EXPLORABLES
from stn_tutorial.explorables import bundle as bundling

# A page with something fixed at its top, as the book's, and with text before and after.
PAGE = """
  html { --stn-top: 56px; }
  body { margin: 700px 16px; }
"""

# Every place that the page can be scrolled to, in steps; then who was never seen with the picture.
SCROLL = """async () => {
  const root = document.querySelector('.stn-explorable').shadowRoot;
  for (const one of root.querySelectorAll('details')) one.open = true;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const picture = root.querySelector('.stage, .trio, .looking, .reading, .signals, .goals');
  const controls = [...root.querySelectorAll('input[type=range], .chip')]
    .filter((one) => one.getClientRects().length);
  const inView = (one) => {
    const { top, bottom } = one.getBoundingClientRect();
    return top >= 55.5 && bottom <= innerHeight + 0.5;
  };
  const seen = new Set();
  for (let y = 0; y < document.documentElement.scrollHeight; y += 8) {
    scrollTo(0, y);
    if (inView(picture)) controls.filter(inView).forEach((one) => seen.add(one));
  }
  const { width, height } = picture.getBoundingClientRect();
  return {
    size: [width, height],
    count: controls.length,
    apart: controls.filter((one) => !seen.has(one))
      .map((one) => one.ariaLabel ?? one.textContent),
  };
}"""


@pytest.mark.parametrize("size", [(390, 844), (844, 390)], ids=["upright", "lying"])
@pytest.mark.parametrize("kind", sorted(EXPLORABLES))
def test_picture_and_controls_are_in_view_together(chromium, pages, kind, size):
    width, height = size
    context = chromium.new_context(
        viewport={"width": width, "height": height}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto((pages / f"{kind}.html").as_uri())
    page.add_style_tag(content=PAGE)
    page.locator("[data-stn-ready]").wait_for()
    found = page.evaluate(SCROLL)
    context.close()
    assert found["count"] >= 2
    assert min(found["size"]) > 100
    assert found["apart"] == []


# The others' is in test_browser.py, several on a page.
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1000])
@pytest.mark.parametrize("kind", ["pair", "regions", "windows"])
def test_fits_and_follows_the_theme(shown, serious_faults, kind, theme, width):
    options = {"color_scheme": theme, "viewport": {"width": width, "height": 844}}
    one = shown(EXPLORABLES[kind](), **options)
    expect(one.locator(".root")).to_have_attribute("data-theme", theme)
    assert one.locator(".root").evaluate("one => one.scrollWidth <= one.clientWidth")
    assert one.page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    assert serious_faults(one.page) == []


# The selectors of the whole style sheet that something here wears, whatever its state, and those
# of them that the page's own sheet lacks.
WORN = """(css) => {
  const shadow = document.querySelector('.stn-explorable').shadowRoot;
  for (const one of shadow.querySelectorAll('details')) one.open = true;
  const rules = (list) => [...list].flatMap((rule) =>
    (rule.selectorText ? [rule.selectorText] : rules(rule.cssRules)));
  const own = new Set(rules(shadow.styleSheets[0].cssRules).flatMap((text) => text.split(', ')));
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  // Without :hover, [aria-pressed], ::before and the like, which come and go.
  const passing = /::?(?!is|has|not|first|last|host)[\\w-]+|\\[[^\\]]+\\]/g;
  const bare = (text) => text.replace(passing, '');
  const worn = rules(sheet.cssRules).flatMap((text) => text.split(/, (?![^(]*\\))/))
    .filter((text) => bare(text) && shadow.querySelector(bare(text)));
  const has = (text) => own.has(text) || rules(shadow.styleSheets[0].cssRules).includes(text);
  return { worn: worn.length, lost: worn.filter((text) => !has(text)) };
}"""


@pytest.mark.parametrize("kind", sorted(EXPLORABLES))
def test_no_style_is_lost(chromium, pages, kind):
    """The page's sheet is cut down to what its explorable wears, and holds all of that."""
    page = chromium.new_page()
    page.goto((pages / f"{kind}.html").as_uri())
    page.locator("[data-stn-ready]").wait_for()
    found = page.evaluate(WORN, bundling.styles())
    page.close()
    assert found["worn"] > 30
    assert found["lost"] == []
