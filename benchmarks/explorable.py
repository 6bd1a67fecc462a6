"""Work per frame of the explorables, in Chromium and Firefox, on a CPU.

Run it with `python -m benchmarks.explorable` on an idle machine; it prints a table and writes
`book/results/bench_explorable.json`. The picture has 128×128 pixels in colour unless said. A frame
is everything that one move of a slider, or one step of descent, causes: the event, the warp, all
pictures with grids, handles and words. At the end a pixel and an element's place are asked for:
then the browser carries out what it would put off, drawing and layout.

With `--beside FOLDER`, another checkout, its explorables are measured too, in turn with these.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tools import firefox

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "bench_explorable.json"
GOALS = {"Chromium": 5, "Firefox": 8}  # milliseconds, 95th percentile
ROUNDS = 3

DESKTOP, PHONE = (1000, 900, 1), (390, 844, 3)  # CSS pixels, and the screen's pixels to one
VIEWS = (
    ("θ, desktop", "theta", {}, DESKTOP),
    ("θ, desktop, weights open", "theta", {"show": "weights"}, DESKTOP),
    ("θ, phone, three pixels to one", "theta", {}, PHONE),
    ("mapping, 32×32, desktop", "mapping", {}, DESKTOP),
    ("mapping, 32×32, phone", "mapping", {}, PHONE),
    ("descent, 48×48, desktop", "descent", {"turn": True}, DESKTOP),
    ("descent, 48×48, phone", "descent", {"turn": True}, PHONE),
    ("corners, desktop", "corners", {}, DESKTOP),
    ("corners, phone", "corners", {}, PHONE),
    ("spline, 4×4, desktop", "spline", {}, DESKTOP),
    ("spline, 4×4, phone", "spline", {}, PHONE),
    ("spline, 5×5, desktop", "spline", {"side": 5}, DESKTOP),
    ("mesh, 4×4, desktop", "spline", {"transform": "mesh"}, DESKTOP),
    ("network, two of 52 000 weights, desktop", "network", {"picture": "3"}, DESKTOP),
    ("network, two of 52 000 weights, phone", "network", {"picture": "3"}, PHONE),
    ("localise, one network, desktop", "localise", {"picture": "2"}, DESKTOP),
    ("localise, one network, phone", "localise", {"picture": "2"}, PHONE),
    ("pair, one of 52 000 weights, desktop", "pair", {}, DESKTOP),
    ("pair, one of 52 000 weights, phone", "pair", {}, PHONE),
    ("windows, one of 17 000 weights, desktop", "windows", {}, DESKTOP),
    ("windows, one of 17 000 weights, phone", "windows", {}, PHONE),
    ("regions, 7×7 bins, desktop", "regions", {"bins": 7, "sampling_ratio": 3}, DESKTOP),
    ("regions, 7×7 bins, phone", "regions", {"bins": 7, "sampling_ratio": 3}, PHONE),
)

# Run by each checkout for itself: a page for each of the views, whole.
MAKE = """
import json, sys
from pathlib import Path
from stn_tutorial.explorables import EXPLORABLES
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.grids import control_points

folder, views = Path(sys.argv[1]), json.loads(sys.argv[2])
for number, (kind, options) in enumerate(views):
    if side := options.pop("side", None):
        options["theta"] = control_points(side)
    one = EXPLORABLES[kind]
    if "picture" in one.class_traits():
        options.setdefault("picture", "temple")
    module, given = (json.dumps(part).replace("</", "<\\\\/")
                     for part in (bundle(kind), [one.page_pictures(), one.page_state()]))
    (folder / f"{number}.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark</title>'
        '<meta name="viewport" content="width=device-width"><body>'
        f"{one(**options).to_html()}<script>"
        f"import(URL.createObjectURL(new Blob([{module}], {{type: 'text/javascript'}})))"
        f".then((module) => module.mountPage('{kind}', ...{given}));</script>",
        encoding="utf-8",
    )
"""

READY = """async () => {
  while (!document.querySelector('[data-stn-ready]')) await new Promise((go) => setTimeout(go, 20));
  await new Promise((go) => setTimeout(go, 400));
}"""

MEASURE = """async (kind, frames) => {
  const root = document.querySelector('.stn-explorable').shadowRoot;
  // Of points to drag, one is moved: the slider that chooses among them stays where it is.
  const sliders = [...root.querySelectorAll('.cell:not(.which) input[type=range]')];
  const button = (name) => [...root.querySelectorAll('button')].find(
    (one) => one.textContent === name);
  const [step, reset] = [button('Step'), button('Reset')];
  const canvases = [...root.querySelectorAll('canvas')].filter((one) => one.width > 0);
  let asked = [];
  window.requestAnimationFrame = (callback) => asked.push(callback);
  const times = [];
  for (let k = 0; k < frames; k++) {
    const slider = sliders[k % sliders.length];
    const start = performance.now();
    if (kind === 'descent') (k % 60 ? step : reset).click();
    else {
      const [low, high] = [Number(slider.min), Number(slider.max)];
      slider.value = (low + high) / 2 + Math.sin(k) * 0.35 * (high - low);
      slider.dispatchEvent(new Event('input'));
    }
    const now = asked;
    asked = [];
    now.forEach((callback) => callback(performance.now()));
    for (const canvas of canvases) canvas.getContext('2d').getImageData(0, 0, 1, 1);
    root.firstElementChild.getBoundingClientRect();
    times.push(performance.now() - start);
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
  return times.slice(frames / 5);
}"""


@contextlib.contextmanager
def chromium():
    """What measures a page in Chromium, `(url, screen, kind, frames)` → ms; and its version."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        sys.exit("benchmarks.explorable needs Chromium, which is not on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)

        def measure(url, screen, kind, frames):
            width, height, ratio = screen
            page = browser.new_page(
                viewport={"width": width, "height": height}, device_scale_factor=ratio
            )
            page.goto(url)
            page.evaluate(READY)
            times = page.evaluate(f"(given) => ({MEASURE})(...given)", [kind, frames])
            page.close()
            return times

        yield measure, browser.version
        browser.close()


@contextlib.contextmanager
def firefox_esr():
    """The same in Firefox."""
    if firefox.EXECUTABLE is None:
        sys.exit("benchmarks.explorable needs Firefox, which is not on this machine")
    # Otherwise its clock, made coarse against spying pages, shows whole milliseconds.
    with firefox.Firefox({"privacy.reduceTimerPrecision": False}) as browser:

        def measure(url, screen, kind, frames):
            tab = browser.open(url, *screen)
            tab.evaluate(READY)
            times = tab.evaluate(MEASURE, kind, frames)
            tab.close()
            return times

        yield measure, browser.version


BROWSERS = {"Chromium": chromium, "Firefox": firefox_esr}


def make_pages(checkout, views, folder):
    """Write the page of each view, as this checkout has it."""
    folder.mkdir()
    given = json.dumps([(kind, options) for _, kind, options, _ in views])
    subprocess.run(
        [sys.executable, "-c", MAKE, folder, given],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
    )


def percentile(times, share):
    """The time that this share of all frames do not exceed."""
    return round(sorted(times)[min(int(share * len(times)), len(times) - 1)], 2)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turn with this")
    parser.add_argument("--browsers", nargs="+", choices=list(BROWSERS), default=list(BROWSERS))
    parser.add_argument("--frames", type=int, default=240, help="in each of three rounds")
    parser.add_argument("--only", default="", help="views whose name has this; writes no file")
    chosen = parser.parse_args()
    views = [view for view in VIEWS if chosen.only in view[0]]
    checkouts = {"": ROOT} | ({"before_": chosen.beside.resolve()} if chosen.beside else {})
    rows, versions = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, checkout in checkouts.items():
            make_pages(checkout, views, Path(folder) / f"pages{name}")
        for browser in chosen.browsers:
            with BROWSERS[browser]() as (measure, version):
                versions[browser] = version
                goal = GOALS[browser]
                print(f"Work per frame, {browser} {version}, {platform.machine()}; goal {goal} ms")
                for number, (view, kind, _, screen) in enumerate(views):
                    times = {name: [] for name in checkouts}
                    for _ in range(ROUNDS):
                        for name in checkouts:
                            page = Path(folder) / f"pages{name}" / f"{number}.html"
                            times[name] += measure(page.as_uri(), screen, kind, chosen.frames)
                    row = {"browser": browser, "view": view}
                    for name, all_times in times.items():
                        row[f"{name}median_ms"] = percentile(all_times, 0.5)
                        row[f"{name}p95_ms"] = percentile(all_times, 0.95)
                    rows.append(row)
                    print(line(row, goal), flush=True)
    if chosen.only:
        return
    result = {
        "command": "python -m benchmarks.explorable",
        "browsers": versions,
        "machine": platform.machine(),
        "frames": ROUNDS * chosen.frames,
        "goals_p95_ms": {browser: GOALS[browser] for browser in versions},
        "rows": rows,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def line(row, goal):
    """One row of the table."""
    before = ""
    if "before_p95_ms" in row:
        before = f"   before {row['before_median_ms']:5.2f}, {row['before_p95_ms']:5.2f} ms"
    verdict = "within" if row["p95_ms"] <= goal else "over"
    return (
        f"  {row['view']:40} median {row['median_ms']:5.2f} ms   "
        f"95th percentile {row['p95_ms']:5.2f} ms   {verdict}{before}"
    )


if __name__ == "__main__":
    main()
