r"""Grids: where each output pixel stands, and where it reads (chapters 3, 4 and 9).

*Convention.* A grid has shape (N, H, W, 2), (x, y) last, in normalised coordinates: the output
pixel in row i and column j reads the input at `grid[n, i, j]`. With `align_corners=False`, the
book's choice throughout, −1 and 1 are the outer *edges* of the picture, and the centre of pixel j
of W is (2j + 1)/W − 1. With `align_corners=True`, which chapters 3 and 5 show for comparison, they
are the *centres* of the first and last pixels.

Grids are computed in float32 at least, and outside autocast. The identity, whatever the map, gives
the regular grid bit for bit.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_count,
    check_floating,
    check_shape,
    check_size,
    check_theta,
    check_volume_size,
    without_autocast,
)

__all__ = [
    "affine_grid",
    "affine_grid_3d",
    "control_points",
    "normalised_to_pixel",
    "piecewise_affine_grid",
    "pixel_to_normalised",
    "projective_grid",
    "regular_grid",
    "thin_plate_spline_grid",
]

HORIZON = 1e-4
"""The smallest denominator of a projective map, in size; see `projective_grid`."""


def _centres(count: int, align_corners: bool, like: Tensor) -> Tensor:
    """Normalised positions of `count` pixel centres along one axis."""
    # The numerator is a whole number, so each centre is rounded once, and the row is symmetric.
    if align_corners:
        numerator = 2 * torch.arange(count, device=like.device) - (count - 1)
        return numerator.to(like.dtype) / max(count - 1, 1)
    numerator = 2 * torch.arange(count, device=like.device) + 1 - count
    return numerator.to(like.dtype) / count


def regular_grid(
    size: Size,
    *,
    align_corners: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the positions of a picture's own pixel centres: the paper's regular grid G.

    Args:
        size: (H, W) in pixels.
        align_corners: see the module; with True a single pixel stands at 0.
        dtype: floating dtype of the result; half precision is widened to float32.
        device: device of the result.

    Returns:
        Grid of shape (H, W, 2), (x, y) last.

    Example:
        >>> regular_grid((2, 2))
        tensor([[[-0.5000, -0.5000],
                 [ 0.5000, -0.5000]],
        <BLANKLINE>
                [[-0.5000,  0.5000],
                 [ 0.5000,  0.5000]]])
    """
    height, width = check_size(size)
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating dtype, but {dtype} was given")
    like = torch.empty(0, dtype=at_least_float32(dtype), device=device)
    y = _centres(height, align_corners, like)
    x = _centres(width, align_corners, like)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def affine_grid(theta: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    r"""Return where each output pixel reads: the paper's sampling grid, eq. (1).

    .. math:: (x^s, y^s)^T = \theta\,(x^t, y^t, 1)^T

    for each target position (xᵗ, yᵗ) of the regular grid. The same result as
    `torch.nn.functional.affine_grid`, except that the identity gives the regular grid bit for bit.

    Args:
        theta: shape (N, 2, 3), output to input; N may be 0.
        size: (H, W) of the output.
        align_corners: see the module.

    Returns:
        Grid of shape (N, H, W, 2) in θ's dtype, float32 at least. NaN and infinities in θ go
        through as arithmetic takes them.

    Example:
        >>> theta = torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]])  # twice as large
        >>> affine_grid(theta, (2, 2))
        tensor([[[[-0.2500, -0.2500],
                  [ 0.2500, -0.2500]],
        <BLANKLINE>
                 [[-0.2500,  0.2500],
                  [ 0.2500,  0.2500]]]])
    """
    check_theta(theta)
    height, width = check_size(size)
    theta = theta.to(at_least_float32(theta.dtype))
    y = _centres(height, align_corners, theta)[:, None]
    x = _centres(width, align_corners, theta)
    # Products and sums one by one, not a matrix product: autocast and TF32 leave them alone, and
    # 1·x + 0·y + 0 is x exactly.
    t = theta[:, :, :, None, None]
    return torch.stack([t[:, r, 0] * x + t[:, r, 1] * y + t[:, r, 2] for r in (0, 1)], dim=-1)


def affine_grid_3d(theta: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    r"""Return where each output voxel reads: `affine_grid` with one axis more.

    Args:
        theta: shape (N, 3, 4), output to input; rows and columns in the order x, y, z.
        size: (D, H, W) of the output.
        align_corners: see the module.

    Returns:
        Grid of shape (N, D, H, W, 3), (x, y, z) last, z along the depth, in θ's dtype, float32 at
        least.

    Example:
        >>> theta = torch.eye(3, 4)[None]
        >>> affine_grid_3d(theta, (1, 1, 2))
        tensor([[[[[-0.5000,  0.0000,  0.0000],
                   [ 0.5000,  0.0000,  0.0000]]]]])
    """
    check_shape("theta", theta, "(N, 3, 4)", 3, 4, ndim=3)
    depth, height, width = check_volume_size(size)
    theta = theta.to(at_least_float32(theta.dtype))
    z = _centres(depth, align_corners, theta)[:, None, None]
    y = _centres(height, align_corners, theta)[:, None]
    x = _centres(width, align_corners, theta)
    t = theta[:, :, :, None, None, None]
    rows = [t[:, r, 0] * x + t[:, r, 1] * y + t[:, r, 2] * z + t[:, r, 3] for r in (0, 1, 2)]
    return torch.stack(rows, dim=-1)


def projective_grid(theta: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    r"""Return where each output pixel reads under a projective map (a homography).

    .. math:: (n_x, n_y, w)^T = \theta\,(x^t, y^t, 1)^T, \quad (x^s, y^s) = (n_x, n_y) / w

    Where w is 0 the position is infinitely far away: a line of the output, the horizon. There a
    denominator smaller than `HORIZON` in size is replaced by ±`HORIZON` (with w's sign; + at 0), so
    that positions and gradients are finite wherever θ is. Beyond the horizon, where w < 0, the
    formula goes on to hold, and the picture is seen mirrored.

    Args:
        theta: shape (N, 3, 3), output to input. Only its ratios matter, as long as denominators
            are well above `HORIZON`: scale it so that its last entry is 1.
        size: (H, W) of the output.
        align_corners: see the module.

    Returns:
        Grid of shape (N, H, W, 2) in θ's dtype, float32 at least.

    Example:
        >>> theta = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0.5, 1]]])
        >>> projective_grid(theta, (2, 1))  # the lower edge is further away
        tensor([[[[ 0.0000, -0.6667]],
        <BLANKLINE>
                 [[ 0.0000,  0.4000]]]])
    """
    check_shape("theta", theta, "(N, 3, 3)", 3, 3, ndim=3)
    height, width = check_size(size)
    theta = theta.to(at_least_float32(theta.dtype))
    y = _centres(height, align_corners, theta)[:, None]
    x = _centres(width, align_corners, theta)
    t = theta[:, :, :, None, None]
    # In this order only the last sum is of the picture's size.
    n_x, n_y, w = (t[:, r, 0] * x + (t[:, r, 1] * y + t[:, r, 2]) for r in (0, 1, 2))
    horizon = w.new_full((), HORIZON)
    floor = torch.where(w < 0, -horizon, horizon)
    # NaN is no smaller than HORIZON: it goes through, as it does in the other grids.
    w = torch.where(w.abs() < HORIZON, floor, w)
    return torch.stack([n_x / w, n_y / w], dim=-1)


def control_points(
    k: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Return k×k points that span the picture, edges included, row by row.

    Args:
        k: points along each side, at least 2.
        dtype: floating dtype of the result; half precision is widened to float32.
        device: device of the result.

    Returns:
        Points of shape (k², 2), (x, y) last, from (−1, −1) to (1, 1).

    Example:
        >>> control_points(2)
        tensor([[-1., -1.],
                [ 1., -1.],
                [-1.,  1.],
                [ 1.,  1.]])
    """
    k = check_count("k", k, 2)
    return regular_grid((k, k), align_corners=True, dtype=dtype, device=device).view(k * k, 2)


def _points_a_side(theta: Tensor) -> int:
    """Return k of θ's k×k control points; raise unless θ holds such points."""
    check_shape("theta", theta, "(N, k², 2)", 2, ndim=3)
    # While `torch.jit.trace` runs, an axis of a tensor is itself a tensor, a list's length is not.
    count = len(theta.unbind(1)) if torch.jit.is_tracing() else theta.shape[1]
    # Counted up, so that k is a plain number even where the axis is a symbol: the spline's system
    # is solved for each k, and a compiled graph is made for each.
    k = 2
    while k * k < count:
        k += 1
    if k * k != count:
        raise ValueError(
            "theta must have shape (N, k², 2) with k at least 2, "
            f"but shape {tuple(theta.shape)} was given"
        )
    return k


def _moved_by(weights: Tensor, theta: Tensor, points: Tensor, own: Tensor) -> Tensor:
    """Each position of the regular grid, moved by its weighted mean of the points' movements."""
    N, K, _ = theta.shape
    height, width, _ = own.shape
    # Movements and not positions: zero movement then is the identity, bit for bit. One product for
    # the whole batch; without autocast, which would make it in half precision. Who allows TF32 or
    # bfloat16 inside float32 products (`torch.set_float32_matmul_precision`) gets them here too.
    with without_autocast(theta.device):
        movement = (theta - points).transpose(1, 2).reshape(2 * N, K) @ weights.T
    return own + movement.view(N, 2, height, width).permute(0, 2, 3, 1)


def piecewise_affine_grid(theta: Tensor, size: Size) -> Tensor:
    r"""Return where each output pixel reads when a mesh of triangles is bent, each kept affine.

    The output is divided into (k−1)×(k−1) cells, each cut in two along its falling diagonal (from
    the upper left to the lower right). A control point p with source q moves its neighbourhood by
    φ(x − p)·(q − p), where, with dx and dy in units of a cell, the hat

    .. math:: \varphi(dx, dy) = \max(0,\; 1 - \max(|dx|, |dy|, |dx - dy|))

    is 1 at p, 0 at all other control points and affine on each triangle.

    Args:
        theta: shape (N, k², 2): where in the input each of `control_points(k)` reads, (x, y) last.
        size: (H, W) of the output.

    Returns:
        Grid of shape (N, H, W, 2) in θ's dtype, float32 at least.

    Example:
        >>> piecewise_affine_grid(control_points(3)[None] + 0.5, (1, 2))
        tensor([[[[0.0000, 0.5000],
                  [1.0000, 0.5000]]]])
    """
    k = _points_a_side(theta)
    size = check_size(size)
    theta = theta.to(at_least_float32(theta.dtype))
    own = regular_grid(size, dtype=theta.dtype, device=theta.device)
    points = control_points(k, dtype=theta.dtype, device=theta.device)
    dx, dy = ((own.view(-1, 1, 2) - points) * ((k - 1) / 2)).unbind(-1)
    reach = torch.maximum(torch.maximum(dx.abs(), dy.abs()), (dx - dy).abs())
    return _moved_by((1 - reach).clamp(min=0), theta, points, own)


@lru_cache(maxsize=16)
def _spline_system(k: int) -> np.ndarray:
    """From the movements of k×k points to the spline's k² + 3 coefficients: (k² + 3, k²).

    Solved once, in float64, and by NumPy: what is kept must be a plain array, also when the first
    call comes from inside a compiler's trace.
    """
    side = np.linspace(-1, 1, k)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    squares = ((points[:, None] - points) ** 2).sum(-1)
    bends = 0.5 * squares * np.log(np.where(squares > 0, squares, 1))
    flat = np.concatenate([np.ones((k * k, 1)), points], axis=1)
    system = np.block([[bends, flat], [flat.T, np.zeros((3, 3))]])
    return np.linalg.solve(system, np.eye(k * k + 3, k * k))


def _spline_constant(k: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(_spline_system(k).copy()).to(device, dtype)


# All that `torch.compiler.assume_constant_result` does, but for importing the compiler, which would
# take as long as importing everything else.
_spline_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _spline_weights(k: int, size: tuple[int, int], system: Tensor) -> Tensor:
    """How much each output pixel follows each control point: (H·W, k²), in the system's dtype."""
    like: dict[str, Any] = {"dtype": system.dtype, "device": system.device}
    own = regular_grid(size, **like).view(-1, 1, 2)
    squares = (own - control_points(k, **like)).square().sum(-1)
    # r² log r, which is 0 at r = 0.
    bends = 0.5 * squares * torch.where(squares > 0, squares, 1).log()
    flat = torch.cat([torch.ones_like(own[:, :, 0]), own[:, 0]], dim=1)
    return torch.cat([bends, flat], dim=1) @ system


@lru_cache(maxsize=16)
def _kept_spline_weights(
    k: int, size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    # What is kept must serve training too, also when it was first asked for in inference mode.
    with torch.inference_mode(mode=False), torch.no_grad():
        system = _spline_constant(k, torch.float64, torch.device("cpu"))
        return _spline_weights(k, size, system).to(device, dtype)


def thin_plate_spline_grid(theta: Tensor, size: Size) -> Tensor:
    r"""Return where each output pixel reads under a thin-plate spline through control points.

    The smoothest map that takes each control point p to its source q: with the movements q − p as
    data, and U(r) = r² log r,

    .. math:: p^s = p^t + a_0 + a_1 x^t + a_2 y^t + \sum_i w_i\, U(\|p_i - p^t\|)

    The coefficients are a constant matrix times the movements (Bookstein 1989), and so, for a given
    size, is the grid: that constant is solved in float64 and kept.

    Args:
        theta: shape (N, k², 2): where in the input each of `control_points(k)` reads, (x, y) last.
        size: (H, W) of the output.

    Returns:
        Grid of shape (N, H, W, 2) in θ's dtype, float32 at least.

    Example:
        >>> theta = control_points(3)[None]
        >>> torch.equal(thin_plate_spline_grid(theta, (4, 6)), regular_grid((4, 6))[None])
        True
    """
    k = _points_a_side(theta)
    size = check_size(size)
    theta = theta.to(at_least_float32(theta.dtype))
    own = regular_grid(size, dtype=theta.dtype, device=theta.device)
    points = control_points(k, dtype=theta.dtype, device=theta.device)
    # Nothing may be kept from inside a trace, nor tensors that only stand for others, nor for sizes
    # that are tensors (`torch.jit.trace`).
    if torch.compiler.is_compiling() or type(own) is not Tensor or isinstance(size[0], Tensor):
        # In float64 here too, unless the device has none: for k = 16 float32 is 0.01 pixels off.
        wide = theta.dtype if theta.device.type == "mps" else torch.float64
        system = _spline_constant(k, wide, theta.device)
        weights = _spline_weights(k, size, system).to(theta.dtype)
    else:
        weights = _kept_spline_weights(k, size, theta.dtype, theta.device)
    return _moved_by(weights, theta, points, own)


def _along(points: Tensor, size: Size) -> Iterator[tuple[Tensor, int]]:
    """Each coordinate of the points with its side of the picture: x with W, y with H."""
    check_floating("points", points)
    if points.shape[-1:] != (2,):
        raise ValueError(f"points must have (x, y) last, but shape {tuple(points.shape)} was given")
    height, width = check_size(size)
    return zip(points.unbind(-1), (width, height), strict=True)


def normalised_to_pixel(points: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Normalised positions as pixel coordinates: (column, row), pixel centres at whole numbers.

    p = ((x + 1)·W − 1)/2, or (x + 1)·(W − 1)/2 with `align_corners`.

    Args:
        points: shape (…, 2), (x, y) last.
        size: (H, W) of the picture.
        align_corners: see the module.

    Returns:
        Points of shape (…, 2).

    Example:
        >>> ends = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
        >>> normalised_to_pixel(ends, (4, 8))
        tensor([[-0.5000, -0.5000],
                [ 7.5000,  3.5000]])
    """
    along = _along(points, size)
    if align_corners:
        return torch.stack([(p + 1) * (side - 1) / 2 for p, side in along], dim=-1)
    return torch.stack([((p + 1) * side - 1) / 2 for p, side in along], dim=-1)


def pixel_to_normalised(points: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Pixel coordinates, (column, row), as normalised positions; see `normalised_to_pixel`.

    With `align_corners` a side of one pixel has no length to divide by: its pixel 0 is at 0.

    Example:
        >>> pixel_to_normalised(torch.tensor([[0.0, 0.0]]), (4, 8))
        tensor([[-0.8750, -0.7500]])
    """
    along = _along(points, size)
    if align_corners:
        normalised = [(2 * p - (side - 1)) / max(side - 1, 1) for p, side in along]
    else:
        normalised = [(2 * p + 1 - side) / side for p, side in along]
    return torch.stack(normalised, dim=-1)
