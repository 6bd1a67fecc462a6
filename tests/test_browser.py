"""The explorables in a real browser: every way of moving them, on either theme, asking nobody.

A small book of two pages, built as the real one is, stands for all pages. Without a Chromium these
tests are skipped, and say so.
"""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from playwright.sync_api import expect

from stn_tutorial import affine, sampling
from stn_tutorial.explorables import (
    BilinearExplorer,
    CornersExplorer,
    DescentExplorer,
    MappingExplorer,
    ThetaExplorer,
    digit_nets,
)
from stn_tutorial.explorables.pictures import embedded_image
from stn_tutorial.grids import affine_grid

ROOT = Path(__file__).parents[1]

# The theme reports its own doings in the console, under these names.
THEME = ("[PST]", "[togglebutton]")

WELCOME = """# A welcome page

```{explorable} theta
```

```{explorable} theta
:picture: F
:theta: 0.5 0 0.25, 0 0.5 0
:show: point
```
"""

# The other kinds, two on a page.
FEW = """# Few pixels

```{explorable} pooling
```

```{explorable} bilinear
```
"""

MAPS = """# Maps

```{explorable} mapping
```

```{explorable} descent
```
"""

DRAGS = """# Points to drag

```{explorable} corners
```

```{explorable} spline
```
"""

NETWORKS = """# Trained networks

```{explorable} network
```

```{explorable} network
:picture: 7
:pose: -50 1.2 0.1 0
```
"""

MATHEMATICS = """# A formula

Here is $x$.

```{explorable} pooling
```
"""

PLACES = {
    "corners": ("drags", 0),
    "spline": ("drags", 1),
    "pooling": ("few", 0),
    "bilinear": ("few", 1),
    "mapping": ("maps", 0),
    "descent": ("maps", 1),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A book with a Markdown page, a chapter, and a page without any explorable."""
    source = tmp_path_factory.mktemp("book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["local_extensions"] = dict.fromkeys(
        config["sphinx"]["local_extensions"], str(ROOT / "book" / "_ext")
    )
    for key in ("logo", "favicon"):
        for part in (config, config["html"]):
            if key in part:
                part[key] = str(ROOT / part[key])
    (source / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    names = ("chapter", "few", "maps", "drags", "networks", "mathematics", "plain")
    pages = [{"file": name} for name in names]
    toc = {"format": "jb-book", "root": "welcome", "chapters": pages}
    (source / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (source / "welcome.md").write_text(WELCOME, encoding="utf-8")
    (source / "few.md").write_text(FEW, encoding="utf-8")
    (source / "maps.md").write_text(MAPS, encoding="utf-8")
    (source / "drags.md").write_text(DRAGS, encoding="utf-8")
    (source / "networks.md").write_text(NETWORKS, encoding="utf-8")
    (source / "mathematics.md").write_text(MATHEMATICS, encoding="utf-8")
    (source / "plain.md").write_text("# A page without\n\nNothing here.\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    shown = [
        ThetaExplorer("F", [[0, -1, 0], [1, 0, 0]], show="weights"),
        ThetaExplorer(rng.random((5, 9, 3)), pixel=(6, 1), show="point"),
    ]
    cells = [nbformat.v4.new_markdown_cell("# A chapter")]
    for number, widget in enumerate(shown, start=1):
        data, metadata = widget._repr_mimebundle_()
        output = nbformat.v4.new_output(
            "execute_result", data, metadata=metadata, execution_count=number
        )
        cell = nbformat.v4.new_code_cell("explorer", execution_count=number, outputs=[output])
        cells.append(cell)
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, source / "chapter.ipynb")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "-W", "-n"]
    built = subprocess.run([*command, "--keep-going"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return source / "_build" / "html"


@pytest.fixture
def tab(chromium, site, served):
    """Open a page; when the test ends, nothing may have been said or asked of another host."""
    contexts, noise = [], []

    def open_page(page="welcome", scheme="http", **options):
        options = {"viewport": {"width": 1000, "height": 1200}, **options}
        context = chromium.new_context(service_workers="block", **options)
        contexts.append(context)
        opened = context.new_page()
        opened.on(
            "console", lambda m: m.text.startswith(THEME) or noise.append((m.text, m.location))
        )
        opened.on("pageerror", lambda error: noise.append(str(error)))

        def only_here(route):
            if not route.request.url.startswith((served, "file:", "data:", "blob:")):
                noise.append(route.request.url)
            route.continue_()

        opened.route("**/*", only_here)
        base = served if scheme == "http" else site.as_uri()
        opened.goto(f"{base}/{page}.html", wait_until="load")
        if options.get("java_script_enabled", True) and page != "plain":
            expect(opened.locator("[data-stn-ready]")).to_have_count(2)
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert noise == []


def painted(explorable):
    """Wait until the frame after this one, in which what was done is shown."""
    explorable.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def entries(explorable):
    """θ as the six number fields show it."""
    painted(explorable)
    fields = explorable.locator("input[role=spinbutton]")
    return [float(value) for value in fields.evaluate_all("all => all.map(one => one.value)")]


def pixels(explorable):
    """What the two canvases show."""
    painted(explorable)
    return explorable.locator(".stage canvas").evaluate_all(
        "all => all.map(canvas => canvas.toDataURL())"
    )


def settled(explorable, *theta):
    """Wait until the six fields show θ, and the canvases too."""
    expect(explorable.locator("input[role=spinbutton]").nth(5)).to_have_value(f"{theta[5]:g}")
    for k in range(6):
        expect(explorable.locator("input[role=spinbutton]").nth(k)).to_have_value(f"{theta[k]:g}")
    explorable.page.wait_for_timeout(600)


def centre(element):
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_presets_move_the_picture(tab, scheme):
    one = tab(scheme=scheme).locator(".stn-explorable").first
    before = pixels(one)
    one.get_by_role("button", name="Shrink and shift").click()
    settled(one, 4, 0, -2, 0, 4, 0)
    assert all(a != b for a, b in zip(before, pixels(one), strict=True))
    expect(one.locator(".words")).to_have_text(
        "The picture is made a quarter as large and moved right by 0.5."
    )
    expect(one.locator(".facts")).to_contain_text("det = 16.00")
    one.get_by_role("button", name="Reset").click()
    settled(one, 1, 0, 0, 0, 1, 0)
    assert pixels(one) == before


def test_each_preset_says_what_it_does(tab):
    one = tab(reduced_motion="reduce").locator(".stn-explorable").first
    for name, words in {
        "Rotation": "turned 30° counter-clockwise",
        "Zoom": "made twice as large",
        "Crop": "made 2.22 times as large and moved right by 0.33 and down by 0.78",
        "Shear": "slanted by 0.5 (bottom to the right)",
        "Reflection": "mirrored left to right",
    }.items():
        button = one.get_by_role("button", name=name)
        button.click()
        expect(one.locator(".words")).to_have_text(f"The picture is {words}.")
        expect(button).to_have_attribute("aria-pressed", "true")
    one.get_by_role("button", name="Identity").click()
    expect(one.locator(".words")).to_have_text("The picture stays as it is.")


def test_slider_by_mouse_and_by_key(tab):
    page = tab()
    one = page.locator(".stn-explorable").first
    slider = one.get_by_role("slider", name="θ, row 1, column 2")
    slider.scroll_into_view_if_needed()
    before = pixels(one)
    x, y = centre(slider)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    page.mouse.up()
    moved = entries(one)[1]
    assert 0.2 < moved < 1.2
    page.wait_for_timeout(500)
    assert pixels(one) != before
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    assert entries(one)[1] == pytest.approx(moved - 0.02)
    assert page.url.endswith("welcome.html")  # the theme turns pages with the arrow keys


def test_number_entry_and_its_errors(tab):
    one = tab().locator(".stn-explorable").first
    field = one.get_by_role("spinbutton", name="θ, row 2, column 3, as a number")
    field.fill("-0.75")
    settled(one, 1, 0, 0, 0, 1, -0.75)
    expect(one.locator(".words")).to_have_text("The picture is moved down by 0.75.")
    slider = one.get_by_role("slider", name="θ, row 2, column 3")
    expect(slider).to_have_value("-0.75")
    field.fill("")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.press("Tab")
    expect(field).to_have_value("-0.75")
    expect(field).to_have_attribute("aria-invalid", "false")
    field.fill("5")
    expect(slider).to_have_attribute("max", "8")


@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("Origin", [1, 0, 0.5, 0, 1, -0.25]),
        ("Tip of the grid's x axis", [1.5, 0, 0, -0.25, 1, 0]),
        ("Tip of the grid's y axis", [1, 0.5, 0, 0, 0.75, 0]),
    ],
)
def test_handles_by_mouse_and_by_key(tab, name, theta):
    page = tab()
    one = page.locator(".stn-explorable").first
    grip = one.get_by_role("slider", name=name)
    grip.scroll_into_view_if_needed()
    unit = one.locator(".input .plane").bounding_box()["width"] / 2 / 1.45
    x, y = centre(grip)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 0.5 * unit, y - 0.25 * unit, steps=5)
    page.mouse.up()
    assert entries(one) == pytest.approx(theta, abs=0.02)
    before = entries(one)
    page.wait_for_timeout(500)
    grip.press("ArrowRight")
    grip.press("Shift+ArrowDown")
    column = {"O": 2, "x": 0, "y": 1}["O" if name == "Origin" else name[-6]]
    expected = list(before)
    expected[column] += 0.02
    expected[column + 3] += 0.2
    assert entries(one) == pytest.approx(expected, abs=0.011)


def test_picked_pixel_by_mouse_and_by_key(tab):
    page = tab("chapter")
    one = page.locator(".stn-explorable").first  # F, turned by a quarter, weights shown
    first = one.get_by_role("slider", name="Pixel of the output").get_attribute("aria-valuetext")
    output = one.locator(".output canvas")
    output.scroll_into_view_if_needed()
    box = output.bounding_box()
    unit = box["width"] / 2 / 1.12
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    # Within a pixel, and not on the line between two.
    page.mouse.click(at[0] + 0.508 * unit, at[1] - 0.3 * unit)
    pick = one.get_by_role("slider", name="Pixel of the output")
    inspector = one.locator(".inspector")
    expect(inspector).to_contain_text("Output pixel (96, 44)")
    expect(inspector).to_contain_text("column 83.00, row 96.00")  # x reads −y, y reads x
    pick.press("ArrowDown")
    expect(inspector).to_contain_text("Output pixel (96, 45)")
    expect(inspector).to_contain_text("column 82.00, row 96.00")
    page.mouse.move(*centre(pick))
    page.mouse.down()
    page.mouse.move(at[0] - 0.492 * unit, at[1] + 0.508 * unit, steps=5)
    page.mouse.up()
    expect(inspector).to_contain_text("Output pixel (32, 96)")
    one.get_by_role("button", name="Reset").click()
    expect(pick).to_have_attribute("aria-valuetext", first)


@pytest.mark.parametrize(
    ("typed", "taken"), [("−0.35", "-0.35"), ("0,5", "0.5"), ("1/2", "0"), ("hello", "0")]
)
def test_a_number_is_taken_as_it_was_meant_or_not_at_all(tab, typed, taken):
    page = tab(reduced_motion="reduce")
    one = page.locator(".stn-explorable").first
    field = one.get_by_role("spinbutton", name="θ, row 1, column 3, as a number")
    one.get_by_role("button", name="Identity").click()
    field.focus()
    page.keyboard.insert_text(typed)
    field.blur()
    expect(field).to_have_value(taken)
    expect(one.get_by_role("slider", name="Origin")).to_have_attribute(
        "aria-valuetext", f"{float(taken):.2f}, 0.00".replace("-", "−")
    )


def test_weights_are_those_of_the_point(tab):
    page = tab("chapter", reduced_motion="reduce")
    one = page.locator(".stn-explorable").nth(1)  # 5 × 9 pixels, colour
    for name, value in (("row 1, column 3", "0.05"), ("row 2, column 3", "-0.1")):
        one.get_by_role("spinbutton", name=f"θ, {name}, as a number").fill(value)
    # Output pixel (6, 1): 6 + 0.05 · 9/2 = 6.225, 1 − 0.1 · 5/2 = 0.75.
    expect(one.locator(".inspector")).to_contain_text("column 6.22, row 0.75")
    rows = one.locator("tbody tr").all_inner_texts()
    found = [re.match(r"\((\d+), (\d+)\)\s+([\d.]+)", row).groups() for row in rows[:4]]
    assert found == [
        ("6", "0", "0.19"), ("7", "0", "0.06"), ("6", "1", "0.58"), ("7", "1", "0.17")
    ]  # fmt: skip


def test_choice_of_picture(tab):
    one = tab().locator(".stn-explorable").first
    before = pixels(one)
    one.get_by_role("radio", name="Handwritten 5").check(force=True)
    one.page.wait_for_timeout(300)
    assert all(a != b for a, b in zip(before, pixels(one), strict=True))


def test_touch_moves_a_handle(tab):
    page = tab(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    one = page.locator(".stn-explorable").first
    one.get_by_role("button", name="Zoom").tap()
    settled(one, 0.5, 0, 0, 0, 0.5, 0)
    grip = one.get_by_role("slider", name="Origin")
    grip.scroll_into_view_if_needed()
    x, y = centre(grip)
    unit = one.locator(".input .plane").bounding_box()["width"] / 2 / 1.45
    touch = page.context.new_cdp_session(page)

    def send(kind, *points):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    send("touchStart", {"x": x, "y": y})
    for k in range(1, 6):
        send("touchMove", {"x": x + 0.1 * k * unit, "y": y + 0.1 * k * unit})
    send("touchEnd")
    assert entries(one) == pytest.approx([0.5, 0, 0.5, 0, 0.5, 0.5], abs=0.03)


@pytest.mark.parametrize("page", ["welcome", "chapter", "few", "maps", "drags", "networks"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_axe_finds_nothing_serious(tab, serious_faults, page, theme, width):
    opened = tab(page, color_scheme=theme, viewport={"width": width, "height": 900})
    opened.wait_for_timeout(300)
    assert serious_faults(opened) == []


@pytest.mark.parametrize("page", ["welcome", "chapter", "few", "maps", "drags", "networks"])
@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(tab, page, width):
    opened = tab(page, viewport={"width": width, "height": 844})
    assert opened.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    if page in ("welcome", "chapter"):
        cells = opened.locator(".stn-explorable").first.locator(".cell")
        tops = [round(cells.nth(k).bounding_box()["y"]) for k in range(6)]
        assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4] == tops[5]
    # Nothing sticks out of its own frame either.
    assert opened.evaluate(
        """() => [...document.querySelectorAll('.stn-explorable')].every(host => {
          const root = host.shadowRoot.querySelector('.root');
          return root.scrollWidth <= root.clientWidth;
        })"""
    )


def test_theme_follows_the_book(tab):
    page = tab(color_scheme="light")
    root = page.locator(".stn-explorable .root").first
    expect(root).to_have_attribute("data-theme", "light")
    light = root.evaluate("one => getComputedStyle(one).backgroundColor")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    expect(root).to_have_attribute("data-theme", "dark")
    assert root.evaluate("one => getComputedStyle(one).backgroundColor") != light


def test_speaks_once_after_a_pause(tab):
    page = tab(reduced_motion="reduce")
    one = page.locator(".stn-explorable").first
    page.evaluate(
        """() => {
          window.said = [];
          const root = document.querySelector('.stn-explorable').shadowRoot;
          const region = root.querySelector('[role=status]');
          new MutationObserver(() => window.said.push(region.textContent))
            .observe(region, {childList: true, characterData: true, subtree: true});
        }"""
    )
    slider = one.get_by_role("slider", name="θ, row 1, column 3")
    for _ in range(10):
        slider.press("ArrowRight")
    page.wait_for_timeout(1000)
    assert page.evaluate("window.said") == ["The picture is moved left by 0.1."]


@pytest.mark.parametrize(
    ("name", "alt"),
    [
        ("chapter", ["sampling grid", "sampling grid"]),
        ("few", ["becomes 0101 under a max-pool of stride 2", "gives 13.60 there"]),
        ("maps", ["112 holes and 112 collisions among 1024", "white where they agree"]),
        ("drags", ["grid of a projective map", "thin-plate spline through 4×4 control points"]),
        ("networks", ["with the transformer reads 3 at", "with the transformer reads 7 at"]),
    ],
)
def test_without_javascript_a_picture_stands_there(tab, name, alt):
    page = tab(name, java_script_enabled=False)
    pictures = page.locator(".stn-explorable img")
    assert pictures.count() == 2
    for k in range(2):
        pictures.nth(k).scroll_into_view_if_needed()
        expect(pictures.nth(k)).to_be_visible()
        assert alt[k] in pictures.nth(k).get_attribute("alt")
        assert pictures.nth(k).bounding_box()["width"] > 200


@pytest.mark.parametrize("page", ["welcome", "chapter"])
def test_the_picture_stands_there_until_the_explorable_is_ready(chromium, served, page):
    opened = chromium.new_page()
    held = []
    opened.route("**/stn-theta.js*", lambda route: held.append(route))
    opened.goto(f"{served}/{page}.html", wait_until="commit")
    still = opened.locator(".stn-explorable img").first
    expect(still).to_be_visible()
    expect(still).to_have_js_property("complete", True)
    assert still.evaluate("one => one.naturalWidth") > 200
    assert opened.locator("[data-stn-ready]").count() == 0
    held[0].continue_()
    expect(opened.locator("[data-stn-ready]")).to_have_count(2)
    assert still.bounding_box() is None
    opened.close()


def test_an_explorable_does_not_wait_for_the_mathematics(chromium, served):
    opened = chromium.new_page()
    opened.route("**/mathjax/**", lambda route: None)  # it never comes
    opened.goto(f"{served}/mathematics.html", wait_until="commit")
    expect(opened.locator("[data-stn-ready]")).to_have_count(1)
    opened.close()


def test_pages_carry_only_what_they_show(site):
    welcome, chapter, plain = (
        (site / f"{name}.html").read_text(encoding="utf-8")
        for name in ("welcome", "chapter", "plain")
    )
    # One script for both, in which what they share stands once.
    assert "stn-bilinear-pooling.js" in (site / "few.html").read_text(encoding="utf-8")
    assert "stn-theta.js" in welcome
    assert "stn-theta.js" in chapter
    assert "stn-theta.js" not in plain
    assert "data:image/jpeg" not in welcome + chapter


@pytest.mark.parametrize(
    ("name", "most"), [("welcome", 30), ("few", 30), ("maps", 30), ("drags", 31), ("networks", 600)]
)
def test_weight_of_an_explorable(tab, site, served, name, most):
    """A page with an explorable is so many kB heavier at most, compressed, than one without.

    To which come the pictures that stand there until it is ready.
    """
    import gzip

    asked = []
    page = tab("plain")
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served}/{name}.html", wait_until="load")
    expect(page.locator("[data-stn-ready]")).to_have_count(2)
    page.wait_for_timeout(500)
    own = {url.partition("?")[0] for url in asked if "stn-" in url and "stn-book" not in url}
    files = [site / url.removeprefix(f"{served}/") for url in own]
    stills = [path.stat().st_size for path in files if path.suffix == ".jpg"]
    assert len(stills) <= 2
    assert all(size < 20_000 for size in stills)
    weight = sum(len(gzip.compress(path.read_bytes())) for path in files if path.suffix != ".jpg")
    html = {one: len(gzip.compress((site / f"{one}.html").read_bytes())) for one in ("plain", name)}
    weight += html[name] - html["plain"]
    print(json.dumps({"bytes": weight, "files": sorted(own)}))
    assert weight <= 1000 * most


def test_weights_travel_once_and_only_where_they_are_used(site):
    sent = digit_nets.sent()["weights"]
    holders = [
        path for path in site.rglob("*") if path.is_file() and sent in path.read_text("latin")
    ]
    assert [path.name for path in holders] == ["stn-network.js"]
    assert holders[0].read_text(encoding="utf-8").count(sent) == 1
    users = [path.name for path in site.glob("*.html") if "stn-network.js" in path.read_text()]
    assert users == ["networks.html"]


# --- The other kinds ---


@pytest.fixture
def shown(tab):
    """Open the page that has one of these kinds, and return it."""

    def find(kind, **options):
        page, place = PLACES[kind]
        return tab(page, **options).locator(".stn-explorable").nth(place)

    return find


def drag(page, element, dx, dy):
    element.scroll_into_view_if_needed()
    x, y = centre(element)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()


STARTS = {
    "pooling": "The signal becomes 0101; moved one place to the left, it becomes 1111: 2 of 4 "
    "differ.",
    "bilinear": "At (1.6, 2.4) four pixels give 13.60; the slope is 1.00 to the right and 5.00 "
    "downwards.",
    "mapping": "Forward: 112 holes and 112 collisions among 1024 pixels. Inverse: every pixel has "
    "a value.",
    "descent": "At the start the loss is 0.2394; the picture lies 0.50 to the right, 0.30 below.",
    "corners": "The picture stays as it is.",
    "spline": "The picture stays as it is.",
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize(
    ("kind", "button", "words"),
    [
        ("pooling", "Move right by one", "not moved, it becomes 0101: none differs."),
        ("bilinear", "Nearest", "one pixel gives 12.00; a small step changes nothing"),
        ("mapping", "Half as large", "no holes and 256 collisions"),
        ("descent", "Step", "After 1 step the loss is 0.2328; the picture lies 0.46 to the right"),
        ("corners", "Keystone", "seen in perspective: the denominator runs from 0.71 to 1.29."),
        ("spline", "Bulge", "12 of 16 points are moved, by up to 0.23: a thin-plate spline"),
    ],
)
def test_a_button_and_back(shown, kind, button, words, scheme):
    one = shown(kind, scheme=scheme, reduced_motion="reduce")
    said = one.locator(".words")
    expect(said).to_have_text(STARTS[kind])
    one.get_by_role("button", name=button, exact=True).click()
    expect(said).to_contain_text(words)
    one.get_by_role("button", name="Reset").click()
    expect(said).to_have_text(STARTS[kind])


def test_bits_are_turned_over(shown):
    one = shown("pooling")
    first = one.get_by_role("button", name=re.compile("^Entry 1: [01]$"))
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(one.locator(".words")).to_contain_text("The signal becomes 1101")
    # By keys: along the row, and over.
    first.press("ArrowRight")
    second = one.get_by_role("button", name=re.compile("^Entry 2: [01]$"))
    expect(second).to_be_focused()
    second.press("Enter")
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(second).to_be_focused()
    expect(one.locator(".output .wrong")).to_have_count(2)


def test_stride_and_blur(shown):
    one = shown("pooling")
    said, blur = one.locator(".words"), one.get_by_role("group", name="Blur")
    blur.get_by_role("button", name="3 taps").click()
    expect(said).to_contain_text(
        "becomes .5, 1, .5, 1; moved one place to the left, it becomes .75"
    )
    expect(one.locator(".facts")).to_contain_text("The largest difference is 0.25")
    one.get_by_role("group", name="Stride").get_by_role("button", name="1").click()
    expect(said).to_contain_text("the same, moved with it.")
    expect(one.locator(".wrong")).to_have_count(0)


def test_point_by_mouse_and_by_key(shown):
    one = shown("bilinear")
    stage, page = one.locator(".reading .plane").first, one.page
    stage.scroll_into_view_if_needed()
    unit = stage.bounding_box()["width"] / 6.6
    grip = one.get_by_role("slider", name="Point", exact=True)
    drag(page, grip, unit, -0.5 * unit)
    fields = one.locator("input[role=spinbutton]")
    painted(one)
    at = [float(fields.nth(k).input_value()) for k in (0, 1)]
    assert at == pytest.approx([2.6, 1.9], abs=0.02)
    value, dx, dy = BilinearExplorer(point=at)._read()
    expect(one.locator(".words")).to_contain_text(
        f"four pixels give {value:.2f}; the slope is {dx:.2f} to the right and {dy:.2f} downwards."
    )
    fields.nth(0).fill("2.9")
    grip.press("ArrowRight")
    # A whole position: the cell to the right counts.
    expect(fields.nth(0)).to_have_value("3")
    expect(one.locator(".facts")).to_contain_text("x is whole; cells are half open")
    expect(one.locator(".weights thead")).to_contain_text("column 4")
    fields.nth(0).fill("7")
    expect(fields.nth(0)).to_have_attribute("aria-invalid", "true")
    # To a place on the picture that is pressed.
    middle = stage.bounding_box()["width"] / 2
    stage.locator("canvas").click(position={"x": middle + unit, "y": middle - unit})
    expect(fields.nth(0)).to_have_attribute("aria-invalid", "false")
    page.wait_for_timeout(100)
    assert [float(fields.nth(k).input_value()) for k in (0, 1)] == pytest.approx([3, 1], abs=0.03)


@pytest.mark.parametrize("mode", sampling.MODES)
@pytest.mark.parametrize("picture", ["Ramp", "Edge", "Constant"])
def test_values_and_slopes_are_the_packages(shown, mode, picture):
    one = shown("bilinear")
    one.get_by_role("button", name=picture).click()
    one.get_by_role("button", name=mode.capitalize()).click()
    for k, place in enumerate(("2.3", "4.2")):
        one.locator("input[role=spinbutton]").nth(k).fill(place)
    value, dx, dy = BilinearExplorer(picture.lower(), (2.3, 4.2), mode)._read()
    painted(one)
    found = one.locator(".working .equation b").evaluate_all("all => all.map(b => b.textContent)")
    expected = [value, dx, dx * 2.5, dy, dy * 2.5]
    assert [float(text.replace("−", "-")) for text in found] == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize("change", [(5, 1.0), (-37, 0.6), (120, 1.73)])
def test_holes_and_collisions_are_the_packages(shown, change):
    one = shown("mapping")
    for name, value in zip(("Turn in degrees, counter-clockwise", "Size"), change, strict=True):
        one.get_by_role("spinbutton", name=f"{name}, as a number").fill(str(value))
    degrees, size = change
    turned = affine.rotation(degrees, dtype=torch.float64)
    theta = affine.compose(turned, affine.scaling(size, dtype=torch.float64))
    done = MappingExplorer(theta=theta).splat()
    holes, collisions = int(done.holes.sum()), int(done.collisions.sum())
    expect(one.locator(".words")).to_contain_text(
        f"Forward: {holes or 'no'} holes and {collisions or 'no'} collisions among 1024"
    )


def test_mapping_without_an_inverse(shown):
    one = shown("mapping")
    slider = one.get_by_role("slider", name="Turn in degrees, counter-clockwise")
    slider.press("ArrowRight")
    expect(one.locator(".facts").last).to_have_text("The picture is turned 31° counter-clockwise.")
    one.locator("summary").click()
    for name in ("row 1, column 1", "row 1, column 2"):
        one.get_by_role("spinbutton", name=f"θ, {name}, as a number").fill("0")
    expect(one.locator(".words")).to_contain_text("Forward mapping has no answer")


def test_descent_step_by_step(shown):
    """Five steps, as PyTorch takes them on the same picture."""
    one = shown("descent")
    U = torch.tensor(np.asarray(embedded_image("F", 48)) / 255.0)[None, None]
    shift = torch.tensor([-0.5, -0.3], dtype=torch.float64)
    for number in range(1, 6):
        one.get_by_role("button", name="Step", exact=True).click()
        losses = []
        for _ in range(2):
            own = shift.clone().requires_grad_()
            theta = torch.cat([torch.eye(2, dtype=torch.float64), own[:, None]], 1)[None]
            loss = (sampling.sample(U, affine_grid(theta, (48, 48))) - U).square().mean()
            losses.append(loss.item())
            if len(losses) == 1:
                shift = shift - 0.1 * torch.autograd.grad(loss, own)[0]
        after = f"After {number} step{'s' * (number > 1)} the loss is {losses[1]:.4f}"
        expect(one.locator(".words")).to_contain_text(after)


def test_descent_stalls_and_blur_cures_it(shown):
    one = shown("descent", reduced_motion="reduce")
    play = one.get_by_role("button", name="50 steps")
    play.click()
    expect(one.locator(".facts").first).to_contain_text("Descent has stalled")
    one.get_by_role("button", name="4 pixels").click()
    one.get_by_role("button", name="Back to the start").click()
    play.click()
    play.click()
    expect(one.locator(".facts").first).to_have_text("It has found its place.")


def test_descent_plays_and_pauses(shown):
    one = shown("descent")
    one.get_by_role("button", name="0.03").click()
    one.get_by_role("button", name="Play").click()
    expect(one.locator(".words")).to_contain_text(re.compile(r"After \d+ steps"))
    one.get_by_role("button", name="Pause").click()
    expect(one.get_by_role("button", name="Play")).to_be_visible()
    painted(one)
    said = one.locator(".words").inner_text()
    one.page.wait_for_timeout(250)
    assert one.locator(".words").inner_text() == said


def test_start_is_dragged(shown):
    one = shown("descent")
    unit = one.locator(".duo .plane").first.bounding_box()["width"] / 2 / 1.04
    grip = one.get_by_role("slider", name="The picture", exact=True)
    drag(one.page, grip, -0.2 * unit, -0.4 * unit)
    painted(one)
    words = one.locator(".words").inner_text()
    found = re.search(r"([\d.]+) to the right, ([\d.]+) above", words)
    assert [float(one) for one in found.groups()] == pytest.approx([0.3, 0.1], abs=0.02)
    start = one.get_by_role("slider", name="Start, on the landscape")
    start.press("Shift+ArrowLeft")
    expect(one.locator(".words")).to_contain_text(f"lies {float(found[1]) - 0.2:.2f} to the right")
    assert one.page.url.endswith("maps.html")


@pytest.mark.parametrize("kind", ["pooling", "bilinear", "mapping", "descent", "corners", "spline"])
def test_touch_moves_each(shown, kind):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    one = shown(kind, **phone)
    before = one.locator(".words").inner_text()
    if kind == "pooling":
        one.get_by_role("button", name=re.compile("^Entry 3: [01]$")).tap()
    elif kind == "mapping":
        one.get_by_role("button", name="Shear").tap()
    else:
        names = {
            "bilinear": "Point",
            "descent": "The picture",
            "corners": "Corner 4, lower right",
            "spline": "Point 11 of 16, row 3, column 3",
        }
        grip = one.get_by_role("slider", name=names[kind], exact=True)
        grip.scroll_into_view_if_needed()
        x, y = centre(grip)
        touch = one.page.context.new_cdp_session(one.page)
        for step, type in enumerate(("Start", "Move", "Move", "End")):
            points = [] if type == "End" else [{"x": x - 15 * step, "y": y - 10 * step}]
            event = {"type": f"touch{type}", "touchPoints": points}
            touch.send("Input.dispatchTouchEvent", event)
    expect(one.locator(".words")).not_to_have_text(before)


def chosen(one):
    """What the fields show of the chosen point: its number, x and y."""
    painted(one)
    fields = one.locator(".fields input[role=spinbutton]")
    return [float(value) for value in fields.evaluate_all("all => all.map(one => one.value)")]


@pytest.mark.parametrize(
    ("kind", "name", "number", "home"),
    [
        ("corners", "Corner 2, upper right", 2, (1, -1)),
        ("spline", "Point 11 of 16, row 3, column 3", 11, (1 / 3, 1 / 3)),
    ],
)
def test_points_by_mouse_and_by_key(shown, kind, name, number, home):
    one = shown(kind)
    page, grip = one.page, one.get_by_role("slider", name=name)
    unit = one.locator(".input .plane").bounding_box()["width"] / 2 / 1.3
    before = pixels(one)
    drag(page, grip, -0.25 * unit, 0.3 * unit)
    page.wait_for_timeout(500)
    at = chosen(one)
    assert at == pytest.approx([number, home[0] - 0.25, home[1] + 0.3], abs=0.02)
    assert all(a != b for a, b in zip(before, pixels(one), strict=True))
    expect(grip).to_be_focused()
    grip.press("ArrowRight")
    grip.press("Shift+ArrowUp")
    expected = [number, at[1] + 0.02, at[2] - 0.2]
    page.wait_for_timeout(100)
    assert chosen(one) == pytest.approx(expected, abs=0.002)
    x, y = (f"{value:.2f}".replace("-", "−") for value in expected[1:])
    expect(grip).to_have_attribute("aria-valuetext", f"{x}, {y}")
    # The numbers, too.
    one.get_by_role("spinbutton", name=re.compile("^x of the chosen")).fill("0.5")
    expect(grip).to_have_attribute("aria-valuetext", f"0.50, {y}")
    assert page.url.endswith("drags.html")


def test_points_are_chosen_by_key_by_number_and_in_the_output(shown):
    one = shown("spline")

    def point(number):
        return one.get_by_role("slider", name=f"Point {number} of 16")

    # One stop for the Tab key.
    assert one.locator(".handle[tabindex='0']").count() == 1
    point(6).focus()
    one.page.keyboard.press("PageDown")
    expect(point(7)).to_be_focused()
    one.page.keyboard.press("1")
    one.page.keyboard.press("4")
    expect(point(14)).to_be_focused()
    for _ in range(3):
        one.page.keyboard.press("PageDown")
    expect(point(1)).to_be_focused()
    one.get_by_role("spinbutton", name="Point, as a number", exact=True).fill("9")
    expect(point(9)).to_have_attribute("data-chosen", "")
    box = one.locator(".output canvas").bounding_box()
    one.locator(".output canvas").click(
        position={"x": box["width"] * (0.5 + 1 / 6.72), "y": box["height"] * (0.5 - 1 / 6.72)}
    )
    expect(point(7)).to_have_attribute("data-chosen", "")
    assert chosen(one)[0] == 7
    corners = shown("corners")
    assert corners.locator(".handle[tabindex='0']").count() == 4
    corners.get_by_role("slider", name="Corner 1").focus()
    corners.page.keyboard.press("3")
    expect(corners.get_by_role("slider", name="Corner 3")).to_be_focused()


def test_the_nearest_of_points_close_together_is_meant(shown):
    one = shown("spline", reduced_motion="reduce")
    page = one.page
    one.get_by_role("spinbutton", name="x of the chosen").fill("0.26")
    six = one.get_by_role("slider", name="Point 6 of 16")
    expect(six).to_have_attribute("aria-valuetext", "0.26, −0.33")
    page.wait_for_timeout(300)
    # A little to its left: there the seventh, drawn later, would be hit as well.
    six.scroll_into_view_if_needed()
    x, y = centre(six)
    seventh = one.get_by_role("slider", name="Point 7 of 16")
    assert centre(seventh)[0] - x < 12
    page.mouse.move(x - 2, y)
    page.mouse.down()
    page.mouse.move(x - 42, y, steps=4)
    page.mouse.up()
    expect(six).to_be_focused()
    expect(seventh).to_have_attribute("aria-valuetext", "0.33, −0.33")
    assert chosen(one)[1] < 0.1


def test_theta_is_shown_and_is_the_packages(shown):
    one = shown("corners", reduced_motion="reduce")
    one.get_by_role("button", name="Tilt").click()
    one.page.wait_for_timeout(300)
    corners = []
    for number in range(1, 5):
        one.get_by_role("spinbutton", name="Corner, as a number", exact=True).fill(str(number))
        one.page.wait_for_timeout(100)
        corners.append(chosen(one)[1:])
    cells = one.locator(".entries td").all_inner_texts()
    found = [float(text.replace("−", "-")) for text in cells]
    theta = CornersExplorer(corners=corners).theta
    assert found == pytest.approx(np.ravel(theta).tolist(), abs=0.0051)


def vermilion(one):
    """How many pixels of the output are as the strokes are."""
    return one.locator(".output canvas").evaluate(
        """canvas => {
          const [w, h] = [canvas.width, canvas.height];
          // A copy: a canvas that is read again and again is a warning in the console.
          const copy = Object.assign(document.createElement('canvas'), {width: w, height: h});
          const context = copy.getContext('2d', {willReadFrequently: true});
          context.drawImage(canvas, 0, 0);
          const data = context.getImageData(0, 0, w, h).data;
          let count = 0;
          for (let k = 0; k < data.length; k += 4)
            count += Math.abs(data[k] - 0xD5) + Math.abs(data[k + 1] - 0x5E) + data[k + 2] < 40;
          return count;
        }"""
    )


@pytest.mark.parametrize(
    ("kind", "preset", "said"),
    [
        ("corners", "Horizon", "11 % of the output is beyond the horizon"),
        ("spline", "Fold", "19 % of the output is folded over"),
    ],
)
def test_folds_are_marked_and_told(shown, kind, preset, said):
    one = shown(kind, reduced_motion="reduce")
    one.get_by_role("radio", name="Letter F").check(force=True)
    facts = one.locator(".told .facts")
    one.page.wait_for_timeout(200)
    assert vermilion(one) == 0
    expect(facts).not_to_have_class(re.compile("wrong"))
    one.get_by_role("button", name=preset).click()
    expect(facts).to_contain_text(said)
    expect(facts).to_have_class(re.compile("wrong"))
    one.page.wait_for_timeout(200)
    assert vermilion(one) > 200
    expect(one.get_by_role("img", name=re.compile(f"^Output. .*{said}"))).to_be_visible()


def test_corners_in_line(shown):
    one = shown("corners", reduced_motion="reduce")
    for number, x in ((1, "-0.5"), (2, "0.5"), (3, "-0.9"), (4, "0.9")):
        one.get_by_role("spinbutton", name="Corner, as a number", exact=True).fill(str(number))
        one.get_by_role("spinbutton", name="x of the chosen").fill(x)
        one.get_by_role("spinbutton", name="y of the chosen").fill("0")
    expect(one.locator(".words")).to_have_text("All four corners lie in line.")
    expect(one.locator(".entries td").first).to_have_text("–")
    one.get_by_role("button", name="Reset").click()
    expect(one.locator(".entries td").first).to_have_text("1.00")


def test_mesh_and_number_of_points(shown):
    one = shown("spline", reduced_motion="reduce")
    one.get_by_role("button", name="Twist").click()
    one.page.wait_for_timeout(200)
    before = pixels(one)
    one.get_by_role("button", name="Mesh").click()
    expect(one.locator(".words")).to_contain_text("each triangle between them has an affine map")
    one.page.wait_for_timeout(200)
    assert all(a != b for a, b in zip(before, pixels(one), strict=True))
    one.get_by_role("button", name="3×3").click()
    expect(one.locator(".input .handle")).to_have_count(9)
    expect(one.locator(".words")).to_contain_text("of 9 points")
    one.get_by_role("button", name="5×5").click()
    expect(one.locator(".input .handle")).to_have_count(25)
    one.get_by_role("button", name="Reset").click()
    expect(one.locator(".input .handle")).to_have_count(16)
    expect(one.locator(".words")).to_have_text(STARTS["spline"])
    expect(one.get_by_role("button", name="Thin-plate spline")).to_have_attribute(
        "aria-pressed", "true"
    )


def test_descent_starts_as_its_class_says():
    assert DescentExplorer().theta == [[1, 0, -0.5], [0, 1, -0.3]]


# --- Numbers, written in full or not at all ---


@pytest.mark.parametrize(
    ("typed", "taken"),
    [("1e9", "1"), ("0x10", "1"), ("1.5.2", "1"), ("2 3", "1"), ("1e-1", "0.1"), ("-,5", "-0.5")],
)
def test_no_fragment_of_a_number_is_taken(tab, typed, taken):
    """Key by key: what has begun as a number and is none in the end leaves what was before."""
    page = tab(reduced_motion="reduce")
    one = page.locator(".stn-explorable").first
    one.get_by_role("button", name="Identity").click()
    field = one.get_by_role("spinbutton", name="θ, row 1, column 1, as a number")
    slider = one.get_by_role("slider", name="θ, row 1, column 1", exact=True)
    said = one.locator(".cell .range").first
    field.focus()
    page.keyboard.type(typed)
    wrong = taken == "1"
    expect(field).to_have_attribute("aria-invalid", str(wrong).lower())
    expect(said).to_have_text("From −1000 to 1000" if wrong else "")
    painted(one)
    assert float(slider.input_value()) == float(taken)
    field.press("Tab")
    expect(field).to_have_value(taken)
    expect(said).to_have_text("")


def test_number_entry_steps_by_arrow_keys(tab):
    one = tab(reduced_motion="reduce").locator(".stn-explorable").first
    field = one.get_by_role("spinbutton", name="θ, row 1, column 3, as a number")
    one.get_by_role("button", name="Identity").click()
    for key in ("ArrowUp", "ArrowUp", "ArrowDown", "PageUp"):
        field.press(key)
    expect(field).to_have_value("0.55")
    expect(field).to_have_attribute("aria-valuenow", "0.55")


def test_a_very_small_picture_is_told_as_one(tab):
    one = tab(reduced_motion="reduce").locator(".stn-explorable").first
    one.get_by_role("button", name="Identity").click()
    one.get_by_role("spinbutton", name="θ, row 1, column 1, as a number").fill("1000")
    expect(one.locator(".words")).to_have_text("The picture is made less than 0.01 times as wide.")
    expect(one.locator(".facts")).to_contain_text("less than 0.01 times as large")


# --- The picture and what moves it ---


@pytest.mark.parametrize("size", [(390, 844), (844, 390)], ids=["upright", "lying"])
@pytest.mark.parametrize("page", ["welcome", "few", "maps", "drags", "networks"])
def test_on_a_phone_the_picture_is_seen_from_its_sliders(tab, page, size):
    """Wherever the page has been scrolled to, so that the last slider stands low in the window."""
    width, height = size
    phone = {"viewport": {"width": width, "height": height}, "has_touch": True, "is_mobile": True}
    opened = tab(page, **phone)
    checked = 0
    for k in range(2):
        one = opened.locator(".stn-explorable").nth(k)
        picture = one.locator(".stage, .trio, .looking, .reading").first
        control = one.locator(".fields, .matrix, .bar").locator("input[type=range], button").last
        if not picture.count():
            continue
        control.evaluate(
            "(one, low) => scrollBy(0, one.getBoundingClientRect().bottom - low)", height - 20
        )
        opened.wait_for_timeout(100)
        if control.bounding_box()["y"] < 50:
            continue
        box, canvas = (
            picture.bounding_box(),
            picture.locator("canvas").locator("visible=true").first.bounding_box(),
        )
        assert box["y"] >= 40
        assert canvas["y"] + min(canvas["height"], 150) <= height
        checked += 1
    assert checked


@pytest.mark.parametrize(
    ("kind", "preset"), [("corners", "Horizon"), ("spline", "Fold"), ("spline", "Twist")]
)
def test_sliders_stay_where_they_are(shown, kind, preset):
    one = shown(kind, reduced_motion="reduce", viewport={"width": 390, "height": 844})
    slider = one.locator("input[type=range]").last
    before = slider.bounding_box()["y"]
    one.get_by_role("button", name=preset).evaluate("one => one.click()")
    painted(one)
    assert slider.bounding_box()["y"] == before


@pytest.mark.parametrize(("kind", "start"), [("corners", 1), ("spline", 6)])
def test_reset_chooses_the_first_point_again(shown, kind, start):
    one = shown(kind, reduced_motion="reduce")
    assert chosen(one)[0] == start
    one.get_by_role("spinbutton", name=re.compile("^(Corner|Point), as")).fill("3")
    painted(one)
    one.get_by_role("button", name="Reset").click()
    assert chosen(one)[0] == start


def test_two_fingers_turn_the_digit_wherever_they_land(tab):
    """One of them in its middle, where the handle for keys stands."""
    page = tab("networks", has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
    one = page.locator(".stn-explorable").nth(1)
    middle = one.get_by_role("slider", name="Place of the digit")
    middle.scroll_into_view_if_needed()
    turn = one.get_by_role("spinbutton", name="Turn in degrees, counter-clockwise, as a number")
    before = float(turn.input_value())
    x, y = centre(middle)
    touch = page.context.new_cdp_session(page)
    ways = [[(0, 0), (60, 0)], [(0, 0), (55, -25)], [(0, 0), (42, -42)]]
    for step, points in enumerate([*ways, []]):
        kind = "End" if not points else "Move" if step else "Start"
        at = [{"x": x + dx, "y": y + dy, "id": k} for k, (dx, dy) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": at})
    painted(one)
    assert float(turn.input_value()) - before == pytest.approx(45, abs=3)


# --- Forced colours ---


def test_nothing_vanishes_where_the_system_sets_the_colours(tab):
    page = tab("networks", forced_colors="active", reduced_motion="reduce")
    one = page.locator(".stn-explorable").first
    pressed, other = (
        one.locator(f".chip[aria-pressed={state}]").first.evaluate(
            "one => getComputedStyle(one).backgroundColor"
        )
        for state in ("true", "false")
    )
    assert pressed != other
    bar = one.locator(".odds.best i").first
    colours = bar.evaluate(
        "one => [one, one.parentNode].map(it => getComputedStyle(it).backgroundColor)"
    )
    assert colours[0] != colours[1]
    assert bar.evaluate("one => parseFloat(getComputedStyle(one.parentNode).borderTopWidth)") >= 1
    maps = tab("maps", forced_colors="active").locator(".stn-explorable").first
    for kind in ("hole", "clash"):
        style = maps.locator(f".{kind}").first.evaluate(
            "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).backgroundImage]"
        )
        assert style != ["rgba(0, 0, 0, 0)", "none"]
        assert (
            maps.locator(f".{kind}").first.evaluate(
                "one => getComputedStyle(one).forcedColorAdjust"
            )
            == "none"
        )
    # A slider's track is seen at its far end, where no thumb is.
    slider = maps.locator("input[type=range]").first
    slider.scroll_into_view_if_needed()
    with Image.open(io.BytesIO(slider.screenshot())) as picture:
        column = [
            picture.convert("L").getpixel((picture.width - 12, y)) for y in range(picture.height)
        ]
    assert max(column) - min(column) > 100
