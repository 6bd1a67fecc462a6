"""Distorted digits to train on and to be judged by, each from a seed and a number alone (10, 11).

The same seed gives the same digits, in any order, on every run.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from stn_tutorial._checks import check_choice
from stn_tutorial.data.digits import Digits
from stn_tutorial.data.distortions import DISTORTIONS, Distortion, sent
from stn_tutorial.data.passes import Passes, generator_of

__all__ = ["Batches", "FixedSet"]


def distortion_named(name: str) -> Distortion:
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
        self.distortion = distortion_named(distortion)
        self._passes = Passes(len(digits.labels), batch_size, seed, "digits")
        self.images, self.labels = digits.images.to(device), digits.labels.to(device)
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step, 0 the first."""
        chosen = sent(self._passes(step), self.images.device)
        generator = generator_of("distort", self.seed, step)
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
        self.distortion = distortion_named(distortion)
        self.images, self.labels = digits.images.to(device), digits.labels.to(device)
        self.split, self.batch_size = split, batch_size

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        parts = zip(
            self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True
        )
        for number, (images, labels) in enumerate(parts):
            yield self.distortion(images, self._generator(number)), labels

    def theta(self) -> Tensor:
        """Return what the pictures are distorted by, in their order: θ, from output to input.

        Its shape is that of the distortion's `draw`, with N the number of all pictures: (N, 2, 3)
        for R and RTS. float32, on the CPU.
        """
        parts = enumerate(self.labels.split(self.batch_size))
        return torch.cat([self.distortion.draw(len(p), self._generator(k)) for k, p in parts])

    def _generator(self, number: int) -> torch.Generator:
        return generator_of("fixed", self.split, self.distortion.name, number)
