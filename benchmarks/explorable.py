"""Work per frame of the θ explorable: a 128×128 colour picture, in Chromium, on a CPU.

Run it with `python -m benchmarks.explorable`; it prints a table and writes
`book/results/bench_explorable.json`. A frame is everything that one move of a slider causes: the
event, the warp, both pictures with the grid, handles and words. Reading a pixel back at the end
makes the browser carry out what it would put off.
"""

import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from stn_tutorial._bundle import bundle
from stn_tutorial.widgets import ThetaExplorer, embedded_pictures

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "bench_explorable.json"
FRAMES = 400
GOAL = 8  # milliseconds, 95th percentile

MEASURE = """async (frames) => {
  const root = document.querySelector('.stn-explorable').shadowRoot;
  const sliders = [...root.querySelectorAll('input[type=range]')];
  const canvases = [...root.querySelectorAll('canvas')].filter((one) => one.width > 0);
  let asked = [];
  window.requestAnimationFrame = (callback) => asked.push(callback);
  const times = [];
  for (let k = 0; k < frames; k++) {
    const slider = sliders[k % 6];
    const start = performance.now();
    slider.value = Math.sin(k) * 1.5;
    slider.dispatchEvent(new Event('input'));
    const now = asked;
    asked = [];
    now.forEach((callback) => callback(performance.now()));
    for (const canvas of canvases) canvas.getContext('2d').getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
  return times.slice(frames / 10);
}"""


def measure(show, viewport, ratio):
    """Milliseconds for each frame."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("benchmarks.explorable needs chromium, which is not on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    module, pictures = json.dumps(bundle("theta")), json.dumps(embedded_pictures())
    page_text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark</title><body>'
        f"{ThetaExplorer('temple', show=show).to_html()}<script>"
        f"import(URL.createObjectURL(new Blob([{module}], {{type: 'text/javascript'}})))"
        f".then((module) => module.mountPage('theta', {pictures}));</script>"
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
        times = page.evaluate(MEASURE, FRAMES)
        browser.close()
    return sorted(times), version


def main():
    rows = []
    for name, show, viewport, ratio in (
        ("desktop", "grid", {"width": 1000, "height": 900}, 1),
        ("desktop, weights open", "weights", {"width": 1000, "height": 900}, 1),
        ("phone, three pixels to one", "grid", {"width": 390, "height": 844}, 3),
    ):
        times, version = measure(show, viewport, ratio)
        half, high = times[len(times) // 2], times[int(0.95 * len(times))]
        rows.append({"view": name, "median_ms": round(half, 2), "p95_ms": round(high, 2)})
    print(f"Work per frame, 128×128 colour, Chromium {version}, {platform.machine()}")
    for row in rows:
        verdict = "within" if row["p95_ms"] <= GOAL else "over"
        print(
            f"  {row['view']:28} median {row['median_ms']:5.2f} ms   "
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
