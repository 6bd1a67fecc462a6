"""Regular and sampling grids, and the two kinds of coordinates."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F

from stn_tutorial import affine
from stn_tutorial.grids import (
    affine_grid,
    normalised_to_pixel,
    pixel_to_normalised,
    regular_grid,
)

F64 = torch.float64
SIZES = [(1, 1), (1, 5), (5, 5), (28, 28), (27, 33), (224, 224)]

each_corners = pytest.mark.parametrize("align_corners", [False, True])
each_size = pytest.mark.parametrize("size", SIZES, ids=str)
sides = st.integers(1, 300)


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def random_theta(n=3):
    return affine.identity(n, dtype=F64) + 0.3 * torch.randn(n, 2, 3, dtype=F64)


def flaw_in_pixels(grid):
    """The greatest distance, in pixels, between a grid and its size's regular grid."""
    size = grid.shape[1:3]
    flaw = (grid.to(F64) - regular_grid(size, dtype=F64)).abs().amax(dim=(0, 1, 2))
    return (flaw * torch.tensor([size[1] / 2, size[0] / 2], dtype=F64)).max().item()


# --- regular_grid ---


def test_regular_grid_known_values():
    x, y = regular_grid((2, 4)).unbind(-1)
    assert x.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert y.tolist() == [[-0.5] * 4, [0.5] * 4]
    x, y = regular_grid((3, 5), align_corners=True).unbind(-1)
    assert x.tolist() == [[-1, -0.5, 0, 0.5, 1]] * 3
    assert y.tolist() == [[-1] * 5, [0] * 5, [1] * 5]
    # Chapter 3's 5×5 picture: every other tenth.
    x, _ = regular_grid((5, 5), dtype=F64).unbind(-1)
    assert x[0].tolist() == [-0.8, -0.4, 0, 0.4, 0.8]
    assert regular_grid((1, 1)).tolist() == [[[0, 0]]]
    assert regular_grid((1, 1), align_corners=True).tolist() == [[[0, 0]]]


@given(sides, st.booleans())
def test_regular_grid_is_rounded_once(count, align_corners):
    x = regular_grid((1, count), align_corners=align_corners, dtype=F64)[0, :, 0].tolist()
    if align_corners:
        exact = [Fraction(2 * j, max(count - 1, 1)) - (count > 1) for j in range(count)]
    else:
        exact = [Fraction(2 * j + 1, count) - 1 for j in range(count)]
    assert x == [float(e) for e in exact]
    assert x == [-v for v in reversed(x)]


def test_regular_grid_dtype_and_device():
    assert regular_grid((2, 3)).dtype == torch.float32
    assert regular_grid((2, 3), dtype=F64).dtype == F64
    assert regular_grid((2, 3), dtype=torch.bfloat16).dtype == torch.float32
    assert regular_grid((2, 3), device="meta").device.type == "meta"
    assert regular_grid(torch.zeros(2, 3).shape).shape == (2, 3, 2)


def test_regular_grid_says_what_is_wrong():
    for bad in (5, (5,), (5, 0), (-1, 5), (5, 2.5), "55", (True, 2), None):
        with pytest.raises(ValueError, match=r"size must be \(height, width\), two positive whole"):
            regular_grid(bad)
    with pytest.raises(ValueError, match=r"but \(5, 0\) was given"):
        regular_grid((5, 0))
    with pytest.raises(TypeError, match=r"dtype must be a floating dtype, but torch\.int64 was"):
        regular_grid((2, 2), dtype=torch.int64)


# --- affine_grid ---


@each_corners
@each_size
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_identity_is_the_regular_grid_bit_for_bit(size, align_corners, dtype):
    grid = affine_grid(affine.identity(2, dtype=dtype), size, align_corners=align_corners)
    own = regular_grid(size, align_corners=align_corners, dtype=dtype)
    assert torch.equal(grid, own.expand(2, *size, 2))
    assert grid.dtype == (F64 if dtype == F64 else torch.float32)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior has changed")
@each_corners
@each_size
def test_agrees_with_torch(size, align_corners):
    theta = random_theta().requires_grad_()
    ours = affine_grid(theta, size, align_corners=align_corners)
    theirs = F.affine_grid(theta, [3, 1, *size], align_corners=align_corners)
    close(ours, theirs)
    weights = torch.randn_like(ours)
    close(
        torch.autograd.grad((ours * weights).sum(), theta)[0],
        torch.autograd.grad((theirs * weights).sum(), theta)[0],
        1e-9,
    )


def test_affine_grid_known_values():
    """Of ((a, b, c), (d, e, f)) no two entries may be taken for each other."""
    theta = torch.tensor([[[1.0, 10, 100], [2, 20, 200]]])
    grid = affine_grid(theta, (1, 2))  # output centres (−0.5, 0) and (0.5, 0)
    assert grid.tolist() == [[[[99.5, 199], [100.5, 201]]]]
    grid = affine_grid(theta, (2, 1))  # (0, −0.5) and (0, 0.5)
    assert grid.tolist() == [[[[95, 190]], [[105, 210]]]]


def test_affine_grid_takes_an_empty_batch_and_odd_values():
    assert affine_grid(affine.identity(0), (3, 4)).shape == (0, 3, 4, 2)
    grid = affine_grid(affine.translation(math.nan, math.inf), (2, 2))
    assert grid[..., 0].isnan().all()
    assert (grid[..., 1] == -math.inf).all()


def test_affine_grid_says_what_is_wrong():
    theta = affine.identity()
    with pytest.raises(ValueError, match=r"theta must have shape \(N, 2, 3\), but shape \(2, 3\)"):
        affine_grid(theta[0], (3, 3))
    with pytest.raises(TypeError, match=r"theta must have a floating dtype, but torch\.int64"):
        affine_grid(theta.long(), (3, 3))
    with pytest.raises(ValueError, match=r"size must be \(height, width\).*\(1, 1, 3, 3\) was"):
        affine_grid(theta, (1, 1, 3, 3))


@each_corners
def test_affine_grid_has_a_gradient(align_corners):
    theta = random_theta(2).requires_grad_()
    assert gradcheck(lambda t: affine_grid(t, (3, 4), align_corners=align_corners), theta)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_pixels(dtype):
    """The identity at 224 is exact under autocast, and PyTorch's own in bfloat16 is not."""
    with torch.autocast("cpu", dtype=dtype):
        grid = affine_grid(affine.identity(dtype=dtype), (224, 224))
        # What a layer under autocast hands over, rounded before it gets here.
        turned = affine_grid(affine.rotation(30).to(dtype), (224, 224))
    assert grid.dtype == turned.dtype == torch.float32
    assert flaw_in_pixels(grid) < 1e-4
    exact = affine_grid(affine.rotation(30).to(dtype).to(F64), (224, 224))
    assert (turned - exact).abs().max() * 112 < 1e-4
    theirs = F.affine_grid(affine.identity(dtype=dtype), [1, 1, 224, 224], align_corners=False)
    assert flaw_in_pixels(theirs) > (0.1 if dtype == torch.bfloat16 else 0.01)


def test_affine_grid_without_a_graph_break():
    theta = random_theta()
    compiled = torch.compile(affine_grid, fullgraph=True, backend="aot_eager")
    close(compiled(theta, (5, 7)), affine_grid(theta, (5, 7)))


# --- Normalised and pixel coordinates ---


def test_coordinates_known_values():
    corners = torch.tensor([[-1.0, -1], [0, 0], [1, 1]])
    assert normalised_to_pixel(corners, (4, 8)).tolist() == [[-0.5, -0.5], [3.5, 1.5], [7.5, 3.5]]
    centres = normalised_to_pixel(corners, (4, 8), align_corners=True)
    assert centres.tolist() == [[0, 0], [3.5, 1.5], [7, 3]]
    pixels = torch.tensor([[0.0, 0], [7, 3]])
    assert pixel_to_normalised(pixels, (4, 8)).tolist() == [[-0.875, -0.75], [0.875, 0.75]]
    assert pixel_to_normalised(pixels, (4, 8), align_corners=True).tolist() == [[-1, -1], [1, 1]]


@each_corners
@each_size
def test_regular_grid_lies_at_whole_pixels(size, align_corners):
    own = regular_grid(size, align_corners=align_corners, dtype=F64)
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=F64) for n in size), indexing="ij")
    pixels = torch.stack([columns, rows], -1)
    close(normalised_to_pixel(own, size, align_corners=align_corners), pixels, 1e-10)
    close(pixel_to_normalised(pixels, size, align_corners=align_corners), own)


@given(sides, sides, st.booleans(), st.floats(-100, 100), st.floats(-100, 100))
def test_coordinates_go_there_and_back(H, W, align_corners, x, y):
    if align_corners:  # with one pixel there is no length to go back from
        H, W = H + 1, W + 1
    points = torch.tensor([[x, y]], dtype=F64)
    pixels = normalised_to_pixel(points, (H, W), align_corners=align_corners)
    close(pixel_to_normalised(pixels, (H, W), align_corners=align_corners), points, 1e-9)


def test_one_pixel_with_aligned_corners():
    points = torch.tensor([[-1.0, 0.5]])
    assert normalised_to_pixel(points, (1, 1), align_corners=True).tolist() == [[0, 0]]
    assert pixel_to_normalised(torch.zeros(1, 2), (1, 1), align_corners=True).tolist() == [[0, 0]]


@pytest.mark.parametrize("convert", [normalised_to_pixel, pixel_to_normalised])
def test_coordinates_say_what_is_wrong(convert):
    with pytest.raises(TypeError, match=r"points must be a torch\.Tensor, but a list was given"):
        convert([0, 0], (2, 2))
    with pytest.raises(TypeError, match=r"points must have a floating dtype, but torch\.int64"):
        convert(torch.tensor([0, 0]), (2, 2))
    with pytest.raises(ValueError, match=r"points must have \(x, y\) last, but shape \(3,\) was"):
        convert(torch.zeros(3), (2, 2))
    with pytest.raises(ValueError, match=r"points must have \(x, y\) last, but shape \(\) was"):
        convert(torch.tensor(0.0), (2, 2))
    with pytest.raises(ValueError, match=r"size must be \(height, width\).*but 2 was given"):
        convert(torch.zeros(2), 2)


@each_corners
@pytest.mark.parametrize("convert", [normalised_to_pixel, pixel_to_normalised])
def test_coordinates_keep_dtype_shape_and_gradient(convert, align_corners):
    points = torch.randn(2, 3, 2, dtype=F64, requires_grad=True)
    assert gradcheck(lambda p: convert(p, (4, 7), align_corners=align_corners), points)
    assert convert(torch.zeros(0, 2), (2, 2), align_corners=align_corners).shape == (0, 2)
    assert convert(points.half(), (2, 2), align_corners=align_corners).dtype == torch.float16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    theta = random_theta().cuda()
    close(affine_grid(theta, (27, 33)).cpu(), affine_grid(theta.cpu(), (27, 33)))
    own = regular_grid((27, 33), device="cuda")
    assert torch.equal(affine_grid(affine.identity(device="cuda"), (27, 33))[0], own)
