r"""Reading a picture between its pixels (chapters 4, 5 and 6).

*Convention.* `sample(U, grid)` gives V with V[n, c, i, j] = U's value at `grid[n, i, j]`: the grid
says, for each *output* pixel, which *input* position (x, y) it reads, in normalised coordinates
with −1 and 1 at the picture's outer edges (`align_corners=False`). U is (N, C, H, W), V has U's
dtype; positions and weights are computed in the wider of the two dtypes, float32 at least.

Nothing here calls PyTorch's own sampling; the tests hold the two together.

*Values that are not ordinary positions.* Nothing is checked, for a check would stall a GPU;
instead:

- far outside, or infinite: zeros with `"zeros"`, the edge with `"border"`, a mirrored position with
  `"reflection"` (an infinite one reads the first pixel of its axis, and one too large for its dtype
  to hold fractions of a pixel reads some pixel);
- NaN: reads nothing (0) with `"zeros"`, the first pixel of its axis otherwise; PyTorch's sampler
  gives NaN or a pixel here, depending on mode and padding;
- NaN or infinity *in the picture* spreads to every position whose taps include that pixel, also
  where its weight is 0, since 0 · NaN is NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_choice,
    check_grid,
    check_picture,
    check_same_batch,
    check_same_device,
    check_size,
    check_theta,
)
from stn_tutorial.affine import invert, transform_points
from stn_tutorial.grids import affine_grid, normalised_to_pixel, regular_grid

__all__ = [
    "MODES",
    "PADDINGS",
    "Splat",
    "bicubic_kernel",
    "bilinear_kernel",
    "nearest_kernel",
    "sample",
    "sample_bilinear",
    "sample_sum",
    "splat",
]

MODES = ("nearest", "bilinear", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
KEYS_A = -0.75
"""The free parameter of Keys' cubic kernel: PyTorch's and OpenCV's choice (Keys' own is −0.5)."""


# --- Kernels k(d): the weight of a pixel at distance d, in pixels ---


def nearest_kernel(d: Tensor) -> Tensor:
    """δ(⌊d + ½⌋), eq. (4) of the paper: 1 for the pixel to which d rounds, else 0. Any shape.

    Example:
        >>> nearest_kernel(torch.tensor([-0.6, 0.0, 0.4]))
        tensor([0., 1., 1.])
    """
    return ((d + 0.5).floor() == 0).to(d.dtype)


def bilinear_kernel(d: Tensor) -> Tensor:
    """max(0, 1 − |d|), eq. (5) of the paper: a tent of half-width one pixel. Any shape.

    Example:
        >>> bilinear_kernel(torch.tensor([-0.25, 0.0, 1.5]))
        tensor([0.7500, 1.0000, 0.0000])
    """
    return (1 - d.abs()).clamp(min=0)


def bicubic_kernel(d: Tensor, a: float = KEYS_A) -> Tensor:
    """Keys' cubic convolution (1981): support of two pixels each way. Any shape.

    `a` is the slope at a distance of 1: the more negative, the deeper the dip and the sharper.
    `sample` takes −0.75; Keys' own −0.5 is exact on parabolas.

    Example:
        >>> bicubic_kernel(torch.tensor([0.0, 0.5, 1.5]))
        tensor([ 1.0000,  0.5938, -0.0938])
    """
    d = d.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


# --- The paper's sum, for reading ---


def sample_sum(
    U: Tensor, grid: Tensor, kernel: Callable[[Tensor], Tensor] = bilinear_kernel
) -> Tensor:
    r"""Sample as the paper's eq. (3) says it, one output pixel at a time.

    .. math:: V_i^c = \sum_n^H \sum_m^W U_{nm}^c \, k(x_i^s - m)\, k(y_i^s - n)

    with (xᵢˢ, yᵢˢ) in pixel coordinates. Every output pixel visits every input pixel: right for
    reading and for checking, hopeless for speed. Outside the picture there is nothing to sum, so
    the padding is zeros. What a NaN position gives is the kernel's affair: NaN with the bilinear
    one, 0 with the other two.

    Args:
        U: input, shape (N, C, H, W).
        grid: normalised input positions, shape (N, H', W', 2), (x, y) last.
        kernel: k, from a tensor of distances in pixels to weights.

    Returns:
        V of shape (N, C, H', W').

    Example:
        >>> U = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> sample_sum(U, torch.zeros(1, 1, 1, 2))
        tensor([[[[4.]]]])
    """
    _check(U, grid)
    N, C, H, W = U.shape
    V = U.new_zeros(N, C, *grid.shape[1:3])
    source = normalised_to_pixel(grid, (H, W))
    for b in range(N):
        for i in range(grid.shape[1]):
            for j in range(grid.shape[2]):
                x, y = source[b, i, j]
                for n in range(H):
                    for m in range(W):
                        V[b, :, i, j] += U[b, :, n, m] * kernel(x - m) * kernel(y - n)
    return V


# --- The vectorised sampler ---


def sample(
    U: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding: str = "zeros",
    *,
    align_corners: bool = False,
) -> Tensor:
    """Read U at the positions of a grid: all output pixels at once.

    The same modes, paddings and results as `torch.nn.functional.grid_sample`, except that a grid
    that is the regular grid gives U back bit for bit. The place that is read depends on the grid's
    value alone, not on where the output pixel stands; a value that stands for a whole pixel or a
    half, to the grid's rounding, reads exactly that (a half as long as U's dtype is no wider).

    Differentiable in U and grid. At a whole pixel position the derivative is the one towards the
    right and below (cells are half open). With `"border"` it is 0 from the last pixel's centre on;
    with `"reflection"` the slope turns with the picture, and is 0 within half a pixel of a mirror.

    Args:
        U: input, shape (N, C, H, W), any floating dtype.
        grid: normalised input positions, shape (N, H', W', 2), (x, y) last, any floating dtype.
        mode: `"nearest"` (halves round to even), `"bilinear"` or `"bicubic"` (Keys, a = −0.75).
        padding: what lies outside: `"zeros"`, `"border"` (the edge pixel goes on) or
            `"reflection"` (mirrored, at the edges; at the outer pixels' centres with
            `align_corners`).
        align_corners: −1 and 1 are the centres of the outer pixels, not their outer edges.

    Raises:
        TypeError: U or grid is not a floating tensor.
        ValueError: a wrong shape, batch sizes or devices that differ, an unknown mode or padding.

    Returns:
        V of shape (N, C, H', W'), in U's dtype.

    Example:
        >>> U = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> grid = torch.tensor([[[[0.0, 0.0], [0.5, -0.5], [2.0, 0.0]]]])
        >>> sample(U, grid)  # the middle, a pixel's centre, outside
        tensor([[[[4., 3., 0.]]]])
        >>> sample(U, grid, padding="border")
        tensor([[[[4., 3., 5.]]]])
    """
    _check(U, grid)
    check_choice("mode", mode, MODES)
    check_choice("padding", padding, PADDINGS)
    H, W = U.shape[2:]
    dtype = at_least_float32(U.dtype, grid.dtype)
    x, y = _source_pixels(grid, (H, W), align_corners, dtype)
    kernel_sum = {"nearest": _nearest, "bilinear": _bilinear, "bicubic": _bicubic}[mode]
    return kernel_sum(U.to(dtype), x, y, padding, align_corners).to(U.dtype)


def _check(U: Tensor, grid: Tensor) -> None:
    check_picture(U)
    check_grid(grid)
    check_same_batch(U=U, grid=grid)
    check_same_device(U=U, grid=grid)


def _source_pixels(
    grid: Tensor, in_size: Size, align_corners: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The grid's positions x and y in the input's pixel coordinates, (N, H', W') each, in `dtype`.

    Each depends on the grid's value alone, so that equal values read the same place everywhere.
    """
    own = at_least_float32(grid.dtype)
    axes = []
    for position, count in zip(grid.to(dtype).unbind(-1), reversed(in_size), strict=True):
        # In exact arithmetic this is `normalised_to_pixel(grid)`. Written as the nearest whole or
        # half pixel + the displacement from it, nothing is rounded when the displacement is zero:
        # the identity is exact, and so is a position half-way between two pixels. At ±∞ the
        # nearest is an edge.
        side = count - 1 if align_corners else count
        nearest = (position.detach() * side).round().clamp(-side, side)
        # Rounded as `regular_grid` rounds it.
        stands_at = nearest / (max(side, 1) if align_corners else side)
        if own != dtype:
            # A pixel's centre in the grid's own dtype is that centre, so that a float32 regular
            # grid over a float64 picture is the identity too.
            centre = ((nearest + (count - 1)) % 2 == 0) & (stands_at.to(own) == position)
            stands_at = torch.where(centre, position.detach(), stands_at)
        axes.append((position - stands_at) * (side / 2) + (nearest + (count - 1)) / 2)
    return axes[0], axes[1]


def _mirror(p: Tensor, count: int, align_corners: bool) -> Tensor:
    """Fold positions back into the picture, as between two mirrors: a triangle wave."""
    low, span = (0.0, count - 1) if align_corners else (-0.5, count)
    if align_corners and count == 1:
        return p.clamp(0, 0)  # still joined to the grid, whose gradient is then zero, not missing
    return span - ((p - low).remainder(2 * span) - span).abs() + low


def _clip(p: Tensor, count: int) -> Tensor:
    """Clip to the outer pixels' centres, with slope 1 on [0, count − 1) and 0 elsewhere.

    `clamp` alone has slope 1 at the last centre too, where the derivative to the right is 0.
    """
    inside = (p >= 0) & (p < count - 1)
    return torch.where(inside, p, p.detach().nan_to_num(nan=0.0).clamp(0, count - 1))


def _pad_position(p: Tensor, count: int, padding: str, align_corners: bool) -> Tensor:
    """Make positions finite, safe to turn into whole numbers, and still reading the same."""
    if padding == "zeros":
        # From two pixels outside on, no tap of a tent lies inside; NaN is sent there too.
        return torch.where(p.isnan(), -2.0, p).clamp(-2, count + 1)
    if padding == "reflection":
        p = _mirror(p, count, align_corners)
    return _clip(p, count)


def _read(U: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """U at whole pixel positions of shape (N, H', W'), zero outside: (N, C, H', W')."""
    N, C, H, W = U.shape
    inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
    index = row.clamp(0, H - 1).long() * W + column.clamp(0, W - 1).long()
    flat = index.flatten(1)[:, None].expand(-1, C, -1)
    values = U.flatten(2).gather(2, flat).reshape(N, C, *index.shape[1:])
    return torch.where(inside[:, None], values, 0.0)


def _nearest(U: Tensor, x: Tensor, y: Tensor, padding: str, align_corners: bool) -> Tensor:
    x = _pad_position(x, U.shape[3], padding, align_corners)
    y = _pad_position(y, U.shape[2], padding, align_corners)
    column, row = x.round(), y.round()
    # A zero that joins the grid to the result, so that its gradient is zeros and not missing.
    zero = (column - column.detach()) + (row - row.detach())
    return _read(U, column, row) + zero[:, None]


def _bilinear(U: Tensor, x: Tensor, y: Tensor, padding: str, align_corners: bool) -> Tensor:
    x = _pad_position(x, U.shape[3], padding, align_corners)
    y = _pad_position(y, U.shape[2], padding, align_corners)
    left, top = x.floor(), y.floor()
    right, bottom = left + 1, top + 1
    to_right, to_bottom = (x - left)[:, None], (y - top)[:, None]
    to_left = 1 - to_right
    upper = to_left * _read(U, left, top) + to_right * _read(U, right, top)
    lower = to_left * _read(U, left, bottom) + to_right * _read(U, right, bottom)
    return (1 - to_bottom) * upper + to_bottom * lower


def _bicubic(U: Tensor, x: Tensor, y: Tensor, padding: str, align_corners: bool) -> Tensor:
    columns = _cubic_taps(x, U.shape[3], padding, align_corners)
    rows = _cubic_taps(y, U.shape[2], padding, align_corners)
    total = sum(
        weight_y[:, None]
        * sum(weight_x[:, None] * _read(U, column, row) for column, weight_x in columns)
        for row, weight_y in rows
    )
    return cast(Tensor, total)  # there are four rows


def _cubic_taps(
    p: Tensor, count: int, padding: str, align_corners: bool
) -> list[tuple[Tensor, Tensor]]:
    """The four pixels around each position and their weights, along one axis.

    Unlike a tent's, a cubic's padding goes by tap, not by position.
    """
    if padding == "reflection":
        p = _mirror(p, count, align_corners)
        p = torch.where(p.isnan(), 0.0, p)
    # From three pixels outside on, all taps lie outside; NaN is sent there too.
    p = torch.where(p.isnan(), -3.0, p).clamp(-3, count + 2)
    first = p.floor() - 1
    taps = []
    for k in range(4):
        tap = first + k
        weight = bicubic_kernel(p - tap)
        if padding == "reflection":
            tap = _mirror(tap, count, align_corners)
        taps.append((tap if padding == "zeros" else tap.clamp(0, count - 1), weight))
    return taps


# --- The same, with the backward pass written by hand (chapter 6) ---


class _BilinearSample(torch.autograd.Function):
    """Bilinear sampling with zero padding; each line of `backward` is a line of the derivation."""

    @staticmethod
    def forward(U: Tensor, grid: Tensor) -> Tensor:
        return sample(U, grid)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        # Apart from `forward`, or `torch.func` could not transform it.
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dV: Tensor) -> tuple[Tensor, Tensor]:
        U, grid = ctx.saved_tensors
        C, H, W = U.shape[1:]
        dtype = at_least_float32(U.dtype, grid.dtype)
        image, dV = U.to(dtype), dV.to(dtype)
        x, y = _source_pixels(grid, (H, W), align_corners=False, dtype=dtype)
        x = _pad_position(x, W, "zeros", align_corners=False)
        y = _pad_position(y, H, "zeros", align_corners=False)

        dU = torch.zeros_like(image).flatten(2)
        dx, dy = torch.zeros_like(x), torch.zeros_like(y)
        for column, slope_x in ((x.floor(), -1), (x.floor() + 1, 1)):
            for row, slope_y in ((y.floor(), -1), (y.floor() + 1, 1)):
                k_x, k_y = bilinear_kernel(x - column), bilinear_kernel(y - row)
                inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
                # ∂V/∂U_nm = k(x − m) k(y − n): the weight that went forward
                # carries the gradient back.
                share = torch.where(inside, k_x * k_y, 0.0)[:, None] * dV
                m, n = column.clamp(0, W - 1).long(), row.clamp(0, H - 1).long()
                index = (n * W + m).flatten(1)[:, None].expand(-1, C, -1)
                dU.scatter_add_(2, index, share.flatten(2))
                # ∂V/∂x = Σ U_nm k(y − n) · (−1 at the left pixel, +1 at the right);
                # ∂V/∂y likewise.
                along = (_read(image, column, row) * dV).sum(1)
                dx += slope_x * k_y * along
                dy += slope_y * k_x * along
        # From pixels to normalised units: one unit is half a side.
        dgrid = torch.stack([dx * W / 2, dy * H / 2], dim=-1)
        return dU.reshape(U.shape).to(U.dtype), dgrid.to(grid.dtype)


def sample_bilinear(U: Tensor, grid: Tensor) -> Tensor:
    """Sample bilinearly with zero padding: `sample(U, grid)`, with a hand-derived backward pass.

    The same values and first derivatives. It is for reading: autograd's own backward pass is
    faster, and this one cannot be differentiated twice.

    Args:
        U: input, shape (N, C, H, W).
        grid: normalised input positions, shape (N, H', W', 2), (x, y) last.

    Returns:
        V of shape (N, C, H', W'), in U's dtype.

    Example:
        >>> U = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> sample_bilinear(U, torch.zeros(1, 1, 1, 2))
        tensor([[[[4.]]]])
    """
    _check(U, grid)
    return _BilinearSample.apply(U, grid)


# --- Forward mapping, to show why nobody uses it (chapter 4) ---


@dataclass(frozen=True)
class Splat:
    """What forward mapping leaves behind."""

    V: Tensor
    """The picture, (N, C, H', W'): the mean of the pixels that landed, 0 where none did."""
    hits: Tensor
    """How many input pixels landed on each output pixel, int64 (N, H', W')."""
    holes: Tensor
    """True where nothing landed although the pixel lies inside the moved picture, (N, H', W')."""

    @property
    def collisions(self) -> Tensor:
        """True where more than one input pixel landed, (N, H', W')."""
        return self.hits > 1


def splat(U: Tensor, theta: Tensor, size: Size | None = None) -> Splat:
    """Map forwards: send each *input* pixel to the output pixel nearest to where it moves.

    What θ does to the picture, done the wrong way round: where the picture grows, some output
    pixels are hit by none (holes); where it shrinks, some by several (collisions). A position
    half-way between two pixels goes to the left or upper one. Pixels that leave the output are
    dropped.

    Args:
        U: input, shape (N, C, H, W).
        theta: output to input, shape (N, 2, 3); its inverse is what moves the pixels.
        size: (H', W') of the output; U's own when left out.

    Raises:
        ValueError: a wrong shape, batch sizes or devices that differ, or a singular θ.

    Example:
        >>> twice = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]]])  # twice as wide
        >>> splat(torch.ones(1, 1, 1, 4), twice).hits
        tensor([[[1, 0, 1, 0]]])
    """
    check_picture(U)
    check_theta(theta)
    check_same_batch(U=U, theta=theta)
    check_same_device(U=U, theta=theta)
    N, C, H, W = U.shape
    out_h, out_w = check_size((H, W) if size is None else size)
    start = regular_grid((H, W), dtype=theta.dtype, device=theta.device).reshape(-1, 2)
    moved = transform_points(invert(theta).to(start.dtype), start)
    # Less a thousandth of a pixel, so that positions half-way between two pixels (all of them, when
    # a picture is doubled) go left and up; rounding errors would send them to either side.
    column, row = (normalised_to_pixel(moved, (out_h, out_w)) - 1e-3).round().unbind(-1)
    inside = (column >= 0) & (column < out_w) & (row >= 0) & (row < out_h)
    # Pixels that miss go to one extra place at the end, which is then cut off.
    index = torch.where(inside, row * out_w + column, out_h * out_w).long()
    hits = index.new_zeros(N, out_h * out_w + 1).scatter_add_(1, index, torch.ones_like(index))
    total = U.new_zeros(N, C, out_h * out_w + 1)
    total.scatter_add_(2, index[:, None].expand(-1, C, -1), U.flatten(2))
    V = (total / hits.clamp(min=1)[:, None].to(U.dtype))[:, :, :-1].reshape(N, C, out_h, out_w)
    hits = hits[:, :-1].reshape(N, out_h, out_w)
    covered = (affine_grid(theta, (out_h, out_w)).abs() < 1).all(dim=-1)
    return Splat(V, hits, holes=(hits == 0) & covered)
