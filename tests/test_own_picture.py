"""The reader's own picture in an explorable: chosen, dropped, pasted; refused in words."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from stn_tutorial.explorables import EXPLORABLES, ThetaExplorer
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import data_uri

KINDS = ("theta", "mapping", "descent", "corners", "spline", "regions")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page with each explorable that shows pictures, as the book's extension makes it."""
    folder = tmp_path_factory.mktemp("own")
    body = "".join(EXPLORABLES[kind]().to_html() for kind in KINDS)
    mounts = "".join(
        f"m.mountPage({json.dumps(kind)}, {json.dumps(EXPLORABLES[kind].page_pictures())}, "
        f"{json.dumps(EXPLORABLES[kind].page_state())});"
        for kind in KINDS
    )
    (folder / "module.js").write_text(bundle(*KINDS), encoding="utf-8")
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Own pictures</title>'
        f'{body}<script type="module">import * as m from "./module.js"; {mounts}</script>',
        encoding="utf-8",
    )
    return folder


@pytest.fixture
def page(chromium, served):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{served}/index.html")
    page.wait_for_function(f"document.querySelectorAll('[data-stn-ready]').length === {len(KINDS)}")
    yield page
    page.close()


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def halves(size=(40, 20), left="red", right="blue", mode="RGB"):
    """A picture whose left half has one colour and whose right half another."""
    image = Image.new(mode, size, right)
    image.paste(Image.new(mode, (size[0] // 2, size[1]), left), (0, 0))
    return image


def choose(one, name, data, kind="image/png"):
    one.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": kind, "buffer": data}
    )


def shown(one):
    """The picture that an explorable shows now, as the page keeps it."""
    one.locator(".pictures input[value=yours]").wait_for(state="attached")
    src = one.locator(".pictures label:has(input[value=yours]) img").get_attribute("src")
    data = base64.b64decode(src.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_chosen_file_is_shown_and_goes_nowhere(page, kind):
    one = page.locator(".stn-explorable").nth(KINDS.index(kind))
    page.asked.clear()
    choose(one, "two.png", encoded(halves((1000, 500))))
    picture = shown(one)
    largest = EXPLORABLES[kind].largest
    assert picture.shape == (largest // 2, largest, 3)
    assert picture[5, 3].tolist() == [255, 0, 0]
    assert picture[5, -3].tolist() == [0, 0, 255]
    expect(one.locator(".pictures input[value=yours]")).to_be_checked()
    assert [url for url in page.asked if not url.startswith(("data:", "blob:"))] == []


def test_a_photograph_stands_as_its_camera_says(page):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown, it is turned clockwise by 90 degrees
    one = page.locator(".stn-explorable").first
    choose(one, "p.jpg", encoded(halves((64, 32)), "JPEG", exif=exif, quality=95), "image/jpeg")
    picture = shown(one).astype(int)
    assert picture.shape == (64, 32, 3)
    assert picture[5, 16, 0] > 200 > 60 > picture[5, 16, 2]  # what was to the left is above


def test_what_is_transparent_becomes_white(page):
    one = page.locator(".stn-explorable").first
    image = halves((8, 8), left=(255, 0, 0, 255), right=(0, 0, 255, 0), mode="RGBA")
    choose(one, "t.png", encoded(image))
    picture = shown(one)
    assert picture[4, 1].tolist() == [255, 0, 0]
    assert picture[4, 6].tolist() == [255, 255, 255]


def test_shrinking_does_not_alias(page):
    """A chequerboard of single pixels becomes even grey, and not a moiré."""
    board = np.indices((2048, 2048)).sum(axis=0) % 2 * 255
    one = page.locator(".stn-explorable").first
    choose(one, "board.png", encoded(Image.fromarray(board.astype(np.uint8))))
    assert abs(shown(one).astype(int) - 128).max() <= 3


@pytest.mark.parametrize(
    ("name", "data", "kind", "said"),
    [
        ("note.txt", b"no picture", "text/plain", "note.txt is not a picture that this browser"),
        ("broken.png", b"\x89PNG\r\n\x1a\nbroken", "image/png", "broken.png is not a picture"),
        ("empty.png", b"", "image/png", "empty.png is not a picture"),
        ("huge.png", bytes(41_000_000), "image/png", "huge.png has 41 MB; at most 40"),
    ],
)
def test_what_cannot_be_read_is_said_and_changes_nothing(page, name, data, kind, said):
    one = page.locator(".stn-explorable").first
    before = one.locator(".pictures input:checked").get_attribute("value")
    choose(one, name, data, kind)
    expect(one.get_by_role("alert")).to_contain_text(said)
    assert one.locator(".pictures input:checked").get_attribute("value") == before
    choose(one, "good.png", encoded(halves()))
    expect(one.locator(".note")).to_have_text("")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(page, way):
    one = page.locator(".stn-explorable").first
    one.locator(".root").evaluate(
        """async (root, [way, src]) => {
          const blob = await (await fetch(src)).blob();
          const data = new DataTransfer();
          data.items.add(new File([blob], "own.png", { type: "image/png" }));
          const options = { bubbles: true, cancelable: true };
          root.dispatchEvent(way === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }));
        }""",
        [way, data_uri(halves())],
    )
    assert shown(one)[5, 3].tolist() == [255, 0, 0]


def test_in_a_kernel_it_reaches_python():
    explorer = ThetaExplorer("F")
    src = data_uri(halves())
    explorer.set_state({"_pictures": {**explorer._pictures, "yours": {"label": "", "src": src}}})
    explorer.set_state({"_picture": "yours"})
    assert explorer.picture == "yours"
    assert np.array_equal(np.asarray(explorer.image), np.asarray(halves()))
    explorer.picture = np.zeros((6, 4))
    assert explorer.image.size == (4, 6)
