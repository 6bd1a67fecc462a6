"""Pictures and digits: what the chapters look at and learn from (chapters 1, 10 and 11).

The pictures need no network: two photographs and the embedded digits come inside scikit-learn, and
the letter F is drawn here. MNIST is fetched once by torchvision, and its files' contents are
checked.

The paper's distortions R, RTS, P, E and TC are made of the package's own grids, a whole batch at a
time and on the digits' device. What is random about them is drawn on the CPU, from a seed and the
number of the batch alone, and moved as a few numbers for each picture: the same seed gives the
same digits, in any order, on every run. Each `Distortion` lists what it rests on, and says of each
item how sure we are of it.

Two environment variables choose where digits come from:

- `STN_TUTORIAL_DATA`: the folder that holds, or shall hold, `MNIST/raw`; a cache folder otherwise.
- `STN_TUTORIAL_DATASET`: `mnist` (as when it is unset), or `digits` for the embedded ones.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn.datasets
import torch
import torchvision
from filelock import FileLock
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import Size, check_choice, check_size
from stn_tutorial._facts import Fact
from stn_tutorial.affine import compose, rotation, scaling, translation
from stn_tutorial.grids import (
    affine_grid,
    control_points,
    projective_grid,
    thin_plate_spline_grid,
)
from stn_tutorial.sampling import sample

__all__ = [
    "DISTORTIONS",
    "Batches",
    "Digits",
    "Distortion",
    "FixedSet",
    "data_folder",
    "dataset_name",
    "embedded_digits",
    "hold_out",
    "letter_f",
    "load_digits",
    "mnist",
    "photograph",
]

PHOTOGRAPHS = {"temple": ("china.jpg", 0.32), "flower": ("flower.jpg", 0.48)}
"""scikit-learn's file, and where its subject is: the share of the width to the left of it."""

SPLITS = ("train", "test")

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the unpacked files; torchvision checks the archives only."""


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


class Digits(NamedTuple):
    """Pictures of digits and what they show."""

    images: Tensor
    """uint8, shape (N, 1, 28, 28), 0 the ground and 255 the ink."""
    labels: Tensor
    """int64, shape (N,), 0 to 9."""


def embedded_digits(split: str = "train") -> Digits:
    """Return scikit-learn's handwritten digits, enlarged from 8×8 to MNIST's format.

    The 1797 digits (Alpaydin and Kaynak 1998) fill their 8×8 frames; our own bicubic sampler
    enlarges them to the 20×20 in the middle of 28×28 that MNIST's digits fill. The last 360 are the
    test part.

    Args:
        split: `"train"` or `"test"`.
    """
    check_choice("split", split, SPLITS)
    source = sklearn.datasets.load_digits()
    part = slice(None, -360) if split == "train" else slice(-360, None)
    small = torch.from_numpy(source.images[part])[:, None] / 16
    theta = scaling(20 / 28, dtype=small.dtype)
    grid = affine_grid(theta, (28, 28)).expand(len(small), -1, -1, -1)
    large = sample(small, grid, "bicubic").clamp(0, 1)
    return Digits((large * 255).round().to(torch.uint8), torch.from_numpy(source.target[part]))


def data_folder() -> Path:
    """Return the folder that holds, or shall hold, `MNIST/raw`; see the module."""
    if folder := os.environ.get("STN_TUTORIAL_DATA"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "stn-tutorial"


def _check_unpacked(raw: Path) -> None:
    """Raise `ValueError` when an unpacked file is there and its content is not MNIST's."""
    for name, expected in MNIST_SHA256.items():
        path = raw / name
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{path} is damaged ({path.stat().st_size} bytes, SHA-256 other than MNIST's). "
                "Delete it: the next call unpacks or fetches it again."
            )


def _fetch(folder: Path) -> None:
    """Put MNIST's four unpacked files into `folder`, each whole or not at all.

    All is done in a folder aside, under a lock; then the files are moved to their place. What a
    killed process left there is thrown away by the next one.
    """
    raw, aside = folder / "MNIST" / "raw", folder / ".fetching"
    raw.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        # Another process may have done it while this one waited.
        if all((raw / name).exists() for name in MNIST_SHA256):
            return
        shutil.rmtree(aside, ignore_errors=True)
        try:
            (aside / "MNIST" / "raw").mkdir(parents=True)
            for name in MNIST_SHA256:
                if (raw / f"{name}.gz").exists():
                    shutil.copyfile(raw / f"{name}.gz", aside / "MNIST" / "raw" / f"{name}.gz")
            torchvision.datasets.MNIST(str(aside), download=True)
            _check_unpacked(aside / "MNIST" / "raw")
            for name in MNIST_SHA256:
                os.replace(aside / "MNIST" / "raw" / name, raw / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def mnist(split: str = "train") -> Digits:
    """Return MNIST, from the data folder, where it is fetched and unpacked when it is missing.

    The data folder is `STN_TUTORIAL_DATA` or, when that is unset, `stn-tutorial` in the cache
    folder (`XDG_CACHE_HOME` or `~/.cache`). Several processes may ask at once: one fetches, the
    others wait for it.

    Args:
        split: `"train"` (60 000 digits) or `"test"` (10 000).

    Raises:
        ValueError: an unpacked file's content is not MNIST's.
        RuntimeError: MNIST is neither there nor to be fetched; nothing half-written is left.
    """
    check_choice("split", split, SPLITS)
    folder = data_folder()
    raw = folder / "MNIST" / "raw"
    # Before torchvision reads: on a truncated file it fails with a message that helps nobody.
    _check_unpacked(raw)
    if not all((raw / name).exists() for name in MNIST_SHA256):
        try:
            _fetch(folder)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())  # torchvision's has several lines
            raise RuntimeError(
                f"MNIST is not in {folder} and could not be fetched ({reason}). Either set "
                "STN_TUTORIAL_DATA to a folder that holds MNIST/raw with its four files, or set "
                "STN_TUTORIAL_DATASET=digits to use the digits that come with scikit-learn."
            ) from error
        _check_unpacked(raw)
    dataset = torchvision.datasets.MNIST(str(folder), train=split == "train")
    return Digits(dataset.data[:, None], dataset.targets)


def dataset_name() -> str:
    """Return what `STN_TUTORIAL_DATASET` names: `"mnist"` or `"digits"`.

    Raises:
        ValueError: it names something else.
    """
    choice = os.environ.get("STN_TUTORIAL_DATASET", "mnist")
    check_choice("STN_TUTORIAL_DATASET", choice, ("mnist", "digits"))
    return choice


def load_digits(split: str = "train", dataset: str | None = None) -> Digits:
    """Return the digits that `STN_TUTORIAL_DATASET` names, and print which they are.

    Args:
        split: `"train"` or `"test"`.
        dataset: `"mnist"` or `"digits"`, whatever the variable says.

    Raises:
        ValueError: `dataset`, or the variable, is neither `mnist` nor `digits`.
        RuntimeError: see `mnist`; there is no silent way from one to the other.
    """
    if dataset is None:
        dataset = dataset_name()
    check_choice("dataset", dataset, ("mnist", "digits"))
    digits = mnist(split) if dataset == "mnist" else embedded_digits(split)
    name = "MNIST" if dataset == "mnist" else "scikit-learn's embedded digits"
    print(f"{name}, {split}: {len(digits.labels)} digits")
    return digits


def hold_out(digits: Digits) -> tuple[Digits, Digits]:
    """Split the training digits into those to train on and those to choose by: the last sixth.

    Of MNIST's 60 000, the last 10 000 are held out. Whatever is chosen (a rate, a width, when to
    stop) is chosen by them; the test digits are for the end.
    """
    count = len(digits.labels) // 6
    return (
        Digits(digits.images[:-count], digits.labels[:-count]),
        Digits(digits.images[-count:], digits.labels[-count:]),
    )


# --- The paper's distortions ---

SIDE = 28
"""Pixels along each side of a digit's picture."""


def _sent(numbers: Tensor, device: torch.device) -> Tensor:
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
        theta = _sent(self.draw(len(images), generator), images.device)
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
        patches = images.reshape(-1)[_sent(source, images.device)].float() / 255
        return _sent(target, images.device), patches

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


def _generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator that depends on the key alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _distortion(name: str) -> Distortion:
    check_choice("distortion", name, tuple(DISTORTIONS))
    return DISTORTIONS[name]


class Batches:
    """Training digits, distorted afresh for each step; step k's batch depends on seed and k alone.

    `batches(step)` gives (U, target): float32 (N, 1, H, W) in [0, 1] and int64 (N,), on `device`.
    Each digit comes once in each pass, in an order that is new in each pass; a batch may reach from
    one pass into the next. Resuming at step k needs nothing but k.

    Args:
        digits: to train on; kept as bytes on the device.
        distortion: a name from `DISTORTIONS`.
        batch_size: digits a step.
        seed: of the order and of the distortions.
        device: where the batches are made.
    """

    def __init__(
        self,
        digits: Digits,
        distortion: str,
        *,
        batch_size: int = 256,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.distortion = _distortion(distortion)
        if not 1 <= batch_size <= len(digits.labels):
            raise ValueError(
                f"batch_size must be 1 to {len(digits.labels)}, the number of digits, "
                f"but {batch_size} was given"
            )
        self.images, self.labels = digits.images.to(device), digits.labels.to(device)
        self.batch_size, self.seed = batch_size, seed
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def _chosen(self, number: int) -> Tensor:
        """Return the order of one pass, kept until another one is asked for."""
        if number != self._pass:
            self._order = torch.randperm(
                len(self.labels), generator=_generator("order", self.seed, number)
            )
            self._pass = number
        return self._order

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step, 0 the first."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, but {step} was given")
        first, count = divmod(step * self.batch_size, len(self.labels))
        chosen = self._chosen(first)[count : count + self.batch_size]
        if missing := self.batch_size - len(chosen):
            chosen = torch.cat([chosen, self._chosen(first + 1)[:missing]])
        chosen = _sent(chosen, self.images.device)
        generator = _generator("distort", self.seed, step)
        return self.distortion(self.images[chosen], generator), self.labels[chosen]


class FixedSet:
    """Digits to be judged by, each distorted once and for all: every run sees the same pictures.

    Iterating gives (U, target) as `Batches` does, made anew each time: nothing large is kept.

    Args:
        digits: the test digits, or those held out; kept as bytes on the device.
        distortion: a name from `DISTORTIONS`.
        split: which digits these are, `"test"` or `"held-out"`; it goes into the seed.
        batch_size: digits at a time. It is part of what is fixed: leave it.
        device: where they are made.
    """

    def __init__(
        self,
        digits: Digits,
        distortion: str,
        split: str = "test",
        *,
        batch_size: int = 1000,
        device: torch.device | str = "cpu",
    ) -> None:
        check_choice("split", split, ("test", "held-out"))
        self.distortion = _distortion(distortion)
        self.images, self.labels = digits.images.to(device), digits.labels.to(device)
        self.split, self.batch_size = split, batch_size

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        parts = zip(
            self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True
        )
        for number, (images, labels) in enumerate(parts):
            generator = _generator("fixed", self.split, self.distortion.name, number)
            yield self.distortion(images, generator), labels
