"""The trained pair in the page: what ships, that it runs as PyTorch runs it, that it moves.

The browser's tests need a Chromium, which CI has; without one they are skipped, and say so.
"""

import html
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torch import nn

from stn_tutorial import data, training
from stn_tutorial.affine import compose, rotation, scaling, translation
from stn_tutorial.explorables import PairExplorer, chains, pair_nets
from stn_tutorial.explorables.bundle import bundle
from tools import train_pair
from tools.train_network import folded

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "book" / "results" / "pair.json").read_text(encoding="utf-8"))
PAIR = RESULT["networks"]["pair"]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
STILL = ((0, 1, 0, 0), (0, 1, 0, 0))


# --- What ships ---


def test_network_is_small():
    count = sum(p.numel() for p in pair_nets.trained().parameters())
    assert count == PAIR["parameters"]
    assert pair_nets.WEIGHTS.stat().st_size == 2 * count <= 110_000
    plain = sum(p.numel() for p in chains.chain(pair_nets.PLAIN).parameters())
    assert 0.98 * count < plain < 1.02 * count


def test_what_is_stated_is_what_was_measured():
    stated = PairExplorer.page_state()["_nets"]["figures"]
    rows = RESULT["networks"]
    assert stated["sums"] == 10_000
    assert stated["error"] == {name: row["test_error"] for name, row in rows.items()}
    assert stated["parameters"] == {name: row["parameters"] for name, row in rows.items()}
    for key in ("takes", "share_of_turn", "share_of_shift", "degrees_in_U", "degrees_in_V"):
        assert stated[key] == PAIR[key]
    assert "changed" not in PAIR["commit"]
    # The class's own words are of the same distortion.
    facts = " ".join(fact.text for fact in data.DISTORTIONS["RTS"].facts)
    assert "±45°" in facts
    assert "0.7 to 1.2" in facts
    assert "up to 45°, scaled by 0.7 to 1.2" in " ".join(PairExplorer.__doc__.split())


def test_windows_share_out_the_digits():
    """Each takes one, turns and moves with it, and cares little for the other."""
    takes = PAIR["takes"]
    assert sorted(takes) == [0, 1]
    for k, own in enumerate(takes):
        for shares in (PAIR["share_of_turn"][k], PAIR["share_of_shift"][k]):
            assert shares[own] > 0.5
            assert abs(shares[1 - own]) < 0.2
        assert PAIR["degrees_in_V"][k][own] < PAIR["degrees_in_U"][own]


def test_windows_are_what_it_takes():
    """Held still, the same network does worse; so does a plain one, which knew no single digits."""
    errors = {name: row["test_error"] for name, row in RESULT["networks"].items()}
    assert errors["pair"] < 0.7 * min(errors["still"], errors["plain"])


def test_file_of_another_length_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "pair.bin"
    path.write_bytes(pair_nets.WEIGHTS.read_bytes() + b"\0\0")
    monkeypatch.setattr(pair_nets, "WEIGHTS", path)
    with pytest.raises(ValueError, match="must hold 52309 numbers, but it holds 52310"):
        pair_nets.trained.__wrapped__()


def test_drawing_the_network_takes_no_random_numbers():
    before = torch.get_rng_state()
    pair_nets.trained.__wrapped__()
    PairExplorer()._repr_mimebundle_()
    assert torch.equal(torch.get_rng_state(), before)


def test_windows_start_as_said():
    thetas = pair_nets.network()[0].thetas(torch.rand(3, 2, 42, 42))
    for theta in thetas:
        expected = torch.tensor([[0.6, 0, 0], [0, 0.6, 0]]).expand(3, -1, -1)
        torch.testing.assert_close(theta, expected)


def test_batch_norm_is_folded():
    torch.manual_seed(0)
    U = torch.rand(32, 2, 42, 42)
    for net in (pair_nets.network(norm=True), chains.chain(pair_nets.PLAIN, ("conv", "dense"))):
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        for module in norms:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        assert {type(module) for module in norms} == {nn.BatchNorm1d, nn.BatchNorm2d}
        net.train()(U)
        expected = net.eval()(U)
        made = folded(net)
        assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in made.modules())
        torch.testing.assert_close(made(U), expected, rtol=1e-4, atol=1e-4)


def test_chains_say_what_the_layers_are():
    made = chains.chain((("mean", 2), ("conv", 1, 3, 5), ("dense", 12, 4), ("dense", 4, 2)))
    assert [type(one).__name__ for one in made] == [
        *("AvgPool2d", "Conv2d", "ReLU", "Flatten", "Linear", "ReLU", "Linear")
    ]
    normed = chains.chain((("conv", 1, 3, 5), ("dense", 12, 4)), ("conv", "dense"))
    assert [type(one).__name__ for one in normed] == [
        *("Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear")
    ]


# --- How it was trained ---


def fitting(angle, size, right, down):
    """A digit's θ in its frame, and the window that shows it upright."""
    digit = compose(scaling(size * 28 / 42), compose(rotation(angle), translation(right, down)))
    bottom = torch.tensor([[[0.0, 0.0, 1.0]]])
    inverse = torch.linalg.inv(torch.cat([digit, bottom], dim=1))
    return digit, inverse[:, :2]


class Windows:
    """A network whose windows are given, for `followed`."""

    def __init__(self, thetas):
        self.given = thetas

    def __getitem__(self, index):
        assert index == 0
        return self

    def thetas(self, U):
        return self.given


class Drawn:
    """Sums of which only θ is asked."""

    def __init__(self, truth):
        self.truth = truth

    def __iter__(self):
        yield torch.zeros(len(self.truth), 2, 42, 42), None

    def theta(self):
        return self.truth


def test_shares_are_known_of_windows_that_follow():
    """1 where a window undoes all, 0 where it looks away, and half of the half."""
    rng = np.random.default_rng(0)
    poses = [[(*rng.uniform(-45, 45, 1), 1, *rng.uniform(-0.3, 0.3, 2)) for _ in range(2)]
             for _ in range(400)]  # fmt: skip
    pairs = [[fitting(*pose) for pose in row] for row in poses]
    truth = torch.stack([torch.cat([digit for digit, _ in row]) for row in pairs])
    perfect = torch.cat([row[1][1] for row in pairs])  # of the second digit
    half = torch.cat([
        compose(translation(-x / 2, -y / 2), rotation(-a / 2))
        for (a, _, x, y), _ in poses
    ])  # fmt: skip
    figures = train_pair.followed(Windows([perfect, half]), Drawn(truth))
    assert figures["takes"] == [1, 0]
    assert figures["share_of_turn"][0][1] == pytest.approx(1, abs=1e-3)
    assert figures["share_of_shift"][0][1] == pytest.approx(1, abs=1e-3)
    assert figures["share_of_turn"][1][0] == pytest.approx(0.5, abs=1e-3)
    assert figures["share_of_shift"][1][0] == pytest.approx(0.5, abs=1e-2)
    assert abs(figures["share_of_turn"][0][0]) < 0.15
    assert figures["degrees_in_V"][0][1] == 0
    assert figures["degrees_in_V"][1][0] == pytest.approx(figures["degrees_in_U"][0] / 2, abs=0.1)


def test_batches_depend_on_their_step_alone():
    digits = data.Digits(torch.randint(256, (200, 1, 28, 28), dtype=torch.uint8),
                         torch.arange(200) % 10)  # fmt: skip
    one, other = train_pair.upright(digits), train_pair.upright(digits)
    other(0)
    for first, second in zip(one(5), other(5), strict=True):
        assert torch.equal(first, second)
    assert one(5)[0].shape == (train_pair.BATCH, 1, 20, 20)
    reach = train_pair.growing(100)
    assert [reach(0), reach(25), reach(50), reach(99)] == pytest.approx([0.1, 0.55, 1, 1])


@pytest.mark.skipif("STN_TUTORIAL_DATA" not in os.environ, reason="STN_TUTORIAL_DATA is not set")
def test_figures_are_those_of_the_weights_that_ship():
    test = data.FixedSums(data.load_digits("test", dataset="mnist"), "channels")
    net = pair_nets.trained()
    assert training.error_rate(net, test) == pytest.approx(PAIR["test_error"], abs=0.05)
    found = train_pair.followed(net, test)
    np.testing.assert_allclose(found["share_of_turn"], PAIR["share_of_turn"], atol=0.01)
    np.testing.assert_allclose(found["share_of_shift"], PAIR["share_of_shift"], atol=0.01)


# --- The widget ---


def test_output_holds_no_weights():
    one = PairExplorer((3, "5"), STILL)
    mime, _ = one._repr_mimebundle_()
    weights = pair_nets.sent()["weights"]
    assert len(mime["text/html"]) < 25_000
    assert weights[:40] not in json.dumps(mime)
    state = json.loads(html.unescape(re.search(r'data-stn-widget="([^"]*)"', one.to_html())[1]))
    assert state == {
        "kind": "pair", "digits": ["3", "5"], "poses": [[0, 1, 0, 0]] * 2, "_pictures": {},
    }  # fmt: skip
    assert one.get_state()["_nets"]["weights"] == weights  # a kernel sends them
    assert repr(one) == "PairExplorer(digits=('3', '5'), poses=((0, 1, 0, 0), (0, 1, 0, 0)))"
    alt = html.unescape(re.search(r'<img alt="([^"]*)"', one.to_html())[1])
    assert "The network gives 3 + 5 as " in alt


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("digits", "3", "digits must be two of"),
        ("digits", ("3", "5", "7"), "digits must be two of"),
        ("digits", ("3", "x"), "digits must be two of"),
        ("digits", (3, 11), "digits must be two of"),
        ("digits", 35, "digits must be two of"),
        ("poses", (0, 1, 0, 0), "poses must be two"),
        ("poses", ((0, 1, 0, 0),), "poses must be two"),
        ("poses", ((0, 1, 0, 0), (0, 9, 0, 0)), "0.3 to 2.5"),
        ("poses", ((0, 1, 0, 0), (float("nan"), 1, 0, 0)), "pose must be"),
        ("poses", ((0, 1, 0, 0), "no"), "pose must be"),
        ("poses", 7, "poses must be two"),
    ],
)
def test_what_it_does_not_take_is_refused(refuses, name, value, message):
    refuses(PairExplorer, name, value, message)


def test_traits_are_set_and_observed():
    one, seen = PairExplorer(), []
    one.observe(lambda change: seen.append(change.new), ["digits", "poses"])
    one.digits = [7, "0"]
    one.poses = np.array([[0, 1.5, 0.25, 0], [-90, 1, 0, 0]])
    assert seen == [["7", "0"], [[0, 1.5, 0.25, 0], [-90, 1, 0, 0]]]
    json.dumps(seen)


def test_frame_and_result_have_their_shapes():
    one = PairExplorer()
    assert (one.frame.shape, one.frame.dtype) == ((1, 2, 42, 42), torch.float64)
    shapes = {name: tuple(value.shape) for name, value in one.result.items()}
    assert shapes == {
        "theta": (1, 2, 2, 3), "V": (1, 2, 2, 20, 20), "views": (1, 2, 2, 10), "sum": (1, 19),
    }  # fmt: skip
    assert one.result["sum"].sum().item() == pytest.approx(1, abs=1e-5)


def turns(one):
    """By how many degrees each window turns what it reads."""
    theta = one.result["theta"][0]
    return torch.atan2(theta[:, 1, 0] - theta[:, 0, 1], theta[:, 0, 0] + theta[:, 1, 1]).rad2deg()


def test_a_window_follows_its_digit_and_lets_the_other_go():
    """Of the offered digits: turn and move one, and see which window goes along."""
    for channel, digit in itertools.product(range(2), pair_nets.DIGITS):
        if digit == "0":  # turned, it is a 0 still
            continue
        own = PAIR["takes"].index(channel)
        poses = [[list(pose) for pose in STILL] for _ in range(4)]
        for k, (turn, right) in enumerate([(-35, 0), (35, 0), (0, -0.3), (0, 0.3)]):
            poses[k][channel] = [turn, 1, right, 0]
        digits = ["4", "4"]
        digits[channel] = digit
        seen = [PairExplorer(digits, pose) for pose in poses]
        turned = turns(seen[1]) - turns(seen[0])
        moved = (seen[3].result["theta"] - seen[2].result["theta"])[0, :, 0, 2]
        assert turned[own] < -15, (channel, digit)
        assert moved[own] > 0.3, (channel, digit)
        assert moved[1 - own].abs() < 0.5 * moved[own], (channel, digit)


def test_offered_digits_are_added():
    """Upright in the middle; and askew, most of them."""
    wrong = {STILL: 0, ((20, 1, -0.2, 0.1), (-20, 1, 0.15, -0.2)): 0}
    for a, b in itertools.product(pair_nets.DIGITS, repeat=2):
        for poses in wrong:
            said = PairExplorer((a, b), poses).result["sum"].argmax().item()
            wrong[poses] += said != int(a) + int(b)
    assert max(wrong.values()) <= 15  # of 100


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
        }""",
        [bundle("pair", whole=True), pair_nets.sent()],
    )
    yield lambda expression, a=None: page.evaluate(f"(a) => ({expression})", a)
    page.close()


def explorers():
    """Offered digits in many poses, some beyond what the network was trained on."""
    rng = np.random.default_rng(0)
    names = list(pair_nets.DIGITS)
    return [
        PairExplorer(
            (names[k % 10], names[(3 * k + 1) % 10]),
            [
                (rng.uniform(-180, 180), rng.uniform(0.5, 1.8), *rng.uniform(-0.6, 0.6, 2))
                for _ in range(2)
            ],
        )
        for k in range(20)
    ]


def test_network_is_pytorchs(js):
    """Every probability within 1e-3, of the very weights that ship; θ and V too."""
    rng = np.random.default_rng(1)
    frames = [one.frame for one in explorers()]
    frames += [torch.zeros(1, 2, 42, 42), torch.ones(1, 2, 42, 42)]
    frames += list(torch.from_numpy(rng.random((4, 1, 2, 42, 42))))
    worst = 0
    for U in frames:
        got = js(
            "(({V, ...all}) => ({...all, V: V.map((row) => row.map((one) => [...one]))}))"
            "(m.addUp(nets, a))",
            U.ravel().tolist(),
        )
        expected = pair_nets.run(U)
        assert sum(got["sum"]) == pytest.approx(1, abs=1e-9)
        for name in ("sum", "views"):
            gap = np.abs(np.array(got[name]) - expected[name][0].numpy()).max()
            worst = max(worst, gap)
        np.testing.assert_allclose(got["theta"], expected["theta"][0], rtol=0, atol=1e-3)
        np.testing.assert_allclose(
            np.array(got["V"]), expected["V"][0].flatten(2), rtol=0, atol=5e-3
        )
    print(f"probabilities differ by {worst:.1e} at most, over {len(frames)} frames")
    assert worst < 1e-3


def test_turn_of_a_window_is_the_packages(js):
    for degrees in (-170, -30, 0, 45, 120):
        theta = compose(scaling(1.7), rotation(degrees))[0].tolist()
        assert js("m.turned(a)", theta) == pytest.approx(degrees, abs=1e-4)


# --- In a page ---


def said(explorer):
    """The sentence that the page must show."""
    a, b = map(int, explorer.digits)
    share, total = explorer.result["sum"][0].max(0)
    word = "and" if total.item() == a + b else "but"
    percent = f"{100 * share.item():.0f}\u00a0%"
    return f"{a} + {b} = {a + b}, {word} the network says {total.item()} ({percent})."


def spot(one, channel, x, y):
    """A place of a channel, normalised, on the screen."""
    box = one.locator(".input canvas").nth(channel).bounding_box()
    unit = box["width"] / 2 / 1.2
    return box["x"] + box["width"] / 2 + x * unit, box["y"] + box["height"] / 2 + y * unit


def number(one, name):
    return one.get_by_role("spinbutton", name=re.compile(f"^{name}.*as a number$"))


def pressed(one, name):
    return one.get_by_role("button", name=name, pressed=True)


def test_page_says_what_pytorch_says(shown, bar_lengths):
    explorer = PairExplorer()
    one = shown(explorer)
    expect(one.locator(".words")).to_have_text(said(explorer))
    bars = one.get_by_role("img", name=re.compile("^The sum: "))
    np.testing.assert_allclose(bar_lengths(bars), 100 * explorer.result["sum"][0], atol=0.01)
    for k, c in itertools.product(range(2), repeat=2):
        digit = explorer.result["views"][0, k, c].argmax().item()
        name = re.compile(f"^What window {k + 1} reads of channel {c + 1}: {digit} ")
        expect(one.get_by_role("img", name=name)).to_have_count(1)
    stated = one.locator(".measured").inner_text()
    for row in RESULT["networks"].values():
        assert f"{row['test_error']:.1f}" in stated
    facts = one.locator(".facts").first.inner_text()
    for k, angle in enumerate(turns(explorer).tolist()):
        assert f"window {k + 1} turns what it reads by {angle:.0f}°".replace("-", "−") in facts


def test_sliders_are_the_chosen_digits(shown):
    one = shown(PairExplorer(("4", "7"), STILL))
    number(one, "Turn").fill("30")
    one.get_by_role("button", name="Digit 2").click()
    expect(number(one, "Turn")).to_have_value("0")
    number(one, "Size").fill("0.9")
    number(one, "Moved right").fill("0.2")
    number(one, "Moved down").fill("-0.1")
    one.get_by_role("slider", name="Turn in degrees, counter-clockwise").press("ArrowLeft")
    now = PairExplorer(("4", "7"), ((30, 1, 0, 0), (-1, 0.9, 0.2, -0.1)))
    expect(one.locator(".words")).to_have_text(said(now))
    one.get_by_role("radio", name="Handwritten 1").check(force=True)
    now.digits = ("4", "1")
    expect(one.locator(".words")).to_have_text(said(now))
    one.get_by_role("button", name="Digit 1").click()
    expect(number(one, "Turn")).to_have_value("30")
    expect(one.get_by_role("radio", name="Handwritten 4")).to_be_checked()
    one.get_by_role("button", name="Reset").click()
    expect(one.locator(".words")).to_have_text(said(PairExplorer(("4", "7"), STILL)))


def test_mouse_moves_either_digit(shown):
    one = shown(PairExplorer(("5", "2"), STILL))
    mouse = one.page.mouse
    for channel, (x, y) in enumerate([(0.2, -0.2), (-0.25, 0.1)]):
        mouse.move(*spot(one, channel, 0.1, 0.3))
        mouse.down()
        mouse.move(*spot(one, channel, 0.1 + x, 0.3 + y), steps=4)
        mouse.up()
        expect(pressed(one, f"Digit {channel + 1}")).to_have_count(1)
        expect(number(one, "Moved right")).to_have_value(f"{x:g}")
        expect(number(one, "Moved down")).to_have_value(f"{y:g}")
    # The handle, from the upper right to the upper left.
    mouse.move(*spot(one, 0, 0.72, -0.72))
    mouse.down()
    mouse.move(*spot(one, 0, -0.32, -0.72), steps=6)
    mouse.up()
    expect(number(one, "Turn")).to_have_value(re.compile(r"^(89|90|91)"))
    assert float(number(one, "Size").input_value()) == pytest.approx(1, abs=0.01)


def test_windows_go_along_in_the_page(shown):
    """What is painted over a channel changes where its window moves."""
    one = shown(PairExplorer(("5", "2"), STILL))
    facts = one.locator(".facts").first
    expect(facts).to_contain_text("turned by 0°")
    number(one, "Turn").fill("40")
    now = PairExplorer(("5", "2"), ((40, 1, 0, 0), STILL[1]))
    own = PAIR["takes"].index(0)
    angle = f"{turns(now)[own].item():.0f}".replace("-", "−")
    expect(facts).to_contain_text(
        f"In channel 1 the digit stands turned by 40°; window {own + 1} turns what it reads by "
        f"{angle}°."
    )


def test_handles_by_key(shown):
    one = shown(PairExplorer(("5", "2"), STILL))
    grip = one.get_by_role("slider", name="Turn and size of digit 2")
    grip.press("ArrowLeft")
    expect(pressed(one, "Digit 2")).to_have_count(1)
    grip.press("Shift+ArrowLeft")
    grip.press("ArrowUp")
    one.get_by_role("slider", name="Place of digit 1").press("Shift+ArrowDown")
    now = PairExplorer(("5", "2"), ((0, 1, 0, 20 / 42), (11, 1.01, 0, 0)))
    expect(one.locator(".words")).to_have_text(said(now))


def test_a_finger_moves_and_two_turn(shown):
    one = shown(PairExplorer(("5", "2"), STILL), **PHONE)
    one.locator(".input canvas").first.scroll_into_view_if_needed()
    touch = one.page.context.new_cdp_session(one.page)

    def send(kind, channel, *places):
        at = (spot(one, channel, *place) for place in places)
        points = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(at)]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    before = one.page.evaluate("scrollY")
    send("Start", 0, (0, 0.3))
    for t in (0.1, 0.2, 0.3):
        send("Move", 0, (t, 0.3 - t))
    send("End", 0)
    expect(number(one, "Moved right")).to_have_value(re.compile(r"^0\.(29|3|31)"))
    expect(number(one, "Moved down")).to_have_value(re.compile(r"^-0\.(29|3|31)"))
    assert one.page.evaluate("scrollY") == before  # the page stays
    send("Start", 1, (-0.4, 0))
    send("Start", 1, (-0.4, 0), (0.4, 0))
    for angle in (0.2, 0.4, 0.6):
        send("Move", 1, (-0.4, 0), (-0.4 + 0.8 * np.cos(angle), -0.8 * np.sin(angle)))
    send("End", 1)
    expect(number(one, "Turn")).to_have_value(re.compile("^3[2-6]"))  # once a frame has passed
    assert float(number(one, "Size").input_value()) == pytest.approx(1, abs=0.03)


def test_sliders_stay_where_they_are(shown, last_slider):
    """However long the sentences are."""
    one = shown(PairExplorer(("0", "1"), STILL), **PHONE)

    before = last_slider(one)
    number(one, "Turn").fill("-137")
    one.get_by_role("radio", name="Handwritten 9").check(force=True)
    one.get_by_role("button", name="Digit 2").click()
    number(one, "Turn").fill("-151")
    expect(one.locator(".facts").first).to_contain_text("−151°")
    assert last_slider(one) == pytest.approx(before, abs=0.5)
