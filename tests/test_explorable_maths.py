"""The explorables' own mathematics against the package's and PyTorch's, in double precision.

It runs in the browser, where readers run it; without a Chromium these tests are skipped.
"""

import json
import math

import kornia
import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch.nn import functional as F
from torchvision import ops

from stn_tutorial import affine, grids, regions, sampling
from stn_tutorial.explorables import (
    EXPLORABLES,
    CornersExplorer,
    RegionsExplorer,
    SplineExplorer,
    describe,
)
from stn_tutorial.explorables.bilinear import PATTERNS
from stn_tutorial.explorables.bundle import bundle

SIZES = [(8, 8), (7, 5), (5, 12), (1, 1), (1, 6), (16, 3)]


@pytest.fixture(scope="module")
def js(chromium):
    """Evaluate an expression of `m`, the bundle's exports, and of `a`, the argument."""
    page = chromium.new_page()
    page.evaluate(
        """async (code) => {
          const blob = new Blob([code], {type: 'text/javascript'});
          window.m = await import(URL.createObjectURL(blob));
        }""",
        bundle(*EXPLORABLES, whole=True),
    )
    yield lambda expression, a=None: page.evaluate(f"(a) => ({expression})", a)
    page.close()


def thetas(count=40):
    """Random θ: mild ones, wild ones, and some that are exact."""
    rng = np.random.default_rng(0)
    wild = rng.normal(0, 1, (count, 2, 3))
    mild = np.eye(2, 3) + rng.normal(0, 0.2, (count, 2, 3))
    exact = [
        np.eye(2, 3),
        [[0, -1, 0], [1, 0, 0]],
        [[4, 0, -2], [0, 4, 0]],
        [[-1, 0, 0], [0, 1, 0]],
    ]
    return np.concatenate([wild, mild, exact])


def test_constructors(js):
    cases = {
        "m.translation(0.3, -0.7)": affine.translation(0.3, -0.7, dtype=torch.float64),
        "m.scaling(2, 0.3)": affine.scaling(2, 0.3, dtype=torch.float64),
        "m.rotation(37)": affine.rotation(37, dtype=torch.float64),
        "m.rotation(90)": affine.rotation(90, dtype=torch.float64),
        "m.shear(0.4, -0.2)": affine.shear(0.4, -0.2, dtype=torch.float64),
        "m.reflection(20)": affine.reflection(20, dtype=torch.float64),
        "m.crop([-0.5, -0.8, 0.3, 0.1])": affine.crop([-0.5, -0.8, 0.3, 0.1], dtype=torch.float64),
    }
    for expression, expected in cases.items():
        np.testing.assert_allclose(js(expression), expected[0], rtol=0, atol=1e-15)


def test_algebra(js):
    for first, second in zip(thetas()[:30], thetas()[30:60], strict=True):
        a, b = torch.tensor(first)[None], torch.tensor(second)[None]
        got = js(
            "[m.compose(a[0], a[1]), m.invert(a[0]), m.correctAspect(a[0], 7, 4), "
            "Object.values(m.decompose(a[0])), m.determinant(a[0])]",
            [first.tolist(), second.tolist()],
        )
        factors = torch.stack(affine.decompose(a))[:, 0]
        expected = [affine.compose(a, b), affine.invert(a), affine.correct_aspect(a, (4, 7))]
        for mine, theirs in zip(got[:3], expected, strict=True):
            np.testing.assert_allclose(mine, theirs[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(got[3], factors, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(1 / abs(got[4]), affine.area_factor(a)[0], rtol=1e-12)


def test_singular_theta_has_no_inverse(js):
    for theta in ([[1, 2, 0], [2, 4, 1]], [[0, 0, 0.5], [0, 0, 0]], [[0.1, 0.3, 0], [0.2, 0.6, 0]]):
        assert js("[m.invert(a), m.decompose(a)]", theta) == [None, None]


@pytest.mark.parametrize("size", SIZES)
def test_grid_and_source_points(js, size):
    height, width = size
    worst = 0
    for theta in thetas(10):
        got = js(
            """(() => {
              const picture = {width: a.width, height: a.height};
              const out = [];
              for (let row = 0; row < a.height; row++)
                for (let column = 0; column < a.width; column++)
                  out.push(m.source(a.theta, column, row, picture));
              return out;
            })()""",
            {"theta": theta.tolist(), "width": width, "height": height},
        )
        grid = F.affine_grid(
            torch.tensor(theta)[None], [1, 1, height, width], align_corners=False
        ).reshape(-1, 2)
        found = np.array([one["source"] for one in got])
        worst = max(worst, np.abs(found - grid.numpy()).max())
        pixel = (found + 1) * [width / 2, height / 2] - 0.5
        np.testing.assert_allclose([one["pixel"] for one in got], pixel, rtol=0, atol=1e-12)
    assert worst < 4e-15


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_warp_agrees_with_torch(js, size, channels, mode):
    height, width = size
    rng = np.random.default_rng(1)
    image = rng.random((height, width, channels))
    U = torch.tensor(image).permute(2, 0, 1)[None]
    for out_height, out_width in (size, (6, 9)):
        # The last four are exact, and put points on a lattice, where nearest may fall either way.
        for theta in thetas(6)[:-4]:
            got = js(
                "Array.from(m.warp(a.picture, a.theta, a.output, a.mode))",
                {
                    "picture": {
                        "width": width, "height": height, "channels": channels,
                        "data": image.ravel().tolist(),
                    },
                    "theta": theta.tolist(),
                    "output": {"width": out_width, "height": out_height},
                    "mode": mode,
                },
            )  # fmt: skip
            grid = F.affine_grid(
                torch.tensor(theta)[None], [1, channels, out_height, out_width], align_corners=False
            )
            V = F.grid_sample(U, grid, mode, "zeros", align_corners=False)[0].permute(1, 2, 0)
            np.testing.assert_allclose(got, V.ravel(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_identity_is_exact(js, size, mode):
    height, width = size
    image = np.random.default_rng(2).random(height * width)
    got = js(
        "Array.from(m.warp(a.picture, m.identity(), a.picture, a.mode))",
        {
            "picture": {"width": width, "height": height, "channels": 1, "data": image.tolist()},
            "mode": mode,
        },
    )
    assert got == image.tolist()


@pytest.mark.parametrize("mode", sampling.MODES)
def test_ties_are_the_samplers(js, mode):
    """Where θ puts points on the lattice and half-way between: the package's choice, everywhere."""
    exact = [
        affine.rotation(90, dtype=torch.float64)[0].tolist(),
        affine.rotation(180, dtype=torch.float64)[0].tolist(),
        affine.reflection(90, dtype=torch.float64)[0].tolist(),
        [[2, 0, 0], [0, 2, 0]],
        [[0.5, 0, 0], [0, 0.5, 0]],
        [[0, 0, -1], [0, 0, 0.5]],
        [[0, 0, 0.2], [0, 0, -0.2]],
        [[1, 0, 0.2], [0, 1, 0.5]],
    ]
    for height, width in ((5, 5), (4, 10), (7, 3)):
        image = np.random.default_rng(5).random((height, width))
        picture = {"width": width, "height": height, "channels": 1}
        picture["data"] = image.ravel().tolist()
        U = torch.tensor(image)[None, None]
        for out_height, out_width in ((height, width), (7, 8)):
            output = {"width": out_width, "height": out_height}
            for theta in exact:
                grid = grids.affine_grid(
                    torch.tensor([theta], dtype=torch.float64), (out_height, out_width)
                )
                V = sampling.sample(U, grid, mode).ravel()
                got = js("[...m.warp(...a)]", [picture, theta, output, mode])
                np.testing.assert_allclose(got, V, rtol=0, atol=1e-14)
                flat = [picture, grid.ravel().tolist(), output, mode]
                got = js("[...m.warpGrid(...a)]", flat)
                np.testing.assert_allclose(got, V, rtol=0, atol=1e-14)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_fast_path_shows_the_same(js, channels):
    """What is painted is `warp` in 8 bits, to the rounding of a half."""
    rng = np.random.default_rng(3)
    for height, width in ((13, 9), (1, 4), (8, 8)):
        data = rng.integers(0, 256, height * width * channels).tolist()
        for theta in thetas(8):
            got, exact = js(
                """(() => {
                  const rgba = new Uint8ClampedArray(4 * a.width * a.height);
                  const picture = {...a, data: Uint8Array.from(a.data)};
                  return [Array.from(m.warpInto(rgba, picture, a.theta)),
                    Array.from(m.warp(picture, a.theta))];
                })()""",
                {
                    "width": width, "height": height, "channels": channels, "data": data,
                    "theta": theta.tolist(),
                },
            )  # fmt: skip
            shown = np.array(got).reshape(-1, 4)
            assert (shown[:, 3] == 255).all()
            wanted = np.broadcast_to(np.array(exact).reshape(-1, channels), (len(shown), 3))
            assert np.abs(shown[:, :3] - wanted).max() <= 0.5 + 1e-9


def test_weights_sum_to_one_and_match(js):
    """The weights shown are those with which PyTorch's sampler reads each neighbour."""
    rng = np.random.default_rng(4)
    height, width = 6, 9
    pixels = torch.eye(height * width, dtype=torch.float64).reshape(1, -1, height, width)
    for mode in ("bilinear", "bicubic"):
        for x, y in rng.uniform([2, 2], [width - 4, height - 4], (20, 2)):
            taps = js(f"m.taps([a[0], a[1]], '{mode}')", [x, y])
            weights = np.zeros((height, width))
            for tap in taps:
                weights[tap["row"], tap["column"]] += tap["weight"]
            grid = torch.tensor([[[[(2 * x + 1) / width - 1, (2 * y + 1) / height - 1]]]])
            seen = F.grid_sample(pixels, grid, mode, align_corners=False).reshape(height, width)
            np.testing.assert_allclose(weights, seen, rtol=0, atol=1e-14)
            assert weights.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("mode", sampling.MODES)
def test_slopes_are_autograds(js, mode):
    """On the lattice too, where PyTorch's own sampler need not choose the same side."""
    rng = np.random.default_rng(6)
    for height, width in ((5, 5), (3, 8), (1, 1)):
        image = rng.normal(0, 1, (height, width, 2))
        U = torch.tensor(image).permute(2, 0, 1)[None]
        free = rng.uniform([-2.5, -2.5], [width + 1.5, height + 1.5], (60, 2))
        lattice = [[x, y] for x in range(-2, width + 2) for y in range(-2, height + 2)]
        mixed = [[x, 1.25] for x in range(-1, width + 1)] + [[0.3, y] for y in range(height)]
        for kind, points in (("free", free), ("lattice", np.array(lattice + mixed, float))):
            picture = {"width": width, "height": height, "channels": 2}
            picture["data"] = image.ravel().tolist()
            values, slopes = js(
                "[a.points.map((p) => m.sampleAt(a.picture, p, a.mode)), "
                "a.points.map((p) => m.slopesAt(a.picture, p, a.mode))]",
                {"picture": picture, "points": points.tolist(), "mode": mode},
            )
            # The package's own kernels, in pixels: on the way through a normalised grid a whole
            # position may lose its last bit, and fall into the cell before.
            x, y = torch.tensor(points).T.reshape(2, 1, 1, -1).clone().requires_grad_().unbind(0)
            place = {"nearest": sampling._nearest, "bilinear": sampling._bilinear}
            read = place.get(mode, sampling._bicubic)
            V = read(U, x, y, "zeros", False)[0, :, 0]
            np.testing.assert_allclose(values, V.detach().T, rtol=0, atol=1e-13)
            for channel in (0, 1):
                expected = torch.autograd.grad(V[channel].sum(), (x, y), retain_graph=True)
                got = np.array(slopes)[:, :, channel].T
                np.testing.assert_allclose(got, torch.stack(expected)[:, 0, 0], atol=1e-12)
            if kind == "lattice":
                continue
            sides = torch.tensor([width, height])
            grid = ((2 * torch.tensor(points) + 1) / sides - 1)[None, None].requires_grad_()
            theirs = F.grid_sample(U, grid, mode, align_corners=False)[0, :, 0]
            (per_unit,) = torch.autograd.grad(theirs[0].sum(), grid)
            # Per normalised unit, of which half a side's pixels make one.
            mine = np.array(slopes)[:, :, 0] * sides.numpy() / 2
            np.testing.assert_allclose(mine, per_unit[0, 0], rtol=0, atol=1e-11)


def test_splat_is_the_packages(js):
    rng = np.random.default_rng(8)
    exact = [affine.rotation(angle, dtype=torch.float64)[0].tolist() for angle in (30, 45, 90)]
    exact += [affine.scaling(s, dtype=torch.float64)[0].tolist() for s in (0.25, 0.5, 2, 3)]
    for height, width, channels in ((16, 16, 3), (7, 12, 1), (1, 4, 1)):
        image = rng.random((height, width, channels))
        picture = {"width": width, "height": height, "channels": channels}
        picture["data"] = image.ravel().tolist()
        U = torch.tensor(image).permute(2, 0, 1)[None]
        for theta in [*thetas(12).tolist(), *exact]:
            got = js(
                "(({data, hits, holes}) => [[...data], [...hits], holes])(m.splat(...a))",
                [picture, theta],
            )
            done = sampling.splat(U, torch.tensor([theta], dtype=torch.float64))
            np.testing.assert_allclose(got[0], done.V[0].permute(1, 2, 0).ravel(), atol=1e-15)
            assert got[1] == done.hits.ravel().tolist()
            assert got[2] == done.holes.ravel().tolist()
        assert js("m.splat(...a)", [picture, [[1, 2, 0], [2, 4, 0]]]) is None


def blurred(U, sigma):
    """As the explorable blurs, by PyTorch's convolution."""
    if not sigma:
        return U
    reach = math.ceil(3 * sigma)
    weights = torch.exp(
        -(torch.arange(-reach, reach + 1.0, dtype=torch.float64) ** 2) / 2 / sigma**2
    )
    weights = weights / weights.sum()
    U = F.conv2d(U, weights.view(1, 1, 1, -1), padding=(0, reach))
    return F.conv2d(U, weights.view(1, 1, -1, 1), padding=(reach, 0))


def misfit(U, target, pose):
    """The loss and its gradient, by PyTorch's sampler and autograd."""
    pose = pose.clone().requires_grad_()
    tx, ty, alpha = pose
    cos, sin = alpha.cos(), alpha.sin()
    theta = torch.stack([torch.stack([cos, -sin, tx]), torch.stack([sin, cos, ty])])[None]
    V = F.grid_sample(U, F.affine_grid(theta, list(target.shape), False), align_corners=False)
    loss = (V - target).square().mean()
    return loss.item(), *torch.autograd.grad(loss, pose)


@pytest.mark.parametrize("sigma", [0, 2])
def test_descent_is_autograds(js, sigma):
    """Each gradient, and then thirty steps."""
    rng = np.random.default_rng(9)
    image = torch.tensor(rng.random((1, 1, 14, 14)))
    U = blurred(image, sigma)
    given = {"width": 14, "height": 14, "channels": 1, "data": image.ravel().tolist()}
    got = js("[...m.gaussianBlur(a[0], a[1]).data]", [given, sigma])
    np.testing.assert_allclose(got, U.ravel(), rtol=0, atol=1e-15)
    picture = {**given, "data": U.ravel().tolist()}
    for pose in rng.uniform(-0.6, 0.6, (30, 3)):
        loss, gradient = misfit(U, U, torch.tensor(pose))
        found = js("m.misfit(a[0], a[0], a[1])", [picture, pose.tolist()])
        assert found["loss"] == pytest.approx(loss, abs=1e-13)
        np.testing.assert_allclose(found["gradient"], gradient, rtol=0, atol=1e-9)
    for turn in (False, True):
        begin = [0.21, -0.13, 0.3 * turn]
        found = js(
            """(() => {
              let [picture, pose, turn] = a;
              const poses = [];
              for (let k = 0; k < 30; k++) {
                pose = m.descend(pose, m.misfit(picture, picture, pose).gradient, 0.1, turn);
                poses.push(pose);
              }
              return poses;
            })()""",
            [picture, begin, turn],
        )
        pose, expected = torch.tensor(begin, dtype=torch.float64), []
        for _ in range(30):
            gradient = misfit(U, U, pose)[1] * torch.tensor([1, 1, float(turn)])
            pose = pose - 0.1 * gradient
            expected.append(pose.tolist())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        theta = js("m.poseTheta(a)", begin)
        np.testing.assert_allclose(js("m.thetaPose(a)", theta), begin, atol=1e-15)


def test_patterns_are_the_packages(js):
    assert {name: js("m.pattern(a)", name) for name in PATTERNS} == PATTERNS


def test_blur_pool_is_torchs(js):
    rng = np.random.default_rng(7)
    rows = {0: [1.0], 3: [1.0, 2, 1], 5: [1.0, 4, 6, 4, 1]}
    for count in (4, 8, 16):
        signal = torch.tensor(rng.normal(0, 1, (1, 1, count)))
        maxima = F.max_pool1d(F.pad(signal, (0, 1), mode="circular"), 2, 1)
        for taps, row in rows.items():
            half = len(row) // 2
            kernel = torch.tensor([[row]], dtype=torch.float64) / sum(row)
            blurred = F.conv1d(F.pad(maxima, (half, half), mode="circular"), kernel)
            for stride in (1, 2):
                got = js("m.blurPool(...a)", [signal.ravel().tolist(), stride, taps])
                assert got["maxima"] == maxima.ravel().tolist()
                np.testing.assert_allclose(got["output"], blurred[0, 0, ::stride], atol=1e-15)
                assert js("m.roll(a, -3)", signal.ravel().tolist()) == (
                    signal.roll(-3).ravel().tolist()
                )


def test_one_pixel_is_enough(js):
    """Chapter 2's example."""
    for bits, pooled in (("00110011", "0101"), ("01100110", "1111")):
        assert js("m.blurPool([...a].map(Number), 2).output.join('')", bits) == pooled


def test_words_are_the_packages(js):
    rng = np.random.default_rng(5)
    rounded = np.round(thetas(60), 2).tolist()
    steps = [0, 0.25, 0.5, 1, -1, 2, 4]
    lattice = [rng.choice(steps, (2, 3)).tolist() for _ in range(200)]
    for theta in rounded + lattice:
        for height, width in ((1, 1), (3, 4)):
            got = js("m.describe(a[0], a[1], a[2])", [theta, width, height])
            assert got == describe(theta, (height, width)), json.dumps(theta)


# --- A homography, a mesh of triangles, a thin-plate spline ---

SQUARE = np.array([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])


def quadrilaterals(count=40):
    """Corners near their own places, corners anywhere, and some that are exact."""
    rng = np.random.default_rng(10)
    near = SQUARE + rng.uniform(-0.4, 0.4, (count, 4, 2))
    anywhere = rng.uniform(-2, 2, (count, 4, 2))
    exact = [SQUARE, SQUARE[::-1], SQUARE[[1, 0, 2, 3]], SQUARE * [0.5, 2], SQUARE[[2, 0, 3, 1]]]
    return np.concatenate([near, anywhere, exact])


def moved_points(k, count=6):
    """Control points moved a little, and much."""
    rng = np.random.default_rng(k)
    homes = grids.control_points(k, dtype=torch.float64).numpy()
    return (
        homes + rng.normal(0, 1, (count, k * k, 2)) * np.linspace(0.05, 0.8, count)[:, None, None]
    )


def test_homography_is_kornias_and_a_linear_solve(js):
    mild = 0
    for corners in quadrilaterals():
        theta = np.array(js("m.homography(a)", corners.tolist()))
        # It takes corner to corner, whatever its scale.
        places = np.concatenate([SQUARE, np.ones((4, 1))], axis=1) @ theta.T
        np.testing.assert_allclose(places[:, :2] / places[:, 2:], corners, atol=1e-9)
        np.testing.assert_allclose(theta, CornersExplorer("F", corners).theta, atol=1e-12)
        if np.array_equal(corners, SQUARE[[1, 0, 2, 3]]):
            assert theta[2, 2] == 0  # crossed: the middle of the output is on the horizon
            assert np.abs(places[:, 2]).max() == 1
            continue
        assert theta[2, 2] == 1
        # x = (a x + b y + c) / (g x + h y + 1), each corner two equations for eight numbers.
        rows, right = [], []
        for (x, y), (u, v) in zip(SQUARE, corners, strict=True):
            rows += [[x, y, 1, 0, 0, 0, -x * u, -y * u], [0, 0, 0, x, y, 1, -x * v, -y * v]]
            right += [u, v]
        if np.linalg.cond(rows) > 1e4:
            continue
        mild += 1
        solved = np.append(np.linalg.solve(rows, right), 1).reshape(3, 3)
        np.testing.assert_allclose(theta, solved, rtol=0, atol=1e-9)
        ends = torch.from_numpy(np.stack([SQUARE, corners]))[:, None]
        theirs = kornia.geometry.get_perspective_transform(*ends)[0]
        np.testing.assert_allclose(theta, theirs, rtol=0, atol=1e-9)
    assert mild > 60
    assert js("m.homography(a)", SQUARE.tolist()) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert js("m.homography(a)", [[-1, 0], [0, 0], [0.5, 0], [1, 0]]) is None


@pytest.mark.parametrize("size", SIZES)
def test_projective_grid_is_the_packages(js, size):
    height, width = size
    for corners in quadrilaterals(8):
        theta = js("m.homography(a)", corners.tolist())
        got = js(
            "[...m.projectiveGrid(a[0], m.regularGrid(a[1]))]",
            [theta, {"width": width, "height": height}],
        )
        expected = grids.projective_grid(torch.tensor([theta], dtype=torch.float64), size)
        # Its smallest denominator passes through float32, and has eight digits.
        g, h, i = theta[2]
        w = grids.regular_grid(size, dtype=torch.float64) @ torch.tensor([g, h]).double() + i
        clear = (w.abs() > grids.HORIZON).ravel().repeat_interleave(2).numpy()
        got, expected = np.array(got), expected.ravel().numpy()
        np.testing.assert_allclose(got[clear], expected[clear], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(got[~clear], expected[~clear], rtol=1e-7)


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
def test_spline_and_mesh_grids_are_the_packages_and_scipys(js, k):
    for theta in moved_points(k):
        for size in ((9, 7), (1, 4)):
            for name, make in (
                ("spline", grids.thin_plate_spline_grid),
                ("mesh", grids.piecewise_affine_grid),
            ):
                got = js(
                    f"""(() => {{
                      const own = m.regularGrid(a.size);
                      return [...m.movedGrid(m.{name}Weights(a.k, own), a.theta, own)];
                    }})()""",
                    {
                        "k": k,
                        "theta": theta.tolist(),
                        "size": {"height": size[0], "width": size[1]},
                    },
                )
                expected = make(torch.tensor(theta)[None], size)[0]
                np.testing.assert_allclose(got, expected.ravel(), rtol=0, atol=1e-9)
                if name == "spline":
                    homes = grids.control_points(k, dtype=torch.float64).numpy()
                    theirs = RBFInterpolator(
                        homes, theta - homes, kernel="thin_plate_spline", degree=1
                    )
                    own = grids.regular_grid(size, dtype=torch.float64).view(-1, 2).numpy()
                    expected = own + theirs(own)
                    np.testing.assert_allclose(
                        np.reshape(got, (-1, 2)), expected, rtol=0, atol=1e-9
                    )


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("name", ["spline", "mesh"])
def test_control_points_read_where_they_are_told(js, k, name):
    """And unmoved points are the identity, exactly; affine movements give the affine grid."""
    homes = grids.control_points(k, dtype=torch.float64)
    assert js("m.controlPoints(a)", k) == homes.tolist()
    moved = f"""(() => {{
      const own = m.positions(a.own);
      return [...m.movedGrid(m.{name}Weights(a.k, own), a.theta, own)];
    }})()"""
    theta = moved_points(k)[-1]
    at_points = {"k": k, "theta": theta.tolist(), "own": homes.tolist()}
    np.testing.assert_allclose(js(moved, at_points), theta.ravel(), rtol=0, atol=1e-12)
    own = grids.regular_grid((6, 5), dtype=torch.float64).view(-1, 2)
    still = {"k": k, "theta": homes.tolist(), "own": own.tolist()}
    assert js(moved, still) == own.ravel().tolist()
    matrix = torch.tensor(thetas()[0])
    sent = homes @ matrix[:, :2].T + matrix[:, 2]
    affinely = {"k": k, "theta": sent.tolist(), "own": own.tolist()}
    expected = own @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(js(moved, affinely), expected.ravel(), rtol=0, atol=1e-12)


def test_solve_is_numpys(js):
    rng = np.random.default_rng(11)
    for count in (1, 2, 7, 28):
        left, right = rng.normal(0, 1, (count, count)), rng.normal(0, 1, (count, 3))
        left[0, 0] = 0 if count > 1 else 2  # a pivot must be looked for
        got = js("m.solve(a[0], a[1])", [left.tolist(), right.tolist()])
        np.testing.assert_allclose(got, np.linalg.solve(left, right), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_any_grid_is_warped_as_torch_does_it(js, channels, mode):
    """And what is painted is the same in 8 bits."""
    rng = np.random.default_rng(12)
    for height, width in ((7, 5), (1, 6)):
        image = rng.integers(0, 256, (height, width, channels))
        grid = rng.uniform(-1.3, 1.3, (4, 6, 2))
        exact, shown = js(
            """(() => {
              const picture = {...a.picture, data: Uint8Array.from(a.picture.data)};
              const rgba = new Uint8ClampedArray(4 * a.output.width * a.output.height);
              return [[...m.warpGrid(picture, a.grid, a.output, a.mode)],
                [...m.warpGridInto(rgba, picture, a.grid, a.output)]];
            })()""",
            {
                "picture": {
                    "width": width, "height": height, "channels": channels,
                    "data": image.ravel().tolist(),
                },
                "grid": grid.ravel().tolist(), "output": {"width": 6, "height": 4}, "mode": mode,
            },
        )  # fmt: skip
        U = torch.tensor(image, dtype=torch.float64).permute(2, 0, 1)[None]
        V = F.grid_sample(U, torch.tensor(grid)[None], mode, align_corners=False)[0]
        np.testing.assert_allclose(exact, V.permute(1, 2, 0).ravel(), rtol=0, atol=1e-10)
        if mode == "bilinear":
            shown = np.array(shown).reshape(-1, 4)
            assert (shown[:, 3] == 255).all()
            wanted = np.broadcast_to(np.reshape(exact, (-1, channels)), (len(shown), 3))
            assert np.abs(shown[:, :3] - wanted).max() <= 0.5 + 1e-9


def test_what_is_beyond_the_horizon(js):
    """The share by counting pixels, and the determinant's sign on either side."""
    own = grids.regular_grid((400, 400), dtype=torch.float64)
    crossing = 0
    for corners in quadrilaterals():
        theta = js("m.homography(a)", corners.tolist())
        share = js("m.areaShare(m.beyondHorizon(a))", theta)
        g, h, i = theta[2]
        w = own @ torch.tensor([g, h], dtype=torch.float64) + i
        assert share == pytest.approx((w < 0).double().mean().item(), abs=0.004)
        crossing += share > 0
        if share < 0.02:
            continue
        # det J = det θ / w³: its sign changes with w's, and nowhere else.
        x = own[::16, ::16].reshape(-1, 2)[:20].clone()

        def project(point, theta=theta):
            n = torch.tensor(theta, dtype=torch.float64) @ torch.cat([point, point.new_ones(1)])
            return n[:2] / n[2]

        for point in x:
            slope = torch.func.jacrev(project)(point).det()
            sign = np.sign(np.linalg.det(theta)) * np.sign(float(g * point[0] + h * point[1] + i))
            assert np.sign(slope.item()) == sign
    assert 20 < crossing < 60


def test_lines_break_at_the_horizon(js):
    for corners in quadrilaterals(12):
        theta = np.array(js("m.homography(a)", corners.tolist()))
        for ends in ([[-1, -0.5], [1, -0.5]], [[0.25, -1], [0.25, 1]], [[-1, -1], [-1, 1]]):
            w = [float(theta[2] @ [*end, 1]) for end in ends]
            pieces = js("m.projectLine(...a)", [theta.tolist(), *ends])
            assert [one["beyond"] for one in pieces] == (
                [w[0] < 0] if (w[0] < 0) == (w[1] < 0) else [w[0] < 0, w[1] < 0]
            )
            for end, found in ((0, pieces[0]["ends"][0]), (1, pieces[-1]["ends"][1])):
                n = theta @ [*ends[end], 1]
                np.testing.assert_allclose(found, n[:2] / n[2], rtol=1e-9)


def fold_share(js, theta, transform):
    """The share of folded cells, as `spline.js` finds it."""
    return js(
        """(() => {
          const k = Math.sqrt(a.theta.length);
          const mesh = a.transform === "mesh";
          const nodes = m.positions(m.controlPoints(a.side));
          const places = mesh ? m.positions(a.theta)
            : m.movedGrid(m.splineWeights(k, nodes), a.theta, nodes);
          const [side, half] = mesh ? [k, 2] : [a.side, 1];
          const found = m.findFolds(places, m.cellsOf(side, mesh), (2 / (side - 1)) ** 2 / half);
          const {share, mirrored} = found;
          return [share, mirrored, m.describePoints(a.theta, a.transform, found).join(" ")];
        })()""",
        {"theta": np.asarray(theta).tolist(), "transform": transform, "side": 49},
    )


@pytest.mark.parametrize("transform", ["spline", "mesh"])
def test_folds_are_where_autograds_determinant_changes_sign(js, transform):
    make = {"spline": grids.thin_plate_spline_grid, "mesh": grids.piecewise_affine_grid}[transform]
    size = 240
    for k in (3, 4):
        homes = grids.control_points(k, dtype=torch.float64).numpy()
        for factor, theta in [(1, one) for one in moved_points(k)] + [(-1, homes)]:
            theta = theta * [factor, 1]
            share, mirrored, _ = fold_share(js, theta, transform)
            # Differences between neighbours of a fine grid, independent of any lattice.
            G = make(torch.tensor(theta)[None], (size, size))[0]
            dx, dy = G[:-1, 1:] - G[:-1, :-1], G[1:, :-1] - G[:-1, :-1]
            negative = (dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0] < 0).double().mean()
            assert mirrored == (negative > 0.5)
            assert share == pytest.approx(min(negative, 1 - negative).item(), abs=0.02)
    assert fold_share(js, np.zeros((9, 2)), transform)[0] == 1  # all to one point
    assert fold_share(js, homes, transform)[:2] == [0, False]


def test_words_on_points_are_the_packages(js):
    for k in (2, 3, 4, 5):
        homes = grids.control_points(k, dtype=torch.float64).numpy()
        cases = [homes, homes * [-1, 1], homes * 0.5, homes * 0]
        for theta in [*cases, *np.round(moved_points(k), 2)]:
            for transform in ("spline", "mesh"):
                *_, words = fold_share(js, theta, transform)
                assert words == SplineExplorer("F", theta, transform=transform).describe()


def test_words_on_corners_are_the_packages(js):
    flat = [
        [[-1, -1], [1, -1], [0, 0], [1, 1]],  # three in line
        [[0, 0], [1, -1], [0, 0], [1, 1]],  # two on one another
        [[0, 0], [1, 0], [2, 0], [3, 0]],
        [[0, 0]] * 4,
    ]
    flat[0][2] = [0, -1]
    for corners in [*np.round(quadrilaterals(), 2).tolist(), *flat]:
        got = js("m.describeCorners(a).join(' ')", corners)
        assert got == CornersExplorer("F", corners).describe(), json.dumps(corners)


# --- Boxes over a feature map ---

HALVES = 5


def maps():
    """Feature maps of many shapes, with values below 0 too."""
    rng = np.random.default_rng(16)
    return [torch.tensor(rng.normal(0, 9, size)) for size in ((16, 16), (5, 9), (1, 7), (1, 1))]


def boxes_of(U, count=60):
    """Boxes within a map of stride 8, over its edges, outside, small ones, and halves to round."""
    rng = np.random.default_rng(17)
    sides = 8 * np.array([U.shape[1], U.shape[0]])
    low, side = rng.uniform(-0.6, 1.1, (count, 2)), rng.uniform(0.002, 1.2, (count, 2))
    anywhere = np.concatenate([low, low + side], axis=1) * np.tile(sides, 2)
    halves = [[4, 12, 20, 28], [-4, -12, 12, 4], [0, 0, 8, 8], [8, 0, 24, 40], [0.5, 3, 1, 3.25]]
    assert len(halves) == HALVES
    return torch.tensor(np.concatenate([anywhere, halves]))


def given(U):
    return {"width": U.shape[1], "height": U.shape[0], "data": U.ravel().tolist()}


@pytest.mark.parametrize("bins", [2, 3, 4, 7])
def test_roi_pool_is_torchvisions(js, bins):
    for U in maps():
        boxes = boxes_of(U)
        got = js(
            "a[1].map((box) => m.roiPool(a[0], box, a[2], 1 / 8).values)",
            [given(U), boxes.tolist(), bins],
        )
        theirs = ops.roi_pool(U[None, None], [boxes], (bins, bins), 1 / 8)
        ours = regions.roi_pool(U[None, None], [boxes], (bins, bins), 1 / 8)
        assert got == theirs.flatten(1).tolist() == ours.flatten(1).tolist()


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 1, 2, 3, 4])
def test_roi_align_is_torchvisions(js, ratio, aligned):
    for U in maps():
        boxes = boxes_of(U)
        for bins in (2, 4, 7):
            got = js(
                "a[1].map((box) => m.roiAlign(a[0], box, a[2], 1 / 8, a[3], a[4]).values)",
                [given(U), boxes.tolist(), bins, ratio, aligned],
            )
            theirs = ops.roi_align(U[None, None], [boxes], (bins, bins), 1 / 8, ratio, aligned)
            ours = regions.roi_align(
                U[None, None], [boxes], (bins, bins), 1 / 8, sampling_ratio=ratio, aligned=aligned
            )
            np.testing.assert_allclose(got, ours.flatten(1), rtol=0, atol=1e-12)
            # A sample may stand on the last place that is read: there roundings decide theirs.
            random = slice(0, -HALVES)
            np.testing.assert_allclose(got[random], theirs.flatten(1)[random], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(128, 128), (50, 37), (8, 20), (3, 1)])
def test_block_means_are_torchs(js, size, stride):
    U = torch.tensor(np.random.default_rng(18).uniform(0, 255, size))
    got = js(
        "(({width, height, data}) => [width, height, [...data]])(m.blockMeans(...a))",
        [given(U), stride],
    )
    means = F.avg_pool2d(U[None], stride, ceil_mode=True, count_include_pad=False)[0]
    assert got[:2] == [means.shape[1], means.shape[0]]
    np.testing.assert_allclose(got[2], means.ravel(), rtol=1e-13)


def numbers_of(values):
    """What the page calls NaN arrives as it is, or as nothing."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


@pytest.mark.parametrize("bins", [2, 5, 7])
def test_exact_means_are_those_of_a_picture_cut_finely(js, bins):
    """Each pixel cut into 10×10; the bins' edges are made to fall on the cuts."""
    rng = np.random.default_rng(19)
    U = rng.uniform(0, 255, (12, 17))
    fine = np.kron(U, np.ones((10, 10)))
    for _ in range(30):
        step, low = rng.integers(1, 50, 2), rng.integers(-60, 150, 2)
        box = np.concatenate([low, low + step * bins]) / 10
        got = js("m.exactMeans(...a)", [given(torch.tensor(U)), box.tolist(), bins])
        expected = []
        for row in range(bins):
            for column in range(bins):
                (x0, y0), (x1, y1) = (
                    np.maximum(low + step * (np.array([column, row]) + k), 0) for k in (0, 1)
                )
                part = fine[y0:y1, x0:x1]
                expected.append(part.mean() if part.size else np.nan)
        # On a cut, a rounding error may leave a sliver of the picture within the bin.
        found = numbers_of(got)
        np.testing.assert_allclose(found, np.where(np.isnan(expected), found, expected), rtol=1e-9)
        assert np.isnan(expected).sum() >= np.isnan(found).sum()


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_explorable_reads_what_its_page_reads(js, pool):
    rng = np.random.default_rng(20)
    for size in ((128, 128), (60, 91)):
        image = rng.integers(0, 256, size, dtype=np.uint8)
        for box in boxes_of(torch.zeros(8, 8), 20).tolist():
            one = RegionsExplorer(image, box, 3, aligned=False, pool=pool)
            found = one.result
            got = js(
                """(() => {
                  const map = m.blockMeans(a[0], 8);
                  const pool = m.roiPool(map, a[1], 3, 1 / 8, a[2]);
                  const align = m.roiAlign(map, a[1], 3, 1 / 8, 2, false);
                  const middles = m.alignedMiddles(align.xs);
                  return [m.exactMeans(a[0], a[1], 3), pool.values, align.values, pool.xs, pool.ys,
                          m.lookedBeside(middles, a[1][0], a[1][2], 8)];
                })()""",
                [given(torch.from_numpy(image)), box, pool == "mean"],
            )
            np.testing.assert_allclose(numbers_of(got[0]), found.true.ravel(), rtol=1e-9)
            np.testing.assert_allclose(got[1], found.pool.ravel(), rtol=0, atol=1e-9)
            np.testing.assert_allclose(got[2], found.align.ravel(), rtol=0, atol=1e-9)
            xs, ys = one._spans(found.features[None])
            assert (got[3], got[4]) == ([list(x) for x in xs], [list(y) for y in ys])
            if box[2] - box[0] >= 8:  # a side is one pixel of the map at least
                np.testing.assert_allclose(got[5], 4, rtol=0, atol=1e-9)
