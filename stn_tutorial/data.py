"""Pictures and digits: what the chapters look at and learn from.

The pictures need no network: two photographs and the embedded digits come inside scikit-learn, and
the letter F is drawn here. MNIST is fetched once by torchvision, and its files' contents are
checked.

Two environment variables choose where digits come from:

- `STN_TUTORIAL_DATA`: the folder that holds, or shall hold, `MNIST/raw`; a cache folder otherwise.
- `STN_TUTORIAL_DATASET`: `mnist` (as when it is unset), or `digits` for the embedded ones.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn.datasets
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import Size, check_choice, check_size
from stn_tutorial.affine import scaling
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample

__all__ = ["Digits", "embedded_digits", "letter_f", "load_digits", "mnist", "photograph"]

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


def _data_folder() -> Path:
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


def mnist(split: str = "train") -> Digits:
    """Return MNIST, from the data folder, where it is fetched and unpacked when it is missing.

    The data folder is `STN_TUTORIAL_DATA` or, when that is unset, `stn-tutorial` in the cache
    folder (`XDG_CACHE_HOME` or `~/.cache`).

    Args:
        split: `"train"` (60 000 digits) or `"test"` (10 000).

    Raises:
        ValueError: an unpacked file's content is not MNIST's.
        RuntimeError: MNIST is neither there nor to be fetched.
    """
    check_choice("split", split, SPLITS)
    folder = _data_folder()
    # Before torchvision reads: on a truncated file it fails with a message that helps nobody.
    _check_unpacked(folder / "MNIST" / "raw")
    try:
        dataset = torchvision.datasets.MNIST(str(folder), train=split == "train", download=True)
    except (RuntimeError, OSError) as error:
        raise RuntimeError(
            f"MNIST is not in {folder} and could not be fetched ({error}). Either set "
            "STN_TUTORIAL_DATA to a folder that holds MNIST/raw with its four files, or set "
            "STN_TUTORIAL_DATASET=digits to use the digits that come with scikit-learn."
        ) from error
    _check_unpacked(folder / "MNIST" / "raw")
    return Digits(dataset.data[:, None], dataset.targets)


def load_digits(split: str = "train") -> Digits:
    """Return the digits that `STN_TUTORIAL_DATASET` names, and print which they are.

    Args:
        split: `"train"` or `"test"`.

    Raises:
        ValueError: the variable is neither `mnist` nor `digits`.
        RuntimeError: see `mnist`; there is no silent way from one to the other.
    """
    choice = os.environ.get("STN_TUTORIAL_DATASET", "mnist")
    check_choice("STN_TUTORIAL_DATASET", choice, ("mnist", "digits"))
    digits = mnist(split) if choice == "mnist" else embedded_digits(split)
    name = "MNIST" if choice == "mnist" else "scikit-learn's embedded digits"
    print(f"{name}, {split}: {len(digits.labels)} digits")
    return digits
