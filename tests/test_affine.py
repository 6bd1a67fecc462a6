"""θ: what each constructor does to the picture, and the arithmetic on θ."""

import inspect
import math
import re

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from stn_tutorial import affine
from stn_tutorial.grids import affine_grid, normalised_to_pixel, regular_grid
from stn_tutorial.sampling import MODES, PADDINGS, sample

F64 = torch.float64

# Each constructor with the number of its parameters; `crop` takes them as one box.
CONSTRUCTORS = {
    "translation": (affine.translation, 2),
    "scaling": (affine.scaling, 2),
    "rotation": (affine.rotation, 1),
    "shear": (affine.shear, 2),
    "reflection": (affine.reflection, 1),
    "crop": (lambda *box, **kw: affine.crop(box, **kw), 4),
}
PARAMETERS = (0.3, -0.7, 0.9, 0.4)
each_constructor = pytest.mark.parametrize("name", CONSTRUCTORS)

small = st.floats(-2, 2)
factor = st.floats(0.25, 4)
angle = st.floats(-720, 720)
thetas = st.builds(
    lambda s, k, a, t: affine.compose(
        affine.scaling(*s, dtype=F64),
        affine.shear(k, dtype=F64),
        affine.rotation(a, dtype=F64),
        affine.translation(*t, dtype=F64),
    ),
    st.tuples(factor, factor),
    small,
    angle,
    st.tuples(small, small),
)


def warp(U, theta, mode="bilinear", padding="zeros", size=None):
    return sample(U, affine_grid(theta, size or U.shape[2:]), mode, padding)


def moved(theta, *point):
    """Where a point of the picture ends up."""
    there = affine.transform_points(affine.invert(theta), torch.tensor([point], dtype=theta.dtype))
    return tuple(there[0, 0].tolist())


def integers(*shape):
    """A picture without symmetry whose pixels are whole numbers: sums of them are exact."""
    return torch.randint(0, 256, shape).to(F64)


def random_theta(n=3):
    return affine.identity(n, dtype=F64) + 0.3 * torch.randn(n, 2, 3, dtype=F64)


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# --- All constructors alike ---


@each_constructor
def test_constructor_takes_numbers_and_tensors(name):
    build, count = CONSTRUCTORS[name]
    numbers = PARAMETERS[:count]
    theta = build(*numbers)
    assert theta.shape == (1, 2, 3)
    assert theta.dtype == torch.get_default_dtype()
    assert theta.device.type == "cpu"
    scalars = build(*(torch.tensor(p) for p in numbers))
    assert torch.equal(scalars, theta)
    batch = build(*(torch.tensor([p, p / 2, p * 2]) for p in numbers))
    assert batch.shape == (3, 2, 3)
    assert torch.equal(batch[:1], theta)
    assert build(*(torch.zeros(0) for _ in numbers)).shape == (0, 2, 3)
    assert build(*(np.float32(p) for p in numbers)).shape == (1, 2, 3)


@each_constructor
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_constructor_keeps_dtype_and_device(name, dtype):
    build, count = CONSTRUCTORS[name]
    numbers = PARAMETERS[:count]
    assert build(*numbers, dtype=dtype).dtype == dtype
    assert build(*numbers, device="meta").device.type == "meta"
    tensors = [torch.tensor(p, dtype=dtype, device="meta") for p in numbers]
    assert build(*tensors).dtype == dtype
    assert build(*tensors).device.type == "meta"
    assert build(tensors[0], *numbers[1:]).device.type == "meta"


@each_constructor
def test_constructor_says_what_a_parameter_must_be(name):
    build, count = CONSTRUCTORS[name]
    rest = PARAMETERS[1:count]
    for bad, given_ in (("a", "a str"), (None, "a NoneType"), ([1.0, 2.0], "a list")):
        with pytest.raises(TypeError, match=rf"must be a number or a tensor .*{given_} was given"):
            build(bad, *rest)
    with pytest.raises(TypeError, match=r"must have a floating dtype, but torch\.int64 was given"):
        build(torch.tensor([1, 2]), *rest)
    with pytest.raises(ValueError, match=r"tensor of shape \(\) or \(N,\), but shape \(2, 2\) was"):
        build(torch.ones(2, 2), *rest)
    with pytest.raises(TypeError, match=r"dtype must be a floating dtype, but torch\.int32 was"):
        build(*PARAMETERS[:count], dtype=torch.int32)
    if rest:
        with pytest.raises(
            ValueError, match=r"same length or length 1, but \w+ with 2, \w+ with 3"
        ):
            build(torch.ones(2), torch.ones(3), *rest[1:])
        with pytest.raises(
            ValueError, match=r"same device, but \w+ on meta, \w+ on cpu were given"
        ):
            build(torch.ones(2, device="meta"), torch.ones(2), *rest[1:])


@each_constructor
def test_constructor_has_a_gradient(name):
    build, count = CONSTRUCTORS[name]
    parameters = [torch.tensor([p, p + 0.1], dtype=F64) for p in PARAMETERS[:count]]
    assert gradcheck(build, [p.requires_grad_() for p in parameters])


@pytest.mark.parametrize("name", ["rotation", "reflection"])
@pytest.mark.parametrize("degrees", [0.0, 90.0, -180.0])
def test_a_turn_learns_where_its_value_is_rounded(name, degrees):
    build, _ = CONSTRUCTORS[name]
    assert gradcheck(build, torch.tensor(degrees, dtype=F64, requires_grad=True))


@each_constructor
def test_nan_goes_through(name):
    build, count = CONSTRUCTORS[name]
    assert build(*[math.nan] * count).isnan().any()


# --- Each constructor: known values, and what the picture does ---


def test_identity():
    assert affine.identity(2).tolist() == [[[1, 0, 0], [0, 1, 0]]] * 2
    assert affine.identity(0).shape == (0, 2, 3)
    assert affine.identity(dtype=F64, device="meta").dtype == F64
    for n in (-1, 1.5, "2"):
        with pytest.raises(ValueError, match=rf"n must be a whole number.*{n!r} was given"):
            affine.identity(n)
    with pytest.raises(TypeError, match=r"floating dtype, but torch\.int32 was given"):
        affine.identity(dtype=torch.int32)


def test_known_values():
    quarter = [[[0, -1, 0], [1, 0, 0]]]
    assert affine.translation(0.5, -0.25).tolist() == [[[1, 0, -0.5], [0, 1, 0.25]]]
    assert affine.scaling(2).tolist() == [[[0.5, 0, 0], [0, 0.5, 0]]]
    assert affine.scaling(2, -4).tolist() == [[[0.5, 0, 0], [0, -0.25, 0]]]
    assert affine.rotation(90).tolist() == quarter
    assert affine.rotation(-270).tolist() == quarter
    assert affine.rotation(36090).tolist() == quarter
    assert affine.rotation(180).tolist() == [[[-1, 0, 0], [0, -1, 0]]]
    assert affine.shear(0.5).tolist() == [[[1, -0.5, 0], [0, 1, 0]]]
    assert affine.shear(0, 0.5).tolist() == [[[1, 0, 0], [-0.5, 1, 0]]]
    assert affine.reflection(90).tolist() == [[[-1, 0, 0], [0, 1, 0]]]
    assert affine.reflection(0).tolist() == [[[1, 0, 0], [0, -1, 0]]]
    assert affine.reflection(45).tolist() == [[[0, -1, 0], [-1, 0, 0]]]
    assert affine.crop((-1, -1, 1, 1)).tolist() == affine.identity().tolist()
    assert affine.crop((0, -1, 1, 0)).tolist() == [[[0.5, 0, 0.5], [0, 0.5, -0.5]]]
    assert affine.crop((1, -1, -1, 1)).tolist() == affine.reflection(90).tolist()
    # A shrink to a quarter that then moves right by 0.5, which chapter 3 works out by hand.
    shrunk = affine.compose(affine.scaling(0.25), affine.translation(0.5, 0))
    assert shrunk.tolist() == [[[4, 0, -2], [0, 4, 0]]]


def test_no_negative_zero_is_printed():
    for theta in (affine.rotation(0), affine.translation(0, 0), affine.shear(0, 0)):
        assert "-0." not in str(theta.tolist())
    assert "-0." not in str([float(f) for f in affine.decompose(affine.rotation(180))])


def test_degenerate_parameters_are_infinite():
    assert affine.scaling(0)[0, 0, 0] == math.inf
    assert not affine.shear(2, 0.5).isfinite().all()


def test_where_a_point_of_the_picture_ends_up():
    assert moved(affine.translation(0.5, 0.25), 0.0, 0.0) == (0.5, 0.25)
    assert moved(affine.scaling(2, 4), 0.5, 0.125) == (1, 0.5)
    # The right edge's middle goes to the top: counter-clockwise on the screen, y being down.
    assert moved(affine.rotation(90), 1.0, 0.0) == (0, -1)
    assert moved(affine.shear(0.5, 0), 0.25, 1.0) == (0.75, 1)
    assert moved(affine.shear(0, 0.5), 1.0, 0.25) == (1, 0.75)
    assert moved(affine.reflection(90), 1.0, 0.5) == (-1, 0.5)
    # A line 30 degrees counter-clockwise from the x axis stays where it is.
    on_line = (math.cos(math.pi / 6), -math.sin(math.pi / 6))
    assert moved(affine.reflection(30, dtype=F64), *on_line) == pytest.approx(on_line, abs=1e-15)
    assert moved(affine.crop((0, -1, 0.5, 0)), 0.5, 0.0) == (1, 1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_quarter_turns_and_flips_are_exact(mode, padding):
    U = integers(1, 2, 8, 8)
    for k in range(-1, 5):
        turned = warp(U, affine.rotation(90 * k, dtype=F64), mode, padding)
        assert torch.equal(turned, torch.rot90(U, k, (2, 3)))
    assert torch.equal(warp(U, affine.reflection(90, dtype=F64), mode, padding), U.flip(3))
    assert torch.equal(warp(U, affine.reflection(0, dtype=F64), mode, padding), U.flip(2))
    # About the rising diagonal: a transpose and half a turn.
    diagonal = warp(U, affine.reflection(45, dtype=F64), mode, padding)
    assert torch.equal(diagonal, U.transpose(2, 3).flip(2, 3))


@pytest.mark.parametrize("size", [(8, 8), (27, 33), (5, 1)])
def test_a_translation_by_whole_pixels_shifts(size):
    H, W = size
    U = integers(1, 1, H, W)
    shift = affine.translation(2 * 3 / W, -2 * 2 / H, dtype=F64)
    V = torch.zeros_like(U)
    V[:, :, : H - 2, 3:] = U[:, :, 2:, : W - 3] if W > 3 else V[:, :, : H - 2, 3:]
    assert torch.equal(warp(U, shift, "nearest"), V)
    close(warp(U, shift, "bilinear"), V, 1e-10)


def test_a_crop_is_a_slice():
    U = integers(1, 2, 8, 16)
    box = (-0.625, -0.75, 0.375, 0.25)  # columns 3 to 10, rows 1 to 4
    for mode in MODES:
        V = warp(U, affine.crop(box, dtype=F64), mode, size=(4, 8))
        assert torch.equal(V, U[:, :, 1:5, 3:11])
    # Where sixths and fifths are rounded, the nearest pixel is still the right one.
    V = warp(U, affine.crop((-0.5, -0.75, 0.25, 0.5), dtype=F64), "nearest", size=(5, 6))
    assert torch.equal(V, U[:, :, 1:6, 4:10])


def test_crop_takes_boxes_in_every_form():
    boxes = torch.tensor([[-1.0, -1, 0, 0], [0, 0, 1, 1]])
    assert affine.crop(boxes).shape == (2, 2, 3)
    assert torch.equal(affine.crop(boxes)[:1], affine.crop(boxes[0]))
    assert torch.equal(affine.crop(boxes[0]), affine.crop([-1, -1, 0, 0]))
    assert torch.equal(affine.crop(np.array([-1, -1, 0, 0])), affine.crop([-1, -1, 0, 0]))
    expected = r"box must be \(left, top, right, bottom\)"
    with pytest.raises(ValueError, match=expected + r".*but \(1, 2, 3\) was given"):
        affine.crop((1, 2, 3))
    with pytest.raises(ValueError, match=expected + r".*but 5 was given"):
        affine.crop(5)
    with pytest.raises(ValueError, match=expected + r".*but shape \(2, 3\) was given"):
        affine.crop(torch.ones(2, 3))
    with pytest.raises(ValueError, match=expected + r".*but shape \(1, 1, 4\) was given"):
        affine.crop(torch.ones(1, 1, 4))
    with pytest.raises(TypeError, match=r"box must have a floating dtype, but torch\.int64"):
        affine.crop(torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("degrees", [30, -75, 200])
@pytest.mark.parametrize("size", [(32, 32), (27, 33)])
def test_rotation_turns_as_torchvision_does(size, degrees):
    """Square or not: `correct_aspect` does nothing to a square."""
    U = torch.rand(1, 1, *size, dtype=F64)
    theta = affine.correct_aspect(affine.rotation(degrees, dtype=F64), size)
    V = TF.rotate(U, degrees, InterpolationMode.BILINEAR)
    # torchvision has θ and its grid in float32.
    close(warp(U, theta), V, 1e-4)
    assert (
        warp(U, affine.correct_aspect(affine.rotation(-degrees, dtype=F64), size)) - V
    ).abs().max() > 0.1


@given(angle, angle)
def test_rotations_add_up(a, b):
    turns = affine.compose(affine.rotation(a, dtype=F64), affine.rotation(b, dtype=F64))
    close(turns, affine.rotation(a + b, dtype=F64))


@given(angle)
def test_a_reflection_is_its_own_inverse(a):
    mirror = affine.reflection(a, dtype=F64)
    close(affine.compose(mirror, mirror), affine.identity(dtype=F64))


# --- compose ---


def test_compose_does_the_first_thing_first():
    right_then_turn = affine.compose(affine.translation(0.5, 0), affine.rotation(90))
    assert moved(right_then_turn, 0.0, 0.0) == (0, -0.5)
    turn_then_right = affine.compose(affine.rotation(90), affine.translation(0.5, 0))
    assert moved(turn_then_right, 0.0, 0.0) == (0.5, 0)


def test_compose_is_the_matrix_product():
    a, b = random_theta(), random_theta()
    row = torch.tensor([0.0, 0, 1], dtype=F64).expand(3, 1, 3)
    product = torch.cat([a, row], 1) @ torch.cat([b, row], 1)
    close(affine.compose(a, b), product[:, :2])


def test_compose_takes_any_number_and_broadcasts():
    a, b = random_theta(1), random_theta(3)
    assert torch.equal(affine.compose(a), a)
    close(affine.compose(a, b), affine.compose(a.expand(3, 2, 3), b))
    close(affine.compose(b, a, b), affine.compose(b, affine.compose(a, b)))
    assert affine.compose(a, b[:0]).shape == (0, 2, 3)


def test_compose_says_what_is_wrong():
    a = affine.identity(2)
    with pytest.raises(ValueError, match=r"at least one theta, but none was given"):
        affine.compose()
    with pytest.raises(ValueError, match=r"theta 1 must have shape \(N, 2, 3\), but .*\(2, 2\)"):
        affine.compose(a, a[0, :, :2])
    with pytest.raises(TypeError, match=r"same dtype, but torch\.float32, torch\.float64 were"):
        affine.compose(a, a.double())
    with pytest.raises(ValueError, match=r"same batch size or 1, but \[2, 3\] were given"):
        affine.compose(a, affine.identity(3))
    with pytest.raises(ValueError, match=r"same device, but theta 0 on cpu, theta 1 on meta"):
        affine.compose(a, a.to("meta"))


@given(thetas, thetas, thetas)
def test_compose_is_associative(a, b, c):
    left = affine.compose(affine.compose(a, b), c)
    close(left, affine.compose(a, affine.compose(b, c)), 1e-9)
    close(left, affine.compose(a, b, c), 1e-9)


def test_compose_has_a_gradient():
    assert gradcheck(affine.compose, [random_theta().requires_grad_() for _ in range(2)])


# --- invert ---


@given(thetas)
def test_invert_undoes(theta):
    close(affine.compose(theta, affine.invert(theta)), affine.identity(dtype=F64), 1e-9)
    close(affine.compose(affine.invert(theta), theta), affine.identity(dtype=F64), 1e-9)
    close(affine.invert(affine.invert(theta)), theta, 1e-9)


def test_invert_known_values():
    half = torch.tensor([[[0.5, 0, 0.25], [0, 0.5, -0.5]]])
    assert affine.invert(half).tolist() == [[[2, 0, -0.5], [0, 2, 1]]]
    assert affine.invert(affine.rotation(90)).tolist() == affine.rotation(-90).tolist()
    assert affine.invert(affine.identity(0)).shape == (0, 2, 3)
    assert affine.invert(affine.rotation(30, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_invert_refuses_rank_one_to_rounding(dtype):
    """Products of a column and a row, whose determinant is seldom exactly zero."""
    linear = torch.randn(2000, 2, 1, dtype=dtype) * torch.randn(2000, 1, 2, dtype=dtype)
    for theta in torch.cat([linear, torch.zeros(2000, 2, 1, dtype=dtype)], dim=2)[:, None]:
        with pytest.raises(ValueError, match="theta must be invertible"):
            affine.invert(theta)


SINGULAR = torch.tensor([[1.0, 2, 0], [2, 4, 0]])


@pytest.mark.parametrize(
    "call",
    [
        affine.invert,
        affine.decompose,
        lambda t: affine.to_opencv(t, (4, 4), (4, 4)),
        lambda t: affine.from_opencv(t, (4, 4), (4, 4)),
    ],
    ids=["invert", "decompose", "to_opencv", "from_opencv"],
)
def test_singular_is_named(call):
    theta = torch.stack([affine.identity()[0], SINGULAR])
    with pytest.raises(ValueError, match=r"theta\[1\] = .* with determinant 0 was given"):
        call(theta)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"theta must be invertible, but theta\[0\]"):
            call(affine.translation(bad, 0.0))


def test_invert_has_a_gradient():
    assert gradcheck(affine.invert, random_theta().requires_grad_())


# --- transform_points ---


def test_points_known_values():
    theta = torch.tensor([[[1.0, 2, 3], [4, 5, 6]]])
    assert affine.transform_points(theta, torch.tensor([[1.0, 10]])).tolist() == [[[24, 60]]]
    assert affine.transform_points(theta.expand(2, 2, 3), torch.zeros(5, 2)).shape == (2, 5, 2)
    assert affine.transform_points(theta, torch.zeros(4, 5, 2)).shape == (4, 5, 2)
    assert affine.transform_points(theta, torch.zeros(0, 2)).shape == (1, 0, 2)


def test_points_agree_with_affine_grid():
    theta = random_theta()
    points = regular_grid((5, 7), dtype=F64).reshape(-1, 2)
    grid = affine_grid(theta, (5, 7)).flatten(1, 2)
    close(affine.transform_points(theta, points), grid)
    close(affine.transform_points(theta, points.expand(3, -1, -1)), grid)


def test_points_say_what_is_wrong():
    theta = affine.identity(2)
    with pytest.raises(ValueError, match=r"\(x, y\) last, but shape \(5, 3\) was given"):
        affine.transform_points(theta, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"\(P, 2\) or \(N, P, 2\).*but shape \(2,\) was given"):
        affine.transform_points(theta, torch.zeros(2))
    with pytest.raises(ValueError, match=r"same batch size or 1, but 2 and 3 were given"):
        affine.transform_points(theta, torch.zeros(3, 5, 2))
    with pytest.raises(TypeError, match=r"points must have a floating dtype, but torch\.int64"):
        affine.transform_points(theta, torch.zeros(5, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"theta on cpu, points on meta were given"):
        affine.transform_points(theta, torch.zeros(5, 2, device="meta"))


def test_points_have_a_gradient():
    points = torch.randn(4, 2, dtype=F64, requires_grad=True)
    assert gradcheck(affine.transform_points, [random_theta().requires_grad_(), points])


# --- decompose and area_factor ---


@given(factor, factor, st.booleans(), small, st.floats(-179, 180), small, small)
def test_decompose_gives_the_factors_back(sx, sy, mirrored, kx, degrees, tx, ty):
    sy = -sy if mirrored else sy
    steps = (
        affine.scaling(sx, sy, dtype=F64),
        affine.shear(kx, dtype=F64),
        affine.rotation(degrees, dtype=F64),
        affine.translation(tx, ty, dtype=F64),
    )
    factors = affine.decompose(affine.compose(*steps))
    expected = [torch.tensor([v], dtype=F64) for v in (sx, sy, kx, degrees, tx, ty)]
    close(list(factors), expected, 1e-8)


@given(thetas)
def test_compose_puts_the_factors_together_again(theta):
    f = affine.decompose(theta)
    steps = (affine.scaling(f.sx, f.sy), affine.shear(f.shear), affine.rotation(f.degrees))
    close(affine.compose(*steps, affine.translation(f.tx, f.ty)), theta, 1e-8)


def test_decompose_known_values():
    f = affine.decompose(affine.compose(affine.scaling(2, 4), affine.translation(0.5, -0.25)))
    assert [v.item() for v in f] == [2, 4, 0, 0, 0.5, -0.25]
    assert affine.decompose(affine.rotation(90)).degrees.item() == 90
    # Half a turn is 180 degrees from either side: the range is half open.
    assert affine.decompose(affine.rotation(180)).degrees.item() == 180
    assert affine.decompose(affine.rotation(-180)).degrees.item() == 180
    mirror = affine.decompose(affine.reflection(0))
    assert (mirror.sx.item(), mirror.sy.item()) == (1, -1)
    assert affine.decompose(affine.identity(0)).sx.shape == (0,)


def test_decompose_has_a_gradient():
    assert gradcheck(affine.decompose, random_theta().requires_grad_())


@given(thetas)
def test_area_factor_is_the_pictures_determinant(theta):
    picture = torch.linalg.det(affine.invert(theta)[:, :, :2]).abs()
    close(affine.area_factor(theta), picture, 1e-9)


def test_area_factor_known_values():
    assert affine.area_factor(affine.scaling(2)).tolist() == [4]
    assert affine.area_factor(affine.scaling(2, -0.25)).tolist() == [0.5]
    assert affine.area_factor(affine.shear(3)).tolist() == [1]
    assert affine.area_factor(SINGULAR[None]).tolist() == [math.inf]
    assert gradcheck(affine.area_factor, random_theta().requires_grad_())


# --- Pixel matrices ---


@given(thetas, st.tuples(st.integers(1, 50), st.integers(1, 50)), st.integers(1, 50))
def test_pixel_matrices_go_there_and_back(theta, in_size, side):
    sizes = (in_size, (side, 2 * side))
    close(affine.from_pixels(affine.to_pixels(theta, *sizes), *sizes), theta, 1e-9)
    close(affine.from_opencv(affine.to_opencv(theta, *sizes), *sizes), theta, 1e-7)


def test_pixel_matrix_takes_output_pixels_to_input_pixels():
    theta, in_size, out_size = random_theta(), (27, 33), (5, 8)
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(8), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).to(F64)
    read = normalised_to_pixel(affine_grid(theta, out_size), in_size).flatten(1, 2)
    matrix = affine.to_pixels(theta, in_size, out_size)
    close(affine.transform_points(matrix, pixels), read, 1e-10)


def test_pixel_matrix_known_values():
    """Doubling the size of the output: its pixel 0 reads a quarter pixel left of pixel 0."""
    matrix = affine.to_pixels(affine.identity(), (4, 8), (8, 16))
    assert matrix.tolist() == [[[0.5, 0, -0.25], [0, 0.5, -0.25]]]
    back = affine.to_opencv(affine.identity(), (4, 8), (8, 16))
    assert back.tolist() == [[[2, 0, 0.5], [0, 2, 0.5]]]


@pytest.mark.parametrize("size", [(24, 24), (27, 33), (40, 11)])
def test_opencv_rotation_matrix(size):
    """A turn of OpenCV's about the picture's centre is ours, on pictures of any shape."""
    H, W = size
    matrix = cv2.getRotationMatrix2D(((W - 1) / 2, (H - 1) / 2), 30, 1.5)
    ours = affine.compose(affine.scaling(1.5, dtype=F64), affine.rotation(30, dtype=F64))
    ours = affine.correct_aspect(ours, size)
    theirs = torch.from_numpy(matrix)[None]
    close(affine.from_opencv(theirs, size, size), ours, 1e-10)
    close(affine.to_opencv(ours, size, size), theirs, 1e-10)


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="needs OpenCV 5")
def test_opencv_warps_as_we_do():
    """`dsize` is (W, H); the input and the output differ in size and shape."""
    in_size, out_size = (27, 33), (20, 41)
    U = np.random.default_rng(0).random(in_size, dtype=np.float32)
    matrix = cv2.getRotationMatrix2D((12, 9), 20, 1.3)
    V = cv2.warpAffine(U, matrix, out_size[::-1], flags=cv2.INTER_LINEAR)
    theta = affine.from_opencv(torch.from_numpy(matrix)[None], in_size, out_size)
    ours = warp(torch.from_numpy(U)[None, None].double(), theta, size=out_size)
    # OpenCV 5 interpolates float32 in float32. (OpenCV 4, and float64 in 5, know 32 positions
    # between two pixels, which is good to 2e-2 only.)
    close(ours[0, 0].float(), torch.from_numpy(V), 1e-4)


@pytest.mark.parametrize(
    "call", [affine.to_pixels, affine.from_pixels, affine.to_opencv, affine.from_opencv]
)
def test_pixel_matrices_say_what_is_wrong(call):
    theta = affine.identity()
    for bad in (5, (5,), (5, 0), (5, 2.5), "55", (True, 2)):
        given_ = re.escape(f"two positive whole numbers, but {bad!r} was given")
        with pytest.raises(ValueError, match="in_size must be .*" + given_):
            call(theta, bad, (5, 5))
        with pytest.raises(ValueError, match="out_size must be .*" + given_):
            call(theta, (5, 5), bad)
    with pytest.raises(ValueError, match=r"must have shape \(N, 2, 3\), but shape \(2, 3\)"):
        call(theta[0], (5, 5), (5, 5))
    assert gradcheck(lambda t: call(t, (5, 7), (4, 6)), random_theta().requires_grad_())


# --- correct_aspect ---


def test_correct_aspect_known_values():
    theta = torch.tensor([[[1.0, 2, 3], [4, 5, 6]]])
    assert affine.correct_aspect(theta, (2, 4)).tolist() == [[[1, 1, 3], [8, 5, 6]]]
    assert torch.equal(affine.correct_aspect(theta, (7, 7)), theta)


@given(angle, st.integers(1, 40), st.integers(1, 40))
def test_correct_aspect_keeps_lengths_in_pixels(degrees, H, W):
    theta = affine.correct_aspect(affine.rotation(degrees, dtype=F64), (H, W))
    linear = affine.to_pixels(theta, (H, W), (H, W))[0, :, :2]
    close(linear @ linear.T, torch.eye(2, dtype=F64), 1e-9)


def test_correct_aspect_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"size must be \(height, width\).*but 7 was given"):
        affine.correct_aspect(affine.identity(), 7)
    with pytest.raises(TypeError, match=r"theta must be a torch\.Tensor, but a list was given"):
        affine.correct_aspect([[1, 0, 0], [0, 1, 0]], (4, 4))
    assert gradcheck(lambda t: affine.correct_aspect(t, (4, 6)), random_theta().requires_grad_())


# --- All of them ---


@pytest.mark.parametrize(
    "call", [affine.invert, affine.decompose, affine.area_factor, affine.compose]
)
def test_a_theta_is_checked(call):
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, but a list was given"):
        call([1])
    with pytest.raises(TypeError, match=r"must have a floating dtype, but torch\.int64 was given"):
        call(torch.zeros(1, 2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(N, 2, 3\), but shape \(1, 3, 3\) was given"):
        call(torch.zeros(1, 3, 3))


def test_theta_is_built_without_a_graph_break():
    def build(degrees, shift):
        turned = affine.compose(affine.rotation(degrees), affine.translation(shift, 0.1))
        return affine.correct_aspect(affine.compose(turned, affine.scaling(2.0)), (5, 7))

    arguments = torch.rand(3), torch.rand(3)
    compiled = torch.compile(build, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*arguments), build(*arguments))


def test_everything_public_is_documented():
    for name in affine.__all__:
        assert inspect.getdoc(getattr(affine, name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    theta = affine.compose(affine.rotation(torch.tensor([30.0], device="cuda")))
    assert theta.device.type == "cuda"
    close(affine.to_opencv(theta, (5, 7), (5, 7)).cpu(),
          affine.to_opencv(theta.cpu(), (5, 7), (5, 7)), 1e-5)  # fmt: skip
