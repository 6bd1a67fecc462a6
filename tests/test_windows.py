"""Two windows over a bird, in the page: what ships, that it runs as PyTorch runs it, that it moves.

The browser's tests need a Chromium, which CI has; without one they are skipped, and say so.
"""

import html
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from torch import nn

from stn_tutorial import data
from stn_tutorial.explorables import WindowsExplorer, chains, window_nets
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.windows import REACH, TILES
from tools import train_windows
from tools.train_network import folded

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "book" / "results" / "drawn_birds.json").read_text(encoding="utf-8"))
ROWS = [row["windows"] for row in RESULT["rows"]]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
BIRDS = window_nets.BIRDS


# --- What ships ---


def test_all_of_it_is_small():
    count = sum(p.numel() for p in window_nets.parameters(window_nets.trained()))
    assert count == RESULT["parameters"]
    assert window_nets.WEIGHTS.stat().st_size == 2 * count
    files = (window_nets.WEIGHTS, window_nets.FIGURES, window_nets.STRIP)
    assert sum(path.stat().st_size for path in files) < 60_000


def test_what_is_stated_is_what_was_measured():
    stated = WindowsExplorer.page_state()["_nets"]["figures"]
    assert stated.pop("birds") == RESULT["test_birds"] == 2000
    assert set(stated) == set(ROWS[0])
    for place, figures in stated.items():
        assert figures.items() <= ROWS[0][place].items()
        assert figures["kind"] == ROWS[0][place]["kind"]
    assert "changed" not in RESULT["commit"]
    assert WindowsExplorer.page_state()["_birds"] == RESULT["offered"]


def test_figures_are_those_of_the_weights_that_ship():
    birds = data.DrawnBirds("test", batch_size=train_windows.TEST, size=train_windows.SIZE)
    only = ("own", "head and wing", "tiles")
    found = train_windows.judged(window_nets.trained(), birds, only)
    for place in only:
        for name in ("kind", "bill", "wing", "any holds head", "any holds wing"):
            assert found[place][name] == pytest.approx(ROWS[0][place][name], abs=0.2)


def test_where_the_windows_stand_matters():
    """On head and wing the reader is nearly always right; anywhere, or as tiles, far less often."""
    for row in ROWS:
        assert row["head and wing"]["kind"] > 95
        assert max(row[place]["kind"] for place in ("anywhere", "tiles", "middle")) < 90
        assert row["head and wing"]["any holds head"] == row["head and wing"]["any holds wing"]
        for place in ("tiles", "middle", "standing"):
            for one in (*row[place]["follows head"], *row[place]["follows wing"]):
                assert one == pytest.approx(0, abs=1e-6)


def test_birds_are_the_first_of_each_kind():
    strip, told = train_windows.offered()
    assert tuple(told) == BIRDS
    assert told == window_nets.told()["birds"]
    with Image.open(window_nets.STRIP) as shipped:
        gap = np.abs(np.asarray(strip, dtype=int) - np.asarray(shipped.convert("RGB"), dtype=int))
    assert gap.max() <= 1  # where a value lies between two
    assert [told[name]["kind"] for name in BIRDS] == [0, 1, 2, 3]


def test_a_file_of_another_length_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "windows.bin"
    path.write_bytes(window_nets.WEIGHTS.read_bytes() + b"\0\0")
    monkeypatch.setattr(window_nets, "WEIGHTS", path)
    with pytest.raises(ValueError, match="must hold 16948 numbers, but it holds 16949"):
        window_nets.trained.__wrapped__()


def test_drawing_the_network_takes_no_random_numbers():
    before = torch.get_rng_state()
    window_nets.trained.__wrapped__()
    WindowsExplorer()._repr_mimebundle_()
    assert torch.equal(torch.get_rng_state(), before)


def test_windows_start_as_tiles():
    net = window_nets.network()
    _, thetas = net[0](torch.rand(3, 3, 48, 48), return_theta=True)
    for theta, (x, y) in zip(thetas, TILES, strict=True):
        expected = torch.tensor([[0.5, 0, x], [0, 0.5, y]]).expand(3, -1, -1)
        torch.testing.assert_close(theta, expected)


def test_chains_are_the_network_that_was_trained():
    """Batch norm folded in, both windows' last layers in one: the same scores."""
    torch.manual_seed(0)
    U = torch.rand(16, 3, 48, 48)
    net = window_nets.network(norm=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.1)
    for one in net[0].transformers:
        nn.init.normal_(one.regression.weight, 0, 0.05)
    net.train()(U)
    expected, thetas = net.eval()(U), net[0].thetas(U)
    nets = window_nets.plain(folded(net))
    middles = nets["localise"](U).view(-1, 2, 2)
    torch.testing.assert_close(middles, torch.stack(thetas, 1)[..., 2], rtol=1e-4, atol=1e-4)
    views = train_windows.seen(U, middles)
    made = nets["name"](window_nets.Describe(nets["read"])(views))
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-3)


def test_a_chain_may_end_with_a_pool():
    made = chains.chain((("conv", 3, 4, 3), ("max", 2)))
    assert [type(one).__name__ for one in made] == ["Conv2d", "ReLU", "MaxPool2d"]


def test_shares_add_up():
    """The linear layer's scores are both windows' shares and a constant."""
    torch.manual_seed(0)
    U = torch.rand(5, 3, 48, 48)
    middles = torch.rand(5, 2, 2) - 0.5
    made = window_nets.run(U, middles)
    nets = window_nets.trained()
    scores = nets["name"](window_nets.Describe(nets["read"])(made["V"]))
    torch.testing.assert_close(made["kinds"], scores.softmax(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        made["shares"].sum(dim=1) + nets["name"][-1].bias, scores, rtol=1e-4, atol=1e-4
    )


def test_windows_show_the_picture_itself():
    """On whole pixels nothing is interpolated: a window is a cut-out."""
    U = window_nets.picture("1").float()
    made = window_nets.run(U, torch.tensor([[[-0.5, -0.5], [0.25, 1 / 24]]]))
    torch.testing.assert_close(made["V"][0, 0], U[0, :, :24, :24], rtol=0, atol=1e-5)
    torch.testing.assert_close(made["V"][0, 1], U[0, :, 13:37, 18:42], rtol=0, atol=1e-5)


def test_follows_is_the_chapters():
    torch.manual_seed(0)
    at = torch.randn(500, 2)
    assert train_windows.follows(at + 3, at) == pytest.approx(1)
    assert train_windows.follows(torch.ones(500, 2), at) == pytest.approx(0)
    assert train_windows.follows(at.flip(0), at) < -0.5


def test_training_pictures_are_the_same_each_time():
    birds = data.DrawnBirds("train", batch_size=128, size=train_windows.SIZE)(0)
    one, other = (train_windows.Glimpses(birds, 0) for _ in range(2))
    for step in (0, 3):
        for a, b in zip(one(step), other(step), strict=True):
            torch.testing.assert_close(a, b)
    assert one(0)[0].shape == (train_windows.BATCH, 2, 3, 24, 24)
    plain = train_windows.Flipped(birds, 0)
    assert torch.equal(plain(1)[0].flip(3), birds[0][plain.passes(1)])
    middles = train_windows.anywhere(1000, torch.Generator().manual_seed(0))
    assert middles.abs().max() <= REACH
    assert middles.abs().max() > 0.49


# --- The widget ---


def test_output_holds_no_weights():
    one = WindowsExplorer("2", ((0.1, -0.2), (0.5, 0)))
    mime, _ = one._repr_mimebundle_()
    weights = window_nets.sent()["weights"]
    assert len(mime["text/html"]) < 25_000
    assert weights[:40] not in json.dumps(mime)
    state = json.loads(html.unescape(re.search(r'data-stn-widget="([^"]*)"', one.to_html())[1]))
    assert state == {
        "kind": "windows", "bird": "2", "middles": [[0.1, -0.2], [0.5, 0]], "_pictures": {},
    }  # fmt: skip
    assert one.get_state()["_nets"]["weights"] == weights  # a kernel sends them
    assert repr(one) == "WindowsExplorer(bird='2', middles=((0.1, -0.2), (0.5, 0)))"
    alt = html.unescape(re.search(r'<img alt="([^"]*)"', one.to_html())[1])
    assert "The bird has a black bill and a barred wing." in alt


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bird", "5", "'bird' trait of a WindowsExplorer"),
        ("bird", 1, "'bird' trait of a WindowsExplorer"),
        ("middles", (0, 0), "middles must be two points"),
        ("middles", ((0, 0), (0.6, 0)), "from −0.5 to 0.5"),
        ("middles", ((0, 0), (float("nan"), 0)), "middles must be two points"),
        ("middles", "no", "middles must be two points"),
        ("middles", ((0, 0), (0, 0), (0, 0)), "middles must be two points"),
    ],
)
def test_what_it_does_not_take_is_refused(refuses, name, value, message):
    refuses(WindowsExplorer, name, value, message)


def test_traits_are_set_and_observed():
    one, seen = WindowsExplorer(), []
    one.observe(lambda change: seen.append(change.new), ["bird", "middles"])
    one.bird = "1"
    one.middles = torch.tensor([[0.5, 0.25], [-0.5, 0.0]])
    assert seen == ["1", [[0.5, 0.25], [-0.5, 0]]]
    json.dumps(seen)


def test_frame_and_result_have_their_shapes():
    one = WindowsExplorer()
    assert (one.frame.shape, one.frame.dtype) == ((1, 3, 48, 48), torch.float64)
    shapes = {name: tuple(value.shape) for name, value in one.result.items()}
    assert shapes == {
        "middles": (1, 2, 2), "V": (1, 2, 3, 24, 24), "shares": (1, 2, 4), "kinds": (1, 4),
    }  # fmt: skip
    assert one.result["kinds"].sum().item() == pytest.approx(1, abs=1e-5)
    assert np.shape(one.own) == (2, 2)


def test_a_window_on_the_bill_tells_the_bill():
    """Of the offered birds: with both windows on head and wing, all are right, and surely."""
    for name, told in window_nets.told()["birds"].items():
        middles = np.clip([told["head"], told["wing"]], -REACH, REACH)
        kinds = WindowsExplorer(name, middles).result["kinds"][0]
        assert kinds.argmax().item() == told["kind"]


# --- The front end's own computation ---


@pytest.fixture(scope="module")
def js(chromium):
    """Evaluate an expression of `m`, the bundle's exports, `nets`, and `a`, the argument."""
    page = chromium.new_page()
    page.evaluate(
        """async ([code, sent]) => {
          const blob = new Blob([code], {type: 'text/javascript'});
          window.m = await import(URL.createObjectURL(blob));
          window.nets = m.unpack(sent);
          window.named = (bytes) => m.channelsFirst({width: 48, height: 48, data: bytes});
          window.all = ({bytes, middles}) => {
            const U = named(bytes);
            const views = middles.map((middle) => m.throughWindow(U, middle));
            const shares = views.map((view, k) => m.sharesOf(nets, view, k));
            return {V: views.map(({data}) => [...data]), shares, kinds: m.kindsOf(nets, shares),
                    own: m.placedBy(nets, U)};
          };
        }""",
        [bundle("windows", whole=True), window_nets.sent()],
    )
    yield lambda expression, a=None: page.evaluate(f"(a) => ({expression})", a)
    page.close()


def test_network_is_pytorchs(js):
    """Every probability within 1e-3, of the very weights that ship; V and the own windows too."""
    rng = np.random.default_rng(0)
    pictures = [np.array(image) for image in window_nets.birds().values()]
    pictures += [rng.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in range(3)]
    pictures += [np.zeros((48, 48, 3), np.uint8), np.full((48, 48, 3), 255, np.uint8)]
    worst = 0
    for image in pictures:
        U = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
        places = [*rng.uniform(-REACH, REACH, (3, 2, 2)), np.array(TILES), np.full((2, 2), REACH)]
        for middles in places:
            got = js("all(a)", {"bytes": image.ravel().tolist(), "middles": middles.tolist()})
            expected = window_nets.run(U, torch.from_numpy(middles)[None])
            V = expected["V"][0].flatten(1)
            np.testing.assert_allclose(got["V"], V, rtol=0, atol=1e-5)
            np.testing.assert_allclose(got["shares"], expected["shares"][0], rtol=0, atol=2e-3)
            worst = max(worst, np.abs(np.array(got["kinds"]) - expected["kinds"][0].numpy()).max())
            np.testing.assert_allclose(got["own"], window_nets.placed(U)[0], rtol=0, atol=1e-3)
    print(f"probabilities differ by {worst:.1e} at most, over {5 * len(pictures)} pairs of windows")
    assert worst < 1e-3


def test_to_hold_is_the_chapters(js):
    points = itertools.product((-0.9, -0.5, -0.2, 0.3), repeat=2)
    for point in points:
        expected = all(abs(p - c) < 0.5 for p, c in zip(point, (0, 0.1), strict=True))
        assert js("m.holdsPoint([0, 0.1], a)", point) == expected


# --- In a page ---


def said(explorer):
    """The sentence that the page must show."""
    kinds = explorer.result["kinds"][0]
    share, best = kinds.max(0)
    truth = window_nets.told()["birds"][explorer.bird]["kind"]
    percent = f"{100 * share.item():.0f}\u00a0%"
    end = (
        f"and the network says so ({percent})."
        if best.item() == truth
        else f"but the network says {data.DRAWN_BIRDS[best]} ({percent})."
    )
    return f"It has a {data.DRAWN_BIRDS[truth].replace(', ', ' and a ')}, {end}"


def spot(one, x, y):
    """A place of the picture, normalised, on the screen."""
    box = one.locator(".input canvas").bounding_box()
    unit = box["width"] / 2 / 1.15
    return box["x"] + box["width"] / 2 + x * unit, box["y"] + box["height"] / 2 + y * unit


def entry(one, name):
    return one.get_by_role("spinbutton", name=f"{name}, as a number")


def entries(one):
    """All four numbers that the page shows."""
    return [
        float(entry(one, f"{axis} of window {k}").input_value()) for k in (1, 2) for axis in "xy"
    ]


def test_page_says_what_pytorch_says(shown, bar_lengths):
    explorer = WindowsExplorer("2", ((0.1, 0.2), (-0.2, 0.4)))
    one = shown(explorer)
    expect(one.locator(".words")).to_have_text(said(explorer))
    bars = one.get_by_role("img", name=re.compile("^The network says: "))
    np.testing.assert_allclose(bar_lengths(bars), 100 * explorer.result["kinds"][0], atol=0.01)
    shares = explorer.result["shares"][0]
    bill = (shares[:, 2] + shares[:, 3] - shares[:, 0] - shares[:, 1]) / 2
    for k, value in enumerate(bill.tolist()):
        side = ("black", "yellow")[value >= 0]
        name = re.compile(rf"^What window {k + 1} shows: {side} bill \+{abs(value):.1f}, ")
        expect(one.get_by_role("img", name=name)).to_have_count(1)
    stated = one.locator(".measured").inner_text()
    for place in ("own", "tiles", "anywhere", "head and wing", "standing", "middle"):
        assert f"{ROWS[0][place]['kind']:.1f}\u00a0%" in stated
    facts = one.locator(".facts").first.inner_text()
    both = explorer.result["kinds"][0]
    yellow = (both[2] + both[3]).item()
    assert (
        f"{('black', 'yellow')[yellow >= 0.5]} bill at {100 * max(yellow, 1 - yellow):.0f}" in facts
    )


def test_sliders_buttons_and_birds(shown):
    one = shown(WindowsExplorer("4"))
    entry(one, "x of window 1").fill("-0.2")
    entry(one, "y of window 2").fill("0.3")
    one.get_by_role("slider", name="x of window 2", exact=True).press("ArrowLeft")
    now = WindowsExplorer("4", ((-0.2, 0), (0.49, 0.3)))
    expect(one.locator(".words")).to_have_text(said(now))
    one.get_by_role("button", name="Where the network looks").click()
    now.middles = now.own
    expect(one.locator(".words")).to_have_text(said(now))
    np.testing.assert_allclose(entries(one), np.ravel(now.own), atol=2e-3)
    one.get_by_role("radio", name="Bird 1: black bill, plain wing").check(force=True)
    now.bird = "1"
    expect(one.locator(".words")).to_have_text(said(now))
    one.get_by_role("button", name="Head and wing").click()
    told = window_nets.told()["birds"]["1"]
    now.middles = np.clip([told["head"], told["wing"]], -REACH, REACH)
    expect(one.locator(".words")).to_have_text(said(now))
    expect(one.locator(".facts").first).to_contain_text("Window 1 holds head")
    one.get_by_role("button", name="Tiles").click()
    now.middles = TILES
    expect(one.locator(".words")).to_have_text(said(now))
    one.get_by_role("button", name="Reset").click()
    expect(one.locator(".words")).to_have_text(said(WindowsExplorer("4")))


def test_mouse_moves_the_window_under_it(shown):
    one = shown(WindowsExplorer("1"))
    mouse = one.page.mouse

    def drag(start, end):
        mouse.move(*spot(one, *start))
        mouse.down()
        mouse.move(*spot(one, *end), steps=4)
        mouse.up()

    drag((-0.6, 0.2), (-0.4, 0.1))
    np.testing.assert_allclose(entries(one), [-0.3, -0.1, 0.5, 0], atol=0.01)
    drag((0.6, 0.2), (0.5, -0.1))
    np.testing.assert_allclose(entries(one), [-0.3, -0.1, 0.4, -0.3], atol=0.01)
    drag((-0.3, 0), (-0.3, -1.5))  # it stops at the edge
    np.testing.assert_allclose(entries(one), [-0.3, -0.5, 0.4, -0.3], atol=0.01)
    drag((0.9, 0.2), (0.6, 0.4))  # by its corner
    np.testing.assert_allclose(entries(one), [-0.3, -0.5, 0.1, -0.1], atol=0.01)


def test_arrow_keys_move_a_window(shown):
    one = shown(WindowsExplorer("1"))
    first = one.get_by_role("slider", name="Window 1", exact=True)
    first.press("ArrowRight")
    first.press("ArrowDown")
    one.get_by_role("slider", name="Window 2", exact=True).press("Shift+ArrowLeft")
    now = WindowsExplorer("1", ((-0.5 + 2 / 48, 2 / 48), (0.5 - 20 / 48, 0)))
    # The words may be the same as before, so the last number that changes is waited for.
    expect(entry(one, "x of window 2")).to_have_value(re.compile(r"^0\.083"))
    expect(one.locator(".words")).to_have_text(said(now))
    np.testing.assert_allclose(entries(one), np.ravel(now.middles), atol=1e-3)


def test_a_finger_moves_a_window(shown):
    one = shown(WindowsExplorer("1"), **PHONE)
    one.locator(".input canvas").scroll_into_view_if_needed()
    touch = one.page.context.new_cdp_session(one.page)

    def send(kind, *places):
        points = [dict(zip("xy", spot(one, *place), strict=True)) for place in places]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    before = one.page.evaluate("scrollY")
    send("Start", (0.6, 0))
    for t in (0.1, 0.2, 0.3):
        send("Move", (0.6 - t, t))
    send("End")
    expect(entry(one, "x of window 2")).to_have_value(re.compile(r"^0\.(19|2|20|21)"))
    np.testing.assert_allclose(entries(one), [-0.5, 0, 0.2, 0.3], atol=0.02)
    assert one.page.evaluate("scrollY") == before  # the page stays


def test_sliders_stay_where_they_are(shown, last_slider):
    """However long the sentences are."""
    one = shown(WindowsExplorer("2"), **PHONE)

    before = last_slider(one)
    for button in ("Head and wing", "Where the network looks", "Tiles"):
        one.get_by_role("button", name=button).click()
        for bird in BIRDS:
            one.get_by_role("radio", name=f"Bird {bird}").check(force=True)
            assert last_slider(one) == pytest.approx(before, abs=0.5)
