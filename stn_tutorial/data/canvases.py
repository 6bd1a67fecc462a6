"""A digit somewhere on a large canvas, alone or among pieces of others (chapter 17).

The paper's co-localisation, its appendix: 84×84 pixels; the cluttered canvases add 16 pieces of 6×6
pixels, cut from other digits. A box tells where the digit lies, for whoever wants to judge; nothing
learns from it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stn_tutorial._checks import check_count
from stn_tutorial._facts import Fact
from stn_tutorial.data.digits import Digits
from stn_tutorial.data.distortions import SIDE
from stn_tutorial.data.passes import generator_of

__all__ = ["CANVAS_FACTS", "Canvases", "scatter"]

CANVAS, CLUTTER, PATCH = 84, 16, 6
INK = 4, SIDE - 4
"""From where to where along a side a digit's picture has its ink: the middle 20 of 28 pixels."""

CANVAS_FACTS = (
    Fact("84×84 canvas; the cluttered ones add 16 crops of 6×6", "a"),
    Fact("the digit's 28×28 frame lies wholly on the canvas, at whole pixels, uniformly", "c"),
    Fact("the true box is that frame: a square window cannot cover half of a 1's ink", "c"),
    Fact("a crop is cut from the middle 20×20 of a random digit, and may be empty", "c"),
    Fact("a crop may lie anywhere, the digit included; the brighter pixel is seen", "c"),
)
"""What the canvases rest on, and how sure we are of each."""


class Canvases(NamedTuple):
    """Pictures with one whole digit each, what it is, and where."""

    images: Tensor
    """float32, shape (N, 1, 84, 84), from 0 to 1."""
    labels: Tensor
    """int64, shape (N,)."""
    boxes: Tensor
    """float32, shape (N, 4): left, top, right, bottom of the digit's 28×28 frame, normalised."""


def scatter(
    digits: Digits, seed: int, *, clutter: int = CLUTTER, pool: Digits | None = None
) -> Canvases:
    """Put each digit on a canvas of its own, at random, among pieces of others.

    Args:
        digits: one canvas for each of them.
        seed: of the places and of the pieces; the digits' places are the same with any clutter.
        clutter: how many pieces, 6×6 pixels each: the paper's 16, or 0 for none.
        pool: the digits that the pieces are cut from; `digits` themselves when left out.

    Raises:
        TypeError: the images are not bytes.
        ValueError: images of another shape, a negative number of pieces, or an empty pool.

    Returns:
        `Canvases`, on the digits' device.

    Example:
        >>> from stn_tutorial.data import embedded_digits
        >>> canvases = scatter(embedded_digits(), seed=0, clutter=0)
        >>> canvases.images.shape, canvases.boxes.shape
        (torch.Size([1437, 1, 84, 84]), torch.Size([1437, 4]))
    """
    pool = digits if pool is None else pool
    for name, images in (("digits", digits.images), ("pool", pool.images)):
        if images.dtype != torch.uint8:
            raise TypeError(f"images of {name} must be uint8, but {images.dtype} was given")
        if images.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(
                f"images of {name} must have shape (N, 1, {SIDE}, {SIDE}), "
                f"but shape {tuple(images.shape)} was given"
            )
    clutter = check_count("clutter", clutter, least=0)
    if clutter and not len(pool.labels):
        raise ValueError("pool must hold at least one digit to cut pieces from, but none was given")
    count, room = len(digits.labels), CANVAS - SIDE
    places = torch.randint(0, room + 1, (count, 2), generator=generator_of("places", seed))
    canvas = torch.zeros(count, CANVAS * CANVAS)
    canvas.scatter_(1, _square(places, SIDE, CANVAS), digits.images.cpu().flatten(1) / 255)
    if clutter:
        generator = generator_of("pieces", seed)
        shape = count, clutter
        other = torch.randint(0, len(pool.labels), shape, generator=generator)
        cut = torch.randint(INK[0], INK[1] - PATCH + 1, (*shape, 2), generator=generator)
        put = torch.randint(0, CANVAS - PATCH + 1, (*shape, 2), generator=generator)
        source = pool.images.cpu().flatten(1)[other].gather(2, _square(cut, PATCH, SIDE)) / 255
        canvas.scatter_reduce_(1, _square(put, PATCH, CANVAS).flatten(1), source.flatten(1), "amax")
    low = 2 * places.flip(1) / CANVAS - 1  # (row, column) to (x, y)
    boxes = torch.cat([low, low + 2 * SIDE / CANVAS], dim=1)
    device = digits.images.device
    images = canvas.view(count, 1, CANVAS, CANVAS)
    return Canvases(images.to(device), digits.labels, boxes.to(device))


def _square(corner: Tensor, side: int, width: int) -> Tensor:
    """Where the pixels of a square lie in a flat picture; its first (row, column): (…, side²)."""
    cell = torch.arange(side)
    row, column = (corner[..., None] + cell).unbind(-2)
    return (row[..., None] * width + column[..., None, :]).flatten(-2)
