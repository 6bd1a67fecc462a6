"""Reading U along a grid: views of one picture, a fill, an average, masks, the layout in memory."""

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import check_choice, without_autocast
from stn_tutorial.sampling import MODES, PADDINGS

__all__ = ["Fill", "check_fill", "check_reading", "oversampling", "read"]

Fill = float | Sequence[float] | None
"""What lies outside the picture: a number, one for each channel, or None for the padding."""


def check_reading(mode: str, padding: str, axes: int) -> None:
    """Raise unless mode and padding are known, for pictures (axes 2) or volumes (3)."""
    check_choice("mode", mode, MODES if axes == 2 else ("nearest", "bilinear"))
    check_choice("padding", padding, PADDINGS)


def check_fill(fill: Fill, padding: str) -> float | tuple[float, ...] | None:
    """Return the fill, a sequence as a tuple; raise unless it is one, and the padding zeros."""
    if fill is None:
        return None
    values = tuple(fill) if isinstance(fill, Sequence) else (fill,)
    if isinstance(fill, str) or not all(isinstance(value, Real) for value in values):
        raise TypeError(f"fill must be a number, or one for each channel, but {fill!r} was given")
    if padding != "zeros":
        raise ValueError(f"fill takes the place of padding='zeros', but {padding!r} was given too")
    return values if isinstance(fill, Sequence) else fill


def oversampling(in_size: Sequence[int], out_size: Sequence[int]) -> int:
    """How many positions along each axis of an output pixel see each pixel of the whole input."""
    # The same along all axes, so that the finer output has the output's shape.
    factor = 1
    for count_in, count_out in zip(in_size, out_size, strict=True):
        factor = max(factor, -(-count_in // count_out))
    return factor


def read(
    U: Tensor, grid: Tensor, views: int, factor: int, mode: str, padding: str, fill: Fill
) -> Tensor:
    """Read U along a grid with `torch.nn.functional.grid_sample`, outside autocast.

    Args:
        U: shape (N, C, *sides).
        grid: shape (N·views, *sides, 2 or 3), each input's views one after the other, on an output
            that is `factor` times as fine along each axis as the one returned.
        views: how often each input is read.
        factor: what of the grid goes into one output pixel, along each axis: they are averaged.
        mode: as `grid_sample` takes it.
        padding: as `grid_sample` takes it.
        fill: what lies outside instead of zeros: a number, or one for each channel of U.

    Returns:
        V of shape (N·views, C, *sides), in U's dtype, channels last if U is.
    """
    sides, axes = grid.shape[1:-1], grid.shape[-1]
    if not U.is_floating_point() and mode != "nearest":
        raise TypeError(
            f"what is no floating tensor (a mask) is read with mode='nearest' only, but {U.dtype} "
            f"and mode={mode!r} were given"
        )
    with without_autocast(U.device):
        if U.is_floating_point():
            wide = U.to(torch.promote_types(U.dtype, grid.dtype))
        else:  # float64 holds every label below 2⁵³
            wide = U.double()
        outside = None
        if fill is not None:
            outside = _outside(fill, wide)
            wide = wide - outside
        if views != 1:
            # One tall output of all views, so that U is neither copied nor read as a copy.
            grid = grid.reshape(U.shape[0], views * sides[0], *sides[1:], axes)
        V = F.grid_sample(wide, grid.to(wide.dtype), mode, padding, align_corners=False)
        if factor != 1:
            fine = [part for side in V.shape[2:] for part in (side // factor, factor)]
            V = V.reshape(*V.shape[:2], *fine).mean(dim=tuple(range(3, 3 + 2 * axes, 2)))
        if views != 1:
            V = V.unflatten(2, (views, sides[0] // factor)).transpose(1, 2).flatten(0, 1)
        if outside is not None:
            V = V + outside
        return _laid_out(V.to(U.dtype), U)


def _outside(fill: float | Sequence[float], U: Tensor) -> Tensor | float:
    if not isinstance(fill, Sequence):
        return fill
    if len(fill) != U.shape[1]:
        raise ValueError(
            f"fill must be a number, or one for each channel, but {len(fill)} numbers were given "
            f"for {U.shape[1]} channels"
        )
    return torch.tensor(fill, dtype=U.dtype, device=U.device).view(-1, *[1] * (U.ndim - 2))


def _laid_out(V: Tensor, U: Tensor) -> Tensor:
    """V in the layout of U, where that is channels last: a convolution that follows wants it."""
    layout = torch.channels_last if U.ndim == 4 else torch.channels_last_3d
    if not U.is_contiguous() and U.is_contiguous(memory_format=layout):
        return V.contiguous(memory_format=layout)
    return V
