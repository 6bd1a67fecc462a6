"""How well the network explorable reads digits that are drawn: `python -m benchmarks.drawn_digits`.

Three skeletons of strokes for each digit, designed by hand, are each drawn four times, jittered,
slanted, turned a little, scaled, placed and drawn with a pen of another width, all by one seed.
Playwright draws them with the mouse in Chromium, on the explorable's own paper, and reads what the
explorable says of both networks: first as drawn, then turned by its slider by up to 90°. No choice
in the training or in the explorable was made by looking at the result. It writes `drawn` into
`book/results/network.json` and beside the weights, where the explorable finds it.
"""

import itertools
import json
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from stn_tutorial.explorables import NetworkExplorer
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.digit_nets import FRAME
from tools.train_network import RESULT, TURN, publish

SEED = 5
REPEATS = 4


def arc(x, y, wide, high, start, end):
    """Points on an ellipse; angles in degrees, from the right by way of the bottom."""
    angle = np.radians(np.linspace(start, end, max(3, round(abs(end - start) / 12))))
    return np.stack([x + wide * np.cos(angle), y + high * np.sin(angle)], axis=1).tolist()


def eight(wide, lower):
    """A figure of eight in one line, its lower loop so many times as wide."""
    angle = np.linspace(-0.4, 2 * np.pi - 0.3, 44)
    x = wide * np.sin(2 * angle) * np.where(np.cos(angle) > 0, 1, lower)
    return np.stack([x, -np.cos(angle)], axis=1).tolist()


# Strokes about the middle: x from −0.7 to 0.7, y from −1, the top, to 1.
SKELETONS = {
    0: (
        [arc(0, 0, 0.6, 1, -90, 275)],
        [arc(0, 0, 0.42, 1, -60, 310)],
        [arc(0, 0, 0.72, 0.9, -110, -480)],
    ),
    1: (
        [[(0, -1), (0, 1)]],
        [[(-0.35, -0.6), (0.05, -1), (0.05, 1)]],
        [[(-0.3, -0.65), (0.02, -1), (0.02, 1)], [(-0.4, 1), (0.45, 1)]],
    ),
    2: (
        [[*arc(0, -0.45, 0.55, 0.55, -170, 35), (-0.6, 1), (0.65, 1)]],
        [[*arc(0, -0.5, 0.5, 0.5, -150, 50), (-0.3, 0.75), *arc(-0.35, 0.8, 0.2, 0.17, 0, -260),
          (0.1, 0.85), (0.65, 0.95)]],
        [[(-0.55, -0.75), (-0.2, -1), (0.25, -1), (0.5, -0.65), (0.35, -0.1), (-0.55, 0.95),
          (0.6, 0.9)]],
    ),
    3: (
        [[*arc(-0.05, -0.48, 0.5, 0.5, -150, 85), *arc(-0.05, 0.48, 0.6, 0.52, -85, 145)]],
        [[(-0.5, -1), (0.5, -1), (-0.05, -0.2), *arc(-0.05, 0.38, 0.55, 0.6, -85, 150)]],
        [[(-0.5, -0.8), (-0.1, -1), (0.4, -0.8), (0.4, -0.4), (-0.15, -0.05), (0.45, 0.25),
          (0.5, 0.7), (0.05, 1), (-0.5, 0.85)]],
    ),
    4: (
        [[(-0.4, -1), (-0.5, 0.1), (0.55, 0.1)], [(0.3, -1), (0.3, 1)]],
        [[(0.25, 1), (0.25, -1), (-0.6, 0.3), (0.65, 0.3)]],
        [[(-0.3, -0.95), (-0.55, 0.05), (0.6, 0)], [(0.45, -0.6), (0.2, 1)]],
    ),
    5: (
        [[(0.55, -1), (-0.4, -1), (-0.45, -0.15), *arc(-0.02, 0.38, 0.58, 0.6, -125, 145)]],
        [[(-0.35, -0.95), (-0.45, -0.1), *arc(-0.05, 0.4, 0.55, 0.55, -120, 140)],
         [(-0.35, -0.95), (0.6, -1)]],
        [[(0.5, -0.95), (-0.1, -0.95), (-0.4, -0.7), (-0.35, -0.3), (0.1, -0.1), (0.5, 0.2),
          (0.5, 0.65), (0.1, 0.95), (-0.5, 0.9)]],
    ),
    6: (
        [[(0.4, -1), (-0.1, -0.65), (-0.45, 0), *arc(0, 0.47, 0.5, 0.52, 180, -190)]],
        [[(0.15, -1), (-0.5, 0.35), *arc(-0.02, 0.48, 0.48, 0.5, 190, -160)]],
        [[*arc(0.15, 0, 0.7, 1, -60, -230), *arc(0.05, 0.45, 0.5, 0.5, 95, -170)]],
    ),
    7: (
        [[(-0.55, -1), (0.55, -1), (-0.15, 1)]],
        [[(-0.55, -1), (0.55, -1), (-0.1, 1)], [(-0.35, 0), (0.4, 0)]],
        [[(-0.55, -0.75), (-0.5, -1), (0.55, -0.95), (0.2, -0.1), (0, 1)]],
    ),
    8: (
        [eight(0.5, 1.15)],
        [arc(0, -0.5, 0.42, 0.48, 90, -275), arc(0, 0.48, 0.52, 0.5, -90, 275)],
        [eight(0.4, 1.5)],
    ),
    9: (
        [[*arc(0, -0.45, 0.5, 0.52, -10, -360), (0.5, -0.45), (0.42, 1)]],
        [[*arc(-0.02, -0.5, 0.48, 0.48, -30, -365), (0.45, 0.3), (0.1, 0.85), (-0.35, 1)]],
        [[*arc(-0.05, -0.5, 0.5, 0.5, -20, -350), (0.45, -0.5), (0.05, 1)]],
    ),
}  # fmt: skip


def drawings():
    """Each digit that is drawn: its class, strokes in normalised units, pen and a later turn."""
    rng = np.random.default_rng(SEED)
    for digit, skeletons in SKELETONS.items():
        for skeleton in skeletons * REPEATS:
            height = rng.uniform(16, 30) / FRAME  # half of it, in half frames, is its reach up
            wide = rng.uniform(0.8, 1.15)
            slant, turn = rng.uniform(-0.15, 0.35), np.radians(rng.normal(0, 6))
            bend = rng.normal(0, 0.06, (2, 3))
            strokes = []
            for line in skeleton:
                points = np.array(line, dtype=float)
                # Points along each line, so that what is straight may bow, as a hand's lines do.
                steps = [np.linspace(a, b, 6)[:-1] for a, b in itertools.pairwise(points)]
                points = np.concatenate([*steps, points[-1:]])
                x, y = points.T
                terms = np.stack([x * y, y * y - 0.5, x * x - 0.2])
                points = points + (bend @ terms).T + smooth(rng.normal(0, 0.03, points.shape))
                points = points * [wide, 1]
                points[:, 0] -= slant * points[:, 1]
                cos, sin = np.cos(turn), np.sin(turn)
                strokes.append(height * points @ np.array([[cos, sin], [-sin, cos]]))
            every = np.concatenate(strokes)
            low, high = every.min(0), every.max(0)
            room = np.maximum(0.9 - (high - low) / 2, 0)
            shift = rng.uniform(-room, room) - (low + high) / 2
            pen, later = rng.uniform(2, 4.5), rng.uniform(-TURN, TURN)
            yield digit, [(line + shift).tolist() for line in strokes], round(pen, 1), round(later)


def smooth(noise):
    """A running mean over five points: a hand does not tremble."""
    kernel = np.ones(5) / 5
    padded = np.pad(noise, ((2, 2), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)


def draw(page, one, strokes, pen):
    """Draw with the mouse on cleared paper."""
    one.get_by_role("button", name="Clear", exact=True).click()
    one.get_by_role("spinbutton", name="Width of the pen, in pixels, as a number").fill(str(pen))
    box = one.locator(".input canvas").bounding_box()
    unit = box["width"] / 2 / 1.1
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for line in strokes:
        places = [(middle[0] + x * unit, middle[1] + y * unit) for x, y in line]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()


def said(page, one):
    """Both networks' answers: with the transformer, without."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    words = one.locator(".words").inner_text()
    return [int(digit) for digit in re.findall(r"as (\d) ", words)]


def main():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("benchmarks.drawn_digits needs chromium, which is not on this machine")
    module = json.dumps(bundle("network")).replace("</", "<\\/")
    given = [NetworkExplorer.page_pictures(), NetworkExplorer.page_state()]
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Drawing</title><body>'
        f"{NetworkExplorer('drawing', (0, 1, 0, 0)).to_html()}<script>"
        f"import(URL.createObjectURL(new Blob([{module}], {{type: 'text/javascript'}})))"
        f".then((module) => module.mountPage('network', ...{json.dumps(given)}));</script>"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        path.write_text(text, encoding="utf-8")
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 900, "height": 1000})
        page.goto(path.as_uri())
        page.wait_for_selector("[data-stn-ready]")
        one = page.locator(".stn-explorable")
        turn = one.get_by_role("spinbutton", name=re.compile("Turn in degrees.*as a number"))
        for digit, strokes, pen, later in drawings():
            draw(page, one, strokes, pen)
            upright = said(page, one)
            turn.fill(str(later))
            rows.append((digit, *upright, *said(page, one)))
        version = browser.version
        browser.close()
    table = np.array(rows)
    right = table[:, 1:] == table[:, :1]
    share = [round(100 * float(one), 1) for one in right.mean(0)]
    drawn = {
        "command": "python -m benchmarks.drawn_digits",
        "browser": f"Chromium {version}",
        "machine": platform.machine(),
        "seed": SEED,
        "digits": len(rows),
        "look": share[0],
        "plain": share[1],
        "turned_look": share[2],
        "turned_plain": share[3],
        "right_of_each_digit": {
            str(digit): right[table[:, 0] == digit].sum(0).tolist() for digit in SKELETONS
        },
    }
    print(json.dumps(drawn, indent=2))
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    RESULT.write_text(json.dumps({**result, "drawn": drawn}, indent=2) + "\n", encoding="utf-8")
    publish()


if __name__ == "__main__":
    main()
