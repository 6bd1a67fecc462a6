r"""Grids: where each output pixel stands, and where it reads (chapters 3 and 4).

*Convention.* A grid has shape (N, H, W, 2), (x, y) last, in normalised coordinates: the output
pixel in row i and column j reads the input at `grid[n, i, j]`. With `align_corners=False`, the
book's choice throughout, −1 and 1 are the outer *edges* of the picture, and the centre of pixel j
of W is (2j + 1)/W − 1. With `align_corners=True`, which chapters 3 and 5 show for comparison, they
are the *centres* of the first and last pixels.

Grids are computed in float32 at least, and outside autocast.
"""

import torch
from torch import Tensor

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_floating,
    check_size,
    check_theta,
)

__all__ = ["affine_grid", "normalised_to_pixel", "pixel_to_normalised", "regular_grid"]


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
    """
    check_theta(theta)
    size = check_size(size)
    theta = theta.to(at_least_float32(theta.dtype))
    x, y = regular_grid(
        size, align_corners=align_corners, dtype=theta.dtype, device=theta.device
    ).unbind(-1)
    # Products and sums one by one, not a matrix product: autocast and TF32 leave them alone, and
    # 1·x + 0·y + 0 is x exactly.
    t = theta[:, :, :, None, None]
    return torch.stack([t[:, r, 0] * x + t[:, r, 1] * y + t[:, r, 2] for r in (0, 1)], dim=-1)


def _sides(points: Tensor, size: Size) -> Tensor:
    """(W, H) as a tensor like `points`, to go with (x, y)."""
    check_floating("points", points)
    if points.shape[-1:] != (2,):
        raise ValueError(f"points must have (x, y) last, but shape {tuple(points.shape)} was given")
    height, width = check_size(size)
    return points.new_tensor([width, height])


def normalised_to_pixel(points: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Normalised positions as pixel coordinates: (column, row), pixel centres at whole numbers.

    p = ((x + 1)·W − 1)/2, or (x + 1)·(W − 1)/2 with `align_corners`.

    Args:
        points: shape (…, 2), (x, y) last.
        size: (H, W) of the picture.
        align_corners: see the module.

    Returns:
        Points of shape (…, 2).
    """
    sides = _sides(points, size)
    if align_corners:
        return (points + 1) * (sides - 1) / 2
    return ((points + 1) * sides - 1) / 2


def pixel_to_normalised(points: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Pixel coordinates, (column, row), as normalised positions; see `normalised_to_pixel`.

    With `align_corners` a side of one pixel has no length to divide by: its pixel 0 is at 0.
    """
    sides = _sides(points, size)
    if align_corners:
        return (2 * points - (sides - 1)) / (sides - 1).clamp(min=1)
    return (2 * points + 1 - sides) / sides
