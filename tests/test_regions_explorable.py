"""A box over a feature map, in Python and in a page: what it says, and every way of moving it.

The browser's tests need a Chromium, which CI has; without one they are skipped, and say so. Its
mathematics is held to torchvision in test_explorable_maths.py.
"""

import math
import re

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torch.nn import functional as F

from stn_tutorial.explorables import RegionsExplorer
from stn_tutorial.regions import roi_align, roi_pool

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


# --- What is read ---


def test_reads_what_the_package_reads():
    one = RegionsExplorer("flower", (10.5, 33, 90, 120.25), 3, stride=16, aligned=False)
    grey = torch.from_numpy(np.asarray(one.image) @ [0.299, 0.587, 0.114])
    features = F.avg_pool2d(grey[None, None], 16)
    box = torch.tensor([[10.5, 33, 90, 120.25]], dtype=torch.float64)
    found = one.result
    torch.testing.assert_close(found.features, features[0, 0])
    torch.testing.assert_close(found.pool, roi_pool(features, [box], (3, 3), 1 / 16)[0, 0])
    expected = roi_align(features, [box], (3, 3), 1 / 16, sampling_ratio=2, aligned=False)
    torch.testing.assert_close(found.align, expected[0, 0])


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("box", [(33, 40, 89, 100), (40, 31, 80, 95)])
def test_a_ramp_says_where_it_is_read(box, stride):
    """Its true mean is its value at a bin's middle: RoIAlign's, or half a pixel's before it."""
    x, y = np.meshgrid(np.arange(128), np.arange(128))
    one = RegionsExplorer(np.uint8(x + y), box, stride=stride)
    found = one.result
    steps = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    across = box[0] + (box[2] - box[0]) * steps - 0.5
    down = box[1] + (box[3] - box[1]) * steps - 0.5
    torch.testing.assert_close(found.true, across + down[:, None])
    torch.testing.assert_close(found.align, found.true)
    one.aligned = False
    half = torch.full((4, 4), 1.0 * stride, dtype=torch.float64)
    torch.testing.assert_close(one.result.align - found.true, half)
    # RoIPool's largest lies beyond its mean, and so beyond all that a rounding alone does.
    largest = one.result.error("pool")
    one.pool = "mean"
    assert 0 < one.result.error("pool") < largest


def test_of_a_bin_partly_outside_the_part_inside_is_the_truth():
    picture = np.full((32, 32), 200, dtype=np.uint8)
    found = RegionsExplorer(picture, (-8, 8, 24, 24), 2).result
    np.testing.assert_allclose(found.true, 200)
    found = RegionsExplorer(picture, (-16, 8, 16, 24), 2).result
    assert found.true.isnan().tolist() == [[True, False], [True, False]]
    assert not math.isnan(found.error("align"))


def test_a_box_outside_has_no_truth():
    one = RegionsExplorer("F", (-40, -40, -20, -30))
    found = one.result
    assert found.true.isnan().all()
    assert (found.pool == 0).all()
    assert math.isnan(found.error("pool"))
    assert "No part of the box lies in the picture." in one._fallback()[1]


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (40, 200, 3)])
@pytest.mark.parametrize("stride", [8, 16])
def test_pictures_of_any_shape(shape, stride):
    one = RegionsExplorer(np.full(shape, 90, dtype=np.uint8), (0, 0, 5, 5), stride=stride)
    assert one.result.features.shape == tuple(-(-side // stride) for side in shape[:2])
    np.testing.assert_allclose(one.result.features, 90)
    assert "<img alt=" in one.to_html()


# --- The page ---


def words(explorer):
    found = explorer.result
    return (
        f"On average RoIPool is off by {found.error('pool'):.1f} of 255, RoIAlign by "
        f"{found.error('align'):.1f}."
    )


def entry(one, edge):
    return one.get_by_role("spinbutton", name=f"{edge} edge of the box, in pixels, as a number")


def box(one):
    return [float(entry(one, edge).input_value()) for edge in ("left", "top", "right", "bottom")]


def holds(one, *edges):
    for name, edge in zip(("left", "top", "right", "bottom"), edges, strict=True):
        expect(entry(one, name)).to_have_value(f"{edge:g}")


def unit(one):
    """Pixels of the screen to one of the picture, in the map."""
    return one.locator(".regions > .input .plane").bounding_box()["width"] / 160


def drag(one, name, dx, dy):
    grip = one.get_by_role("slider", name=name, exact=True)
    grip.scroll_into_view_if_needed()
    place = grip.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    one.page.mouse.move(x, y)
    one.page.mouse.down()
    one.page.mouse.move(x + dx * unit(one), y + dy * unit(one), steps=4)
    one.page.mouse.up()


def read(one, row):
    """A row of the table: what it reads, its error, from what, and where."""
    return one.locator(f".readings .{row} td").all_inner_texts()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"picture": "F", "box": (3, -9, 60.5, 77), "bins": 7, "stride": 16},
        {"picture": "digit", "aligned": False, "sampling_ratio": -1, "pool": "mean"},
        {"picture": np.arange(600, dtype=np.uint8).reshape(20, 30), "box": (2, 3, 21, 19)},
    ],
)
def test_page_says_what_python_says(shown, options):
    explorer = RegionsExplorer(**options)
    explorer.bin = (0, 1)
    one = shown(explorer)
    expect(one.locator(".words")).to_have_text(words(explorer))
    found = explorer.result
    text = f"{found.true[0, 1]:.1f}", f"{found.pool[0, 1]:.1f}", f"{found.align[0, 1]:.1f}"
    assert (read(one, "true")[0], read(one, "pool")[0], read(one, "align")[0]) == text
    for which in ("pool", "align"):
        error = (getattr(found, which) - found.true)[0, 1].item()
        said = float(read(one, which)[1].replace("−", "-"))
        assert said == pytest.approx(error, abs=0.0501)
        name = {"pool": "RoIPool", "align": "RoIAlign"}[which]
        label = one.get_by_role("img", name=f"What {name} reads").get_attribute("aria-label")
        shown_errors = [float(v) for v in label.split(": ")[1].replace("−", "-").split(", ")]
        errors = (getattr(found, which) - found.true).ravel().tolist()
        np.testing.assert_allclose(shown_errors, errors, rtol=0, atol=0.5001)


def test_corners_and_body_by_mouse(shown):
    one = shown(RegionsExplorer())
    drag(one, "Upper left corner", -10, 5)
    assert box(one) == pytest.approx([11, 35, 96, 101], abs=1)
    holds(one, *map(round, box(one)))  # whole pixels
    drag(one, "Lower right corner", 12, -20)
    assert box(one) == pytest.approx([11, 35, 108, 81], abs=2)
    drag(one, "Upper right corner", -8, -5)
    assert box(one) == pytest.approx([11, 30, 100, 81], abs=3)
    drag(one, "Lower left corner", 9, 10)
    before = box(one)
    assert before == pytest.approx([20, 30, 100, 91], abs=4)
    drag(one, "Box", 6, -7)
    expected = [edge + by for edge, by in zip(before, (6, -7, 6, -7), strict=True)]
    assert box(one) == pytest.approx(expected, abs=1)
    # Wherever in the box it is taken, it keeps its size; beside it nothing is taken.
    place = one.locator(".regions > .input canvas").bounding_box()
    now, u = box(one), unit(one)
    x, y = place["x"] + (16 + now[0] + 8) * u, place["y"] + (16 + now[1] + 30) * u
    one.page.mouse.move(x, y)
    one.page.mouse.down()
    one.page.mouse.move(x - 500, y + 4 * u, steps=4)
    one.page.mouse.up()
    held = box(one)
    assert held[0] == -16  # no farther
    assert held[2] - held[0] == now[2] - now[0]
    one.page.mouse.move(place["x"] + 150 * u, place["y"] + 150 * u)
    one.page.mouse.down()
    one.page.mouse.move(place["x"] + 100 * u, place["y"] + 100 * u, steps=4)
    one.page.mouse.up()
    assert box(one) == held


def test_keys_move_box_and_corners_and_choose_a_bin(shown):
    one = shown(RegionsExplorer())
    corner = one.get_by_role("slider", name="Upper left corner", exact=True)
    corner.press("ArrowRight")
    corner.press("Shift+ArrowDown")
    holds(one, 22, 40, 96, 101)
    one.get_by_role("slider", name="Box", exact=True).press("Shift+ArrowLeft")
    holds(one, 12, 40, 86, 101)
    # An edge never passes the one across.
    for _ in range(12):
        corner.press("Shift+ArrowRight")
    holds(one, 85, 40, 86, 101)
    entry(one, "left").fill("20")
    one.get_by_role("slider", name="bottom edge of the box, in pixels", exact=True).press(
        "ArrowDown"
    )
    holds(one, 20, 40, 86, 100)
    expect(one.locator(".words")).to_have_text(words(RegionsExplorer(box=(20, 40, 86, 100))))
    picked = one.get_by_role("slider", name="Bin", exact=True)
    expect(one.locator(".readings caption")).to_have_text("The bin in row 2, column 3")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        picked.press(key)
    expect(one.locator(".readings caption")).to_have_text("The bin in row 3, column 4")
    expect(picked).to_have_attribute("aria-valuetext", "row 3, column 4")
    one.get_by_role("button", name="2×2").first.click()
    expect(one.locator(".readings caption")).to_have_text("The bin in row 2, column 2")
    answer = one.get_by_role("img", name="What RoIPool reads")
    answer.click(position={"x": 12, "y": 12})
    expect(one.locator(".readings caption")).to_have_text("The bin in row 1, column 1")


def test_two_pixels_leave_roi_pool_as_it_is(shown):
    """What the question asks: 20/8 and 22/8 are rounded to the same, and RoIAlign goes along."""
    one = shown(RegionsExplorer(box=(20, 30, 96, 101)))
    before, other = read(one, "pool"), read(one, "align")
    entry(one, "left").fill("22")
    assert RegionsExplorer(box=(22, 30, 96, 101)).result.pool.tolist() == (
        RegionsExplorer(box=(20, 30, 96, 101)).result.pool.tolist()
    )
    expect(one.locator(".words")).to_have_text(words(RegionsExplorer(box=(22, 30, 96, 101))))
    assert read(one, "pool")[0] == before[0]
    assert read(one, "align")[0] != other[0]


def test_the_half_pixel_is_told(shown):
    one = shown(RegionsExplorer())
    facts = one.locator(".facts").first
    expect(facts).to_contain_text("RoIAlign in place")
    switch = one.get_by_role("group", name="aligned")
    switch.get_by_role("button", name="False").click()
    expect(facts).to_contain_text("RoIAlign 4.0 right, 4.0 down")
    one.get_by_role("group", name="Stride").get_by_role("button", name="16").click()
    expect(facts).to_contain_text("RoIAlign 8.0 right, 8.0 down")
    assert read(one, "align")[3] == "8.0 right, 8.0 down"
    one.get_by_role("button", name="Reset").click()
    expect(one.locator(".words")).to_have_text(words(RegionsExplorer()))


def test_where_roi_pool_looks_is_its_cells(shown):
    """The rounded bins' middles, by hand: 21, 96 and 8 give the pixels 3 to 12, both inside."""
    one = shown(RegionsExplorer())
    # Bin (1, 2): columns floor(2 · 2.5) + 3 to ceil(3 · 2.5) + 3, so 8 to 11, their middle at 76.
    x = 8 * (8 + 11) / 2 - (21 + 75 * 2.5 / 4)
    # 30 and 101 give the rows 4 to 13: floor(2.5) + 4 to ceil(5) + 4, so 6 to 9, the middle at 60.
    y = 8 * (6 + 9) / 2 - (30 + 71 * 1.5 / 4)
    assert read(one, "pool")[2:] == ["3×3 features", f"{x:.1f} right, {y:.1f} down"]
    assert read(one, "true")[2] == "18.8×17.8 pixels"


def test_a_box_outside_is_told(shown):
    one = shown(RegionsExplorer("F", (-15, -15, -3, -2)))
    expect(one.locator(".words")).to_have_text(
        "The box lies outside the picture: there is nothing to read."
    )
    assert read(one, "true")[0] == "–"
    assert read(one, "pool")[:2] == ["0.0", "–"]


def test_drawing_follows_the_choices(shown):
    one = shown(RegionsExplorer())

    def drawn():
        one.page.wait_for_timeout(150)
        return one.locator(".regions > .input canvas").evaluate("one => one.toDataURL()")

    seen = {drawn()}
    for group, name in (("Draw", "RoIPool"), ("Draw", "RoIAlign"), ("On the", "picture")):
        one.get_by_role("group", name=group).get_by_role("button", name=name).click()
        seen.add(drawn())
    assert len(seen) == 4


def test_a_finger_drags_the_box_and_the_page_stays(shown):
    one = shown(RegionsExplorer(), **PHONE)
    canvas = one.locator(".regions > .input canvas")
    canvas.scroll_into_view_if_needed()
    place, u, scrolled = canvas.bounding_box(), unit(one), one.page.evaluate("scrollY")
    touch = one.page.context.new_cdp_session(one.page)
    x, y = place["x"] + (16 + 40) * u, place["y"] + (16 + 80) * u
    for step, kind in enumerate(("Start", "Move", "Move", "End")):
        points = [] if kind == "End" else [{"x": x + 5 * step * u, "y": y - 4 * step * u}]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    expect(entry(one, "left")).not_to_have_value("21")
    assert box(one) == pytest.approx([31, 22, 106, 93], abs=1)
    assert one.page.evaluate("scrollY") == scrolled


def test_sliders_stay_where_they_are(shown, last_slider):
    """However long the sentences are."""
    one = shown(RegionsExplorer(), **PHONE)

    before = last_slider(one)
    entry(one, "right").fill("-10")
    entry(one, "left").fill("-14")
    one.get_by_role("group", name="aligned").get_by_role("button", name="False").click()
    expect(one.locator(".facts").first).to_contain_text(re.compile("RoIAlign .* down"))
    assert last_slider(one) == pytest.approx(before, abs=0.5)
