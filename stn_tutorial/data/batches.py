"""Distorted digits to train on and to be judged by, each from a seed and a number alone (10, 11).

The same seed gives the same digits, in any order, on every run.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from stn_tutorial._checks import check_choice
from stn_tutorial.data.digits import Digits
from stn_tutorial.data.distortions import DISTORTIONS, Distortion, sent

__all__ = ["Batches", "FixedSet"]


def generator_of(*key: int | str) -> torch.Generator:
    """Return a CPU generator that depends on the key alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


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
                len(self.labels), generator=generator_of("order", self.seed, number)
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
        chosen = sent(chosen, self.images.device)
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
