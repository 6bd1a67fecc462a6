"""JupyterLab, started for real and driven by a browser: widget and kernel hold the same θ.

Without a Chromium these tests are skipped, and say so.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from playwright.sync_api import expect

CELLS = [
    "from stn_tutorial.explorables import ThetaExplorer\n"
    "explorer = ThetaExplorer('F', [[0, -1, 0], [1, 0, 0]])\nexplorer",
    "print('θ is', explorer.theta); print(explorer.pixel)",
    "explorer.theta = [[0.5, 0, 0.25], [0, 0.5, -0.25]]",
    "explorer.picture = 'flower'",
    "import numpy\nexplorer.picture = numpy.eye(6)",
    "from IPython.display import display\n"
    "from stn_tutorial.explorables import BilinearExplorer, DescentExplorer\n"
    "point, descent = BilinearExplorer(), DescentExplorer()\ndisplay(point, descent)",
    "print(point.point, point.mode, descent.steps, round(descent.loss, 4))\n"
    "point.picture = 'edge'; descent.theta = [[1, 0, 0.25], [0, 1, 0]]",
    "from stn_tutorial.explorables import NetworkExplorer\n"
    "network = NetworkExplorer('7', (0, 1, 0, 0))\nnetwork",
    "print(network.pose, network.result['look'].argmax().item())\nnetwork.picture = '4'",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a JupyterLab with one notebook, its kernel the tests' own Python."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "notebook.ipynb")
    kernel = folder / "share" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    environment = {
        **os.environ,
        "JUPYTER_PATH": str(folder / "share" / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        "--port=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = None
        for _ in range(2400):
            text = (folder / "log").read_text()
            if found := re.search(r"http://127\.0\.0\.1:\d+", text):
                address = found[0]
                try:
                    urllib.request.urlopen(f"{address}/api", timeout=5).read()
                    break
                except OSError:
                    pass
            assert process.poll() is None, text
            time.sleep(0.25)
        assert address, text
        yield address
    finally:
        process.terminate()
        process.wait(300)


@pytest.fixture
def lab(chromium, server):
    page = chromium.new_page(viewport={"width": 1200, "height": 1400})
    foreign = []

    def only_here(route):
        url = route.request.url
        if url.startswith((server, "data:", "blob:")):
            route.continue_()
        else:
            foreign.append(url)
            route.abort()

    page.route("**/*", only_here)
    page.goto(f"{server}/lab/tree/notebook.ipynb?reset")
    yield page
    page.close()
    assert foreign == []


def run(page, number):
    """Run one cell and wait until its prompt has a number."""
    cell = page.locator(".jp-CodeCell").nth(number)
    prompt = cell.locator(".jp-InputPrompt")
    for _ in range(120):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        # On a busy machine the first press may come before JupyterLab listens to keys.
        with contextlib.suppress(AssertionError):
            expect(prompt).not_to_have_text("[ ]:", timeout=5_000)
            break
    expect(prompt).to_have_text(re.compile(r"\[\d+\]:"))
    page.wait_for_timeout(300)
    return cell


def fields(explorable):
    values = explorable.locator("input[role=spinbutton]").evaluate_all(
        "all => all.map(one => one.value)"
    )
    return [float(value) for value in values]


def canvas(explorable):
    return explorable.locator(".output canvas").evaluate("one => one.toDataURL()")


def test_widget_and_kernel_hold_the_same_theta(lab):
    expect(lab.locator(".jp-CodeCell")).to_have_count(len(CELLS))
    explorable = run(lab, 0).locator("[data-stn-ready]")
    expect(explorable).to_be_visible()
    assert fields(explorable) == [0, -1, 0, 1, 0, 0]

    # A drag of a slider reaches the kernel.
    slider = explorable.get_by_role("slider", name="θ, row 1, column 3")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    lab.mouse.move(x, y)
    lab.mouse.down()
    lab.mouse.move(x + 25, y, steps=5)
    lab.mouse.up()
    dragged = fields(explorable)
    assert dragged[2] > 0.2
    # So do keys, which JupyterLab would take for its own: arrows move on, D D deletes the cell.
    slider.press("ArrowRight")
    slider.press("d")
    slider.press("d")
    expect(lab.locator(".jp-CodeCell")).to_have_count(len(CELLS))
    dragged[2] = round(dragged[2] + 0.01, 2)
    assert fields(explorable) == dragged
    explorable.get_by_role("slider", name="Pixel of the output").press("ArrowRight")
    printed = run(lab, 1).locator(".jp-OutputArea-output").inner_text()
    theta = [float(number) for number in re.findall(r"-?\d+\.\d+", printed)]
    assert theta == pytest.approx(dragged, abs=1e-9)
    assert "[90, 38]" in printed

    # Setting θ in the kernel moves the picture.
    before = canvas(explorable)
    run(lab, 2)
    expect(explorable.locator(".words")).to_contain_text("made twice as large")
    assert fields(explorable) == [0.5, 0, 0.25, 0, 0.5, -0.25]
    lab.wait_for_timeout(500)
    assert canvas(explorable) != before
    for number in (3, 4):
        before = canvas(explorable)
        run(lab, number)
        lab.wait_for_timeout(500)
        assert canvas(explorable) != before
    expect(explorable.get_by_role("radio", name="Your picture")).to_be_checked()

    # Others, of which descent tells the kernel several things at once.
    both = run(lab, 5).locator("[data-stn-ready]")
    expect(both).to_have_count(2)
    point, descent = both.nth(0), both.nth(1)
    point.get_by_role("slider", name="Point", exact=True).press("ArrowRight")
    point.get_by_role("button", name="Bicubic").click()
    descent.get_by_role("button", name="Step", exact=True).click()
    expect(descent.locator(".words")).to_contain_text("After 1 step the loss is 0.2328")
    printed = run(lab, 6).locator(".jp-OutputArea-output").inner_text()
    assert printed.strip() == "[1.7, 2.4] bicubic 1 0.2328"
    expect(point.get_by_role("button", name="Edge")).to_have_attribute("aria-pressed", "true")
    expect(descent.locator(".words")).to_contain_text("the picture lies 0.25 to the left.")

    # The trained networks, whose weights come through the kernel.
    network = run(lab, 7).locator("[data-stn-ready]")
    expect(network.locator(".words")).to_contain_text("Read as 7")
    network.get_by_role("slider", name="Turn and size").press("ArrowLeft")
    assert (
        run(lab, 8).locator(".jp-OutputArea-output").inner_text().strip()
        == "[1.0, 1.0, 0.0, 0.0] 7"
    )
    expect(network.locator(".words")).to_contain_text("Read as 4")

    # JupyterLab's own dark theme.
    lab.evaluate("document.body.dataset.jpThemeLight = 'false'")
    expect(explorable.locator(".root")).to_have_attribute("data-theme", "dark")
    if folder := os.environ.get("STN_TUTORIAL_SHOTS"):
        lab.evaluate("document.body.dataset.jpThemeLight = 'true'")
        explorable.get_by_role("radio", name="temple").check(force=True)
        explorable.scroll_into_view_if_needed()
        lab.wait_for_timeout(300)
        lab.screenshot(path=f"{folder}/jupyterlab.png")
