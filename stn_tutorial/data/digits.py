"""Handwritten digits: MNIST, and the embedded ones that stand in for it (chapters 1 and 10).

MNIST is fetched once by torchvision, and its files' contents are checked. Two environment
variables choose where digits come from:

- `STN_TUTORIAL_DATA`: the folder that holds, or shall hold, `MNIST/raw`; a cache folder otherwise.
- `STN_TUTORIAL_DATASET`: `mnist` (as when it is unset), or `digits` for the embedded ones.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import sklearn.datasets
import torch
import torchvision
from filelock import FileLock
from torch import Tensor

from stn_tutorial._checks import check_choice
from stn_tutorial.affine import scaling
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample

__all__ = [
    "Digits",
    "data_folder",
    "dataset_name",
    "embedded_digits",
    "hold_out",
    "load_digits",
    "mnist",
]

SPLITS = ("train", "test")


MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the unpacked files; torchvision checks the archives only."""


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
