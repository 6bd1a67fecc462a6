"""House numbers: SVHN's, and what is learned from of them (chapter 13).

A *whole number* has one to five digits. Its label has five positions, from left to right, each of
eleven classes: 0 to 9 are the digits themselves, and `NO_DIGIT`, 10, says that there is none, which
is so of all positions after the last digit. (SVHN's own files write 10 for the digit 0 and have no
class for none; `stn_tutorial.data.svhn` translates, and nothing else ever sees that.)

Three sources, by name, and never one for another:

- `svhn`: the whole set, once `stn-tutorial data svhn` has fetched and prepared it;
- `svhn-part`: 2000 training and 1000 test pictures of it, where the data folder has
  `SVHN/svhn_multidigit_64.npz`;
- `drawn`: no house numbers at all, but drawn ones, see `DrawnNumbers`. It needs no file.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import check_choice, check_count
from stn_tutorial.affine import compose, rotation, scaling, shear, translation
from stn_tutorial.data.digits import SPLITS, data_folder
from stn_tutorial.data.distortions import sent
from stn_tutorial.data.drawn_numbers import NO_DIGIT, POSITIONS, DrawnNumbers
from stn_tutorial.data.passes import Passes, generator_of

__all__ = [
    "NO_DIGIT",
    "POSITIONS",
    "SOURCES",
    "FixedNumbers",
    "HouseNumberBatches",
    "HouseNumbers",
    "hold_out_numbers",
    "load_house_numbers",
    "number_lengths",
    "read_number",
]

SOURCES = ("svhn", "svhn-part", "drawn")
PART = "svhn_multidigit_64.npz"
DRAWN = {"train": 4000, "test": 1000}
"""How many drawn numbers `load_house_numbers` returns; batches are drawn without end."""


class HouseNumbers(NamedTuple):
    """Pictures of house numbers and what they say."""

    images: Tensor
    """uint8, shape (N, 3, S, S)."""
    labels: Tensor
    """int64, shape (N, 5): 0 to 9, and 10 for no digit."""


def check_labels(labels: Tensor, where: str) -> None:
    """Raise `ValueError` unless labels are whole numbers as the module says."""
    if labels.ndim != 2 or labels.shape[1] != POSITIONS:
        raise ValueError(
            f"{where}: labels must have shape (N, {POSITIONS}), "
            f"but shape {tuple(labels.shape)} was given"
        )
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) <= NO_DIGIT):
        bad = int(((labels < 0) | (labels > NO_DIGIT)).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{where}: labels must be 0 to 9, or {NO_DIGIT} for no digit, "
            f"but number {bad} has {labels[bad].tolist()}"
        )
    none = labels == NO_DIGIT
    wrong = (none[:, :-1] & ~none[:, 1:]).any(dim=1) | none[:, 0]
    if wrong.any():
        bad = int(wrong.nonzero()[0])
        raise ValueError(
            f"{where}: a number must begin with a digit and have none missing between, "
            f"but number {bad} has {labels[bad].tolist()}"
        )


def number_lengths(labels: Tensor) -> Tensor:
    """Return how many digits each number has, int64 (N,), of labels (N, 5)."""
    check_labels(labels, "number_lengths")
    return (labels != NO_DIGIT).sum(dim=1)


def read_number(label: Tensor) -> str:
    """Return five classes, (5,), as one reads them, a dot for no digit between: `"42"`, `"4·7"`.

    A network's answer may be no number at all: a digit after none, or none from the start.
    """
    text = "".join("·" if k == NO_DIGIT else str(k) for k in label.tolist())
    return text.rstrip("·") or "–"


def _part(split: str) -> HouseNumbers:
    path = data_folder() / "SVHN" / PART
    if not path.is_file():
        raise RuntimeError(
            f"the part of SVHN is not there: {path}. Either set STN_TUTORIAL_DATA to a folder "
            "that holds it, or take the whole set, which `stn-tutorial data svhn` fetches "
            "(source 'svhn'), or drawn numbers, which need no file (source 'drawn')."
        )
    try:
        with np.load(path) as file:
            images, labels = file[f"{split}_images"], file[f"{split}_labels"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return _checked(images, labels, path)


def _checked(images: np.ndarray, labels: np.ndarray, path: Path) -> HouseNumbers:
    """Return arrays as `HouseNumbers`; raise `ValueError` unless they are such."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"{path}: images must be uint8 of shape (N, S, S, 3), "
            f"but {images.dtype} of shape {images.shape} was found"
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{path}: there must be a label for each picture, "
            f"but there are {len(images)} pictures and {len(labels)} labels"
        )
    target = torch.from_numpy(labels.astype(np.int64))
    check_labels(target, str(path))
    return HouseNumbers(torch.from_numpy(images).permute(0, 3, 1, 2), target)


def prepared_folder(side: int) -> Path:
    """Return where the whole set lies once it is prepared, with that many pixels a side."""
    return data_folder() / "SVHN" / f"whole_{side}"


def _whole(split: str, side: int) -> HouseNumbers:
    folder, parts = prepared_folder(side), []
    for name in ("train", "extra") if split == "train" else ("test",):
        path = folder / f"{name}_images.npy"
        if not path.is_file():
            raise RuntimeError(
                f"SVHN is not prepared: {path} is not there. `stn-tutorial data svhn --side "
                f"{side}` fetches it (2.6 GB) and prepares it; the sources 'svhn-part' and "
                "'drawn' are smaller."
            )
        try:
            # Mapped and not read: of 235 000 pictures a batch takes a few.
            images = np.load(path, mmap_mode="c")
            labels = np.load(folder / f"{name}_labels.npy")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} or its labels are damaged ({error}). Delete {folder}, and the command "
                "prepares it again."
            ) from error
        parts.append(_checked(images, labels, path))
    if len(parts) == 1:
        return parts[0]
    return HouseNumbers(
        torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    )


def load_house_numbers(
    split: str = "train", source: str = "svhn-part", side: int = 64
) -> HouseNumbers:
    """Return house numbers from one of the three sources, and print which they are.

    Args:
        split: `"train"` (of the whole set: SVHN's train and extra together) or `"test"`.
        source: `"svhn"`, `"svhn-part"` or `"drawn"`; see the module.
        side: pixels along each side: 64, or 128 for the whole set and for drawn numbers.

    Raises:
        RuntimeError: the source's files are not there; nothing is taken in its place.
        ValueError: a file is damaged, or holds labels that are none; an unknown name.
    """
    check_choice("split", split, SPLITS)
    check_choice("source", source, SOURCES)
    check_count("side", side)
    if source == "svhn-part" and side != 64:
        raise ValueError(f"the part of SVHN has 64 pixels a side, but side {side} was given")
    if source == "drawn":
        U, labels = DrawnNumbers(split, batch_size=DRAWN[split], seed=0, size=(side, side))(0)
        numbers = HouseNumbers((255 * U).round().to(torch.uint8), labels)
        name = "Drawn house numbers, a stand-in for SVHN"
    else:
        numbers = _part(split) if source == "svhn-part" else _whole(split, side)
        name = "SVHN, a part" if source == "svhn-part" else "SVHN"
    print(f"{name}, {split}: {len(numbers.labels)} numbers")
    return numbers


def hold_out_numbers(numbers: HouseNumbers) -> tuple[HouseNumbers, HouseNumbers]:
    """Split the training numbers into those to train on and those to choose by.

    The last sixth is held out, and at most 5000, the number of the public protocol after Goodfellow
    et al. (of SVHN's train and extra together, those are all of extra).
    """
    count = min(len(numbers.labels) // 6, 5000)
    return (
        HouseNumbers(numbers.images[:-count], numbers.labels[:-count]),
        HouseNumbers(numbers.images[-count:], numbers.labels[-count:]),
    )


def _as_floats(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device).float() / 255


class HouseNumberBatches:
    """House numbers to train on; step k's batch depends on seed and k alone.

    `batches(step)` gives (U, target): float32 (N, 3, S, S) in [0, 1] and int64 (N, 5), on `device`.
    Each number comes once in each pass. With `jitter` it comes a little turned, slanted, scaled,
    moved and recoloured, afresh each time, which is our own choice: of 2000 pictures a network
    knows each by heart soon.

    Args:
        numbers: to train on; their bytes stay where they are, and a batch of them is moved.
        batch_size: numbers a step.
        seed: of the order and of the jitter.
        jitter: whether to change them.
        device: where the batches are made.
    """

    def __init__(
        self,
        numbers: HouseNumbers,
        *,
        batch_size: int = 64,
        seed: int = 0,
        jitter: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self._passes = Passes(len(numbers.labels), batch_size, seed, "house numbers")
        self.numbers, self.batch_size, self.seed = numbers, batch_size, seed
        self.jitter, self.device = jitter, torch.device(device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step, 0 the first."""
        chosen = self._passes(step)
        U = _as_floats(self.numbers.images[chosen], self.device)
        target = sent(self.numbers.labels[chosen], self.device)
        if self.jitter:
            U = jittered(U, generator_of("house numbers", self.seed, step))
        return U, target


def jittered(U: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures a little changed, (N, 3, H, W) in [0, 1]: what is random is drawn on the CPU.

    Turned and slanted by up to 8 degrees and 0.15, scaled by 0.85 to 1.15 along each axis, moved by
    up to 0.1 of half the picture, at the edge repeated; contrast, brightness and each colour
    changed by up to a fifth; and, every other time, light for dark.
    """
    n = len(U)
    u = 2 * torch.rand(n, 12, generator=generator) - 1
    theta = compose(
        scaling(1 + 0.15 * u[:, 0], 1 + 0.15 * u[:, 1]),
        shear(0.15 * u[:, 2]),
        rotation(8 * u[:, 3]),
        translation(0.1 * u[:, 4], 0.1 * u[:, 5]),
    )
    grid = F.affine_grid(sent(theta, U.device), list(U.shape), align_corners=False)
    V = F.grid_sample(U, grid, padding_mode="border", align_corners=False)
    u = sent(u, U.device)[:, :, None, None]
    V = torch.where(u[:, 6:7] > 0, V, 1 - V)
    V = (V - 0.5) * (1 + 0.2 * u[:, 7:8] + 0.1 * u[:, 8:11]) + 0.5 + 0.2 * u[:, 11:12]
    return V.clamp(0, 1)


class FixedNumbers:
    """House numbers to be judged by: iterating gives (U, target), as `HouseNumberBatches` does.

    Args:
        numbers: as they are; a batch of them at a time is moved.
        batch_size: numbers at a time.
        device: where they are made floats.
    """

    def __init__(
        self,
        numbers: HouseNumbers,
        *,
        batch_size: int = 250,
        device: torch.device | str = "cpu",
    ) -> None:
        self.numbers, self.batch_size = numbers, check_count("batch_size", batch_size)
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.numbers.labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.numbers
        for first in range(0, len(labels), self.batch_size):
            part = slice(first, first + self.batch_size)
            yield _as_floats(images[part], self.device), labels[part].to(self.device)
