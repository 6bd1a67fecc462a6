"""House numbers that are drawn, not photographed: the stand-in for SVHN, offline (chapter 13).

One to five of scikit-learn's embedded digits stand side by side on a piece of a photograph or a
plate before it, in a colour of their own, slanted and turned a little; at the edge there may be
halves of digits that belong to no number, as in a crop of a street. They are of SVHN's form and of
nobody's street: a network that reads them has shown nothing about SVHN.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import Size, check_choice, check_count, check_size
from stn_tutorial.affine import compose, rotation, scaling, shear, translation
from stn_tutorial.data.digits import SPLITS, Digits, embedded_digits
from stn_tutorial.data.distortions import sent
from stn_tutorial.data.passes import generator_of
from stn_tutorial.data.pictures import PHOTOGRAPHS, photograph

__all__ = ["DrawnNumbers"]

POSITIONS = 5
"""Digits that a number may have."""
NO_DIGIT = 10
"""The class of a position that holds none."""
LENGTHS = (0.16, 0.44, 0.25, 0.10, 0.05)
"""The share of the numbers of 1, 2, … digits: as in SVHN roughly, but for more of the long ones."""
SLOTS = POSITIONS + 2
"""Digits that are drawn: those of the number, and half a neighbour on either side."""
INK = 18 / 28
"""The share of an embedded digit's frame that its ink spans."""


@lru_cache(maxsize=2)
def _digits(split: str) -> tuple[Digits, Tensor, Tensor]:
    """Return the embedded digits by class, where each class begins, and how many it has."""
    digits = embedded_digits(split)
    order = digits.labels.argsort(stable=True)
    counts = digits.labels.bincount(minlength=10)
    by_class = Digits(digits.images[order], digits.labels[order])
    return by_class, counts.cumsum(0) - counts, counts


@lru_cache(maxsize=1)
def _photographs() -> Tensor:
    """Return both photographs side by side, float32 (1, 3, 160, 320): one texture to read from."""
    return torch.cat([photograph(name, (160, 160)) for name in PHOTOGRAPHS], dim=3)


def _between(low: float, high: float, u: Tensor) -> Tensor:
    return low + (high - low) * u


def textures(u: Tensor, size: Size, device: torch.device) -> Tensor:
    """Return a window of a photograph for each row of u, (N, 4) in [0, 1]: (N, 3, H, W)."""
    n, (height, width) = len(u), size
    zoom = _between(0.1, 0.3, u[:, 0])
    # The two photographs share the width; a window stays inside one of them.
    many = len(PHOTOGRAPHS)
    which = (u[:, 1] * many).floor()
    x = (2 * which + 1) / many - 1 + (1 - zoom) * (2 * u[:, 2] - 1) / many
    y = (1 - zoom) * (2 * u[:, 3] - 1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom / many, zoom
    theta[:, 0, 2], theta[:, 1, 2] = x, y
    grid = F.affine_grid(sent(theta, device), [n, 3, height, width], align_corners=False)
    texture = F.grid_sample(
        _photographs().to(device), grid.view(1, n * height, width, 2), align_corners=False
    )
    return texture.view(3, n, height, width).transpose(0, 1)


class DrawnNumbers:
    """Drawn house numbers, from a seed and a step alone: `numbers(step)` gives (U, target).

    U is float32 (N, 3, H, W) in [0, 1] and target int64 (N, 5), both on `device`: the digits from
    left to right, 0 to 9, and `NO_DIGIT`, 10, where there is none. What is random is drawn on the
    CPU and moved as a few numbers for each picture; the pictures are made on the device.

    Args:
        split: whose handwriting: `"train"` or `"test"`. No digit of one is in the other.
        batch_size: pictures a step.
        seed: of all that is drawn. The two splits differ for each seed.
        size: (H, W) of the pictures.
        device: where they are made.

    Example:
        >>> U, target = DrawnNumbers("train", batch_size=8)(0)
        >>> U.shape, target.shape
        (torch.Size([8, 3, 64, 64]), torch.Size([8, 5]))
    """

    def __init__(
        self,
        split: str = "train",
        *,
        batch_size: int = 64,
        seed: int = 0,
        size: Size = (64, 64),
        device: torch.device | str = "cpu",
    ) -> None:
        check_choice("split", split, SPLITS)
        self.split, self.seed = split, seed
        self.batch_size = check_count("batch_size", batch_size)
        self.size = check_size(size)
        self.device = torch.device(device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step, 0 the first."""
        check_count("step", step, 0)
        g = generator_of("drawn numbers", self.split, self.seed, step)
        n = self.batch_size
        lengths = torch.multinomial(torch.tensor(LENGTHS), n, replacement=True, generator=g) + 1
        theta, images, labels = self._placed(lengths, g)
        target = labels[:, 1:-1]
        target[torch.arange(POSITIONS) >= lengths[:, None]] = NO_DIGIT
        U = self._painted(theta, images, torch.rand(n, 24, generator=g))
        noise = torch.randn(n, 1, *self.size, generator=g)
        level = 0.03 * torch.rand(n, 1, 1, 1, generator=g)
        U = U + sent(noise, self.device) * sent(level, self.device)
        return U.clamp(0, 1), sent(target, self.device)

    def _placed(self, lengths: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Choose digits and their places: θ (N·7, 2, 3), their pictures, and labels (N, 7)."""
        n = len(lengths)
        digits, first, counts = _digits(self.split)
        low = torch.zeros(n, SLOTS)
        low[:, 1] = 0.1  # no house number begins with 0
        labels = _between(0, 1, torch.rand(n, SLOTS, generator=g)).mul(1 - low).add(low)
        labels = (10 * labels).long().clamp(max=9)
        pick = (torch.rand(n, SLOTS, generator=g) * counts[labels]).long()
        images = digits.images[first[labels] + pick]

        u = torch.rand(n, 10, generator=g)
        half = _between(0.62, 0.82, u[:, 0])  # of the number's box, in units of half the picture
        half = half * torch.where(lengths == 1, _between(0.55, 0.9, u[:, 1]), torch.ones(()))
        height = _between(0.55, 0.82, u[:, 2])
        cell = half / lengths  # half the width of a digit's share
        place = torch.arange(SLOTS) - 1
        x = (2 * place + 1) * cell[:, None] - half[:, None]
        # Neighbours stand on the picture's edge, so that half of each is cut off, or are away.
        edge = 1.02 + 0.12 * torch.rand(n, 2, generator=g)
        there = torch.rand(n, 2, generator=g) < 0.35
        edge = torch.where(there, edge, 9.0)
        x[:, 0] = -edge[:, 0]
        x.scatter_(1, lengths[:, None] + 1, edge[:, 1:])
        shown = (place >= -1) & (place <= lengths[:, None])
        x = torch.where(shown, x, 9.0)

        each = torch.rand(3, n, SLOTS, generator=g)
        wide = cell[:, None] / INK * _between(0.85, 1.15, each[0])
        tall = height[:, None] / INK * _between(0.9, 1.08, each[1])
        y = 0.08 * (2 * each[2] - 1)
        own = compose(
            scaling(wide.flatten(), tall.flatten()), translation(x.flatten(), y.flatten())
        )
        whole = compose(
            shear(_between(-0.2, 0.3, u[:, 3])),
            rotation(_between(-10, 10, u[:, 4])),
            translation(_between(-0.1, 0.1, u[:, 5]), _between(-0.1, 0.1, u[:, 6])),
        )
        theta = compose(own, whole.repeat_interleave(SLOTS, dim=0))
        return sent(theta, self.device), sent(images, self.device), labels

    def _painted(self, theta: Tensor, images: Tensor, draws: Tensor) -> Tensor:
        """Return the numbers in their colours on their grounds, float32 (N, 3, H, W)."""
        n = len(draws)
        height, width = self.size
        shape = [n * SLOTS, 1, height, width]
        grid = F.affine_grid(theta, shape, align_corners=False)
        ink = F.grid_sample(images.flatten(0, 1).float() / 255, grid, align_corners=False)
        ink = (1.6 * ink).clamp(max=1).view(n, SLOTS, height, width).amax(dim=1, keepdim=True)

        u = sent(draws, self.device)[:, :, None, None, None].unbind(1)
        texture = textures(draws[:, :4], self.size, self.device)
        plate = torch.cat(u[4:7], dim=1)
        share = _between(0.15, 0.9, u[7])
        ground = share * plate + (1 - share) * texture
        # A colour whose brightness differs from the ground's, to the side that has room for it.
        mean = ground.mean(dim=(1, 2, 3), keepdim=True)
        apart = _between(0.25, 0.75, u[8]) * torch.where(mean > 0.5, -1.0, 1.0)
        apart = torch.where(u[9] < 0.15, -0.6 * apart, apart)
        colour = mean + apart + 0.25 * (torch.cat(u[10:13], dim=1) - 0.5)
        U = ground + ink * (colour - ground)
        # Light from one side, and a lens that is out of focus.
        across = torch.linspace(-1, 1, width, device=self.device)
        down = torch.linspace(-1, 1, height, device=self.device)[:, None]
        light = 1 + 0.25 * (2 * u[13] - 1) * across + 0.25 * (2 * u[14] - 1) * down
        U = U * light
        pad = F.pad(U, (2, 2, 2, 2), mode="replicate")
        blurred = F.avg_pool2d(pad, 5, stride=1)
        return torch.lerp(U, blurred, u[15])
