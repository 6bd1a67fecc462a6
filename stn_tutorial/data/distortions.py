"""The paper's distortions R, RTS, P, E and TC (chapters 10 and 11).

They are made of the package's own grids, a whole batch at a time and on the digits' device. What
is random about them is drawn on the CPU and moved as a few numbers for each picture. Each
`Distortion` lists what it rests on, and says of each item how sure we are of it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._facts import Fact
from stn_tutorial.affine import compose, rotation, scaling, translation
from stn_tutorial.grids import affine_grid, control_points, projective_grid, thin_plate_spline_grid

__all__ = ["DISTORTIONS", "Distortion"]

SIDE = 28
"""Pixels along each side of a digit's picture."""


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Move a few numbers from the CPU, which need not wait until a GPU has come so far."""
    if device.type != "cuda":
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


class Distortion:
    """One of the paper's distortions: what it draws for each digit, and the grid of that.

    Called with uint8 pictures (N, 1, 28, 28) and a CPU generator it gives distorted ones, float32
    (N, 1, H, W) in [0, 1], on the pictures' device, by bilinear interpolation. What is drawn
    depends on the generator and on N, and on nothing else.
    """

    name: str
    """As in the paper's Table 1."""
    title: str
    """In words."""
    size: tuple[int, int] = (SIDE, SIDE)
    """(H, W) of the canvas."""
    facts: tuple[Fact, ...]
    """What it rests on, and how sure we are of each."""

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return the parameters of n maps from output to input, on the CPU: θ."""
        raise NotImplementedError

    def grid(self, theta: Tensor) -> Tensor:
        """Return the sampling grid of these parameters, (N, H, W, 2)."""
        return affine_grid(theta, self.size)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the distorted pictures, float32 (N, 1, H, W) in [0, 1]."""
        if images.dtype != torch.uint8 or images.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(
                f"images must be uint8 of shape (N, 1, {SIDE}, {SIDE}), "
                f"but {images.dtype} of shape {tuple(images.shape)} was given"
            )
        theta = sent(self.draw(len(images), generator), images.device)
        return F.grid_sample(images.float() / 255, self.grid(theta), align_corners=False)


class _Rotated(Distortion):
    """R: turned by up to 90° either way, about the centre of the canvas."""

    name = "R"
    title = "rotation"
    facts = (
        Fact("rotation uniform in ±90°", "a"),
        Fact("canvas 28×28: what is turned out of it is cut off", "c"),
    )

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return rotation(_uniform(n, -90, 90, generator))


class _Placed(Distortion):
    """RTS: turned, scaled and put somewhere on a larger canvas."""

    name = "RTS"
    title = "rotation, translation, scale"
    size = (42, 42)
    facts = (
        Fact("rotation uniform in ±45°", "b"),
        Fact("scale uniform in 0.7 to 1.2", "b"),
        Fact("random position on a 42×42 canvas", "b"),
        Fact("the position is uniform where the scaled 28×28 frame, before it turns, fits", "c"),
    )

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        degrees, scale = _uniform(n, -45, 45, generator), _uniform(n, 0.7, 1.2, generator)
        # The side of the scaled frame as a share of the canvas; what is left is room to move.
        share = scale * SIDE / self.size[0]
        tx, ty = ((1 - share) * _uniform(n, -1, 1, generator) for _ in range(2))
        return compose(scaling(share), rotation(degrees), translation(tx, ty))


CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
"""Of a picture, (x, y), once around."""


def _homography(source: Tensor, target: Tensor) -> Tensor:
    """Return the 3×3 maps, last entry 1, that take four points to four others: (N, 3, 3)."""
    x, y = source.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = []
    # (h₁x + h₂y + h₃)/(h₇x + h₈y + 1) = u, and the same with the second row for v.
    for head, u in zip(
        ((x, y, one, zero, zero, zero), (zero, zero, zero, x, y, one)),
        target.unbind(-1),
        strict=True,
    ):
        rows.append(torch.stack([*head, -u * x, -u * y], dim=-1))
    system = torch.cat(rows, dim=-2)
    right = torch.cat(target.unbind(-1), dim=-1)
    eight = torch.linalg.solve(system, right)
    return F.pad(eight, (0, 1), value=1.0).view(-1, 3, 3)


def _convex(corners: Tensor) -> Tensor:
    """Whether four corners, (N, 4, 2), turn the same way all around, as `CORNERS` do: (N,)."""
    (ax, ay), (bx, by) = ((corners.roll(-k, 1) - corners.roll(1 - k, 1)).unbind(-1) for k in (1, 2))
    return (ax * by - ay * bx > 0).all(-1)


class _Projected(Distortion):
    """P: shrunk, then seen from aside: each corner is moved on its own."""

    name = "P"
    title = "projective"
    facts = (
        Fact("every corner moved by a normal draw", "b"),
        Fact("its standard deviation is 5 pixels, along x and along y", "c+"),
        Fact("scale uniform in 0.75 to 1.0, before the corners move", "c+"),
        Fact("canvas 28×28", "c"),
        Fact("corners that do not make a convex quadrangle are drawn again", "c"),
    )
    sigma = 5.0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        scaled = CORNERS * _uniform(n, 0.75, 1.0, generator)[:, None, None].double()
        moved = scaled.clone()
        # A map whose corners crossed would show the digit inside out, the horizon through it.
        again = torch.ones(n, dtype=torch.bool)
        while again.any():
            pixels = self.sigma * torch.randn(int(again.sum()), 4, 2, generator=generator)
            moved[again] = scaled[again] + pixels * (2 / SIDE)
            again = ~_convex(moved)
        return _homography(moved, CORNERS.expand(n, 4, 2)).float()

    def grid(self, theta: Tensor) -> Tensor:
        return projective_grid(theta, self.size)


class _Bent(Distortion):
    """E: shrunk, then bent by a thin-plate spline."""

    name = "E"
    title = "elastic"
    facts = (
        Fact("thin-plate spline on a regular grid of 16 points, each moved by a normal draw", "b"),
        Fact("its standard deviation is 1.5 pixels, along x and along y", "b"),
        Fact("destructive, not always invertible", "a"),
        Fact("scale uniform in 0.75 to 1.0, before the points move", "c+"),
        Fact("canvas 28×28, and the points span it, edges included", "c"),
        Fact("a point's movement is where it reads, not where it goes", "c"),
    )
    sigma = 1.5

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        scale = _uniform(n, 0.75, 1.0, generator)[:, None, None]
        pixels = self.sigma * torch.randn(n, 16, 2, generator=generator)
        # A spline is linear in where its points read, so the scale goes in with them.
        return (control_points(4) + pixels * (2 / SIDE)) / scale

    def grid(self, theta: Tensor) -> Tensor:
        return thin_plate_spline_grid(theta, self.size)


class _Cluttered(Distortion):
    """TC: put somewhere on a large canvas, among pieces of other digits."""

    name = "TC"
    title = "translation and clutter"
    size = (60, 60)
    facts = (
        Fact("the digit at a random place on a 60×60 canvas", "b"),
        Fact("6 distractors", "b"),
        Fact("each a 6×6 patch cut from another digit", "c+"),
        Fact("the digit's 28×28 frame lies wholly on the canvas, at whole pixels, uniformly", "c"),
        Fact("the other digits are those of the same batch", "c"),
        Fact("a patch is cut from the middle 20×20, where the ink is, and may be empty", "c"),
        Fact("a patch may lie anywhere, the digit included; the brighter pixel is seen", "c"),
    )
    distractors, patch = 6, 6

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        room = self.size[0] - SIDE
        place = torch.randint(0, room + 1, (2, n), generator=generator)
        # From the middle, in normalised units: 2 is the canvas.
        tx, ty = (2 * place - room) / self.size[0]
        return compose(scaling(SIDE / self.size[0]), translation(tx, ty))

    def _clutter(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return which pixels of the canvas the patches cover, and the patches: (N, 216) each."""
        n, shape = len(images), (len(images), self.distractors)
        if n < 2:
            raise ValueError("TC needs at least 2 images, to cut distractors from the others")
        cell = torch.arange(self.patch)

        def pixels(low: int, high: int, width: int) -> Tensor:
            row, column = torch.randint(low, high + 1, (2, *shape), generator=generator)
            flat = (row[..., None] + cell)[..., None] * width + (column[..., None] + cell)[
                ..., None, :
            ]
            return flat.flatten(1)

        own = torch.arange(n)[:, None]
        other = (own + torch.randint(1, n, shape, generator=generator)) % n
        source = pixels(4, 24 - self.patch, SIDE)
        source += other.repeat_interleave(self.patch**2, dim=1) * SIDE**2
        target = pixels(0, self.size[0] - self.patch, self.size[1])
        patches = images.reshape(-1)[sent(source, images.device)].float() / 255
        return sent(target, images.device), patches

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the digits among their distractors, float32 (N, 1, 60, 60) in [0, 1]."""
        canvas = super().__call__(images, generator)
        target, patches = self._clutter(images, generator)
        # The largest of several, so that the order in which a GPU adds them does not matter.
        return canvas.flatten(1).scatter_reduce(1, target, patches, "amax").view_as(canvas)


DISTORTIONS: dict[str, Distortion] = {
    d.name: d for d in (_Rotated(), _Placed(), _Projected(), _Bent(), _Cluttered())
}
"""The paper's distortions by name: the columns of its Table 1, and TC."""
