"""The built site: complete, light, asking nothing of other hosts, fit for a phone and the dark.

The browser's tests need a Chromium, which CI has; without one they are skipped, and say so.
"""

import functools
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from fontTools.ttLib import TTFont
from PIL import Image
from playwright.sync_api import expect

ROOT = Path(__file__).parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(page["file"] for part in TOC["parts"] for page in part["chapters"])]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADDRESS = PYPROJECT["project"]["urls"]["Repository"]

# By how many pixels a page scrolls sideways.
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

each_page = pytest.mark.parametrize("page", PAGES)
each_chapter = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.startswith("chapters/")]
)


class Addresses(HTMLParser):
    """Collect what a page loads, what it links to, and the ids that can be linked to."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.links, self.ids, self.images = [], [], set(), []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a":
            self.links.append(attributes.get("href", ""))
        elif tag == "link" and attributes.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(attributes["href"])
        elif "src" in attributes:
            self.loads.append(attributes["src"])
        if tag == "img":
            self.images.append(attributes)


@pytest.fixture(scope="module")
def site(book):
    return book


@each_page
def test_page_loads_only_what_the_site_holds(site, page):
    path = site / f"{page}.html"
    addresses = Addresses(path.read_text(encoding="utf-8"))
    assert addresses.loads
    for address in addresses.loads:
        assert (path.parent / unquote(address.partition("?")[0])).is_file(), address


@functools.cache
def places(path):
    """What can be linked to on a page; the reference has thousands of links to few pages."""
    return Addresses(path.read_text(encoding="utf-8")).ids


@each_page
def test_links_within_the_site_resolve(site, page):
    path = site / f"{page}.html"
    for link in Addresses(path.read_text(encoding="utf-8")).links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / unquote(name.partition("?")[0])) if name else path
        assert target.is_file(), link
        if anchor and target.suffix == ".html":
            assert unquote(anchor) in places(target.resolve()), link


@each_page
def test_pictures_are_described(site, page):
    article = (site / f"{page}.html").read_text(encoding="utf-8")
    article = article.partition("<article")[2].partition("</article>")[0]
    for image in Addresses(article).images:
        assert len(image.get("alt", "")) >= 15, image


@each_page
def test_tables_are_rendered(site, page):
    article = (site / f"{page}.html").read_text(encoding="utf-8")
    article = article.partition("<article")[2].partition("</article>")[0]
    assert not re.search(r"<p>\s*\|", article)


@each_chapter
def test_colab_button_opens_this_chapter(site, page):
    address = ADDRESS.replace("github.com", "colab.research.google.com/github")
    links = Addresses((site / f"{page}.html").read_text(encoding="utf-8")).links
    assert f"{address}/blob/main/{page}.ipynb" in links


def test_site_is_light(site):
    """The theme and MathJax weigh 8 MB on disk; the pages' own pictures come to that."""
    static = [path for path in (site / "_static").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in static) < 8e6
    for page in PAGES:
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        assert "THEBE" not in html
        assert not any("thebe" in address for address in Addresses(html).loads)


@each_page
def test_mathematics_is_loaded_where_there_is_some(site, page):
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    assert any("mathjax" in address for address in Addresses(html).loads) == ('class="math' in html)


@each_page
def test_raw_formulas_are_explained_where_no_script_runs(site, page):
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    assert html.count("Without JavaScript the formulas") == ('class="math' in html)


@each_page
def test_nothing_is_loaded_for_a_search_that_no_one_began(site, page):
    """Four scripts in the head, the whole index among them, held back what is to be read."""
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    assert not any("search" in address for address in Addresses(html).loads)


@each_page
def test_pictures_have_sizes_and_wait_to_be_seen(site, page):
    """Nothing jumps when one comes; all but the first are fetched when the reader is near."""
    path = site / f"{page}.html"
    article = path.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    images = Addresses(article).images
    for image in images:
        with Image.open(path.parent / image["src"]) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
    assert sum(image.get("loading") != "lazy" for image in images) <= 1


def test_icon_fonts_hold_the_icons_that_are_shown(site):
    """And little else: the theme's own hold some 2000, in 300 kB."""
    fonts = [path for path in (site / "_static").rglob("fa-*") if path.is_file()]
    assert len(fonts) == 3
    assert sum(path.stat().st_size for path in fonts) < 10_000
    held = set().union(*(TTFont(path).getBestCmap() for path in fonts))
    css = (site / "_static/styles/pydata-sphinx-theme.css").read_text(encoding="utf-8")
    assert all(css.count(f"/{path.name})") == 1 for path in fonts)
    shown = 0
    for page in PAGES:
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        for name in set(re.findall(r"\bfa-[a-z-]+", html)):
            for code in re.findall(rf'\.{name}:before[^{{}}]*{{content:"\\([0-9a-f]+)"', css):
                assert int(code, 16) in held, name
                shown += 1
    assert shown > 10 * len(PAGES)


@pytest.fixture
def opened(site, chromium, served):
    """Open a page of the book over http, its mathematics set."""
    contexts = []

    def open_page(page, width=1280, height=900, **options):
        viewport = {"width": width, "height": height}
        contexts.append(chromium.new_context(viewport=viewport, **options))
        tab = contexts[-1].new_page()
        tab.goto(f"{served}/{page}.html", wait_until="load")
        if tab.locator(".math").count():
            tab.wait_for_function("MathJax.startup.promise.then(() => true)")
        return tab

    yield open_page
    for context in contexts:
        context.close()


def test_search_finds(opened):
    tab = opened("chapters/03_affine_matrices")
    tab.keyboard.press("Control+k")
    tab.keyboard.type("glossary")
    tab.keyboard.press("Enter")
    expect(tab).to_have_url(re.compile(r"search\.html\?q=glossary"))
    expect(tab.locator("#search-results li a").first).to_have_attribute(
        "href", re.compile("^book/glossary")
    )


@each_page
def test_formulas_in_the_line_have_no_scroll_bar(opened, page):
    """One under each made the lines' spacing uneven. A displayed formula may have one."""
    barred = (
        opened(page)
        .locator("span.math")
        .evaluate_all(
            """all => all.filter(one => one.offsetHeight - one.clientHeight > 4)
            .map(one => one.textContent)"""
        )
    )
    assert barred == []


@each_page
def test_formulas_are_no_tab_stops(opened, page):
    """But for those that are wider than the page, which the arrow keys scroll."""
    stops = opened(page).locator("mjx-container[tabindex]:not([tabindex='-1'])")
    assert stops.evaluate_all("all => all.every(one => one.scrollWidth > one.clientWidth)")


def test_77_columns_fit_beside_both_sidebars(opened):
    """In a cell, in its output and in a solution: in one line, and nothing scrolls."""
    tab = opened("chapters/03_affine_matrices")
    tab.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    for kind in (".cell_input", ".cell_output", "details"):
        block = tab.locator(f".bd-article {kind} pre").first
        lines = block.evaluate(
            """block => ["m", "m".repeat(77)].map(text => {
              block.textContent = text;
              return [block.offsetHeight, block.scrollWidth - block.clientWidth];
            })"""
        )
        assert lines[0] == lines[1], kind
        assert lines[1][1] == 0, kind


@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (700, "print"), (390, "print")])
@each_chapter
def test_no_code_is_cut_off(opened, page, width, media):
    """On paper nothing of what was printed, either. (On a phone that scrolls, in its columns.)"""
    tab = opened(page, width)
    tab.emulate_media(media=media)
    blocks = tab.locator(".bd-article pre")
    if media == "screen":
        blocks = blocks.locator("visible=true").and_(tab.locator(":not(.cell_output *)"))
    assert blocks.count() > 20
    assert (
        blocks.evaluate_all(
            "all => all.filter(o => o.scrollWidth > o.clientWidth).map(o => o.textContent)"
        )
        == []
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_focus_is_seen_wherever_the_tab_key_goes(opened, theme):
    """On every control of the theme, from the top of the page to the chapter's text."""
    tab = opened("chapters/03_affine_matrices", color_scheme=theme)
    seen = {}
    for _ in range(40):
        tab.keyboard.press("Tab")
        name, outline, shadow, inside = tab.evaluate(
            """() => {
              const one = document.activeElement, style = getComputedStyle(one);
              return [one.className + one.textContent,
                style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
                /^rgb\\(/.test(style.boxShadow), Boolean(one.closest('article'))];
            }"""
        )
        if inside:
            break
        seen[name] = outline or shadow
    assert len(seen) > 20
    assert [name for name, visible in seen.items() if not visible] == []


@each_page
def test_page_reflows_at_320_pixels(opened, page):
    """As at 400 % of a window of 1280 pixels."""
    assert opened(page, 320).evaluate(SIDEWAYS) <= 0


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@each_page
def test_page_on_a_phone(site, chromium, served, page, theme, scheme):
    """Nothing from elsewhere, no complaint, mathematics set, no scrolling sideways."""
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=theme, service_workers="block"
    )
    tab = context.new_page()
    noise, foreign = [], []
    tab.on("console", lambda m: m.type in ("error", "warning") and noise.append(m.text))
    tab.on("pageerror", lambda error: noise.append(str(error)))
    tab.on("requestfailed", lambda request: noise.append(request.url))

    def only_here(route):
        if route.request.url.startswith((served, "file:", "data:", "blob:")):
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    tab.route("**/*", only_here)
    base = served if scheme == "http" else site.as_uri()
    tab.goto(f"{base}/{page}.html", wait_until="load")
    if tab.locator(".math").count():
        tab.wait_for_function("MathJax.startup.promise.then(() => true)")
        assert tab.locator("mjx-container").count() >= tab.locator(".math").count()
        assert tab.locator("mjx-merror").count() == 0
    assert foreign == []
    assert noise == []
    assert tab.evaluate("document.documentElement.dataset.theme") == theme
    assert tab.evaluate(SIDEWAYS) <= 0
    context.close()


# Each explorable, scrolled until 80 of its pixels lie behind the theme's bar: where it comes out
# below the bar, and where the picture that shall stay in view begins.
STICKING = """() =>
  [...document.querySelectorAll('.stn-explorable:not(.stn-question)')].map((host) => {
    const picture = [...host.shadowRoot.querySelectorAll('.stage, .trio, .looking, .reading')]
      .find((one) => getComputedStyle(one).position === 'sticky');
    scrollTo(0, scrollY + host.getBoundingClientRect().top + 30);
    let bar = 0;
    while (document.elementFromPoint(innerWidth / 2, bar) !== host) bar += 1;
    return [JSON.parse(host.dataset.stnWidget).kind,
      picture ? [bar, picture.getBoundingClientRect().top] : null];
  })
"""


def test_picture_of_an_explorable_stays_in_view_on_a_phone(site, chromium):
    """Right below the theme's bar: no box of the page scrolls by itself and takes it along."""
    context = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True)
    tab = context.new_page()
    kept = {}
    for path in sorted((site / "chapters").glob("*.html")):
        count = path.read_text(encoding="utf-8").count('class="stn-explorable"')
        if not count:
            continue
        tab.goto(path.as_uri(), wait_until="load")
        for one in tab.locator(".stn-explorable:not(.stn-question)").all():
            one.scroll_into_view_if_needed()
        ready = tab.locator(".stn-explorable[data-stn-ready]:not(.stn-question)")
        expect(ready).to_have_count(count)
        for kind, found in tab.evaluate(STICKING):
            kept.setdefault(kind, []).append((path.stem, found))
    context.close()
    wrong = [
        (kind, page, found)
        for kind, places in kept.items()
        for page, found in places
        if found is None or abs(found[1] - found[0]) > 1
    ]
    # A row of bits has nothing tall to keep in view.
    assert [one for one in wrong if one[0] != "pooling"] == []
    assert len(kept) > 8


# --- What search engines, and those to whom a page is sent, are told ---


class Head(HTMLParser):
    """A page's title, its canonical address, and its meta elements by name."""

    def __init__(self, html):
        super().__init__()
        self.title, self.canonical, self.meta, self.reading = "", None, {}, False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.reading = tag == "title"
        if tag == "meta" and "content" in attributes:
            name = attributes.get("name", attributes.get("property"))
            self.meta[name or attributes.get("http-equiv")] = attributes["content"]
        elif tag == "link" and attributes.get("rel") == "canonical":
            self.canonical = attributes["href"]

    def handle_data(self, data):
        if self.reading:
            self.title += data

    def handle_endtag(self, tag):
        self.reading = False


def head(site, page):
    return Head((site / f"{page}.html").read_text(encoding="utf-8"))


OWNER, NAME = ADDRESS.rsplit("/", 2)[1:]
HOME = f"https://{OWNER}.github.io/{NAME}/"


@each_page
def test_page_says_what_it_is(site, page):
    told = head(site, page)
    if page == TOC["root"]:
        assert told.title.strip().startswith("Learning to Look: Spatial Transformer Networks")
    else:
        assert told.title.strip().endswith(" — Learning to Look")
    assert len(told.title.strip()) <= 90
    assert 80 <= len(told.meta["description"]) <= 200
    assert told.canonical == told.meta["og:url"] == f"{HOME}{page}.html"
    assert told.meta["og:description"] == told.meta["description"]
    assert told.meta["og:title"] in told.title
    picture = site / told.meta["og:image"].removeprefix(HOME)
    with Image.open(picture) as image:
        said = [int(told.meta[f"og:image:{side}"]) for side in ("width", "height")]
        assert list(image.size) == said == [1200, 630]
    assert told.meta["og:image:alt"]


def test_no_two_pages_say_the_same(site):
    heads = [head(site, page) for page in PAGES]
    assert len({one.title for one in heads}) == len(PAGES)
    assert len({one.meta["description"] for one in heads}) == len(PAGES)


def test_ways_in(site):
    """The folder's own page, robots.txt and the site map lead to pages that are there."""
    index = (site / "index.html").read_text(encoding="utf-8")
    assert index.startswith("<!doctype html>")
    assert Head(index).title.startswith("Learning to Look: ")
    assert Head(index).meta["refresh"] == f"0; url={TOC['root']}.html"
    assert Addresses(index).links == [f"{TOC['root']}.html"]
    assert f"Sitemap: {HOME}sitemap.xml" in (site / "robots.txt").read_text(encoding="utf-8")
    tree = ElementTree.parse(site / "sitemap.xml")
    listed = [place.text for place in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    assert sorted(listed) == sorted(f"{HOME}{page}.html" for page in PAGES)


def test_a_lost_way_leads_back(site):
    """GitHub shows this page at any address that is none, so that it may lean on no file."""
    lost = (site / "404.html").read_text(encoding="utf-8")
    assert Addresses(lost).loads == []
    links = Addresses(lost).links
    assert len(links) == 2
    for link in links:
        assert (site / link.removeprefix(HOME)).is_file()
    assert Head(lost).meta["robots"] == "noindex"


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
@each_page
def test_axe_finds_nothing(opened, page, theme, width):
    """WCAG 2.2 AA and what is held to be good practice, on the whole page."""
    tab = opened(page, width, color_scheme=theme)
    if tab.locator("[data-stn-widget]").count():
        expect(tab.locator("[data-stn-ready]")).to_have_count(
            tab.locator("[data-stn-widget]").count()
        )
    # Before it is set, a formula is its source, which may be wider than a phone.
    tab.wait_for_function("!document.querySelector('.bd-article .math:not(:has(mjx-container))')")
    kinds = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = Axe().run(tab, options={"preload": False, "runOnly": kinds})
    faults = [
        (fault["id"], node) for fault in found.response["violations"] for node in fault["nodes"]
    ]
    # A header that is one formula is no empty one: axe sees no text where a style sheet draws it.
    formula = "one => Boolean(one.querySelector('mjx-assistive-mml'))"
    assert [
        (name, node["html"])
        for name, node in faults
        if name != "empty-table-header" or not tab.locator(node["target"][0]).evaluate(formula)
    ] == []
