"""The explorables' Python side: what is accepted, what is kept, what a notebook records."""

import html
import json
import re

import numpy as np
import pytest
import torch
from ipywidgets import FloatSlider
from PIL import Image
from traitlets import TraitError

from stn_tutorial import affine, grids
from stn_tutorial.explorables import (
    EXPLORABLES,
    BilinearExplorer,
    CornersExplorer,
    DescentExplorer,
    MappingExplorer,
    PoolingExplorer,
    RegionsExplorer,
    SplineExplorer,
    ThetaExplorer,
    describe,
)
from stn_tutorial.explorables import bundle as bundling
from stn_tutorial.explorables.pictures import embedded_pictures

IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
KEYSTONE = [[-0.5, -1], [0.5, -1], [-1, 1], [1, 1]]


def pulled(index=5, right=1.0, k=4):
    """Control points of which one is moved to the right."""
    theta = grids.control_points(k, dtype=torch.float64)
    theta[index, 0] += right
    return theta


# --- θ ---


@pytest.mark.parametrize(
    "theta",
    [
        [[0.5, 0, 0.25], [0, 2, -1]],
        ((0.5, 0, 0.25), (0, 2, -1)),
        np.array([[0.5, 0, 0.25], [0, 2, -1]]),
        np.array([[[0.5, 0, 0.25], [0, 2, -1]]], dtype=np.float32),
        torch.tensor([[0.5, 0, 0.25], [0, 2, -1]]),
        torch.tensor([[[0.5, 0, 0.25], [0, 2, -1]]], dtype=torch.bfloat16, requires_grad=True),
    ],
)
def test_theta_is_taken_in_every_form(theta):
    explorer = ThetaExplorer("F")
    assert explorer.theta == IDENTITY
    explorer.theta = theta
    assert explorer.theta == [[0.5, 0, 0.25], [0, 2, -1]]
    assert ThetaExplorer("F", theta).theta == explorer.theta


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ([1, 2, 3], "shape (3,)"),
        (np.eye(3), "shape (3, 3)"),
        (torch.zeros(2, 2, 3), "shape (2, 2, 3)"),
        ([[1, 0, 0], [0, 1]], "[[1, 0, 0], [0, 1]]"),
        ("identity", "'identity'"),
        (None, "None"),
        ([[1, 0, 0], [0, float("nan"), 0]], "finite"),
        ([[1, 0, 0], [0, float("inf"), 0]], "finite"),
    ],
)
def test_what_is_no_theta_is_refused(theta, message):
    explorer = ThetaExplorer("F", [[2, 0, 0], [0, 2, 0]])
    with pytest.raises(TraitError, match=re.escape(message)):
        explorer.theta = theta
    assert explorer.theta == [[2, 0, 0], [0, 2, 0]]


def test_a_plain_slider_can_be_linked():
    """As the docstring and chapter 3 do it."""
    explorer = ThetaExplorer("F")
    angle = FloatSlider(min=-180, max=180)
    angle.observe(lambda change: setattr(explorer, "theta", affine.rotation(change.new)), "value")
    angle.value = 90
    assert explorer.theta == [[0, -1, 0], [1, 0, 0]]


def test_theta_is_observed():
    explorer, seen = ThetaExplorer("F"), []
    explorer.observe(lambda change: seen.append(change.new), "theta")
    explorer.theta = affine.scaling(2)
    explorer.theta = affine.scaling(2.0)
    assert seen == [[[0.5, 0, 0], [0, 0.5, 0]]]


def test_show_is_one_of_three():
    with pytest.raises(TraitError, match="show"):
        ThetaExplorer(show="everything")


def test_pixel_lies_in_the_picture():
    explorer = ThetaExplorer(np.zeros((4, 6)), pixel=(5, 3))
    assert explorer.pixel == [5, 3]
    assert "pixel=(5, 3)" in repr(explorer)
    for pixel in ((6, 0), (0, 4), (-1, 0), (1,), (1.5, 2), "ab"):
        with pytest.raises(TraitError, match="within 6 columns and 4 rows"):
            explorer.pixel = pixel
    explorer.picture = np.zeros((2, 2))
    assert explorer.pixel is None


# --- The picture ---


@pytest.mark.parametrize(
    ("picture", "size", "mode"),
    [
        (np.zeros((5, 7)), (7, 5), "L"),
        (np.zeros((5, 7), dtype=np.float32), (7, 5), "L"),
        (np.zeros((5, 7), dtype=bool), (7, 5), "L"),
        (np.zeros((5, 7, 3)), (7, 5), "RGB"),
        (np.zeros((5, 7, 1)), (7, 5), "L"),
        (np.zeros((3, 5, 7), dtype=np.uint8), (7, 5), "RGB"),
        (np.zeros((3, 5, 3)), (5, 3), "RGB"),  # channels last, where both readings fit
        (torch.zeros(1, 3, 5, 7, requires_grad=True), (7, 5), "RGB"),
        (torch.zeros(1, 1, 5, 7, dtype=torch.bfloat16), (7, 5), "L"),
        (torch.zeros(1, 5, 7), (7, 5), "L"),
        (torch.zeros(5, 7, dtype=torch.uint8), (7, 5), "L"),
        (np.zeros((300, 600)), (256, 128), "L"),
        ("temple", (128, 128), "RGB"),
        ("F", (128, 128), "L"),
    ],
)
def test_picture_is_taken_in_every_form(picture, size, mode):
    image = ThetaExplorer(picture).image
    assert image.size == size
    assert image.mode == mode


def test_values_are_kept():
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    explorer = ThetaExplorer(values / 255)
    assert (np.asarray(explorer.image) == values).all()
    src = explorer._pictures["yours"]["src"]
    assert src.startswith("data:image/png;base64,")
    assert explorer.picture == "yours"


def test_a_path_is_opened(tmp_path):
    Image.new("RGBA", (9, 4), "red").save(tmp_path / "red.png")
    for path in (tmp_path / "red.png", str(tmp_path / "red.png")):
        assert ThetaExplorer(path).image.getpixel((3, 3)) == (255, 0, 0)


def test_picture_can_be_changed():
    explorer = ThetaExplorer(np.zeros((4, 4)))
    explorer.picture = "flower"
    assert explorer.picture == "flower"
    explorer.picture = np.ones((4, 6))
    assert explorer.image.size == (6, 4)


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        ("castle", ValueError, "temple, flower, F, digit"),
        (np.zeros((2, 5, 7)), ValueError, "(2, 5, 7)"),
        (np.zeros((2, 3, 5, 7)), ValueError, "(2, 3, 5, 7)"),
        (np.zeros((0, 7)), ValueError, "(0, 7)"),
        (np.full((5, 7), 255.0), ValueError, "[0, 1]"),
        (np.full((5, 7), np.nan), ValueError, "[0, 1]"),
        (np.zeros((5, 7), dtype=np.int64), TypeError, "int64"),
        (5, TypeError, "int"),
    ],
)
def test_what_is_no_picture_is_refused(picture, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ThetaExplorer(picture)


# --- What a notebook records ---


def test_text_is_stable_and_holds_theta():
    explorer = ThetaExplorer("F", affine.rotation(30), show="point")
    assert repr(explorer) == (
        "ThetaExplorer(picture='F', theta=[[0.866025, -0.5, 0], [0.5, 0.866025, 0]], show='point')"
    )
    again = ThetaExplorer("F", affine.rotation(30), show="point")
    (data, _), (same, _) = explorer._repr_mimebundle_(), again._repr_mimebundle_()
    assert data["text/plain"] == same["text/plain"] == repr(explorer)
    assert data["text/html"] == same["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_html_holds_state_and_picture():
    text = ThetaExplorer("F", [[0.5, 0, 0], [0, 0.5, 0]]).to_html()
    state = json.loads(html.unescape(re.search(r'data-stn-widget="([^"]*)"', text)[1]))
    assert state == {
        "kind": "theta", "theta": [[0.5, 0, 0], [0, 0.5, 0]], "show": "grid", "pixel": None,
        "_picture": "F",
    }  # fmt: skip
    alt = html.unescape(re.search(r'<img alt="([^"]*)"', text)[1])
    assert "letter F" in alt
    assert "The picture is made twice as large." in alt
    assert 'src="data:image/jpeg;base64,' in text
    assert len(text) < 25_000


@pytest.mark.parametrize("theta", [[[0, 0, 0], [0, 0, 0]], [[50, 0, 9], [0, 50, 0]], IDENTITY])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200, 10), (5, 5)])
def test_html_of_the_extremes(theta, shape):
    explorer = ThetaExplorer(np.ones(shape), theta)
    assert "<img alt=" in explorer.to_html()


def test_embedded_pictures_are_small():
    assert sum(len(one["src"]) for one in embedded_pictures().values()) < 14_000


def test_every_explorable_has_a_module():
    for kind in EXPLORABLES:
        assert f'mount("{kind}", model, host)' in bundling.bundle(kind)


# --- Pooling, mapping, bilinear, descent ---


@pytest.mark.parametrize(
    ("made", "text", "alt"),
    [
        (lambda: PoolingExplorer(),
         "PoolingExplorer(bits='00110011', shift=-1, stride=2, blur=0)",
         "The signal 00110011 becomes 0101 under a max-pool of stride 2; moved by -1, as 01100110, "
         "it becomes 1111."),
        (lambda: PoolingExplorer("0110", 2, stride=1, blur=5),
         "PoolingExplorer(bits='0110', shift=2, stride=1, blur=5)",
         "with a blur of 5 taps"),
        (lambda: BilinearExplorer(),
         "BilinearExplorer(picture='ramp', point=(1.6, 2.4), mode='bilinear')",
         "point at column 1.6, row 2.4. Bilinear sampling gives 13.60 there."),
        (lambda: BilinearExplorer(np.eye(3), (-1, 3), "nearest"),
         "BilinearExplorer(picture=3×3, point=(-1, 3), mode='nearest')",
         "Nearest sampling gives 0.00 there."),
        (lambda: MappingExplorer(),
         "MappingExplorer(picture='temple', theta=[[0.866025, -0.5, 0], [0.5, 0.866025, 0]], "
         "mode='nearest')",
         "112 holes and 112 collisions among 1024 pixels"),
        (lambda: MappingExplorer("F", affine.scaling(2), mode="bilinear"),
         "MappingExplorer(picture='F', theta=[[0.5, 0, 0], [0, 0.5, 0]], mode='bilinear')",
         "768 holes and 0 collisions among 1024 pixels"),
        (lambda: MappingExplorer("F", [[1, 0, 0], [0, 0, 0]]),
         "MappingExplorer(picture='F', theta=[[1, 0, 0], [0, 0, 0]], mode='nearest')",
         "θ has no inverse"),
        (lambda: DescentExplorer(),
         "DescentExplorer(picture='F', theta=[[1, 0, -0.5], [0, 1, -0.3]], blur=0, turn=False, "
         "rate=0.1)",
         "moved right by 0.5 and down by 0.3. Gradient descent on θ brings it back."),
        (lambda: DescentExplorer("temple", affine.rotation(20), blur=4, turn=True, rate=0.3),
         "DescentExplorer(picture='temple', theta=[[0.939693, -0.34202, 0], [0.34202, 0.939693, 0]]"
         ", blur=4, turn=True, rate=0.3)",
         "turned 20° counter-clockwise"),
        (lambda: CornersExplorer("F"),
         "CornersExplorer(picture='F', corners=[[-1, -1], [1, -1], [-1, 1], [1, 1]])",
         "The picture stays as it is. The corners form a parallelogram: this map is affine."),
        (lambda: CornersExplorer(corners=KEYSTONE),
         "CornersExplorer(picture='temple', corners=[[-0.5, -1], [0.5, -1], [-1, 1], [1, 1]])",
         "The picture is seen in perspective: the denominator runs from 0.67 to 1.33. The "
         "denominator is positive everywhere: the map is one to one."),
        (lambda: CornersExplorer(corners=[[-1, -1], [1, -1], [-1, 1], [-0.3, -0.3]]),
         "CornersExplorer(picture='temple', corners=[[-1, -1], [1, -1], [-1, 1], [-0.3, -0.3]])",
         "the denominator runs from −0.86 to 2.86. 11 % of the output is beyond the horizon: the "
         "denominator is negative there, and the picture the other way round."),
        (lambda: CornersExplorer("F", [[-1, -1], [0, 0], [0.5, 0.5], [1, -1]]),
         "CornersExplorer(picture='F', corners=[[-1, -1], [0, 0], [0.5, 0.5], [1, -1]])",
         "Three corners lie in line. Every output pixel reads from one line of the input"),
        (lambda: CornersExplorer("F", np.zeros((4, 2))),
         "CornersExplorer(picture='F', corners=[[0, 0], [0, 0], [0, 0], [0, 0]])",
         "All four corners lie in line. Every output pixel reads nothing"),
        (lambda: SplineExplorer(),
         "SplineExplorer(picture='flower', theta=4×4, transform='spline')",
         "The picture stays as it is. Nothing is folded: the determinant is positive everywhere."),
        (lambda: SplineExplorer("F", pulled(4, 0.3, 3)),
         "SplineExplorer(picture='F', theta=[[-1, -1], [0, -1], [1, -1], [-1, 0], [0.3, 0], "
         "[1, 0], [-1, 1], [0, 1], [1, 1]], transform='spline')",
         "1 of 9 points is moved, by up to 0.3: a thin-plate spline bends what is between them. "
         "Nothing is folded"),
        # Past the point to its right: two of the eight triangles are turned over.
        (lambda: SplineExplorer("F", pulled(4, 1.2, 3), transform="mesh"),
         "SplineExplorer(picture='F', theta=[[-1, -1], [0, -1], [1, -1], [-1, 0], [1.2, 0], "
         "[1, 0], [-1, 1], [0, 1], [1, 1]], transform='mesh')",
         "1 of 9 points is moved, by up to 1.2: each triangle between them has an affine map of "
         "its own. 25 % of the output is folded over: the determinant changes sign there"),
        (lambda: RegionsExplorer(),
         "RegionsExplorer(picture='temple', box=(21, 30, 96, 101), bins=4, stride=8, aligned=True, "
         "sampling_ratio=2, pool='max')",
         "own mean over each bin RoIPool is off by 44.7 of 255 on average, RoIAlign by 3.8."),
        (lambda: RegionsExplorer("F", torch.tensor([[8.5, 0, 64, 72]]), 7, stride=16,
                                 aligned=False, sampling_ratio=-1, pool="mean"),
         "RegionsExplorer(picture='F', box=(8.5, 0, 64, 72), bins=7, stride=16, aligned=False, "
         "sampling_ratio=-1, pool='mean')",
         "A letter F as a map of 8×8 features of stride 16, and over it the box (8.5, 0, 64, 72), "
         "cut into 7×7 bins"),
    ],
)  # fmt: skip
def test_text_and_html_of_each(made, text, alt):
    one, again = made(), made()
    (data, _), (same, _) = one._repr_mimebundle_(), again._repr_mimebundle_()
    assert repr(one) == data["text/plain"] == text
    assert data["text/html"] == same["text/html"] == one.to_html()
    found = re.search(r'data-stn-widget="([^"]*)".*<img alt="([^"]*)"', data["text/html"])
    state = json.loads(html.unescape(found[1]))
    assert state.pop("kind") == one.kind
    # All that the front end takes from the model, so that a page starts where a kernel does.
    assert all(getattr(one, name) == value for name, value in state.items() if name[0] != "_")
    assert alt in html.unescape(found[2])
    assert len(data["text/html"]) < 25_000


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (PoolingExplorer, "bits", ["0011", "0" * 16]),
        (PoolingExplorer, "shift", [3, -9]),
        (PoolingExplorer, "blur", [5]),
        (BilinearExplorer, "point", [(0, 4.5), np.array([-1, 5.0]), torch.tensor([2.5, 1.25])]),
        (BilinearExplorer, "picture", ["edge", np.eye(9), torch.ones(1, 1, 1, 2), [[1, 2]]]),
        (BilinearExplorer, "mode", ["bicubic"]),
        (MappingExplorer, "theta", [affine.scaling(2), np.zeros((2, 3))]),
        (DescentExplorer, "theta", [affine.rotation(90), affine.translation(1, -1)]),
        (DescentExplorer, "blur", [2, 4]),
        (CornersExplorer, "corners", [KEYSTONE, np.zeros((4, 2)), torch.ones(1, 4, 2)]),
        (SplineExplorer, "theta", [pulled(), grids.control_points(3)[None], np.zeros((49, 2))]),
        (SplineExplorer, "transform", ["mesh"]),
        (RegionsExplorer, "box", [(-3, 4.5, 20, 30), np.arange(4), torch.tensor([[1.0, 2, 3, 4]])]),
        (RegionsExplorer, "bin", [(6, 0), np.array([2, 3])]),
        (RegionsExplorer, "aligned", [False]),
        (RegionsExplorer, "shown", ["pool", "align"]),
    ],
)
def test_traits_are_set_and_observed(kind, name, values):
    one, seen = kind(), []
    one.observe(lambda change: seen.append(change.new), name)
    for value in values:
        setattr(one, name, value)
    assert len(seen) == len(values)
    assert seen[-1] == getattr(one, name)
    assert name in one.keys  # it travels to the front end
    json.dumps(seen)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (PoolingExplorer, {"bits": "0123"}, "4 to 16 zeros and ones"),
        (PoolingExplorer, {"bits": "01"}, "4 to 16 zeros and ones"),
        (PoolingExplorer, {"bits": "01010"}, "an even number"),
        (PoolingExplorer, {"stride": 3}, "stride"),
        (PoolingExplorer, {"blur": 4}, "blur"),
        (BilinearExplorer, {"point": (6, 0)}, "x from −1 to 5"),
        (BilinearExplorer, {"point": (float("nan"), 0)}, "point must be"),
        (BilinearExplorer, {"point": "ab"}, "point must be"),
        (BilinearExplorer, {"picture": "castle"}, "ramp, edge, pixel, constant"),
        (BilinearExplorer, {"picture": np.zeros((10, 2))}, "shape (10, 2)"),
        (BilinearExplorer, {"picture": [[np.inf]]}, "finite"),
        (BilinearExplorer, {"mode": "cubic"}, "mode"),
        (MappingExplorer, {"theta": [1, 2]}, "2×3 numbers"),
        (MappingExplorer, {"mode": "bicubic"}, "mode"),
        (DescentExplorer, {"theta": [[2, 0, 0], [0, 2, 0]]}, "a turn and a shift"),
        (DescentExplorer, {"theta": [[-1, 0, 0], [0, 1, 0]]}, "a turn and a shift"),
        (DescentExplorer, {"rate": 7}, "rate"),
        (CornersExplorer, {"corners": np.zeros((3, 2))},
         "corners must be 4 points (x, y), or a tensor of shape (1, 4, 2), but shape (3, 2)"),
        (CornersExplorer, {"corners": [[1, 2, 3]] * 4}, "shape (4, 3)"),
        (CornersExplorer, {"corners": "abc"}, "'abc'"),
        (CornersExplorer, {"corners": np.full((4, 2), np.nan)}, "between −10 and 10"),
        (SplineExplorer, {"theta": np.zeros((15, 2))},
         "theta must be k² (k from 2 to 7) points (x, y), or a tensor of shape (1, k², 2), "
         "but shape (15, 2)"),
        (SplineExplorer, {"theta": np.zeros((64, 2))}, "shape (64, 2)"),
        (SplineExplorer, {"theta": np.full((4, 2), 11)}, "between −10 and 10"),
        (SplineExplorer, {"theta": [[0, 0], [1]] * 2}, "[[0, 0], [1], [0, 0], [1]]"),
        (SplineExplorer, {"transform": "affine"}, "transform"),
        (RegionsExplorer, {"box": (5, 0, 5, 9)}, "left < right and top < bottom"),
        (RegionsExplorer, {"box": (0, 0, float("nan"), 9)}, "from −400 to 400"),
        (RegionsExplorer, {"box": (0, 0, 500, 9)}, "from −400 to 400"),
        (RegionsExplorer, {"box": np.zeros((2, 4))}, "(left, top, right, bottom)"),
        (RegionsExplorer, {"box": "all"}, "but 'all' was given"),
        (RegionsExplorer, {"bins": 8}, "bins"),
        (RegionsExplorer, {"stride": 4}, "stride"),
        (RegionsExplorer, {"sampling_ratio": 0}, "sampling_ratio"),
        (RegionsExplorer, {"pool": "median"}, "pool"),
    ],
)  # fmt: skip
def test_what_they_do_not_take_is_refused(kind, values, message):
    with pytest.raises(TraitError, match=re.escape(message)):
        kind(**values)
    one = kind()
    before = repr(one)
    for name, value in values.items():
        with pytest.raises(TraitError, match=re.escape(message)):
            setattr(one, name, value)
    assert repr(one) == before


def test_corners_give_theta():
    """And the package's own grid, of this θ, takes the output's corners there."""
    one = CornersExplorer("F")
    assert one.theta == np.eye(3).tolist()
    one.corners = KEYSTONE
    theta = torch.tensor(one.theta, dtype=torch.float64)
    assert theta[2, 2] == 1
    # The corners' neighbours in a large output, a half of its pixel from them.
    G = grids.projective_grid(theta[None], (2001, 2001))[0]
    found = torch.stack([G[i, j] for i in (0, -1) for j in (0, -1)])
    np.testing.assert_allclose(found, KEYSTONE, rtol=0, atol=1.5e-3)
    one.corners = [[0, 0], [0.5, 0], [1, 0], [0.25, 0]]
    assert one.theta is None


@pytest.mark.parametrize("transform", ["spline", "mesh"])
def test_points_anywhere_move_as_the_packages_grids_do(transform):
    """The drawn lattice is of the same map as the output."""
    make = {"spline": grids.thin_plate_spline_grid, "mesh": grids.piecewise_affine_grid}[transform]
    one = SplineExplorer("F", pulled(6, -0.7), transform=transform)
    own = grids.regular_grid((5, 8), dtype=torch.float64).view(-1, 2)
    expected = make(torch.tensor([one.theta], dtype=torch.float64), (5, 8)).view(-1, 2)
    np.testing.assert_allclose(one._moved(own.numpy()), expected, rtol=0, atol=1e-12)
    assert one.k == 4


@pytest.mark.parametrize("kind", [CornersExplorer, SplineExplorer])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200, 10), (5, 9)])
def test_html_of_pictures_of_any_shape(kind, shape):
    one = kind(np.ones(shape))
    points = one.corners if kind is CornersExplorer else one.theta
    setattr(one, "corners" if kind is CornersExplorer else "theta", [[9, 0], *points[1:]])
    assert "<img alt=" in one.to_html()


def test_what_is_wrong_is_hatched_in_the_picture_that_stands_there():
    """Vermilion strokes in the output's half of it, and only then."""

    def strokes(one):
        pixels = np.asarray(one._fallback()[0].convert("RGB")).astype(int)[:, 200:]
        near = np.abs(pixels - [0xD5, 0x5E, 0x00]).max(axis=2) < 40
        return int(near.sum())

    assert strokes(CornersExplorer("F", KEYSTONE)) == 0
    assert strokes(SplineExplorer("F", pulled(5, 0.3))) == 0
    assert strokes(CornersExplorer("F", [[-1, -1], [1, -1], [-1, 1], [-0.3, -0.3]])) > 100
    for transform in ("spline", "mesh"):
        assert strokes(SplineExplorer("F", pulled(5, 1.1), transform=transform)) > 50


def test_point_stays_in_a_smaller_picture():
    one = BilinearExplorer(point=(4.5, 4))
    one.picture = np.eye(2)
    assert one.point == [2, 2]


def test_descent_takes_square_pictures_only():
    with pytest.raises(ValueError, match="as wide as high, but 4×6"):
        DescentExplorer(np.zeros((4, 6)))
    one = DescentExplorer(np.zeros((100, 100)))
    assert one.image.size == (64, 64)
    one.picture = "temple"
    assert one.image.size == (48, 48)


@pytest.mark.parametrize("kind", EXPLORABLES)
def test_unknown_arguments_are_refused(kind):
    if kind != "theta":  # which hands them on to ipywidgets
        with pytest.raises(TypeError, match="colour"):
            EXPLORABLES[kind](colour="red")


# --- In words ---


@pytest.mark.parametrize(
    ("thetas", "words"),
    [
        ((), "The picture stays as it is."),
        ((affine.scaling(0.5), affine.rotation(30)),
         "The picture is made half as large and turned 30° counter-clockwise."),
        ((affine.rotation(-12.5),), "The picture is turned 12.5° clockwise."),
        ((affine.rotation(180),), "The picture is turned 180°."),
        ((affine.scaling(0.25), affine.translation(0.5, 0)),
         "The picture is made a quarter as large and moved right by 0.5."),
        ((affine.scaling(2, 1), affine.translation(-1, 0.5)),
         "The picture is made twice as wide and moved left by 1 and down by 0.5."),
        ((affine.scaling(1.5, 0.5),), "The picture is made 1.5 times as wide and half as high."),
        ((affine.shear(0.5),), "The picture is slanted by 0.5 (bottom to the right)."),
        ((affine.shear(0, -0.5),), "The picture is slanted by 0.5 (right side up)."),
        ((affine.reflection(90),), "The picture is mirrored left to right."),
        ((affine.reflection(0),), "The picture is mirrored top to bottom."),
        ((affine.scaling(2), affine.shear(0.5), affine.rotation(45), affine.translation(0, -1)),
         "The picture is made twice as large, slanted by 0.5 (bottom to the right), "
         "turned 45° counter-clockwise and moved up by 1."),
    ],
)  # fmt: skip
def test_words(thetas, words):
    theta = affine.compose(affine.identity(), *thetas)[0].double()
    assert describe(np.round(theta.numpy(), 6).tolist()) == words


def test_words_of_singular_maps():
    assert "one line" in describe([[1, 0, 0], [1, 0, 0]])
    assert "one and the same point" in describe([[0, 0, 0.5], [0, 0, 0]])


def test_words_are_of_what_is_seen():
    """In a picture that is not square, a turn is a turn only after `correct_aspect`."""
    theta = affine.correct_aspect(affine.rotation(30, dtype=torch.float64), (100, 200))
    turned = "The picture is turned 30° counter-clockwise."
    assert describe(theta[0].tolist(), (100, 200)) == turned
    assert describe(theta[0].tolist()) != turned


# --- The bundle ---


def test_bundle_is_one_module_without_imports():
    code = bundling.bundle("theta")
    assert not re.search(r"^\s*import ", code, re.MULTILINE)
    assert len(re.findall(r"^export ", code, re.MULTILINE)) == 2
    # What only others use is left out, and all kinds fit into one module.
    assert "function splat" not in code
    assert "function splat" in bundling.bundle(*EXPLORABLES)
    assert code.index("const CSS") < code.index("function decompose") < code.index("PRESETS")
    assert "http" not in code.replace("http://www.w3.org/2000/svg", "")


def test_join_follows_imports_once_each():
    sources = {
        "a": 'import { b } from "./b.js";\nimport { c } from "./c.js";\nb(c);',
        "b": 'import { c } from "./c.js";\nexport const b = () => c;',
        "c": "// A comment.\n\nexport const c = 1;",
    }
    code, exports = bundling.join(sources, "a")
    assert code == "const c = 1;\nconst b = () => c;\nb(c);"
    assert exports == ["c", "b"]


def test_shake_keeps_what_is_referred_to():
    code = "const a = 1;\nfunction b() {\n  return a;\n}\nconst c = 2;\nconst d = () => c;\nb();"
    left, exports = bundling.shake(code, ["a", "c", "d"], ())
    assert left == "const a = 1;\nfunction b() {\n  return a;\n}\nb();"
    assert exports == ["a"]
    assert bundling.shake(code, ["c", "d"], ("d",))[1] == ["c", "d"]
    # A property and a word in a string are no references; what is spread out is one.
    code = 'const a = [];\nconst b = 1;\nconst c = 2;\nf("b", x.c, [...a]);'
    assert bundling.shake(code, ["a", "b", "c"], ()) == (
        'const a = [];\nf("b", x.c, [...a]);',
        ["a"],
    )


def test_styles_are_left_out_that_nothing_wears():
    css = bundling.squeeze_css(
        """
        /* A comment. */
        p { margin: 0; }
        .a, .b:hover { color: red; }
        .b .a { color: blue; }
        .a :is(.b, .c) { color: "a, b"; }
        .a:has(> .b, .d) { top: 1px; }
        @media (min-width: 1px) { .b { top: 0; } @container (max-width: 2px) { .a { left: 0; } } }
        @media print { .b { left: 0; } }
        """
    )
    code = 'h("div", { class: "a" },\nb, "ab");\n`one ${"c"} of them`;'
    assert bundling.shake_css(css, code) == (
        'p{margin:0;}.a{color:red;}.a :is(.b,.c){color:"a, b";}'
        "@media (min-width:1px){@container (max-width:2px){.a{left:0;}}}"
    )


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"a": 'import x from "./b.js";', "b": ""}, "line 1"),
        ({"a": 'import { x as y } from "./b.js";', "b": ""}, "line 1"),
        ({"a": 'import { x } from "elsewhere";'}, "line 1"),
        ({"a": 'import { x } from "./b.js";'}, "not there"),
        ({"a": "export default 3;"}, "line 1"),
        ({"a": "const x = 1;\nexport { x };"}, "line 2"),
        ({"a": 'import { x } from "./b.js";', "b": 'import { y } from "./a.js";'}, "circle"),
        ({"a": 'import { x } from "./b.js";\nconst x = 2;', "b": "export const x = 1;"}, "both"),
    ],
)
def test_join_refuses_what_breaks_the_convention(sources, message):
    with pytest.raises(ValueError, match=message):
        bundling.join(sources, "a")
