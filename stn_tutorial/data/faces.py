"""Drawn faces, and spectacles for them: something to be put in its place (chapter 17).

Both are drawn in one frame of their own, normalised, y down, and then seen through a θ that maps
**output to input**, as everywhere: a face and spectacles of the same θ fit each other. Nothing is
read from a file.
"""

import torch
from torch import Tensor

from stn_tutorial._checks import Size, check_count, check_size, check_theta
from stn_tutorial.affine import compose, rotation, scaling, transform_points, translation
from stn_tutorial.grids import regular_grid

__all__ = ["LENSES", "draw_faces", "draw_poses", "draw_spectacles"]

LENSES = ((-0.27, -0.15), (0.27, -0.15))
"""The middles of the eyes and of the lenses in their own frame, (x, y)."""

SIDE = 32, 32


def draw_poses(count: int, generator: torch.Generator) -> Tensor:
    """Return the θ of faces at random: turned by up to 15°, 0.8 to 1.05 times as large, moved.

    Args:
        count: how many.
        generator: on the CPU.

    Raises:
        ValueError: `count` is no whole number from 1 on.

    Returns:
        θ, output to input, float32 (count, 2, 3).
    """
    count = check_count("count", count)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    turned, sized = rotation(uniform(-15, 15)), scaling(uniform(0.8, 1.05))
    return compose(turned, sized, translation(uniform(-0.2, 0.2), uniform(-0.2, 0.2)))


def _own(theta: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Where each pixel lies in the frame of what is drawn: x and y, (N, H, W) each."""
    check_theta(theta)
    height, width = check_size(size)
    points = regular_grid((height, width), dtype=theta.dtype, device=theta.device).view(-1, 2)
    x, y = transform_points(theta, points).unbind(-1)
    return x.view(-1, height, width), y.view(-1, height, width)


def _filled(distance: Tensor, softness: float) -> Tensor:
    """1 where a distance is below 0, 0 where it is above, and a soft edge between."""
    return torch.sigmoid(-distance / softness)


def draw_faces(theta: Tensor, generator: torch.Generator, size: Size = SIDE) -> Tensor:
    """Draw a face for each θ: head, eyes, nose, mouth, in greys of its own.

    Args:
        theta: the pose, output to input, (N, 2, 3), on the CPU.
        generator: of the greys and of the mouth's width, on the CPU.
        size: (H, W).

    Raises:
        TypeError: θ is no floating tensor.
        ValueError: another shape, or a size that is none.

    Returns:
        Shape (N, 1, H, W), in θ's dtype, from 0 to 1.
    """
    x, y = _own(theta, size)
    grey, dark, wide = torch.rand(3, len(theta), 1, 1, generator=generator, dtype=theta.dtype)
    skin, ground = 0.55 + 0.25 * grey, 0.05 + 0.2 * dark
    head = _filled((x / 0.62).square() + (y / 0.8).square() - 1, 0.08)
    left, right = (((x - a).square() + (y - b).square()).sqrt() - 0.09 for a, b in LENSES)
    eyes = _filled(torch.minimum(left, right), 0.04)
    smile = (x / (0.2 + 0.1 * wide)).square() + ((y - 0.42) / 0.05).square() - 1
    nose = (x / 0.05).square() + ((y - 0.12) / 0.14).square() - 1
    marks = (1 - 0.9 * eyes) * (1 - 0.6 * _filled(smile, 0.33)) * (1 - 0.2 * _filled(nose, 0.33))
    return ((ground + (skin - ground) * head) * marks)[:, None]


def draw_spectacles(theta: Tensor, size: Size = SIDE) -> Tensor:
    """Draw the alpha of spectacles for each θ: two rims about the eyes, a bridge, two temples.

    Args:
        theta: the pose, output to input, (N, 2, 3).
        size: (H, W).

    Raises:
        TypeError: θ is no floating tensor.
        ValueError: another shape, or a size that is none.

    Returns:
        Shape (N, 1, H, W), in θ's dtype: 1 on the frame, 0 elsewhere, and a soft edge.
    """
    x, y = _own(theta, size)
    across = y - LENSES[0][1]
    rims = [(((x - a).square() + (y - b).square()).sqrt() - 0.2).abs() - 0.05 for a, b in LENSES]
    bars = [
        torch.maximum(across.abs() - 0.04, (x.abs() - middle).abs() - half)
        for middle, half in ((0.0, 0.1), (0.54, 0.09))
    ]
    return _filled(torch.stack(rims + bars).amin(dim=0), 0.033)[:, None]
