"""Scenes: digits among clutter, with their boxes; coloured things, with a sentence (chapter 16).

Both are drawn from digits, a seed and a number alone. Boxes are (left, top, right, bottom) in
pixels, edges in continuous coordinates, as everywhere in `stn_tutorial.regions`; they hold the ink
and nothing else.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import check_count
from stn_tutorial.data.digits import Digits
from stn_tutorial.data.passes import generator_of

__all__ = [
    "COLOURS",
    "KINDS",
    "WORDS",
    "DigitScenes",
    "ToldScenes",
    "digit_scenes",
    "told_scenes",
]

SIDE = 28
MARGIN = 1.0
"""Pixels between a box and the edge of its scene."""
APART = 2.0
"""Pixels between two boxes, at least."""
INK = 0.25
"""From where on a pixel of a digit counts as ink."""

COLOURS = {
    "red": (0.9, 0.2, 0.15),
    "green": (0.15, 0.75, 0.25),
    "blue": (0.25, 0.4, 1.0),
    "yellow": (0.95, 0.85, 0.2),
}
"""What a told thing's colour may be, as red, green and blue from 0 to 1."""
KINDS = ("circle", "square", "triangle", "one", "four", "eight")
"""What a told thing may be: three shapes, and three digits."""
NUMERALS = {"one": 1, "four": 4, "eight": 8}
WORDS = (".", "a", "left", "of", "above", *COLOURS, *KINDS)
"""The words of the sentences, by number; 0 ends a sentence, and fills it up."""


class DigitScenes(NamedTuple):
    """Scenes of digits among clutter, and what stands where."""

    images: Tensor
    """float32, shape (N, 1, S, S), 0 the ground and 1 the ink."""
    boxes: list[Tensor]
    """For each scene, float32 (Kₙ, 4)."""
    labels: list[Tensor]
    """For each scene, int64 (Kₙ,), 0 to 9."""


class ToldScenes(NamedTuple):
    """Scenes of two coloured things, and a sentence about each scene."""

    images: Tensor
    """float32, shape (N, 3, S, S), on a black ground."""
    boxes: Tensor
    """float32, shape (N, 2, 4), in the order in which the sentence names the things."""
    words: Tensor
    """int64, shape (N, T), numbers into `WORDS`."""
    about: Tensor
    """int64, shape (N, T): which thing a word names or colours, 0 or 1; −1 for the other words."""


def _ink_boxes(images: Tensor) -> Tensor:
    """Return the box of what is inked, (M, 28, 28) from 0 to 1: float32 (M, 4)."""
    edges = []
    for axis in (1, 2):  # rows seen from the side give the columns, and the other way round
        there = (images > INK).any(dim=axis).float()
        first = there.argmax(dim=1)
        last = SIDE - there.flip(1).argmax(dim=1)
        edges += [first, last]
    left, right, top, bottom = edges
    return torch.stack([left, top, right, bottom], dim=1).float()


def _apart(low: Tensor, high: Tensor, there: Tensor) -> Tensor:
    """Whether no two boxes of a scene come near: (N, K, 2) twice and (N, K) to (N,)."""
    gap = torch.maximum(low[:, :, None] - high[:, None], low[:, None] - high[:, :, None])
    near = (gap < APART).all(dim=-1) & there[:, :, None] & there[:, None]
    near.diagonal(dim1=1, dim2=2).fill_(False)
    return ~near.any(dim=-1).any(dim=-1)


def _placed(sides: Tensor, there: Tensor, size: int, g: torch.Generator) -> Tensor:
    """Draw the upper left corners of boxes of these sides, (N, K, 2), so that none meet."""
    low = torch.zeros_like(sides)
    left = torch.arange(len(sides))
    while len(left):
        room = size - 2 * MARGIN - sides[left]
        low[left] = MARGIN + room * torch.rand(room.shape, generator=g)
        good = _apart(low[left], low[left] + sides[left], there[left])
        left = left[~good]
    return low


def _patches(
    images: Tensor, inks: Tensor, low: Tensor, scale: Tensor
) -> tuple[Tensor, list[list[int]]]:
    """Return pictures, scaled, as they are pasted: (M, 28, 28), and the pixel where each begins."""
    begin = low.floor() - 1
    # Pixel p of the patch reads the source at (p + begin − low) / scale + ink's corner.
    factor = 1 / scale
    shift = (begin - low) / scale[:, None] + inks[:, :2]
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = factor
    theta[:, :, 2] = factor[:, None] + 2 / SIDE * shift - 1
    grid = F.affine_grid(theta, [len(images), 1, SIDE, SIDE], align_corners=False)
    patches = F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
    return patches, begin.long().tolist()


def digit_scenes(
    digits: Digits,
    n: int,
    seed: int = 0,
    *,
    size: int = 64,
    most: int = 3,
    clutter: int = 8,
    scales: tuple[float, float] = (0.6, 1.0),
) -> DigitScenes:
    """Draw scenes of digits, apart from each other, among pieces of other digits.

    Args:
        digits: to draw from.
        n: how many scenes.
        seed: of everything that is drawn; not of the digits.
        size: the scene's side in pixels.
        most: the number of digits in a scene is drawn from 1 to this.
        clutter: pieces of 7×7 pixels in a scene, each cut out of some digit's ink. They may lie on
            a digit.
        scales: between which a digit's scale is drawn; 1 is MNIST's own size.

    Raises:
        ValueError: a count that is none.

    Example:
        >>> scenes = digit_scenes(embedded_digits(), 2, seed=0)
        >>> scenes.images.shape, [len(one) for one in scenes.labels]
        (torch.Size([2, 1, 64, 64]), [2, 2])
    """
    n, most = check_count("n", n), check_count("most", most)
    size = check_count("size", size, SIDE)
    clutter = check_count("clutter", clutter, 0)
    g = generator_of("digit scenes", seed, size, most, clutter)
    counts = torch.randint(1, most + 1, (n,), generator=g)
    there = torch.arange(most) < counts[:, None]
    pick = torch.randint(len(digits.labels), (n, most), generator=g)
    images = digits.images[pick.flatten(), 0].float() / 255
    inks = _ink_boxes(images)
    scale = scales[0] + (scales[1] - scales[0]) * torch.rand(n * most, generator=g)
    sides = ((inks[:, 2:] - inks[:, :2]) * scale[:, None]).unflatten(0, (n, most))
    low = _placed(sides, there, size, g)

    canvas = torch.zeros(n, size + 2 * SIDE, size + 2 * SIDE)
    patches, begin = _patches(images, inks, low.flatten(0, 1), scale)
    for k in there.flatten().nonzero()[:, 0].tolist():
        x, y = begin[k][0] + SIDE, begin[k][1] + SIDE
        place = canvas[k // most, y : y + SIDE, x : x + SIDE]
        torch.maximum(place, patches[k], out=place)
    _strew(canvas, digits, clutter, size, g)
    boxes = torch.cat([low, low + sides], dim=2)
    labels = digits.labels[pick]
    return DigitScenes(
        canvas[:, None, SIDE : SIDE + size, SIDE : SIDE + size].contiguous(),
        [one[:count] for one, count in zip(boxes, counts.tolist(), strict=True)],
        [one[:count] for one, count in zip(labels, counts.tolist(), strict=True)],
    )


def _strew(canvas: Tensor, digits: Digits, pieces: int, size: int, g: torch.Generator) -> None:
    """Paste pieces of digits' ink anywhere, the brighter pixel being seen."""
    piece, count = 7, len(canvas) * pieces
    source = torch.randint(len(digits.labels), (count,), generator=g)
    images = digits.images[source, 0].float() / 255
    inks = _ink_boxes(images)
    room = (inks[:, 2:] - inks[:, :2] - piece).clamp(min=0)
    cut = (inks[:, :2] + room * torch.rand(count, 2, generator=g)).long().clamp(max=SIDE - piece)
    at = torch.randint(size - piece + 1, (count, 2), generator=g) + SIDE
    for k, ((x, y), (left, top)) in enumerate(zip(at.tolist(), cut.tolist(), strict=True)):
        place = canvas[k // pieces, y : y + piece, x : x + piece]
        torch.maximum(place, images[k, top : top + piece, left : left + piece], out=place)


def _shapes() -> Tensor:
    """Return a circle, a square and a triangle, drawn without jags: (3, 28, 28) from 0 to 1."""
    y, x = torch.meshgrid(*2 * [torch.arange(SIDE) + 0.5 - SIDE / 2], indexing="ij")
    slope = 0.5**0.5
    inside = [
        9.5 - (x**2 + y**2).sqrt(),
        9 - torch.maximum(x.abs(), y.abs()),
        torch.minimum(9 - y, (y + 10) * slope / 1.3 - x.abs()),
    ]
    return torch.stack(inside).add(0.5).clamp(0, 1)


def told_scenes(digits: Digits, n: int, seed: int = 0, *, size: int = 48) -> ToldScenes:
    """Draw scenes of two coloured things, and say of each which lies left of or above which.

    "a red four left of a blue circle": the relation is the one in which the two lie further apart,
    and the thing on the left, or above, is named first. The two differ in colour and in kind.

    Args:
        digits: the ones, fours and eights are drawn from these.
        n: how many scenes.
        seed: of everything that is drawn; not of the digits.
        size: the scene's side in pixels.

    Raises:
        ValueError: a count that is none.

    Example:
        >>> scenes = told_scenes(embedded_digits(), 2, seed=0)
        >>> " ".join(WORDS[word] for word in scenes.words[0])
        'a yellow eight above a red triangle . .'
    """
    n, size = check_count("n", n), check_count("size", size, 40)
    g = generator_of("told scenes", seed, size)
    colour, kind = (
        torch.stack([torch.randperm(many, generator=g)[:2] for _ in range(n)])
        for many in (len(COLOURS), len(KINDS))
    )
    pictures = _shapes()[kind.flatten().clamp(max=2)]
    for number, name in enumerate(KINDS):
        if name in NUMERALS:
            mine = (kind.flatten() == number).nonzero()[:, 0]
            every = (digits.labels == NUMERALS[name]).nonzero()[:, 0]
            drawn = every[torch.randint(len(every), (len(mine),), generator=g)]
            pictures[mine] = digits.images[drawn, 0].float() / 255
    inks = _ink_boxes(pictures)
    scale = 0.65 + 0.25 * torch.rand(2 * n, generator=g)
    sides = ((inks[:, 2:] - inks[:, :2]) * scale[:, None]).unflatten(0, (n, 2))
    low = _placed(sides, torch.ones(n, 2, dtype=torch.bool), size, g)
    patches, begin = _patches(pictures, inks, low.flatten(0, 1), scale)
    paint = torch.tensor(list(COLOURS.values()))[colour.flatten()]
    canvas = torch.zeros(n, 3, size + 2 * SIDE, size + 2 * SIDE)
    for k, (x, y) in enumerate(begin):
        ink = (patches[k] * 1.3).clamp(max=1)
        place = canvas[k // 2, :, y + SIDE : y + 2 * SIDE, x + SIDE : x + 2 * SIDE]
        torch.maximum(place, ink * paint[k][:, None, None], out=place)

    boxes = torch.cat([low, low + sides], dim=2)
    middle = low + sides / 2
    away = middle[:, 1] - middle[:, 0]
    beside = away[:, 0].abs() >= away[:, 1].abs()
    second = torch.where(beside, away[:, 0], away[:, 1]) < 0
    order = torch.stack([second.long(), 1 - second.long()], dim=1)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    colour, kind = colour.gather(1, order), kind.gather(1, order)
    words, about = _sentences(colour, kind, beside)
    images = canvas[:, :, SIDE : SIDE + size, SIDE : SIDE + size].contiguous()
    return ToldScenes(images, boxes, words, about)


def _sentences(colour: Tensor, kind: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """Return sentences as numbers of words, (N, 9), and which thing each word is about."""
    number = {word: k for k, word in enumerate(WORDS)}
    colours, first_kind = list(COLOURS), number[KINDS[0]]
    words, about = [], []
    rows = zip(colour.tolist(), kind.tolist(), beside.tolist(), strict=True)
    for (c1, c2), (k1, k2), left in rows:
        link = [number["left"], number["of"]] if left else [number["above"]]
        one, two = (
            [number["a"], number[colours[c]], first_kind + k] for c, k in ((c1, k1), (c2, k2))
        )
        sentence = [*one, *link, *two]
        says = [-1, 0, 0, *len(link) * [-1], -1, 1, 1]
        rest = 9 - len(sentence)
        words.append(sentence + rest * [0])
        about.append(says + rest * [-1])
    return torch.tensor(words), torch.tensor(about)
