"""The built site on a slow line: 1.6 Mb/s, 150 ms, a quarter of the processor, 390 pixels.

Run it with `python -m benchmarks.slow_line` after `make book`, on an idle machine; it prints a
table and writes `book/results/bench_slow_line.json`. With `--beside FOLDER`, another built site,
that is measured too, in turn with this.

The site is served from this machine, compressed as GitHub's pages are. Chromium holds the line and
the processor back. Of the welcome page it is told when its first picture is there, and when its
explorable has answered to a slider that was moved as soon as there was one; of every page, how many
bytes travel until it is loaded, and until it has been scrolled to its end.
"""

import argparse
import contextlib
import functools
import gzip
import http.server
import json
import platform
import shutil
import statistics
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "bench_slow_line.json"
LINE = {"latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
SLOWER = 4
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
WELCOME = "book/welcome.html"
MOST_SECONDS, MOST_BYTES = 3, 1_400_000
ROUNDS = 3
COMPRESSED = (".html", ".css", ".js", ".json", ".svg", ".txt", ".xml")

# In the page from its beginning: when the first explorable's still picture is there, and when the
# explorable has answered.
WATCH = """
window.seen = new Promise((done) => {
  const seen = {};
  let said;
  const look = () => {
    const host = document.querySelector('.stn-explorable');
    const still = host?.querySelector('img');
    if (still?.complete && still.naturalWidth) seen.picture ??= performance.now();
    const root = host?.dataset.stnReady === '' && host.shadowRoot;
    const words = root && root.querySelector('.words').textContent;
    if (words && said === undefined) {
      said = words;
      const slider = root.querySelector('input[type=range]');
      slider.value = Number(slider.max) / 4;
      slider.dispatchEvent(new Event('input'));
    } else if (words && words !== said) {
      // In the next frame it is painted.
      requestAnimationFrame(() => {
        seen.answer = performance.now();
        seen.picture ??= seen.answer;
        done(seen);
      });
      return;
    }
    requestAnimationFrame(look);
  };
  look();
});
"""

# Down to the end in steps of half a window, and what is waiting there comes.
SCROLL = """async () => {
  const wait = (time) => new Promise((go) => setTimeout(go, time));
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight / 2) {
    scrollTo(0, y);
    await wait(20);
  }
  const lazy = [...document.images].filter((one) => one.getClientRects().length);
  await Promise.all(lazy.map((one) => one.decode().catch(() => {})));
}"""


class Compressing(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, text compressed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path /= "index.html"
        if not path.is_file():
            with contextlib.suppress(ConnectionError):
                self.send_error(404)
            return
        data, packed = path.read_bytes(), path.suffix in COMPRESSED
        data = gzip.compress(data, 6) if packed else data
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        # A page that is closed early takes no more.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder."""
    handler = functools.partial(Compressing, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def seconds(browser, address):
    """When the welcome page shows its picture, and when its explorable has answered."""
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.set_default_timeout(120_000)
    link = context.new_cdp_session(page)
    link.send("Network.enable")
    link.send("Network.emulateNetworkConditions", {"offline": False, **LINE})
    link.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    page.add_init_script(WATCH)
    page.goto(f"{address}/{WELCOME}", wait_until="commit")
    seen = page.evaluate("window.seen")
    context.close()
    return seen["picture"] / 1000, seen["answer"] / 1000


def weigh(browser, address, name):
    """How many bytes travel until a page is loaded, and until it has been read to its end."""
    context = browser.new_context(**PHONE, service_workers="block")
    page = context.new_page()
    page.set_default_timeout(120_000)
    link = context.new_cdp_session(page)
    link.send("Network.enable")
    sizes = []
    link.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(f"{address}/{name}", wait_until="networkidle")
    loaded = sum(sizes)
    page.evaluate(SCROLL)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(200)
    whole = sum(sizes)
    context.close()
    return round(loaded), round(whole)


def pages(site):
    """The pages of a built site that a reader reads."""
    found = (path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html")))
    return [name for name in found if not name.startswith(("_", "genindex", "search", "404"))]


def measure(browser, sites, names):
    """The rows for each site, in turn."""
    times = {name: [] for name in sites}
    weights = {name: {} for name in sites}
    with contextlib.ExitStack() as stack:
        addresses = {name: stack.enter_context(served(folder)) for name, folder in sites.items()}
        for _ in range(ROUNDS):
            for name, address in addresses.items():
                times[name].append(seconds(browser, address))
        for name, address in addresses.items():
            for page in names[name]:
                weights[name][page] = weigh(browser, address, page)
    return times, weights


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--beside", type=Path, help="another built site, measured in turn")
    parser.add_argument("--no-file", action="store_true", help="print the table only")
    chosen = parser.parse_args()
    sites = {"": chosen.site} | ({"before_": chosen.beside} if chosen.beside else {})
    for folder in sites.values():
        if not (folder / WELCOME).is_file():
            sys.exit(f"{folder} holds no built site: `make book` makes one")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        sys.exit("benchmarks.slow_line needs Chromium, which is not on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"]
        )
        version = browser.version
        names = {name: pages(folder) for name, folder in sites.items()}
        times, weights = measure(browser, sites, names)
        browser.close()
    welcome, rows = {}, []
    print(f"1.6 Mb/s, 150 ms, a quarter of the processor; Chromium {version}, {platform.machine()}")
    for name, both in times.items():
        for k, what in enumerate(("picture", "answer")):
            value = round(statistics.median(one[k] for one in both), 2)
            welcome[f"{name}{what}_s"] = value
            verdict = "within" if value <= MOST_SECONDS else "over"
            print(f"  {name}{what:10} {value:5.2f} s   {verdict} {MOST_SECONDS} s")
    for page, (loaded, whole) in sorted(weights[""].items(), key=lambda one: -one[1][1]):
        row = {"page": page, "loaded_bytes": loaded, "whole_bytes": whole}
        before = weights.get("before_", {}).get(page)
        if before:
            row |= {"before_loaded_bytes": before[0], "before_whole_bytes": before[1]}
        rows.append(row)
        verdict = "within" if whole <= MOST_BYTES else "over"
        print(
            f"  {page:50} {loaded / 1000:6.0f} kB loaded, {whole / 1000:6.0f} kB read   {verdict} "
            f"{MOST_BYTES / 1000:.0f}"
            + (f"   before {before[0] / 1000:.0f}, {before[1] / 1000:.0f}" if before else "")
        )
    if chosen.no_file:
        return
    result = {
        "command": "python -m benchmarks.slow_line",
        "browser": f"Chromium {version}",
        "machine": platform.machine(),
        "line": {"bits_per_second": 1_600_000, "latency_ms": 150, "processor": 1 / SLOWER},
        "goals": {"seconds": MOST_SECONDS, "bytes": MOST_BYTES},
        "rounds": ROUNDS,
        "welcome": welcome,
        "pages": rows,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
