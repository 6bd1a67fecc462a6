"""The photographs and the drawn letter that return from chapter to chapter; no network needed."""

import numpy as np
import sklearn.datasets
import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import Size, check_choice, check_size

__all__ = ["letter_f", "photograph"]

PHOTOGRAPHS = {"temple": ("china.jpg", 0.32), "flower": ("flower.jpg", 0.48)}
"""scikit-learn's file, and where its subject is: the share of the width to the left of it."""


def photograph(name: str = "temple", size: Size = (192, 192)) -> Tensor:
    """Return one of scikit-learn's two photographs, cropped about its subject and shrunk.

    Args:
        name: `"temple"` (the Summer Palace in Beijing) or `"flower"` (a dahlia).
        size: (H, W), at most 427×640. The largest box of that shape is kept.

    Returns:
        Picture of shape (1, 3, H, W), float32 in [0, 1].
    """
    check_choice("name", name, tuple(PHOTOGRAPHS))
    height, width = check_size(size)
    file, subject = PHOTOGRAPHS[name]
    whole = torch.from_numpy(np.array(sklearn.datasets.load_sample_image(file)))
    full_h, full_w = whole.shape[:2]
    if height > full_h or width > full_w:
        raise ValueError(
            f"size must be at most ({full_h}, {full_w}), but ({height}, {width}) was given"
        )
    box_h, box_w = min(full_h, full_w * height // width), min(full_w, full_h * width // height)
    left = min(max(round(full_w * subject - box_w / 2), 0), full_w - box_w)
    top = (full_h - box_h) // 2
    box = whole[top : top + box_h, left : left + box_w].permute(2, 0, 1)[None] / 255
    # antialias: the low-pass filter whose absence chapter 5 shows.
    small = F.interpolate(box, (height, width), mode="bilinear", antialias=True)
    return small.clamp(0, 1)


def letter_f(size: Size = (64, 64)) -> Tensor:
    """Draw a white letter F on black. It has no symmetry, so it shows every turn and flip.

    Args:
        size: (H, W); the letter keeps its shape and stands in the middle.

    Returns:
        Picture of shape (1, 1, H, W), float32 in [0, 1]; pixels on an edge hold the share covered.
    """
    height, width = check_size(size)
    fine = 8
    # Positions in units of half the shorter side, at the centres of fine×fine points in each pixel.
    half = min(height, width) / 2
    y = ((torch.arange(height * fine) + 0.5) / fine - height / 2) / half
    x = ((torch.arange(width * fine) + 0.5) / fine - width / 2) / half
    ink = torch.zeros(height * fine, width * fine, dtype=torch.bool)
    for left, top, right, bottom in (
        (-0.4, -0.65, -0.15, 0.65),  # the stem
        (-0.4, -0.65, 0.45, -0.4),  # the upper arm
        (-0.4, -0.15, 0.3, 0.1),  # the lower arm
    ):
        ink |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    return F.avg_pool2d(ink.float()[None, None], fine)
