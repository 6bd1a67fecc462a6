"""A box as θ, and θ as a box; how far two boxes agree."""

import torch
from torch import Tensor

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_same_device,
    check_shape,
    check_size,
    check_theta,
)
from stn_tutorial.affine import transform_points

__all__ = ["box_iou", "box_theta", "rotated_box_theta", "theta_box"]


def check_boxes(boxes: object, name: str = "boxes") -> None:
    """Raise unless `boxes` is a floating tensor of shape (K, 4)."""
    check_shape(name, boxes, "(K, 4) with (left, top, right, bottom)", 4, ndim=2)


def box_theta(boxes: Tensor, size: Size) -> Tensor:
    r"""Return the θ that shows each box, and nothing else, over the whole output.

    .. math:: \theta = \begin{pmatrix} w/W & 0 & 2c_x/W - 1 \\ 0 & h/H & 2c_y/H - 1 \end{pmatrix}

    with w, h the box's sides, (cₓ, c_y) its centre and (H, W) the picture's size. A box whose right
    lies left of its left is seen mirrored, an empty one gives a singular θ, and NaN goes through.

    Args:
        boxes: (left, top, right, bottom) in pixels, floating, shape (K, 4).
        size: (H, W) of the picture in which the boxes lie.

    Returns:
        θ from output to input, shape (K, 2, 3), float32 at least.

    Example:
        >>> box_theta(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), (4, 8))  # the upper left quarter
        tensor([[[ 0.5000,  0.0000, -0.5000],
                 [ 0.0000,  0.5000, -0.5000]]])
    """
    check_boxes(boxes)
    height, width = check_size(size)
    left, top, right, bottom = boxes.to(at_least_float32(boxes.dtype)).unbind(-1)
    zero = torch.zeros_like(left)
    across = torch.stack([(right - left) / width, zero, (left + right) / width - 1], dim=-1)
    down = torch.stack([zero, (bottom - top) / height, (top + bottom) / height - 1], dim=-1)
    return torch.stack([across, down], dim=-2)


def theta_box(theta: Tensor, size: Size) -> Tensor:
    """Return the smallest upright box that holds what θ shows: `box_theta`'s inverse.

    Args:
        theta: output to input, shape (K, 2, 3).
        size: (H, W) of the picture.

    Returns:
        (left, top, right, bottom) in pixels, shape (K, 4), left and top never more than right and
        bottom.

    Example:
        >>> box = torch.tensor([[1.0, 0.0, 7.0, 3.0]])
        >>> torch.allclose(theta_box(box_theta(box, (4, 8)), (4, 8)), box)
        True
    """
    check_theta(theta)
    height, width = check_size(size)
    theta = theta.to(at_least_float32(theta.dtype))
    corners = theta.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    pixels = (transform_points(theta, corners) + 1) * theta.new_tensor([width / 2, height / 2])
    return torch.cat([pixels.amin(dim=1), pixels.amax(dim=1)], dim=-1)


def rotated_box_theta(boxes: Tensor, size: Size) -> Tensor:
    """Return the θ that shows each turned box upright over the whole output.

    The box stands counter-clockwise, as seen on the screen, of an upright one of its sides; other
    libraries differ in the sign. With an angle of 0 it is `box_theta`.

    Args:
        boxes: (centre x, centre y, width, height, degrees), the first four in pixels, floating,
            shape (K, 5).
        size: (H, W) of the picture.

    Returns:
        θ from output to input, shape (K, 2, 3), float32 at least.

    Example:
        >>> rotated_box_theta(torch.tensor([[2.0, 2.0, 4.0, 4.0, 90.0]]), (4, 4)).round()
        tensor([[[-0.,  1.,  0.],
                 [-1., -0.,  0.]]])
    """
    check_shape("boxes", boxes, "(K, 5) with (x, y, width, height, degrees)", 5, ndim=2)
    height, width = check_size(size)
    x, y, w, h, degrees = boxes.to(at_least_float32(boxes.dtype)).unbind(-1)
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    across = torch.stack([w * cos / width, h * sin / width, 2 * x / width - 1], dim=-1)
    down = torch.stack([-w * sin / height, h * cos / height, 2 * y / height - 1], dim=-1)
    return torch.stack([across, down], dim=-2)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of each box of `a` with each of `b`.

    0 for boxes that do not meet, and for empty or reversed ones, also with themselves. NaN where an
    edge is NaN.

    Args:
        a: (left, top, right, bottom), floating, shape (K, 4).
        b: the same, shape (L, 4).

    Returns:
        Shape (K, L), from 0 to 1.

    Example:
        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> b = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 5.0, 9.0]])
        >>> box_iou(a, b)
        tensor([[1.0000, 0.3333, 0.0000]])
    """
    check_boxes(a, "a")
    check_boxes(b, "b")
    check_same_device(a=a, b=b)
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clamp(min=0).prod(dim=-1) for box in (a, b))
    union = area_a[:, None] + area_b - shared
    return shared / torch.where(union == 0, 1.0, union)
