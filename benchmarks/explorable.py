"""Work per frame of the explorables, in Chromium, on a CPU; a 128×128 colour picture unless said.

Run it with `python -m benchmarks.explorable`; it prints a table and writes
`book/results/bench_explorable.json`. A frame is everything that one move of a slider, or one step
of descent, causes: the event, the warp, all pictures with grids, handles and words. Reading a
pixel back at the end makes the browser carry out what it would put off.
"""

import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from stn_tutorial.explorables import EXPLORABLES
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.grids import control_points

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "bench_explorable.json"
FRAMES = 400
GOAL = 8  # milliseconds, 95th percentile

MEASURE = """async ([kind, frames]) => {
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
    times.push(performance.now() - start);
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
  return times.slice(frames / 10);
}"""


def measure(kind, options, viewport, ratio):
    """Milliseconds for each frame."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("benchmarks.explorable needs chromium, which is not on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    explorable = EXPLORABLES[kind]
    module = json.dumps(bundle(kind)).replace("</", "<\\/")
    given = json.dumps([explorable.page_pictures(), explorable.page_state()])
    page_text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark</title><body>'
        f"{explorable(**{'picture': 'temple', **options}).to_html()}<script>"
        f"import(URL.createObjectURL(new Blob([{module}], {{type: 'text/javascript'}})))"
        f".then((module) => module.mountPage('{kind}', ...{given}));</script>"
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        path.write_text(page_text, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport=viewport, device_scale_factor=ratio)
        page.goto(path.as_uri())
        page.wait_for_selector("[data-stn-ready]")
        page.wait_for_timeout(500)
        version = browser.version
        times = page.evaluate(MEASURE, [kind, FRAMES])
        browser.close()
    return sorted(times), version


def main():
    rows = []
    desktop, phone = {"width": 1000, "height": 900}, {"width": 390, "height": 844}
    for name, kind, options, viewport, ratio in (
        ("θ, desktop", "theta", {}, desktop, 1),
        ("θ, desktop, weights open", "theta", {"show": "weights"}, desktop, 1),
        ("θ, phone, three pixels to one", "theta", {}, phone, 3),
        ("mapping, 32×32, desktop", "mapping", {}, desktop, 1),
        ("mapping, 32×32, phone", "mapping", {}, phone, 3),
        ("descent, 48×48, desktop", "descent", {"turn": True}, desktop, 1),
        ("descent, 48×48, phone", "descent", {"turn": True}, phone, 3),
        ("corners, desktop", "corners", {}, desktop, 1),
        ("corners, phone", "corners", {}, phone, 3),
        ("spline, 4×4, desktop", "spline", {}, desktop, 1),
        ("spline, 4×4, phone", "spline", {}, phone, 3),
        ("spline, 5×5, desktop", "spline", {"theta": control_points(5)}, desktop, 1),
        ("mesh, 4×4, desktop", "spline", {"transform": "mesh"}, desktop, 1),
        ("network, two of 52 000 weights, desktop", "network", {"picture": "3"}, desktop, 1),
        ("network, two of 52 000 weights, phone", "network", {"picture": "3"}, phone, 3),
    ):
        times, version = measure(kind, options, viewport, ratio)
        half, high = times[len(times) // 2], times[int(0.95 * len(times))]
        rows.append({"view": name, "median_ms": round(half, 2), "p95_ms": round(high, 2)})
    print(f"Work per frame, Chromium {version}, {platform.machine()}")
    for row in rows:
        verdict = "within" if row["p95_ms"] <= GOAL else "over"
        print(
            f"  {row['view']:40} median {row['median_ms']:5.2f} ms   "
            f"95th percentile {row['p95_ms']:5.2f} ms   {verdict} the goal of {GOAL} ms"
        )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "command": "python -m benchmarks.explorable",
        "browser": f"Chromium {version}",
        "machine": platform.machine(),
        "frames": FRAMES,
        "goal_p95_ms": GOAL,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
