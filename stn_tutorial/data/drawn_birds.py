"""Birds that are drawn, not photographed: the stand-in for CUB-200-2011, offline (chapter 14).

All of them are one bird: body, wing, tail, head, legs. Four classes differ in two details alone,
the bill (black or yellow) and the wing (plain, or with two light bars), and each pair of them is a
class of its own, so that whoever sees the head alone, or the wing alone, can at best guess between
two. Shade, size, place, tilt and the side that the bird faces are drawn afresh and say nothing, and
behind it is a piece of a photograph. They have the boxes and the parts of CUB, exactly true; a
network that names them has shown nothing about real birds.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import Size, check_choice, check_count, check_size
from stn_tutorial.affine import compose, invert, rotation, scaling, transform_points, translation
from stn_tutorial.data.digits import SPLITS
from stn_tutorial.data.distortions import sent
from stn_tutorial.data.drawn_numbers import textures
from stn_tutorial.data.passes import generator_of

__all__ = ["DRAWN_BIRDS", "PARTS", "BirdTruth", "DrawnBirds"]

PARTS = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing",
    "nape", "right eye", "right leg", "right wing", "tail", "throat",
)  # fmt: skip
"""CUB's fifteen parts, in its order. Left and right are the bird's own."""
BILLS, WINGS = ("black bill", "yellow bill"), ("plain wing", "barred wing")
DRAWN_BIRDS = tuple(f"{bill}, {wing}" for bill in BILLS for wing in WINGS)
"""The four classes of the drawn birds: class 2·b + w has bill b and wing w."""

# In the bird's own frame: x towards its head, y down, the body's half length 1, its middle at 0.
SPOTS = {
    "back": (-0.2, -0.5), "beak": (1.4, -0.5), "belly": (-0.1, 0.5), "breast": (0.75, 0.2),
    "crown": (0.8, -0.95), "forehead": (1.08, -0.78), "nape": (0.47, -0.75), "tail": (-1.5, 0.15),
    "throat": (0.95, -0.27), "eye": (0.92, -0.66), "leg": (0.1, 0.8), "wing": (-0.25, -0.05),
}  # fmt: skip
FRAME = ((-1.95, -1.0), (1.9, -1.0), (1.9, 1.05), (-1.95, 1.05))
"""The corners of what is drawn, in that frame: their box in the picture is the bird's."""


class BirdTruth(NamedTuple):
    """Where the birds of a batch are, in normalised units of their pictures."""

    boxes: Tensor
    """float32 (N, 4): left, top, right, bottom, as `affine.crop` takes them."""
    parts: Tensor
    """float32 (N, 15, 2): x and y of each of `PARTS`; zeros where it is not seen."""
    visible: Tensor
    """bool (N, 15)."""


class DrawnBirds:
    """Drawn birds of four classes, from a seed and a step alone: `birds(step)` gives (U, target).

    U is float32 (N, 3, H, W) in [0, 1] and target int64 (N,), a place in `DRAWN_BIRDS`, both on
    `device`; `truth(step)` says where each bird of that batch and its parts are. What is random is
    drawn on the CPU and moved as a few numbers for each bird.

    Args:
        split: `"train"` or `"test"`: the two draw from different seeds.
        batch_size: birds a step.
        seed: of all that is drawn.
        size: (H, W) of the pictures. At 64×64 a bar on a wing is a pixel or two wide.
        device: where they are made.

    Example:
        >>> birds = DrawnBirds("train", batch_size=8)
        >>> U, target = birds(0)
        >>> U.shape, target.shape, birds.truth(0).parts.shape
        (torch.Size([8, 3, 64, 64]), torch.Size([8]), torch.Size([8, 15, 2]))
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
        g, theta, _, target = self._drawn(step)
        n = self.batch_size
        draws = torch.rand(n, 32, generator=g)
        U = self._painted(sent(theta, self.device), sent(target, self.device), draws)
        noise = torch.randn(n, 1, *self.size, generator=g)
        level = 0.03 * torch.rand(n, 1, 1, 1, generator=g)
        U = U + sent(noise, self.device) * sent(level, self.device)
        return U.clamp(0, 1), sent(target, self.device)

    def truth(self, step: int) -> BirdTruth:
        """Return where the birds of a step are, on `device`."""
        _, theta, left, _ = self._drawn(step)
        place = invert(theta)  # from the bird's frame into the picture
        corners = transform_points(place, torch.tensor(FRAME))
        boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1).clamp(-1, 1)
        n, seen = len(theta), torch.zeros(len(theta), len(PARTS), dtype=torch.bool)
        spots = torch.zeros(n, len(PARTS), 2)
        for k, name in enumerate(PARTS):
            side, _, what = name.rpartition(" ")
            spots[:, k] = torch.tensor(SPOTS[what])
            # In profile it shows the side that we look at: the left one when it faces left.
            seen[:, k] = True if not side else left == (side == "left")
        parts = transform_points(place, spots)
        seen &= (parts.abs() <= 1).all(dim=-1)
        parts = torch.where(seen[..., None], parts, 0)
        return BirdTruth(*(sent(one, self.device) for one in (boxes, parts, seen)))

    def _drawn(self, step: int) -> tuple[torch.Generator, Tensor, Tensor, Tensor]:
        """Choose class and pose: the generator, θ (N, 2, 3) into the bird's frame, side, class."""
        check_count("step", step, 0)
        g = generator_of("drawn birds", self.split, self.seed, step)
        n = self.batch_size
        target = torch.randint(len(DRAWN_BIRDS), (n,), generator=g)
        u = torch.rand(n, 6, generator=g)
        left = u[:, 0] < 0.5
        unit = 0.27 + 0.08 * u[:, 1]
        own = compose(
            scaling(torch.where(left, -unit, unit), unit),
            rotation(30 * u[:, 2] - 15),
            translation(0.8 * u[:, 3] - 0.4, 1.2 * u[:, 4] - 0.55),
        )
        return g, own, left, target

    def _painted(self, theta: Tensor, target: Tensor, draws: Tensor) -> Tensor:
        """Return the birds before their grounds, float32 (N, 3, H, W)."""
        n, (height, width) = len(theta), self.size
        grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
        x, y = grid[..., 0].unsqueeze(1), grid[..., 1].unsqueeze(1)
        # Pixels to one unit of the frame: coverage goes from 0 to 1 within one of them.
        unit = theta[:, :, :2].det().abs().rsqrt().view(n, 1, 1, 1) * (height * width) ** 0.5 / 2

        def filled(off: Tensor) -> Tensor:
            return (0.5 - off * unit).clamp(0, 1)

        def ellipse(x0: float, y0: float, a: float, b: float) -> Tensor:
            r = (((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 + 1e-9).sqrt()
            return filled((r - 1) * (a * b) ** 0.5)

        def stroke(x0: float, y0: float, x1: float, y1: float, half: float) -> Tensor:
            dx, dy = x1 - x0, y1 - y0
            along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
            off = ((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 + 1e-9).sqrt()
            return filled(off - half)

        def beak(length: float, half: float) -> Tensor:
            t = (x - 1.1) / length  # 0 at its root, 1 at its tip
            off = (y + 0.56).abs() - half * (1 - t)
            return filled(torch.maximum(off, (t - 1) * length)) * (x > 0.8)

        u = sent(draws, self.device)[:, :, None, None, None].unbind(1)
        texture = textures(draws[:, :4], self.size, self.device)
        plain = torch.cat(u[4:7], dim=1)
        U = torch.lerp(texture, plain, 0.5 + 0.35 * u[7])

        # A bird's colours differ a little from bird to bird, and say nothing of its class.
        def hue(rgb: tuple[float, ...], k: int, by: float) -> Tensor:
            own = torch.tensor(rgb, device=self.device)[:, None, None]
            return own + by * (2 * torch.cat(u[k : k + 3], dim=1) - 1)

        coat, head = hue((0.66, 0.5, 0.34), 8, 0.12), hue((0.25, 0.35, 0.6), 11, 0.12)
        wing, horn = hue((0.3, 0.2, 0.14), 14, 0.06), hue((0.95, 0.75, 0.1), 17, 0.05)
        branch = 0.3 * torch.cat(u[20:23], dim=1)

        yellow, barred = (one.view(n, 1, 1, 1) > 0 for one in (target // 2, target % 2))
        bill = torch.where(yellow, horn, 0.15 * horn)
        first, second = (
            stroke(-0.1, -0.3, -0.22, 0.2, 0.085),
            stroke(-0.5, -0.28, -0.62, 0.16, 0.085),
        )
        bars = torch.maximum(first, second) * barred
        for shape, colour in (
            (stroke(-9.0, 1.1, 9.0, 1.1, 0.1), branch),
            (torch.maximum(stroke(0, 0.4, 0.05, 1.05, 0.045), stroke(0.2, 0.4, 0.3, 1.05, 0.045)),
             wing),
            (ellipse(-1.4, 0.12, 0.55, 0.15), wing),
            (ellipse(0.0, 0.0, 1.0, 0.58), coat),
            (beak(0.55, 0.19), bill),
            (ellipse(0.8, -0.58, 0.4, 0.38), head),
            (ellipse(-0.3, -0.05, 0.72, 0.33), wing),
            (bars, torch.full_like(coat, 0.95)),
            (ellipse(0.92, -0.66, 0.075, 0.075), torch.full_like(coat, 0.02)),
        ):  # fmt: skip
            U = U + shape * (colour - U)
        across = torch.linspace(-1, 1, width, device=self.device)
        down = torch.linspace(-1, 1, height, device=self.device)[:, None]
        return U * (1 + 0.2 * (2 * u[23] - 1) * across + 0.2 * (2 * u[24] - 1) * down)
