"""Regular and sampling grids, and the two kinds of coordinates."""

import math
import re
import threading
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.geometry import transform as kornia
from kornia.geometry.grid import create_meshgrid
from kornia.geometry.linalg import transform_points
from matplotlib.tri import LinearTriInterpolator, Triangulation
from scipy.interpolate import RBFInterpolator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import gradcheck
from torch.nn import functional as F

from stn_tutorial import affine, grids
from stn_tutorial.grids import (
    HORIZON,
    affine_grid,
    affine_grid_3d,
    control_points,
    normalised_to_pixel,
    piecewise_affine_grid,
    pixel_to_normalised,
    projective_grid,
    regular_grid,
    thin_plate_spline_grid,
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


# --- projective_grid ---


def homography(n=3):
    """Random homographies whose horizon stays outside the picture: w is 0.4 at least."""
    theta = torch.eye(3, dtype=F64) + 0.3 * (2 * torch.rand(n, 3, 3, dtype=F64) - 1)
    theta[:, 2, 2] = 1
    return theta


def project(theta, points):
    """(x, y) after θ, by the product of matrices that the formula stands for."""
    moved = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1) @ theta.mT
    return moved[..., :2] / moved[..., 2:]


@each_corners
@each_size
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_projective_identity_is_the_regular_grid_bit_for_bit(size, align_corners, dtype):
    grid = projective_grid(
        torch.eye(3, dtype=dtype).expand(2, 3, 3), size, align_corners=align_corners
    )
    own = regular_grid(size, align_corners=align_corners, dtype=dtype)
    assert torch.equal(grid, own.expand(2, *size, 2))
    assert grid.dtype == (F64 if dtype == F64 else torch.float32)


def test_projective_known_values():
    """Of the nine entries no two may be taken for each other."""
    theta = torch.tensor([[[1.0, 10, 100], [2, 20, 200], [0.5, 0.25, 4]]], dtype=F64)
    # Output centres (−½, 0) and (½, 0): (99.5, 199) / 3.75 and (100.5, 201) / 4.25.
    close(projective_grid(theta, (1, 2))[0, 0], torch.tensor(
        [[99.5 / 3.75, 199 / 3.75], [100.5 / 4.25, 201 / 4.25]], dtype=F64
    ))  # fmt: skip
    # (0, −½) and (0, ½): (95, 190) / 3.875 and (105, 210) / 4.125.
    close(projective_grid(theta, (2, 1))[0, :, 0], torch.tensor(
        [[95 / 3.875, 190 / 3.875], [105 / 4.125, 210 / 4.125]], dtype=F64
    ))  # fmt: skip


@each_corners
@each_size
def test_projective_without_perspective_is_affine(size, align_corners):
    theta = random_theta()
    last = torch.tensor([0, 0, 1], dtype=F64).expand(3, 1, 3)
    grid = projective_grid(torch.cat([theta, last], 1), size, align_corners=align_corners)
    close(grid, affine_grid(theta, size, align_corners=align_corners))


@each_corners
@pytest.mark.parametrize("size", [(1, 5), (5, 5), (27, 33)], ids=str)
def test_projective_agrees_with_kornia(size, align_corners):
    """Forward and backward."""
    theta = homography().requires_grad_()
    ours = projective_grid(theta, size, align_corners=align_corners)
    mesh = create_meshgrid(*size, dtype=F64, align_corners=align_corners)
    theirs = kornia.warp_grid(mesh, theta)
    close(ours, theirs)
    points = mesh.reshape(1, -1, 2).expand(3, -1, -1)
    close(ours.flatten(1, 2), transform_points(theta, points))
    weights = torch.randn_like(ours)
    close(*(torch.autograd.grad((g * weights).sum(), theta)[0] for g in (ours, theirs)), 1e-9)
    if not align_corners:
        U = torch.rand(3, 2, 9, 8, dtype=F64)
        V = F.grid_sample(U, ours, align_corners=False)
        close(V, kornia.homography_warp(U, theta, size), 1e-9)


@given(st.integers(0, 10**6))
def test_projective_composition_and_inverse(seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 3, 3)
    a, b = (
        torch.eye(3, dtype=F64) + 0.2 * (2 * torch.rand(shape, generator=generator, dtype=F64) - 1)
        for _ in range(2)
    )
    size = (6, 7)
    close(projective_grid(a @ b, size), project(a[:, None], projective_grid(b, size)), 1e-9)
    back = project(torch.linalg.inv(a)[:, None], projective_grid(a, size))
    close(back, regular_grid(size, dtype=F64)[None], 1e-9)
    # Only the ratios matter, a common sign included.
    for factor in (3.0, -0.5):
        close(projective_grid(factor * a, size), projective_grid(a, size), 1e-9)


def test_projective_corners_land_where_they_should():
    """A θ made by kornia from four corners and where they read."""
    corners = torch.tensor([[[-1.0, -1], [1, -1], [1, 1], [-1, 1]]], dtype=F64)
    read = corners + 0.3 * torch.randn(1, 4, 2, dtype=F64)
    theta = kornia.get_perspective_transform(corners, read)
    grid = projective_grid(theta, (5, 7), align_corners=True)[0]
    close(torch.stack([grid[0, 0], grid[0, -1], grid[-1, -1], grid[-1, 0]]), read[0], 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_projective_at_the_horizon(dtype):
    """w = 0 in the middle row, and a little to either side of 0."""
    theta = torch.tensor([[[1, 0, 1], [0, 1, 0.5], [0, 1, 0]]], dtype=dtype, requires_grad=True)
    grid = projective_grid(theta, (3, 1))
    reached = torch.tensor([1, 0.5], dtype=dtype) / torch.tensor(HORIZON, dtype=dtype)
    torch.testing.assert_close(grid[0, 1, 0], reached, rtol=0, atol=0)
    grid.sum().backward()
    assert theta.grad.isfinite().all()
    for w in (0.5, 1e-30, -1e-30, -0.5):
        nearby = theta.detach().clone()
        nearby[:, 2] = torch.tensor([0, 0, w * HORIZON], dtype=dtype)
        nearby.requires_grad_()
        grid = projective_grid(nearby, (1, 1))
        # + at 0 and above, − below: as far as a denominator of ±HORIZON takes it.
        torch.testing.assert_close(grid[0, 0, 0], math.copysign(1, w) * reached, rtol=0, atol=0)
        assert torch.autograd.grad(grid.sum(), nearby)[0].isfinite().all()
    for w in (1.01, -1.01):  # just outside it is the formula
        theta = torch.tensor([[[1, 0, 1], [0, 1, 0.5], [0, 0, w * HORIZON]]], dtype=dtype)
        torch.testing.assert_close(
            projective_grid(theta, (1, 1))[0, 0, 0], theta[0, :2, 2] / theta[0, 2, 2]
        )


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_projective_is_finite_wherever_the_horizon_is(g, h, i):
    theta = torch.tensor([[[1, 0.5, 0.2], [-0.3, 1, 0.1], [g, h, i]]], requires_grad=True)
    grid = projective_grid(theta, (8, 9))
    assert grid.isfinite().all()
    assert torch.autograd.grad(grid.sum(), theta)[0].isfinite().all()


def test_projective_of_nothing_but_zeros():
    theta = torch.zeros(1, 3, 3, requires_grad=True)
    grid = projective_grid(theta, (3, 3))
    assert not grid.any()
    assert torch.autograd.grad(grid.sum(), theta)[0].isfinite().all()


# --- control_points ---


def test_control_points_known_values():
    assert control_points(2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    points = control_points(3, dtype=F64)
    assert points[:4].tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0]]
    assert points.dtype == F64
    assert control_points(4, dtype=torch.bfloat16).dtype == torch.float32
    assert control_points(4, device="meta").shape == (16, 2)


def test_control_points_say_what_is_wrong():
    for bad in (1, 0, -3, 2.0, True, "4", None):
        message = f"k must be a whole number, 2 or more, but {bad!r} was given"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            control_points(bad)
    with pytest.raises(TypeError, match=r"dtype must be a floating dtype, but torch\.int64 was"):
        control_points(3, dtype=torch.int64)


# --- piecewise_affine_grid and thin_plate_spline_grid ---

BENT = {"piecewise affine": piecewise_affine_grid, "thin-plate spline": thin_plate_spline_grid}
each_bent = pytest.mark.parametrize("bend", BENT.values(), ids=BENT)
each_k = pytest.mark.parametrize("k", [2, 3, 4, 7])


def bent(k, n=2, reach=0.2):
    """Control points, moved at random."""
    return control_points(k, dtype=F64) + reach * torch.randn(n, k * k, 2, dtype=F64)


@each_bent
@each_k
@each_size
def test_unmoved_points_give_the_regular_grid_bit_for_bit(size, k, bend):
    for dtype in (torch.float32, F64):
        grid = bend(control_points(k, dtype=dtype).expand(2, -1, -1), size)
        assert torch.equal(grid, regular_grid(size, dtype=dtype).expand(2, *size, 2))
        assert grid.dtype == dtype


@each_bent
@each_k
@pytest.mark.parametrize("size", [(1, 1), (5, 5), (27, 33)], ids=str)
def test_points_that_move_affinely_give_an_affine_grid(size, k, bend):
    theta = random_theta()
    points = affine.transform_points(theta, control_points(k, dtype=F64))
    close(bend(points, size), affine_grid(theta, size))


@each_bent
def test_grid_at_a_control_point_is_theta(bend):
    """Where a pixel's centre is a control point: never on an edge, and here at 0 and at ±½."""
    theta = bent(3)
    close(bend(theta, (7, 5))[:, 3, 2], theta[:, 4])
    theta = bent(5)
    grid = bend(theta, (6, 6))  # ±½ are its pixels 1 and 4
    inner = theta.view(2, 5, 5, 2)[:, 1::2, 1::2]
    close(grid[:, 1::3, 1::3], inner)
    # The edges' points: from 2000 rows the first is 1/2000 of a side away.
    theta = bent(2)
    grid = bend(theta, (2000, 2))[:, :, 0].lerp(bend(theta, (2000, 2))[:, :, 1], -0.5)
    assert (grid[:, 0] - theta[:, 0]).abs().max() < 0.02
    assert (grid[:, -1] - theta[:, 2]).abs().max() < 0.02


@each_bent
def test_one_point_moves_its_own_neighbourhood(bend):
    """x and y, rows and columns, are not taken for each other."""
    theta = control_points(3, dtype=F64).clone()[None]
    theta[0, 5, 0] += 0.25  # the middle row's last point, to the right
    moved = bend(theta, (9, 9))[0] - regular_grid((9, 9), dtype=F64)
    assert not moved[..., 1].any()
    row, column = divmod(int(moved[..., 0].argmax()), 9)
    assert (row, column) == (4, 8)


@each_k
@pytest.mark.parametrize("size", [(1, 1), (5, 5), (12, 9)], ids=str)
def test_piecewise_agrees_with_matplotlibs_triangles(size, k):
    theta = bent(k)
    points = control_points(k, dtype=F64).numpy()
    corners = [r * k + c for r in range(k - 1) for c in range(k - 1)]
    # Each cell is cut from its upper left to its lower right.
    triangles = [[i, i + 1, i + k + 1] for i in corners] + [[i, i + k + 1, i + k] for i in corners]
    mesh = Triangulation(points[:, 0], points[:, 1], triangles)
    x, y = regular_grid(size, dtype=F64).numpy().transpose(2, 0, 1)
    for grid, sources in zip(piecewise_affine_grid(theta, size), theta.numpy(), strict=True):
        for axis in (0, 1):
            expected = LinearTriInterpolator(mesh, sources[:, axis])(x, y)
            assert not expected.mask.any()
            close(grid[..., axis], torch.from_numpy(expected.data))


@each_k
@pytest.mark.parametrize("size", [(1, 1), (5, 5), (12, 9)], ids=str)
def test_spline_agrees_with_scipy(size, k):
    theta = bent(k)
    at = regular_grid(size, dtype=F64).reshape(-1, 2).numpy()
    points = control_points(k, dtype=F64).numpy()
    for grid, sources in zip(thin_plate_spline_grid(theta, size), theta.numpy(), strict=True):
        spline = RBFInterpolator(points, sources, kernel="thin_plate_spline", degree=1)
        close(grid.reshape(-1, 2), torch.from_numpy(spline(at)), 1e-9)


@each_k
def test_spline_agrees_with_kornia(k):
    """Kornia's spline has its centres where ours has its sources: two maps, alike in two things.

    Both go through the control points, and both are affine where these move affinely. And kornia's
    evaluation takes the classical spline's coefficients, when it is given them.
    """
    size = (9, 12)
    points = control_points(k, dtype=F64).expand(2, -1, -1)
    mesh = (
        create_meshgrid(*size, dtype=F64, align_corners=False).reshape(1, -1, 2).expand(2, -1, -1)
    )

    sources = affine.transform_points(random_theta(2), points)
    weights = kornia.get_tps_transform(points, sources)
    theirs = kornia.warp_points_tps(mesh, sources, *weights).view(2, *size, 2)
    close(thin_plate_spline_grid(sources, size), theirs, 1e-8)

    sources = bent(k)
    distances = torch.cdist(points[0], points[0])
    bends = torch.special.xlogy(distances**2, distances)
    flat = torch.cat([torch.ones(k * k, 1, dtype=F64), points[0]], dim=1)
    system = torch.cat([
        torch.cat([bends, flat], dim=1),
        torch.cat([flat.T, torch.zeros(3, 3, dtype=F64)], dim=1),
    ])  # fmt: skip
    data = torch.cat([sources, torch.zeros(2, 3, 2, dtype=F64)], dim=1)
    coefficients = torch.linalg.solve(system.expand(2, -1, -1), data)
    theirs = kornia.warp_points_tps(mesh, points, *coefficients.split([k * k, 3], dim=1))
    close(thin_plate_spline_grid(sources, size), theirs.view(2, *size, 2), 1e-8)
    # Through the control points: a grid of 5×5, of which k = 5 has the middle one.
    sources = bent(5)
    points = control_points(5, dtype=F64).expand(2, -1, -1)
    theirs = kornia.warp_points_tps(points, sources, *kornia.get_tps_transform(points, sources))
    close(theirs[:, 12], thin_plate_spline_grid(sources, (5, 5))[:, 2, 2], 1e-8)


@given(st.integers(0, 10**6), st.sampled_from(sorted(BENT)), st.integers(2, 5))
def test_bent_grids_are_linear_in_the_movements(seed, name, k):
    bend, size = BENT[name], (5, 6)
    generator = torch.Generator().manual_seed(seed)
    points = control_points(k, dtype=F64)
    a, b = torch.randn(2, 1, k * k, 2, generator=generator, dtype=F64)
    own = regular_grid(size, dtype=F64)
    parts = [bend(points + move, size) - own for move in (a, b, a - 2 * b)]
    close(parts[0] - 2 * parts[1], parts[2], 1e-9)
    # And so undone by the opposite movement, to the first order exactly here.
    close(bend(points - a, size) - own, -parts[0], 1e-9)
    if name == "piecewise affine":  # which never leaves the hull of its sources
        assert bend(points + a, size).amax() <= (points + a).amax() + 1e-9


def test_spline_works_after_inference_mode(monkeypatch):
    grids._kept_spline_weights.cache_clear()
    with torch.inference_mode():
        first = thin_plate_spline_grid(control_points(3)[None], (5, 6))
    theta = control_points(3)[None].requires_grad_()
    grid = thin_plate_spline_grid(theta, (5, 6))
    grid.square().sum().backward()
    assert theta.grad.any()
    assert torch.equal(grid, first)
    info = grids._kept_spline_weights.cache_info()
    assert (info.misses, info.hits) == (1, 1)
    # What is kept is solved once: a second size and dtype ask no more of the solver.
    grids._spline_system(3)

    def fail(*args):
        raise AssertionError("the spline's system was solved again")

    monkeypatch.setattr(grids.np.linalg, "solve", fail)
    for size, dtype in (((5, 6), torch.float32), ((7, 7), torch.float32), ((5, 6), F64)):
        assert thin_plate_spline_grid(control_points(3, dtype=dtype)[None], size).dtype == dtype


def test_spline_keeps_each_dtype_and_device_apart():
    grids._kept_spline_weights.cache_clear()
    theta = bent(4)
    exact = thin_plate_spline_grid(theta, (9, 9))
    assert thin_plate_spline_grid(theta.to("meta"), (9, 9)).device.type == "meta"
    single = thin_plate_spline_grid(theta.float(), (9, 9))
    assert single.dtype == torch.float32
    close(single.double(), exact, 1e-6)
    assert torch.equal(thin_plate_spline_grid(theta, (9, 9)), exact)
    assert grids._kept_spline_weights.cache_info().currsize == 3


def test_spline_keeps_nothing_that_stands_for_something_else():
    """A fake tensor that was kept would make each later, real call fail."""
    grids._kept_spline_weights.cache_clear()
    with FakeTensorMode():
        assert isinstance(thin_plate_spline_grid(torch.zeros(2, 9, 2), (5, 5)), FakeTensor)
    theta = control_points(3)[None].requires_grad_()
    assert type(thin_plate_spline_grid(theta, (5, 5))) is torch.Tensor
    with FakeTensorMode():  # and one that was kept is of no use among fake ones
        assert isinstance(thin_plate_spline_grid(torch.zeros(2, 9, 2), (5, 5)), FakeTensor)
    grids._kept_spline_weights.cache_clear()
    moved = torch.func.vmap(lambda t: thin_plate_spline_grid(t[None], (5, 5))[0])(bent(3).float())
    slope = torch.func.grad(lambda t: thin_plate_spline_grid(t, (5, 5)).sum())(theta.detach())
    assert moved.shape == (2, 5, 5, 2)
    assert slope.any()
    thin_plate_spline_grid(theta, (5, 5)).sum().backward()
    close(theta.grad, slope)


def test_spline_from_many_threads():
    grids._kept_spline_weights.cache_clear()
    theta = bent(4)
    expected = {s: thin_plate_spline_grid(theta, (s, s)) for s in range(3, 9)}
    grids._kept_spline_weights.cache_clear()
    wrong = []

    def work(start):
        for turn in range(12):
            side = 3 + (start + turn) % 6
            own = theta.clone().requires_grad_()
            grid = thin_plate_spline_grid(own, (side, side))
            grid.sum().backward()
            if not torch.equal(grid, expected[side]) or not own.grad.any():
                wrong.append(side)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("k", [4, 16])
def test_spline_is_as_exact_inside_a_trace(k):
    """There nothing is kept, and the constant's float32 would be 0.01 pixels off for k = 16."""
    torch.compiler.reset()
    theta, size = bent(k, reach=0.1).float(), (56, 56)
    compiled = torch.compile(thin_plate_spline_grid, fullgraph=True, backend="aot_eager")
    flaw = compiled(theta, size) - thin_plate_spline_grid(theta.double(), size)
    assert flaw.abs().max() * 112 < 1e-4  # in pixels of a picture of 224


# --- affine_grid_3d ---


def random_theta_3d(n=2):
    return torch.eye(3, 4, dtype=F64) + 0.3 * torch.randn(n, 3, 4, dtype=F64)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior has changed")
@each_corners
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 4), (5, 5, 5), (1, 6, 7)], ids=str)
def test_3d_agrees_with_torch(size, align_corners):
    """Forward and backward."""
    theta = random_theta_3d().requires_grad_()
    ours = affine_grid_3d(theta, size, align_corners=align_corners)
    theirs = F.affine_grid(theta, [2, 1, *size], align_corners=align_corners)
    close(ours, theirs)
    weights = torch.randn_like(ours)
    close(*(torch.autograd.grad((g * weights).sum(), theta)[0] for g in (ours, theirs)), 1e-9)
    U = torch.rand(2, 1, 4, 3, 5, dtype=F64)
    close(*(F.grid_sample(U, g, align_corners=align_corners) for g in (ours, theirs)), 1e-9)


@each_corners
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_3d_identity_is_the_regular_grid_bit_for_bit(dtype, align_corners):
    size = (3, 4, 5)
    grid = affine_grid_3d(torch.eye(3, 4, dtype=dtype)[None], size, align_corners=align_corners)
    assert grid.dtype == (F64 if dtype == F64 else torch.float32)
    settings = {"align_corners": align_corners, "dtype": dtype}
    plane = regular_grid(size[1:], **settings)
    z = regular_grid((size[0], 1), **settings)[:, 0, 1]
    for depth in range(3):
        assert torch.equal(grid[0, depth, :, :, :2], plane)
        assert (grid[0, depth, :, :, 2] == z[depth]).all()


def test_3d_known_values():
    """Of the twelve entries no two may be taken for each other."""
    theta = torch.tensor([[[1.0, 10, 100, 1000], [2, 20, 200, 2000], [3, 30, 300, 3000]]])
    x, y, z = (affine_grid_3d(theta, size)[0, -1, -1, -1] for size in
               ((1, 1, 2), (1, 2, 1), (2, 1, 1)))  # fmt: skip
    assert x.tolist() == [1000.5, 2001, 3001.5]
    assert y.tolist() == [1005, 2010, 3015]
    assert z.tolist() == [1050, 2100, 3150]


# --- All of them ---

ALL = {
    "affine": (affine_grid, random_theta, (4, 5)),
    "projective": (projective_grid, homography, (4, 5)),
    "piecewise affine": (piecewise_affine_grid, lambda: bent(3), (4, 5)),
    "thin-plate spline": (thin_plate_spline_grid, lambda: bent(3), (4, 5)),
    "affine 3-D": (affine_grid_3d, random_theta_3d, (2, 3, 4)),
}
each_grid = pytest.mark.parametrize(("make", "theta", "size"), ALL.values(), ids=ALL)


@each_grid
def test_every_grid_has_a_gradient(make, theta, size):
    theta = theta()[:2].requires_grad_()
    assert gradcheck(lambda t: make(t, size), theta)


@each_grid
def test_every_grid_takes_an_empty_batch(make, theta, size):
    theta = theta()[:0].requires_grad_()
    grid = make(theta, size)
    assert grid.shape == (0, *size, len(size))
    assert torch.autograd.grad(grid.sum(), theta)[0].shape == theta.shape


@each_grid
def test_every_grid_lets_nan_through(make, theta, size):
    theta = theta()[:2]
    theta[1] = math.nan
    grid = make(theta, size)
    assert grid[0].isfinite().all()
    assert grid[1].isnan().all()


@each_grid
def test_every_grid_takes_a_theta_that_is_not_contiguous(make, theta, size):
    theta = theta()[:2]
    other = theta.mT.contiguous().mT
    assert not other.is_contiguous()
    close(make(other, size), make(theta, size))
    assert make(theta[:1].expand(3, -1, -1), size).shape == (3, *size, len(size))
    assert make(theta.to("meta"), size).device.type == "meta"


@each_grid
def test_every_grid_says_what_is_wrong(make, theta, size):
    theta = theta()[:2]
    with pytest.raises(TypeError, match=r"^theta must be a torch\.Tensor, but a list was given$"):
        make(theta.tolist(), size)
    with pytest.raises(TypeError, match=r"^theta must have a floating dtype, but torch\.int64 was"):
        make(theta.long(), size)
    expected = {4: "(N, 3, 4)", 2: "(N, k², 2)"}.get(theta.shape[2], f"(N, {theta.shape[1]}, 3)")
    for bad in (theta[0], theta[:, :, :1], theta[None]):
        message = f"theta must have shape {expected}, but shape {tuple(bad.shape)} was given"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            make(bad, size)
    count = "three" if len(size) == 3 else "two"
    sides = "depth, height, width" if len(size) == 3 else "height, width"
    for bad in (5, (5,), (*size, 1), (0, *size[1:]), (-1, *size[1:]), (2.5, *size[1:]), "55", None):
        message = f"size must be ({sides}), {count} positive whole numbers, but {bad!r} was given"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            make(theta, bad)


@each_bent
def test_control_points_must_fill_a_square(bend):
    for count in (0, 1, 2, 8, 15):
        message = (
            "theta must have shape (N, k², 2) with k at least 2, "
            f"but shape (2, {count}, 2) was given"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            bend(torch.zeros(2, count, 2), (4, 4))


@each_grid
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_grid_in_half_precision_in_pixels(make, theta, size, dtype):
    """From what a layer under autocast hands over, the grid is as exact as in float32."""
    narrow = theta()[:2].to(dtype)
    size = (8, 16, 224) if len(size) == 3 else (224, 224)
    exact = make(narrow.double(), size)
    with torch.autocast("cpu", dtype=dtype):
        grid = make(narrow, size)
    assert grid.dtype == torch.float32
    # Relative to how far it reads: under a homography that may be some sides away.
    reach = exact.abs().amax().clamp(min=1)
    assert ((grid - exact).abs().max() / reach * 112) < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each_grid
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_every_grid_on_cuda(make, theta, size, dtype):
    theta = theta()[:2].to(dtype)
    expected = make(theta, size)
    weights = torch.randn_like(expected)
    results = []
    for device in ("cpu", "cuda"):
        own = theta.to(device).requires_grad_()
        grid = make(own, size)
        slope = torch.autograd.grad((grid * weights.to(device)).sum(), own)[0]
        results.append((grid.cpu(), slope.cpu()))
    close(*results, 1e-10 if dtype == F64 else 1e-4)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        again = make(theta.cuda(), size)
    assert again.dtype == dtype
    close(again.cpu(), results[1][0], 1e-12 if dtype == F64 else 1e-6)


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
