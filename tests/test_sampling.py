"""The sampler, its explicit sum, its hand-derived backward pass, and splatting."""

import ast
import importlib
import inspect
import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch.autograd import gradcheck
from torch.nn import functional as F

from stn_tutorial import affine
from stn_tutorial.grids import affine_grid, normalised_to_pixel, pixel_to_normalised, regular_grid
from stn_tutorial.sampling import (
    KEYS_A,
    MODES,
    PADDINGS,
    bicubic_kernel,
    bilinear_kernel,
    nearest_kernel,
    sample,
    sample_bilinear,
    sample_sum,
    splat,
)

F64 = torch.float64
KERNELS = {"nearest": nearest_kernel, "bilinear": bilinear_kernel, "bicubic": bicubic_kernel}

each_mode = pytest.mark.parametrize("mode", MODES)
each_padding = pytest.mark.parametrize("padding", PADDINGS)
each_corners = pytest.mark.parametrize("align_corners", [False, True])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def at(points, size, align_corners=False):
    """The (1, 1, P, 2) grid that reads these pixel positions (column, row)."""
    pixels = torch.as_tensor(points, dtype=F64).reshape(1, 1, -1, 2)
    return pixel_to_normalised(pixels, size, align_corners=align_corners)


def off_lattice(shape, size, align_corners=False, reach=3.0):
    """Positions from `reach` sides outside, at least 0.05 pixels from each half and whole one.

    At those a cell, a rounding or a mirror changes, and rounding errors decide between the sides.
    """
    sides = torch.tensor([size[1], size[0]], dtype=F64)
    halves = (2 * sides * reach * (2 * torch.rand(*shape, 2, dtype=F64) - 1)).round()
    pixels = halves / 2 + 0.05 + 0.4 * torch.rand(*shape, 2, dtype=F64)
    return pixel_to_normalised(pixels, size, align_corners=align_corners)


# --- Kernels ---


@pytest.mark.parametrize("mode", KERNELS)
def test_kernel_is_a_partition_of_unity(mode):
    d = torch.linspace(0, 1, 101, dtype=F64)[:, None] - torch.arange(-3, 5)
    close(KERNELS[mode](d).sum(1), torch.ones(101, dtype=F64), 1e-14)


@pytest.mark.parametrize("mode", KERNELS)
def test_kernel_is_even_and_reads_a_pixel_as_it_is(mode):
    kernel = KERNELS[mode]
    d = torch.arange(1, 300, dtype=F64) / 100.3
    close(kernel(d), kernel(-d), 1e-15)
    whole = torch.arange(-4.0, 5)
    assert kernel(whole).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert kernel(torch.zeros(2, 3, dtype=torch.float16)).dtype == torch.float16
    assert kernel(torch.zeros(0, 3)).shape == (0, 3)


def test_kernel_known_values():
    half, quarter = torch.tensor([-0.5, 0.5]), torch.tensor([-0.25, 0.75, 1.5])
    # Of the two pixels at a distance of one half, one is chosen and not both, nor none.
    assert nearest_kernel(half).tolist() == [1, 0]
    assert bilinear_kernel(quarter).tolist() == [0.75, 0.25, 0]
    assert bilinear_kernel(half).tolist() == [0.5, 0.5]
    # Keys, a = −3/4: k(½) = (4 − a)/8 = 19/32, k(3/2) = a/8 = −3/32.
    assert KEYS_A == -0.75
    assert bicubic_kernel(half).tolist() == [19 / 32, 19 / 32]
    assert bicubic_kernel(torch.tensor([1.5, -1.5])).tolist() == [-3 / 32, -3 / 32]


def test_keys_own_cubic_is_exact_on_parabolas():
    x = torch.linspace(3, 4, 11, dtype=F64)
    pixel = torch.arange(8, dtype=F64)
    for a, exact in ((-0.5, True), (KEYS_A, False)):
        V = (pixel**2 * bicubic_kernel(x[:, None] - pixel, a)).sum(dim=1)
        assert torch.allclose(V, x**2, rtol=0, atol=1e-12) == exact
        # The slope at a distance of 1, from either side, is a.
        near = torch.tensor([1 - 1e-6, 1.0, 1 + 1e-6], dtype=F64)
        close(bicubic_kernel(near, a).diff() / 1e-6, torch.full((2,), a, dtype=F64), 1e-4)


def test_kernels_have_gradients():
    d = torch.tensor([-1.7, -0.6, -0.3, 0.2, 0.8, 1.4, 2.5], dtype=F64, requires_grad=True)
    assert gradcheck(bilinear_kernel, d)
    assert gradcheck(bicubic_kernel, d)
    # The cubic's slope is continuous, so that it may be checked at whole numbers too.
    assert gradcheck(bicubic_kernel, torch.arange(-2, 3).to(F64).requires_grad_())


# --- Chapter 5's worked examples, in pixel coordinates ---

# x' = a·x + b·y + e and y' = c·x + d·y + f: an axis swap, with half a pixel to a pixel.
WORKED = torch.tensor([[[0, 0.5, 0.6], [1, 0, 0.4]]], dtype=F64)


def test_worked_example_positions():
    points = torch.tensor([[2.0, 2], [1, 1], [2, 3]], dtype=F64)
    read = affine.transform_points(WORKED, points)[0].tolist()
    assert read == [[1.6, 2.4], [1.1, 1.4], [2.1, 2.4]]
    # Rounding would merge the first and the last.
    assert [round(c) for c in read[0]] == [round(c) for c in read[2]] == [2, 2]


@pytest.mark.parametrize("read", [sample, sample_bilinear, sample_sum])
def test_worked_example_weights(read):
    size = (5, 5)
    theta = affine.from_pixels(WORKED, size, size)
    grid = affine_grid(theta, size)
    # A picture that is 1 at one pixel shows that pixel's weight in each output pixel.
    weights = {(1, 2): "0.24", (2, 2): "0.36", (1, 3): "0.16", (2, 3): "0.24"}  # (column, row)
    for row, column in itertools.product(range(5), range(5)):
        U = torch.zeros(1, 1, *size, dtype=F64)
        U[0, 0, row, column] = 1
        expected = float(weights.get((column, row), 0))
        assert read(U, grid)[0, 0, 2, 2].item() == pytest.approx(expected, abs=1e-14)
    assert sum(map(Fraction, weights.values())) == 1
    # On a picture of whole numbers: 0.24·11 + 0.36·12 + 0.16·16 + 0.24·17 = 13.6.
    U = torch.arange(25, dtype=F64).reshape(1, 1, 5, 5)
    V = read(U, grid)[0, 0]
    assert V[2, 2].item() == pytest.approx(13.6, abs=1e-13)
    assert V[1, 1].item() == pytest.approx(1.1 + 5 * 1.4, abs=1e-13)
    assert V[3, 2].item() == pytest.approx(2.1 + 5 * 2.4, abs=1e-13)


def test_worked_example_rounded():
    grid = at([[1.6, 2.4], [2.1, 2.4]], (5, 5))
    U = torch.arange(25, dtype=F64).reshape(1, 1, 5, 5)
    assert sample(U, grid, "nearest").flatten().tolist() == [12, 12]
    assert len(set(sample(U, grid).flatten().tolist())) == 2


@each_corners
def test_ten_pixels_stretched_to_a_hundred(align_corners):
    U = torch.arange(10, dtype=F64).reshape(1, 1, 1, 10)
    grid = affine_grid(affine.identity(dtype=F64), (1, 100), align_corners=align_corners)
    V = sample(U, grid, padding="border", align_corners=align_corners).flatten()
    if align_corners:  # pixel i reads i/11: both ends are kept
        exact = [Fraction(i * 9, 99) for i in range(100)]
    else:  # pixel i reads (i + ½)/10 − ½: five pixels at each end lie outside the outer centres
        exact = [min(max(Fraction(2 * i + 1, 20) - Fraction(1, 2), 0), 9) for i in range(100)]
        assert V[:5].tolist() == [0] * 5
        assert V[-5:].tolist() == [9] * 5
    close(V, torch.tensor([float(e) for e in exact], dtype=F64), 1e-14)
    nearest = sample(U, grid, "nearest", "border", align_corners=align_corners).flatten()
    assert nearest.tolist() == [round(e) for e in exact]
    if not align_corners:
        assert nearest.long().bincount().tolist() == [10] * 10


# --- The identity ---


@each_corners
@each_padding
@each_mode
@pytest.mark.parametrize("size", [(1, 1), (5, 5), (28, 28), (27, 33), (224, 224)], ids=str)
def test_identity_is_exact(size, mode, padding, align_corners):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, F64):
        U = torch.randn(2, 2, *size).to(dtype)
        theta = affine.identity(2, dtype=dtype)
        grid = affine_grid(theta, size, align_corners=align_corners)
        V = sample(U, grid, mode, padding, align_corners=align_corners)
        assert V.dtype == dtype
        assert torch.equal(V, U)


@each_mode
def test_identity_is_exact_with_a_narrower_grid(mode):
    U = torch.randn(1, 1, 27, 33, dtype=F64)
    grid = regular_grid((27, 33))[None]
    assert grid.dtype == torch.float32
    assert torch.equal(sample(U, grid, mode), U)


@each_corners
@each_mode
@pytest.mark.parametrize("width", [4096, 10007])
def test_identity_is_exact_on_wide_pictures(width, mode, align_corners):
    U = torch.randn(1, 1, 1, width)
    grid = regular_grid((1, width), align_corners=align_corners)[None]
    assert torch.equal(sample(U, grid, mode, align_corners=align_corners), U)


def test_identity_by_hand_and_by_the_sum():
    U = torch.randn(1, 2, 5, 7)
    grid = regular_grid((5, 7))[None]
    assert torch.equal(sample_bilinear(U, grid), U)
    for kernel in KERNELS.values():
        close(sample_sum(U, grid, kernel), U, 1e-5)


# --- The position depends on the grid's value alone ---


@each_corners
@each_padding
@each_mode
@pytest.mark.parametrize(
    ("dtype", "grid_dtype"), [(torch.float32, torch.float32), (F64, torch.float32), (F64, F64)]
)
def test_equal_values_read_the_same_place_everywhere(
    dtype, grid_dtype, mode, padding, align_corners
):
    """On 7×9 output pixels; whole and half positions and edges among the values, and the slopes."""
    H, W = 3, 5
    # Slopes are of 1 at least, so that the place shows in the value.
    U = torch.rand(1, 1, H, W, dtype=dtype) + torch.arange(W) ** 2 + 7 * torch.arange(H)[:, None]
    values = [-1.0, 1.0, 0.0, 0.5, 0.1, -0.3, 0.2, 1 / 3, -0.8, 1.1, *torch.randn(20).tolist()]
    for x, y in itertools.pairwise(values):
        grid = torch.tensor([x, y], dtype=grid_dtype).expand(1, 7, 9, 2).clone().requires_grad_()
        V = sample(U, grid, mode, padding, align_corners=align_corners)
        assert V.unique().numel() == 1
        if mode != "nearest":
            (slope,) = torch.autograd.grad(V.sum(), grid)
            assert slope.flatten(0, 2).unique(dim=0).shape[0] == 1


@each_corners
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("width", [1, 2, 4, 5, 10, 28, 37, 224, 1001])
def test_whole_and_half_positions_are_read_as_such(width, dtype, align_corners):
    """Written as n/W, rounded once, they lose nothing: halves round to even at every width."""
    side = width - align_corners
    n = torch.arange(-side, side + 1)
    x = n.to(dtype) / max(side, 1)
    grid = torch.stack([x, torch.zeros_like(x)], -1)[None, None].requires_grad_()
    pixel = [Fraction(k + width - 1, 2) for k in n.tolist()]
    U = torch.arange(width, dtype=dtype).reshape(1, 1, 1, width)
    V = sample(U, grid, "nearest", "border", align_corners=align_corners)
    assert V.flatten().tolist() == [min(max(round(p), 0), width - 1) for p in pixel]
    V = sample(U, grid, padding="border", align_corners=align_corners)
    assert V.flatten().tolist() == [min(max(float(p), 0), width - 1) for p in pixel]
    # At whole positions too, the slope is that of the cell to the right: 1, and 0 at the last.
    slope = torch.autograd.grad(V.sum(), grid)[0][..., 0].flatten() / (side / 2 or 1)
    assert slope.tolist() == [float(0 <= p < width - 1) for p in pixel]


def test_a_float32_grid_over_a_float64_picture_is_read_as_it_is():
    """Pixel centres are known in the grid's own dtype; what lies between is not rounded again."""
    U = torch.arange(1000, dtype=F64).reshape(1, 1, 1, 1000)
    grid = torch.tensor([0.1, 0.0]).expand(1, 1, 3, 2)
    exact = (Fraction(grid[0, 0, 0, 0].item()) + 1) * 500 - Fraction(1, 2)
    assert sample(U, grid).flatten().tolist() == pytest.approx([float(exact)] * 3, abs=1e-12)
    assert float(exact) == pytest.approx(549.50000075, abs=1e-8)


@each_corners
@given(st.floats(-1.25, 1.25, width=32), st.integers(2, 300))
def test_positions_never_run_backwards(align_corners, x, width):
    """From one float32 to the next: nothing jumps where the nearest half pixel changes."""
    side = width - align_corners
    quarter = (2 * round(x * side) + 1) / (2 * side)
    steps = [torch.tensor([x, quarter, quarter - 1e-6])]
    for _ in range(20):
        steps.append(torch.nextafter(steps[-1], torch.tensor(math.inf)))
    x = torch.stack(steps, dim=1)
    grid = torch.stack([x, torch.zeros_like(x)], -1)[None]
    U = torch.arange(width, dtype=torch.float32).expand(1, 1, 1, width)
    V = sample(U, grid, padding="border", align_corners=align_corners)
    assert (V.diff(dim=-1) >= 0).all()


# --- Agreement with others ---


@each_corners
@each_padding
@each_mode
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 6), (7, 1), (1, 1)], ids=str)
def test_agrees_with_torch(size, mode, padding, align_corners):
    """Forward and backward, from three sides outside; for one pixel with aligned corners too."""
    U = torch.randn(2, 3, *size, dtype=F64, requires_grad=True)
    grid = off_lattice((2, 20, 17), size, align_corners).requires_grad_()
    ours = sample(U, grid, mode, padding, align_corners=align_corners)
    theirs = F.grid_sample(U, grid, mode, padding, align_corners=align_corners)
    close(ours, theirs)
    weights = torch.randn_like(ours)
    dU, dgrid = torch.autograd.grad((ours * weights).sum(), (U, grid))
    dU_theirs, dgrid_theirs = torch.autograd.grad((theirs * weights).sum(), (U, grid))
    close(dU, dU_theirs)
    close(dgrid, dgrid_theirs)
    if mode == "nearest":
        assert not dgrid.any()


@each_mode
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_agrees_with_torch_far_outside(mode, padding):
    U = torch.randn(1, 2, 5, 6, dtype=F64, requires_grad=True)
    axis = torch.tensor([-1e30, -1e10, -1e3, 0.13, 1e3, 1e10, 1e30], dtype=F64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None]
    # PyTorch goes by int64 inside, which 1e30 overflows.
    ours, theirs = sample(U, grid, mode, padding), F.grid_sample(
        U, grid.clamp(-1e4, 1e4), mode, padding, align_corners=False
    )  # fmt: skip
    close(ours, theirs)


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 6), (1, 1)], ids=str)
@pytest.mark.parametrize("order", [0, 1])
@each_padding
def test_agrees_with_scipy(size, order, padding):
    U = torch.randn(1, 1, *size, dtype=F64)
    grid = off_lattice((1, 20, 17), size, reach=1.0)
    x, y = normalised_to_pixel(grid, size)[0].unbind(-1)
    # 'grid-constant' goes on between the last pixel and the zeros, as we do; 'constant' cuts off.
    name = {"zeros": "grid-constant", "border": "nearest", "reflection": "reflect"}[padding]
    theirs = map_coordinates(U[0, 0].numpy(), [y.numpy(), x.numpy()], order=order, mode=name)
    close(sample(U, grid, MODES[order], padding)[0, 0], torch.from_numpy(theirs))


@pytest.mark.parametrize("mode", KERNELS)
@pytest.mark.parametrize("size", [(4, 5), (1, 3), (1, 1)], ids=str)
def test_the_sum_agrees_with_the_sampler(size, mode):
    U = torch.randn(2, 2, *size, dtype=F64)
    grid = off_lattice((2, 4, 3), size, reach=1.2)
    close(sample_sum(U, grid, KERNELS[mode]), sample(U, grid, mode))


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 6), (1, 1)], ids=str)
def test_by_hand_agrees_with_the_sampler(size):
    U = torch.randn(2, 3, *size, dtype=F64, requires_grad=True)
    positions = torch.cat([
        off_lattice((2, 6, 7), size),
        # The lattice too: both take the derivative to the right.
        pixel_to_normalised(torch.randint(-2, 9, (2, 6, 7, 2)).to(F64), size),
    ])  # fmt: skip
    for grid in positions.split(2):
        grid.requires_grad_()
        weights = torch.randn(2, 3, 6, 7, dtype=F64)
        results = []
        for read in (sample, sample_bilinear):
            V = read(U, grid)
            results.append((V, *torch.autograd.grad((V * weights).sum(), (U, grid))))
        close(*results)


# --- Gradients ---


@each_corners
@each_padding
@each_mode
def test_gradcheck(mode, padding, align_corners):
    U = torch.randn(2, 2, 4, 3, dtype=F64, requires_grad=True)
    grid = off_lattice((2, 3, 2), (4, 3), align_corners, reach=1.2).requires_grad_()
    assert gradcheck(
        lambda U, grid: sample(U, grid, mode, padding, align_corners=align_corners), (U, grid)
    )


def test_gradcheck_by_hand_and_by_the_sum():
    U = torch.randn(2, 2, 3, 4, dtype=F64, requires_grad=True)
    grid = off_lattice((2, 2, 3), (3, 4), reach=1.2).requires_grad_()
    assert gradcheck(sample_bilinear, (U, grid))
    assert gradcheck(sample_bilinear, (U.detach(), grid))
    assert gradcheck(sample_bilinear, (U, grid.detach()))
    assert gradcheck(sample_sum, (U[:1, :1], grid[:1]))


def test_by_hand_cannot_be_differentiated_twice():
    U = torch.randn(1, 1, 3, 3, requires_grad=True)
    grid = (0.9 * regular_grid((3, 3))[None]).requires_grad_()
    V = sample_bilinear(U, grid)
    (dU,) = torch.autograd.grad(V.square().sum(), U, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dU.sum().backward()


@pytest.mark.parametrize("read", [sample, sample_bilinear])
def test_slope_at_whole_pixels_is_the_one_to_the_right_and_below(read):
    """Between pixels k and k + 1 the slope in x is U[k + 1] − U[k], at k itself too."""
    H, W = 4, 8
    U = torch.randn(1, 1, H, W, dtype=F64)
    grid = regular_grid((H, W), dtype=F64)[None].requires_grad_()
    (slope,) = torch.autograd.grad(read(U, grid).sum(), grid)
    in_pixels = slope[0] * torch.tensor([2 / W, 2 / H])
    beyond = F.pad(U[0, 0], (0, 1, 0, 1))
    close(in_pixels[..., 0], beyond[:-1, 1:] - beyond[:-1, :-1])
    close(in_pixels[..., 1], beyond[1:, :-1] - beyond[:-1, :-1])


@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_slope_is_zero_from_the_last_pixel_on(padding):
    """As far as the picture goes on unchanged: for ever, or for half a pixel with a mirror."""
    H, W = 4, 8
    U = torch.randn(1, 1, H, W, dtype=F64)
    # Eight of them: an output of a power of two keeps the lattice's positions exact.
    points = [[c, r] for c in (7, 7.2) for r in (3, 3.2, 3.3, 3.4)]
    grid = at(points, (H, W)).requires_grad_()
    (slope,) = torch.autograd.grad(sample(U, grid, padding=padding).sum(), grid)
    assert not slope.any()
    before = at([[-0.3, -0.3]], (H, W)).requires_grad_()
    assert not torch.autograd.grad(sample(U, before, padding=padding).sum(), before)[0].any()
    # The first pixel's own slope is the one to the right.
    first = at([[0, 0]], (H, W)).requires_grad_()
    (slope,) = torch.autograd.grad(sample(U, first, padding=padding).sum(), first)
    right, below = U[0, 0, 0, 1] - U[0, 0, 0, 0], U[0, 0, 1, 0] - U[0, 0, 0, 0]
    close(slope.flatten(), torch.stack([right * W / 2, below * H / 2]))


@each_corners
@each_padding
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_constant_picture_has_no_slope(mode, padding, align_corners):
    """On the lattice, where the paper's printed sub-gradient would give 1, and off it."""
    size = (8, 16)
    U = torch.ones(1, 1, *size, dtype=F64)
    inside = [[c / 2, r / 2] for c in range(4, 24) for r in range(4, 10)]
    grid = at(inside, size, align_corners).requires_grad_()
    V = sample(U, grid, mode, padding, align_corners=align_corners)
    close(V, torch.ones_like(V), 1e-14)
    close(torch.autograd.grad(V.sum(), grid)[0], torch.zeros_like(grid), 1e-13)


def test_the_sum_also_takes_a_subgradient():
    """At a whole pixel the tent's corner is met: autograd's choice for |d| there is 0."""
    U = torch.ones(1, 1, 3, 3, dtype=F64)
    grid = at([[1, 1]], (3, 3)).requires_grad_()
    (slope,) = torch.autograd.grad(sample_sum(U, grid).sum(), grid)
    assert slope.isfinite().all()


@each_mode
def test_the_last_but_one_cell_reaches_every_picture_pixel(mode):
    """The gradient in U of the sum of an identity warp is 1 everywhere."""
    U = torch.randn(1, 2, 5, 6, dtype=F64, requires_grad=True)
    (dU,) = torch.autograd.grad(sample(U, regular_grid((5, 6), dtype=F64)[None], mode).sum(), U)
    assert torch.equal(dU, torch.ones_like(U))


# --- Properties ---


@given(st.floats(-1.5, 9.5), st.floats(-1.5, 5.5), st.sampled_from(MODES[:2]))
def test_border_is_an_average_of_pixels(x, y, mode):
    U = torch.arange(40, dtype=F64).reshape(1, 1, 5, 8)
    value = sample(U, at([[x, y]], (5, 8)), mode, "border").item()
    assert 0 <= value <= 39 + 1e-12


@given(st.floats(0, 7), st.floats(0, 4))
def test_bilinear_reads_a_plane_as_it_is(x, y):
    U = torch.arange(5, dtype=F64)[:, None] * 10 + torch.arange(8, dtype=F64)
    value = sample(U[None, None], at([[x, y]], (5, 8)), padding="border").item()
    assert value == pytest.approx(10 * y + x, abs=1e-11)


@given(st.floats(-2, 2), st.floats(-2, 2), st.sampled_from(MODES), st.sampled_from(PADDINGS))
def test_sampling_is_linear_in_the_picture(p, q, mode, padding):
    torch.manual_seed(0)
    A, B = torch.randn(2, 1, 1, 4, 5, dtype=F64)
    grid = off_lattice((1, 3, 3), (4, 5), reach=1.5)
    both = p * sample(A, grid, mode, padding) + q * sample(B, grid, mode, padding)
    close(sample(p * A + q * B, grid, mode, padding), both)


@each_padding
@each_mode
def test_channels_and_batches_are_warped_alike_and_apart(mode, padding):
    U = torch.randn(3, 4, 5, 6)
    grid = off_lattice((3, 2, 7), (5, 6)).float()
    V = sample(U, grid, mode, padding)
    assert V.shape == (3, 4, 2, 7)
    for n, c in itertools.product(range(3), range(4)):
        alone = sample(U[n : n + 1, c : c + 1], grid[n : n + 1], mode, padding)
        assert torch.equal(V[n, c], alone[0, 0])
    channels_last = U.contiguous(memory_format=torch.channels_last)
    assert torch.equal(sample(channels_last, grid, mode, padding), V)


# --- Values that are not ordinary ---

ODD = [math.nan, math.inf, -math.inf, 1e10, -1e10, 1e30, -1e30, 3e38, -3e38]


@each_corners
@each_padding
@each_mode
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_odd_positions_have_the_documented_values(mode, padding, align_corners, dtype):
    U = torch.arange(1, 13, dtype=dtype).reshape(1, 1, 3, 4).requires_grad_()
    x = torch.tensor(ODD, dtype=dtype)
    grid = torch.stack([x, torch.zeros_like(x)], -1).reshape(1, 1, -1, 2).requires_grad_()
    V = sample(U, grid, mode, padding, align_corners=align_corners)
    V.sum().backward()
    assert U.grad.isfinite().all()
    assert grid.grad.isfinite().all()
    values = V.flatten().tolist()
    if padding == "zeros":
        assert values == [0] * 9
    elif padding == "border":  # of the middle row, 5 6 7 8
        assert values == pytest.approx([5, 8, 5, 8, 5, 8, 5, 8, 5])
    else:
        assert values[:3] == pytest.approx([5, 5, 5])
        # A cubic overshoots by a few hundredths of the row's steps.
        assert all(4.5 <= v <= 8.5 for v in values)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_odd_positions_by_hand(dtype):
    U = torch.ones(1, 1, 3, 4, dtype=dtype, requires_grad=True)
    x = torch.tensor(ODD, dtype=dtype)
    grid = torch.stack([x, torch.zeros_like(x)], -1).reshape(1, 1, -1, 2).requires_grad_()
    V = sample_bilinear(U, grid)
    V.sum().backward()
    assert not V.any()
    assert not U.grad.any()
    assert not grid.grad.any()


def test_a_nan_position_in_the_sum():
    U, grid = torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 2), math.nan)
    assert sample_sum(U, grid, bilinear_kernel).isnan().all()
    assert sample_sum(U, grid, nearest_kernel).item() == 0
    assert sample_sum(U, grid, bicubic_kernel).item() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_odd_pixel_spreads_as_far_as_its_taps(value):
    U = torch.zeros(1, 1, 9, 9)
    U[0, 0, 4, 4] = value
    grid = regular_grid((9, 9))[None]
    assert (~sample(U, grid, "nearest").isfinite()).nonzero()[:, 2:].tolist() == [[4, 4]]
    rows, columns = (~sample(U, grid).isfinite()).nonzero()[:, 2:].unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 4, 3, 4)
    rows, columns = (~sample(U, grid, "bicubic").isfinite()).nonzero()[:, 2:].unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 5, 2, 5)
    # An edge pixel that is not read must not spread: outside is 0, and not 0 · NaN.
    U = torch.full((1, 1, 3, 3), value)
    for mode in MODES:
        assert sample(U, torch.full((1, 1, 1, 2), 5.0), mode).item() == 0


def test_nearest_rounds_halves_to_even():
    U = torch.arange(5, dtype=F64).reshape(1, 1, 1, 5)
    grid = at([[k + 0.5, 0] for k in range(4)], (1, 5), align_corners=True)
    V = sample(U, grid, "nearest", align_corners=True)
    assert V.flatten().tolist() == [0, 2, 2, 4]
    theirs = F.grid_sample(U, grid, "nearest", align_corners=True)
    assert torch.equal(V, theirs)


@pytest.mark.parametrize("read", [sample, sample_bilinear, sample_sum])
def test_empty_batch_and_empty_output(read):
    for U_shape, grid_shape in [
        ((0, 2, 4, 5), (0, 3, 2, 2)),
        ((2, 2, 4, 5), (2, 0, 3, 2)),
        ((2, 2, 4, 5), (2, 3, 0, 2)),
        ((2, 0, 4, 5), (2, 3, 2, 2)),
        ((0, 1, 4, 5), (0, 0, 0, 2)),
    ]:
        U = torch.zeros(U_shape, requires_grad=True)
        grid = torch.zeros(grid_shape, requires_grad=True)
        V = read(U, grid)
        assert V.shape == (*U_shape[:2], *grid_shape[1:3])
        if V.requires_grad:
            V.sum().backward()
            assert not U.grad.any()
    for mode, padding in itertools.product(MODES, PADDINGS):
        empty = sample(torch.zeros(0, 2, 4, 5), torch.zeros(0, 3, 2, 2), mode, padding)
        assert empty.shape == (0, 2, 3, 2)


# --- Bad input ---


@pytest.mark.parametrize("read", [sample, sample_bilinear, sample_sum])
def test_says_what_is_wrong(read):
    U, grid = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 3, 2)
    with pytest.raises(
        TypeError, match=r"U must have a floating dtype, but torch\.uint8 was given"
    ):
        read(U.to(torch.uint8), grid)
    with pytest.raises(TypeError, match=r"grid must have a floating dtype, but torch\.int64 was"):
        read(U, grid.long())
    with pytest.raises(TypeError, match=r"U must be a torch\.Tensor, but a ndarray was given"):
        read(U.numpy(), grid)
    with pytest.raises(
        ValueError, match=r"U must have shape \(N, C, H, W\), but shape \(2, 4, 4\)"
    ):
        read(U[:, 0], grid)
    with pytest.raises(ValueError, match=r"U must have at least one pixel, but shape \(2, 1, 0, 4"):
        read(U[:, :, :0], grid)
    with pytest.raises(ValueError, match=r"\(N, H, W, 2\).*but shape \(2, 2, 3, 3\) was given"):
        read(U, grid.movedim(-1, 1))
    with pytest.raises(ValueError, match=r"same batch size, but U with 2, grid with 1 were given"):
        read(U, grid[:1])
    with pytest.raises(ValueError, match=r"same device, but U on meta, grid on cpu were given"):
        read(U.to("meta"), grid)


def test_says_which_modes_there_are():
    U, grid = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 3, 2)
    for bad in ("linear", None, ["nearest"], 1):
        with pytest.raises(
            ValueError, match=r"mode must be one of nearest, bilinear, bicubic, but"
        ):
            sample(U, grid, bad)
    with pytest.raises(ValueError, match=r"one of zeros, border, reflection, but 'wrap' was given"):
        sample(U, grid, padding="wrap")


# --- Dtypes, devices, compilation ---


@each_mode
def test_half_precision_pictures(mode):
    """Positions and weights stay in float32: V is what float32 gives, rounded once."""
    U, grid = torch.rand(1, 1, 224, 224), affine_grid(affine.rotation(20), (224, 224))
    for dtype in (torch.float16, torch.bfloat16):
        narrow = U.to(dtype)
        exact = sample(narrow.float(), grid, mode).to(dtype)
        with torch.autocast("cpu", dtype=dtype):
            V = sample(narrow, grid, mode)
        assert V.dtype == dtype
        assert torch.equal(V, exact)
    narrow = U.bfloat16().requires_grad_()
    narrow_grid = grid.bfloat16().requires_grad_()
    sample(narrow, narrow_grid, mode).float().sum().backward()
    assert narrow.grad.dtype == narrow_grid.grad.dtype == torch.bfloat16


def test_dtypes_by_hand():
    for U_dtype, grid_dtype in itertools.product((torch.bfloat16, torch.float32, F64), repeat=2):
        U = torch.rand(1, 1, 5, 5).to(U_dtype).requires_grad_()
        grid = (0.7 * regular_grid((5, 5))[None]).to(grid_dtype).requires_grad_()
        V = sample_bilinear(U, grid)
        V.float().sum().backward()
        assert (V.dtype, U.grad.dtype, grid.grad.dtype) == (U_dtype, U_dtype, grid_dtype)


@pytest.mark.parametrize(("mode", "padding"), list(zip(MODES, PADDINGS, strict=True)))
def test_without_a_graph_break(mode, padding):
    U = torch.rand(2, 1, 9, 7, requires_grad=True)
    theta = affine.rotation(torch.tensor([20.0, 30.0])).requires_grad_()

    def look(U, theta):
        return sample(U, affine_grid(theta, (5, 6)), mode, padding)

    torch.compiler.reset()  # or the other modes' versions count towards the limit
    results = []
    for run in (look, torch.compile(look, fullgraph=True, backend="aot_eager")):
        V = run(U, theta)
        results.append((V, *torch.autograd.grad(V.square().sum(), (U, theta))))
    close(*results, 1e-4)


@needs_cuda
@each_padding
@each_mode
def test_on_cuda(mode, padding):
    U, grid = torch.randn(2, 3, 8, 9, dtype=F64), off_lattice((2, 5, 6), (8, 9))
    close(sample(U.cuda(), grid.cuda(), mode, padding).cpu(), sample(U, grid, mode, padding))
    own = regular_grid((27, 33), device="cuda")[None]
    picture = torch.randn(1, 1, 27, 33, device="cuda")
    assert torch.equal(sample(picture, own, mode, padding), picture)


@needs_cuda
def test_by_hand_on_cuda():
    U = torch.randn(2, 3, 8, 9, dtype=F64, device="cuda", requires_grad=True)
    grid = off_lattice((2, 5, 6), (8, 9)).cuda().requires_grad_()
    assert gradcheck(sample_bilinear, (U[:1, :1], grid[:1]), nondet_tol=1e-10)
    splatted = splat(U, affine.scaling(2.0, device="cuda", dtype=F64).expand(2, 2, 3))
    assert splatted.hits.device.type == "cuda"


# --- splat ---


def count(theta, size, out=None):
    result = splat(torch.ones(1, 1, *size), theta, out)
    return result, [int(t.sum()) for t in (result.hits, result.holes, result.collisions)]


def test_splat_counts():
    result, counts = count(affine.scaling(2), (64, 64))
    assert counts == [1024, 3072, 0]  # 32×32 of the pixels stay in, each on one of 64×64
    assert torch.equal(result.V[:, 0], (~result.holes).float())
    result, counts = count(affine.scaling(0.5), (64, 64))
    assert counts == [4096, 0, 1024]  # four on each of 32×32; outside them there are no holes
    assert result.hits.unique().tolist() == [0, 4]
    assert count(affine.identity(), (27, 33))[1] == [27 * 33, 0, 0]
    assert count(affine.translation(4, 0), (8, 8))[1] == [0, 0, 0]
    assert count(affine.rotation(90), (9, 9))[1] == [81, 0, 0]
    assert count(affine.rotation(30), (64, 64))[0].holes.any()


@pytest.mark.parametrize("side", [28, 48, 64, 100, 192])
def test_splat_of_a_doubled_picture_is_regular(side):
    """Each pixel lands half-way between two: rounding errors must not scatter them."""
    result, counts = count(affine.scaling(2), (side, side))
    assert counts == [side * side // 4, 3 * side * side // 4, 0]
    columns = result.hits[0].sum(0).nonzero().flatten()
    assert (columns.diff() == 2).all()


@given(st.floats(-180, 180), st.floats(0.3, 3), st.floats(-1, 1))
def test_splat_loses_no_pixel_that_stays_inside(degrees, factor, shift):
    theta = affine.compose(
        affine.scaling(factor), affine.rotation(degrees), affine.translation(shift, 0.0)
    )
    U = torch.rand(1, 2, 9, 12, dtype=F64)
    result = splat(U, theta, (40, 30))
    assert result.V.shape == (1, 2, 40, 30)
    assert result.hits.dtype == torch.int64
    points = affine.transform_points(affine.invert(theta), regular_grid((9, 12)).reshape(-1, 2))
    column, row = (normalised_to_pixel(points, (40, 30)) - 1e-3).round()[0].unbind(-1)
    inside = (column >= 0) & (column < 30) & (row >= 0) & (row < 40)
    assert result.hits.sum() == inside.sum()
    # The mean of what landed, times how much landed, is what landed.
    close((result.V * result.hits[:, None]).sum((2, 3))[0], U.flatten(2)[0, :, inside].sum(-1))
    assert not (result.holes & (result.hits > 0)).any()
    assert torch.equal(result.collisions, result.hits > 1)


def test_splat_quarter_turn_and_mean():
    U = torch.randint(0, 256, (1, 2, 8, 8)).double()
    assert torch.equal(splat(U, affine.rotation(90)).V, torch.rot90(U, 1, (2, 3)))
    small = splat(U, affine.identity(), (4, 4))
    close(small.V, F.avg_pool2d(U, 2))
    assert small.hits.unique().tolist() == [4]


def test_splat_takes_an_empty_batch_and_has_a_gradient():
    assert splat(torch.zeros(0, 1, 4, 4), affine.identity(0)).V.shape == (0, 1, 4, 4)
    assert splat(torch.ones(1, 1, 1, 1), affine.identity()).V.tolist() == [[[[1]]]]
    U = torch.rand(1, 1, 4, 4, dtype=F64, requires_grad=True)
    assert gradcheck(lambda U: splat(U, affine.scaling(0.6, dtype=F64)).V, U)
    assert splat(U.bfloat16(), affine.identity(dtype=torch.bfloat16)).V.dtype == torch.bfloat16


def test_splat_says_what_is_wrong():
    U = torch.ones(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"theta must be invertible, but theta\[1\]"):
        splat(U, torch.stack([affine.identity()[0], torch.zeros(2, 3)]))
    with pytest.raises(ValueError, match=r"same batch size, but U with 2, theta with 1 were given"):
        splat(U, affine.identity())
    with pytest.raises(ValueError, match=r"same device, but U on cpu, theta on meta were given"):
        splat(U, affine.identity(2, device="meta"))
    with pytest.raises(ValueError, match=r"theta must have shape \(N, 2, 3\), but shape \(2, 3\)"):
        splat(U, affine.identity()[0])
    with pytest.raises(ValueError, match=r"size must be \(height, width\).*but \(4, 0\) was given"):
        splat(U, affine.identity(2), (4, 0))
    with pytest.raises(
        TypeError, match=r"U must have a floating dtype, but torch\.int64 was given"
    ):
        splat(U.long(), affine.identity(2))


# --- Whose work it is, and who may know whom ---


def forbid(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("PyTorch's own sampling was called")

    for name in ("grid_sample", "affine_grid", "interpolate", "upsample"):
        monkeypatch.setattr(F, name, fail)
    for name in ("grid_sampler", "grid_sampler_2d", "affine_grid_generator"):
        monkeypatch.setattr(torch, name, fail)


def test_calls_nothing_of_torchs_sampling(monkeypatch):
    forbid(monkeypatch)
    U = torch.rand(1, 1, 5, 5, requires_grad=True)
    grid = affine_grid(affine.rotation(20), (3, 3))
    for mode, padding in itertools.product(MODES, PADDINGS):
        sample(U, grid, mode, padding).sum().backward()
    sample_bilinear(U, grid).sum().backward()
    sample_sum(U, grid)
    splat(U, affine.rotation(20))
    pixel_to_normalised(normalised_to_pixel(regular_grid((3, 3)), (3, 3)), (3, 3))


@pytest.mark.parametrize("name", ["grids", "sampling", "affine"])
def test_imports_nothing_of_torchs_sampling(name):
    source = inspect.getsource(importlib.import_module(f"stn_tutorial.{name}"))
    tree = ast.parse(source)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    theirs = {"functional", "nn", "ops", "grid_sample", "grid_sampler", "interpolate"}
    assert not used & theirs
