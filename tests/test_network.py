"""The two trained networks in the page: what ships, that it runs as PyTorch runs it, that it moves.

The browser's tests need a Chromium, which CI has; without one they are skipped, and say so.
"""

import base64
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

from stn_tutorial.explorables import NetworkExplorer, digit_nets
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.training import accuracy
from tools import train_network

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "book" / "results" / "network.json").read_text(encoding="utf-8"))

# A 7 in one stroke and a 4 in two, normalised to the frame.
SEVEN = [[[-0.4, -0.5], [0.35, -0.5], [-0.1, 0.5]]]
FOUR = [[[-0.2, -0.5], [-0.3, 0.1], [0.35, 0.1]], [[0.2, -0.5], [0.2, 0.55]]]


# --- What ships ---


def test_networks_are_small_and_alike():
    counts = {
        name: sum(p.numel() for p in net.parameters()) for name, net in digit_nets.trained().items()
    }
    assert max(counts.values()) <= 70_000
    assert max(counts.values()) < 1.05 * min(counts.values())
    assert counts == {name: one["parameters"] for name, one in RESULT["networks"].items()}
    assert digit_nets.WEIGHTS.stat().st_size == 2 * sum(counts.values())


def test_what_is_stated_is_what_was_measured():
    stated = NetworkExplorer.page_state()["_nets"]["figures"]
    networks = RESULT["networks"]
    assert stated["test"] == {
        "digits": 10_000,
        **{name: round(100 - one["test_error"], 2) for name, one in networks.items()},
    }
    assert stated["drawn"] == {key: RESULT["drawn"][key] for key in ("digits", "look", "plain")}
    assert stated["drawn"]["digits"] >= 50
    assert stated["undone"] == networks["look"]["share_of_a_turn_undone"]
    assert [stated["turn"], stated["scale"]] == [RESULT["turn_degrees"], RESULT["scale"]]
    # The class's own words are of the same training.
    said = " ".join(NetworkExplorer.__doc__.split())
    assert (
        f"up to {stated['turn']}°, scaled by {stated['scale'][0]} to {stated['scale'][1]}" in said
    )


def test_rates_are_those_that_did_best_on_held_out_digits():
    for name, one in RESULT["networks"].items():
        rows = [row for row in RESULT["tuning"]["rows"] if row["network"] == name]
        assert sorted(row["rate"] for row in rows) == sorted(train_network.RATES)
        assert one["rate"] == min(rows, key=lambda row: row["held_out_error"])["rate"]


def test_file_of_another_length_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "network.bin"
    path.write_bytes(digit_nets.WEIGHTS.read_bytes()[:-2])
    monkeypatch.setattr(digit_nets, "WEIGHTS", path)
    with pytest.raises(ValueError, match="but it holds 104279"):
        digit_nets.trained.__wrapped__()


@pytest.mark.parametrize("name", digit_nets.DIGITS)
def test_transformer_reads_the_offered_digits(name):
    for degrees in (-45, 0, 45):
        read = NetworkExplorer(name, (degrees, 1.1, 0.1, -0.1)).result["look"]
        assert read.argmax().item() == int(name)


def test_transformer_centres():
    """In V a digit's ink is nearer to the middle than it was in U."""
    for name in digit_nets.DIGITS:
        for x, y in ((-0.35, -0.3), (0.35, 0.3), (-0.3, 0.35)):
            one = NetworkExplorer(name, (0, 0.9, x, y))
            away = [off_centre(picture) for picture in (one.frame, one.result["V"])]
            assert away[1] < 0.6 * away[0]


def test_transformer_straightens():
    """It takes back most of a turn: of each offered digit, and as measured of the test digits."""
    images = torch.stack([torch.from_numpy(np.array(one)) for one in digit_nets.digits().values()])
    shares = train_network.undone(digit_nets.trained()["look"][0], images[:, None])
    assert (shares > 0.6).all()
    low, median, _ = RESULT["networks"]["look"]["share_of_a_turn_undone"]
    assert low > 0.3
    assert 0.75 < median < 1.25


def off_centre(picture):
    """How far the ink's centre of mass is from the middle, in half sides."""
    places = (2 * torch.arange(picture.shape[2]) + 1) / picture.shape[2] - 1
    ink = picture[0, 0].double() / picture.sum()
    return torch.hypot((ink.sum(0) * places).sum(), (ink.sum(1) * places).sum()).item()


def right(digit, pose):
    """Whether each network, the one with the transformer first, reads an offered digit rightly."""
    result = digit_nets.run(digit_nets.placed(digit, pose))
    return tuple(result[name].argmax().item() == int(digit) for name in ("look", "plain"))


def test_where_the_two_part_is_as_chapter_7_says():
    shifts = [(0, 0), (-0.2, 0.15), (0.2, -0.2)]
    within = itertools.product(range(-75, 76, 25), (0.8, 1.1, 1.4), shifts)
    for (turn, size, shift), digit in itertools.product(within, digit_nets.DIGITS):
        assert right(digit, (turn, size, *shift)) == (True, True), (digit, turn, size, shift)
    turns = range(-90, 91, 30)
    halved = {right(d, (turn, 0.5, 0, 0)) for d in digit_nets.DIGITS for turn in turns}
    turned = {right(d, (turn, 1, 0, 0)) for d in digit_nets.DIGITS for turn in (-120, 120)}
    assert {(True, False), (False, True)} <= halved & turned


def test_batch_norm_is_folded():
    torch.manual_seed(0)
    U = torch.rand(32, 1, 42, 42)
    for net in digit_nets.networks(norm=True).values():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.1)
        net.train()(U)
        expected = net.eval()(U)
        folded = train_network.folded(net)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded(U), expected, rtol=1e-4, atol=1e-4)


def test_placed_digits_keep_their_ink_in_the_frame():
    """At most a digit's corners are cut, at the largest size."""
    digits = torch.stack([torch.from_numpy(np.array(one)) for one in digit_nets.digits().values()])
    images = digits[:, None].repeat(50, 1, 1, 1)
    frames = train_network.placed(images, seed=0)
    assert frames.shape == (300, 1, 42, 42)
    assert torch.equal(frames, train_network.placed(images, seed=0))
    straight = train_network.placed(images, seed=0, turn=0, scale=(1, 1))
    ink = images.double().sum((1, 2, 3))
    assert ((straight.double().sum((1, 2, 3)) / ink - 1).abs() < 0.02).all()
    sizes = (frames.double().sum((1, 2, 3)) / ink).sqrt()
    assert 0.65 < sizes.min() < 0.8
    assert 1.4 < sizes.max() < 1.6


@pytest.mark.skipif("STN_TUTORIAL_DATA" not in os.environ, reason="STN_TUTORIAL_DATA is not set")
def test_figures_are_those_of_the_weights_that_ship():
    images, labels = train_network.mnist("test")
    frames = train_network.placed(images, train_network.TEST_SEED)
    for name, net in digit_nets.trained().items():
        wrong = 100 * (1 - accuracy(net, frames, labels))
        assert wrong == pytest.approx(RESULT["networks"][name]["test_error"], abs=0.03)


# --- The widget ---


def test_output_holds_no_weights():
    one = NetworkExplorer()
    data, _ = one._repr_mimebundle_()
    weights = digit_nets.sent()["weights"]
    assert len(data["text/html"]) < 25_000
    assert weights[:40] not in json.dumps(data)
    state = json.loads(html.unescape(re.search(r'data-stn-widget="([^"]*)"', one.to_html())[1]))
    assert state == {
        "kind": "network", "_picture": "3", "pose": [40, 1.1, -0.2, 0.15], "strokes": [], "pen": 3,
        "_pictures": {},
    }  # fmt: skip
    assert one.get_state()["_nets"]["weights"] == weights  # a kernel sends them
    assert repr(one) == "NetworkExplorer(picture='3', pose=(40, 1.1, -0.2, 0.15), pen=3)"
    drawn = NetworkExplorer("drawing", (0, 1, 0, 0), strokes=FOUR)
    assert repr(drawn) == "NetworkExplorer(picture='drawing', pose=(0, 1, 0, 0), strokes=2, pen=3)"
    alt = html.unescape(re.search(r'<img alt="([^"]*)"', drawn.to_html())[1])
    assert "The network with the transformer reads 4 at " in alt


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("picture", "8", "_picture"),
        ("pose", (0, 1, 0), "pose must be"),
        ("pose", (0, 9, 0, 0), "0.3 to 2.5"),
        ("pose", (float("nan"), 1, 0, 0), "pose must be"),
        ("strokes", [[1, 2]], "lists of points"),
        ("strokes", [[(0, 1, 2)]], "lists of points"),
        ("strokes", [[(0, float("inf"))]], "lists of points"),
        ("strokes", [[]], "lists of points"),
        ("strokes", 7, "lists of points"),
        ("pen", 9, "pen"),
    ],
)
def test_what_it_does_not_take_is_refused(refuses, name, value, message):
    refuses(NetworkExplorer, name, value, message)


def test_traits_are_set_and_observed():
    one, seen = NetworkExplorer(), []
    one.observe(lambda change: seen.append(change.new), ["_picture", "pose", "strokes", "pen"])
    one.picture = "7"
    one.pose = np.array([0, 1.5, 0.25, 0])
    one.strokes = [torch.zeros(3, 2), np.ones((1, 2))]
    one.pen = 2
    assert seen == ["7", [0, 1.5, 0.25, 0], [[[0, 0]] * 3, [[1, 1]]], 2]
    json.dumps(seen)
    assert {"_picture", "pose", "strokes", "pen"} <= set(one.keys)


def test_frame_of_a_drawing():
    one = NetworkExplorer("drawing", (0, 1, 0, 0), strokes=[[[-0.5, 0], [0.5, 0]]], pen=2)
    row = one.frame[0, 0, :, 21]
    # The line runs along the edge between two rows: both are half a pixel from it.
    assert row[18:24].tolist() == pytest.approx([0, 0, 1, 1, 0, 0], abs=1e-12)
    one.pose = (90, 1, 0, 0)
    assert one.frame[0, 0, 21, 18:24].tolist() == pytest.approx([0, 0, 1, 1, 0, 0], abs=1e-12)
    one.strokes = []
    assert one.frame.abs().sum() == 0


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
        [bundle("network", whole=True), digit_nets.sent()],
    )
    yield lambda expression, a=None: page.evaluate(f"(a) => ({expression})", a)
    page.close()


def explorers():
    """Offered digits and drawings in many poses, some beyond what the networks were trained on."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(36):
        pose = (rng.uniform(-180, 180), rng.uniform(0.5, 1.8), *rng.uniform(-0.6, 0.6, 2))
        name = [*digit_nets.DIGITS, "drawing"][k % 7]
        pen = rng.uniform(1, 6)
        made.append(NetworkExplorer(name, pose, strokes=(SEVEN, FOUR)[k % 2], pen=pen))
    return made


def test_weights_are_decoded_exactly(js):
    numbers = np.array([0, 1, -2.5, 65504, 6e-8, -3e-6, 0.1, np.pi], dtype="<f2")
    text = base64.b64encode(numbers.tobytes()).decode()
    assert js("[...m.decodeHalf(a)]", text) == numbers.astype(float).tolist()
    sums = js("Object.values(nets).flat().map((one) => one.weight ? one.weight.length : 0)")
    biases = js("Object.values(nets).flat().map((one) => one.bias ? one.bias.length : 0)")
    assert 2 * (sum(sums) + sum(biases)) == digit_nets.WEIGHTS.stat().st_size


def test_frames_are_the_packages(js):
    for one in explorers():
        if one.picture == "drawing":
            got = js("[...m.inked(...a)]", [one.strokes, one.pen, one.pose])
        else:
            data = np.array(digit_nets.digits()[one.picture]).ravel().tolist()
            picture = "{width: 28, height: 28, channels: 1, data: Uint8Array.from(a[0])}"
            got = js(f"[...m.placed({picture}, a[1])]", [data, one.pose])
        # The offered digits pass through float32.
        np.testing.assert_allclose(got, one.frame.ravel(), rtol=0, atol=1e-6)


def test_networks_are_pytorchs(js):
    """Every probability within 1e-3, of the very weights that ship; θ and V too."""
    rng = np.random.default_rng(1)
    frames = [one.frame for one in explorers()]
    frames += [torch.zeros(1, 1, 42, 42), torch.ones(1, 1, 42, 42)]
    frames += list(torch.from_numpy(rng.random((4, 1, 1, 42, 42))))
    worst = 0
    for U in frames:
        got = js(
            "(({theta, V, look, plain}) => ({theta, V: [...V], look, plain}))(m.readBoth(nets, a))",
            U.ravel().tolist(),
        )
        expected = digit_nets.run(U)
        for name in ("look", "plain"):
            assert sum(got[name]) == pytest.approx(1, abs=1e-9)
            worst = max(worst, np.abs(np.array(got[name]) - expected[name][0].numpy()).max())
        np.testing.assert_allclose(got["theta"], expected["theta"][0], rtol=0, atol=1e-3)
        np.testing.assert_allclose(got["V"], expected["V"].ravel(), rtol=0, atol=5e-3)
    print(f"probabilities differ by {worst:.1e} at most, over {len(frames)} frames")
    assert worst < 1e-3


# --- In a page ---


def said(explorer):
    """The sentence that the page must show."""
    result = explorer.result
    shares = {name: result[name][0].max(0) for name in ("look", "plain")}
    look, plain = (
        f"{shares[name].indices.item()} ({100 * shares[name].values.item():.0f}\u00a0%)"
        for name in ("look", "plain")
    )
    return f"Read as {look} with the transformer, as {plain} without."


def spot(one, x, y):
    """A place of the frame, normalised, on the screen."""
    box = one.locator(".input canvas").bounding_box()
    unit = box["width"] / 2 / 1.1
    return box["x"] + box["width"] / 2 + x * unit, box["y"] + box["height"] / 2 + y * unit


def number(one, name):
    return one.get_by_role("spinbutton", name=re.compile(f"^{name}.*as a number$"))


def test_page_says_what_pytorch_says(shown, bar_lengths):
    explorer = NetworkExplorer()
    one = shown(explorer)
    expect(one.locator(".words")).to_have_text(said(explorer))
    theta = [f"{v:.2f}".replace("-", "−") for v in explorer.result["theta"].ravel().tolist()]
    assert one.locator(".six span").all_inner_texts() == theta
    bars = one.get_by_role("img", name=re.compile("^With the transformer: "))
    probabilities = explorer.result["look"][0]
    np.testing.assert_allclose(bar_lengths(bars), 100 * probabilities, atol=0.01)
    figures = RESULT["networks"]
    for name in ("look", "plain"):
        assert f"{100 - figures[name]['test_error']:.1f}" in one.locator(".measured").inner_text()
        assert f"{RESULT['drawn'][name]:.1f}" in one.locator(".measured").inner_text()


def test_sliders_turn_scale_and_move(shown):
    one = shown(NetworkExplorer("4", (0, 1, 0, 0)))
    for name, value in (
        ("Turn", "60"),
        ("Size", "1.3"),
        ("Moved right", "0.15"),
        ("Moved down", "-0.1"),
    ):
        number(one, name).fill(value)
    expect(one.locator(".words")).to_have_text(said(NetworkExplorer("4", (60, 1.3, 0.15, -0.1))))
    one.get_by_role("slider", name="Turn in degrees, counter-clockwise").press("ArrowLeft")
    expect(one.locator(".words")).to_have_text(said(NetworkExplorer("4", (59, 1.3, 0.15, -0.1))))
    one.get_by_role("button", name="Reset").click()
    expect(one.locator(".words")).to_have_text(said(NetworkExplorer("4", (0, 1, 0, 0))))


def test_mouse_moves_turns_and_scales(shown):
    one = shown(NetworkExplorer("5", (0, 1, 0, 0)))
    page = one.page
    page.mouse.move(*spot(one, 0.1, 0.3))
    page.mouse.down()
    page.mouse.move(*spot(one, 0.3, 0.1), steps=4)
    page.mouse.up()
    expect(number(one, "Moved right")).to_have_value("0.2")
    expect(number(one, "Moved down")).to_have_value("-0.2")
    # The handle, from the upper right to the upper left and twice as far.
    page.mouse.move(*spot(one, 0.72, -0.72))
    page.mouse.down()
    page.mouse.move(*spot(one, -0.06, -0.46), steps=6)
    page.mouse.up()
    expect(number(one, "Turn")).to_have_value(re.compile(r"^(89|90|91)"))  # in the next frame
    assert float(number(one, "Size").input_value()) == pytest.approx(0.5, abs=0.01)


def test_handles_by_key(shown):
    one = shown(NetworkExplorer("5", (0, 1, 0, 0)))
    grip = one.get_by_role("slider", name="Turn and size")
    grip.press("ArrowLeft")
    grip.press("Shift+ArrowLeft")
    grip.press("ArrowUp")
    one.get_by_role("slider", name="Place of the digit").press("Shift+ArrowDown")
    words = said(NetworkExplorer("5", (11, 1.01, 0, 20 / 42)))
    expect(one.locator(".words")).to_have_text(words)


def drawn(one, strokes):
    for line in strokes:
        one.page.mouse.move(*spot(one, *line[0]))
        one.page.mouse.down()
        for point in line[1:]:
            one.page.mouse.move(*spot(one, *point), steps=3)
        one.page.mouse.up()


@pytest.mark.parametrize("strokes", [SEVEN, FOUR])
def test_mouse_draws_and_clear_clears(shown, strokes):
    one = shown(NetworkExplorer())
    one.get_by_role("button", name="Draws").click()
    expect(one.locator(".words")).to_have_text("Draw a digit in the frame.")
    drawn(one, strokes)
    expected = NetworkExplorer("drawing", (0, 1, 0, 0), strokes=strokes)
    # The pointer stands on whole pixels of the screen, so that the last percent may differ.
    digits = re.sub(r" \(.*?\)", r" \\(\\d+.%\\)", said(expected))
    expect(one.locator(".words")).to_have_text(re.compile(digits))
    # It moves as a picture does.
    one.get_by_role("button", name="Moves").click()
    number(one, "Turn").fill("30")
    expected.pose = (30, 1, 0, 0)
    digits = re.sub(r" \(.*?\)", r" \\(\\d+.%\\)", said(expected))
    expect(one.locator(".words")).to_have_text(re.compile(digits))
    one.get_by_role("button", name="Clear").click()
    expect(one.locator(".words")).to_have_text("Draw a digit in the frame.")
    one.get_by_role("radio", name="Handwritten 9").check(force=True)
    expect(one.locator(".words")).to_have_text(said(NetworkExplorer("9", (0, 1, 0, 0))))


def test_finger_draws_and_two_fingers_turn(shown):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    one = shown(NetworkExplorer("drawing", (0, 1, 0, 0)), **phone)
    one.locator(".input canvas").scroll_into_view_if_needed()
    touch = one.page.context.new_cdp_session(one.page)

    def send(kind, *places):
        points = [
            {"x": x, "y": y, "id": k} for k, (x, y) in enumerate(spot(one, *p) for p in places)
        ]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    before = one.page.evaluate("scrollY")
    for line in SEVEN:
        send("Start", line[0])
        for (x0, y0), (x1, y1) in itertools.pairwise(line):
            for t in (0.25, 0.5, 0.75, 1):
                send("Move", (x0 + t * (x1 - x0), y0 + t * (y1 - y0)))
        send("End")
    expect(one.locator(".words")).to_have_text(re.compile("Read as 7 .* with the transformer"))
    assert one.page.evaluate("scrollY") == before  # the page stays
    moves = one.get_by_role("button", name="Moves")
    # A tap within moments of a flick only stops the flick, in Chromium: no hand is as fast.
    for _ in range(10):  # as a hand would tap again
        one.page.wait_for_timeout(500)
        moves.tap()
        if moves.get_attribute("aria-pressed") == "true":
            break
    expect(moves).to_have_attribute("aria-pressed", "true")
    one.locator(".input canvas").scroll_into_view_if_needed()
    send("Start", (-0.4, 0))
    send("Start", (-0.4, 0), (0.4, 0))
    for angle in (0.2, 0.4, 0.6):
        send("Move", (-0.4, 0), (-0.4 + 0.8 * np.cos(angle), -0.8 * np.sin(angle)))
    send("End")
    expect(number(one, "Turn")).to_have_value(re.compile("^3[2-6]"))  # once a frame has passed
    assert float(number(one, "Turn").input_value()) == pytest.approx(np.degrees(0.6), abs=2)
    assert float(number(one, "Size").input_value()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_reads_without_ink_and_follows_the_theme(shown, theme):
    one = shown(NetworkExplorer("drawing", (0, 1, 0, 0)), color_scheme=theme)
    expect(one.locator(".root")).to_have_attribute("data-theme", theme)
    assert one.locator(".odds.best").count() == 0
    expect(one.locator(".facts").first).to_have_text("")
