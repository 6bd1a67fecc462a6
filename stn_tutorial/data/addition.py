"""MNIST addition: several digits in one picture, and their sum for a label (chapter 12).

In the paper's task two digits lie in two channels, each turned, scaled and placed on its own, as in
RTS; the label is their sum. Variants have three digits, and put two or three on one canvas. They
are drawn as the other distorted digits are, from a seed and a number alone, on the digits' device.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import check_choice
from stn_tutorial._facts import Fact
from stn_tutorial.affine import scaling
from stn_tutorial.data.batches import distortion_named
from stn_tutorial.data.digits import Digits
from stn_tutorial.data.distortions import SIDE, sent
from stn_tutorial.data.passes import generator_of
from stn_tutorial.grids import affine_grid

__all__ = ["ADDITIONS", "Addition", "FixedSums", "Sums"]


class Addition(NamedTuple):
    """A kind of MNIST addition: how many digits, and whether each has a channel of its own.

    Called with uint8 pictures (N, digits, 28, 28) and a CPU generator it gives float32
    (N, channels, 42, 42) in [0, 1], on the pictures' device.
    """

    name: str
    """As the table of experiments calls it."""
    title: str
    """In words."""
    digits: int
    """How many are added up."""
    apart: bool
    """Whether each lies in a channel of its own, or all on one canvas."""
    facts: tuple[Fact, ...]
    """What it rests on, and how sure we are of each."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the canvas: that of RTS."""
        return distortion_named("RTS").size

    @property
    def channels(self) -> int:
        """C of the pictures."""
        return self.digits if self.apart else 1

    @property
    def classes(self) -> int:
        """Of the sums, 0 to nine times the digits: 19 of two, 28 of three."""
        return 9 * self.digits + 1

    def draw(self, n: int, generator: torch.Generator, reach: float = 1.0) -> Tensor:
        """Return the digits' maps from output to input, θ: (n, digits, 2, 3), on the CPU.

        Args:
            n: how many pictures.
            generator: on the CPU.
            reach: the share of RTS: 1 is the paper's task, at 0 all digits stand upright, in their
                own size, in the middle, and between lie the tasks between, θ's numbers mixed.
        """
        theta = distortion_named("RTS").draw(n * self.digits, generator)
        plain = scaling(SIDE / self.size[0])
        return (plain + reach * (theta - plain)).unflatten(0, (n, self.digits))

    def __call__(self, images: Tensor, generator: torch.Generator, reach: float = 1.0) -> Tensor:
        """Return the pictures, float32 (N, channels, 42, 42) in [0, 1].

        Args:
            images: uint8 (N, digits, 28, 28).
            generator: on the CPU; what is drawn depends on it and on N, and on nothing else.
            reach: as in `draw`.

        Raises:
            ValueError: another dtype or shape.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (self.digits, 28, 28):
            raise ValueError(
                f"images must be uint8 of shape (N, {self.digits}, 28, 28), "
                f"but {images.dtype} of shape {tuple(images.shape)} was given"
            )
        theta = sent(self.draw(len(images), generator, reach), images.device).flatten(0, 1)
        single = images.reshape(-1, 1, SIDE, SIDE).float() / 255
        placed = F.grid_sample(single, affine_grid(theta, self.size), align_corners=False)
        placed = placed.view(-1, self.digits, *self.size)
        # On one canvas the brighter pixel is seen, so that no order of the digits matters.
        return placed if self.apart else placed.amax(dim=1, keepdim=True)


_TASK = (
    Fact("two independent RTS digits, one in each channel, on a 42×42 canvas", "a"),
    Fact("19 classes, the sums 0 to 18", "a"),
    Fact("both digits are drawn from the same set; a digit may meet any other, and itself", "c"),
    Fact("a channel is turned, scaled and placed as a digit of RTS is", "c"),
)
_THREE = (Fact("three digits in three channels: not in the paper", "c"),)
_ONE_CANVAS = (
    Fact("all digits on one canvas: not in the paper", "c"),
    Fact("where digits overlap, the brighter pixel is seen", "c"),
)

ADDITIONS: dict[str, Addition] = {
    a.name: a
    for a in (
        Addition("channels", "two digits, two channels", 2, True, _TASK),
        Addition("canvas", "two digits, one canvas", 2, False, _ONE_CANVAS),
        Addition("three", "three digits, one canvas", 3, False, _ONE_CANVAS),
        Addition("three-channels", "three digits, three channels", 3, True, _THREE),
    )
}
"""The kinds of addition by name: the paper's, in two channels, and three that are ours."""


def addition_named(name: str) -> Addition:
    check_choice("addition", name, tuple(ADDITIONS))
    return ADDITIONS[name]


class Sums:
    """Training sums, drawn afresh for each step; step k's batch depends on seed and k alone.

    `batches(step)` gives (U, target): float32 (N, C, 42, 42) in [0, 1] and int64 (N,), the sums, on
    `device`. In each pass each digit comes once in each place; a batch lies within one pass.

    Args:
        digits: to add up; kept as bytes on the device.
        addition: a name from `ADDITIONS`.
        batch_size: sums a step.
        seed: of who meets whom, and of the distortions.
        device: where the batches are made.
        reach: from a step to its share of RTS, see `Addition.draw`: easy pictures first. The
            paper's task throughout when left out.

    Raises:
        ValueError: an unknown name, or a batch of more sums than there are digits.
    """

    def __init__(
        self,
        digits: Digits,
        addition: str = "channels",
        *,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
        reach: Callable[[int], float] | None = None,
    ) -> None:
        self.addition = addition_named(addition)
        if not 1 <= batch_size <= len(digits.labels):
            raise ValueError(
                f"batch_size must be 1 to {len(digits.labels)}, the number of digits, "
                f"but {batch_size} was given"
            )
        self.images, self.labels = digits.images.to(device), digits.labels.to(device)
        self.batch_size, self.seed = batch_size, seed
        self.reach = reach
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def chosen(self, step: int) -> Tensor:
        """Return which digits meet in a step's batch: int64 (N, digits), places, on the CPU."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, but {step} was given")
        steps = len(self.labels) // self.batch_size
        number, place = divmod(step, steps)
        if number != self._pass:
            generator = generator_of("sums", self.seed, number)
            count = len(self.labels)
            orders = [torch.randperm(count, generator=generator) for _ in self._places]
            self._order, self._pass = torch.stack(orders, dim=1), number
        return self._order[place * self.batch_size :][: self.batch_size]

    @property
    def _places(self) -> range:
        return range(self.addition.digits)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step, 0 the first."""
        chosen = sent(self.chosen(step), self.images.device)
        U = self.addition(self.images[chosen][:, :, 0], *self._drawing(step))
        return U, self.labels[chosen].sum(dim=1)

    def theta(self, step: int) -> Tensor:
        """Return where each digit of a step's batch lies: θ from output to input, on the CPU.

        float32 (N, digits, 2, 3), in the sums' order.
        """
        return self.addition.draw(self.batch_size, *self._drawing(step))

    def _drawing(self, step: int) -> tuple[torch.Generator, float]:
        generator = generator_of("add", self.addition.name, self.seed, step)
        return generator, 1.0 if self.reach is None else self.reach(step)


class FixedSums:
    """Sums to be judged by, drawn once and for all: every run sees the same pictures.

    Iterating gives (U, target) as `Sums` does, made anew each time. There are as many sums as
    digits, and each digit comes once in each place.

    Args:
        digits: the test digits, or those held out; kept as bytes on the device.
        addition: a name from `ADDITIONS`.
        split: which digits these are, `"test"` or `"held-out"`; it goes into the seed.
        batch_size: sums at a time. It is part of what is fixed: leave it.
        device: where they are made.
        reach: the share of RTS, see `Addition.draw`.
    """

    def __init__(
        self,
        digits: Digits,
        addition: str = "channels",
        split: str = "test",
        *,
        batch_size: int = 1000,
        device: torch.device | str = "cpu",
        reach: float = 1.0,
    ) -> None:
        check_choice("split", split, ("test", "held-out"))
        self.addition = addition_named(addition)
        self.images, self.labels = digits.images.to(device), digits.labels.to(device)
        self.split, self.batch_size, self.reach = split, batch_size, reach

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self) -> Tensor:
        """Return which digits meet, in the sums' order: int64 (N, digits), places, on the CPU."""
        generator = generator_of("fixed sums", self.split, self.addition.name)
        count = len(self.labels)
        orders = [torch.randperm(count, generator=generator) for _ in range(self.addition.digits)]
        return torch.stack(orders, dim=1)

    def addends(self) -> Tensor:
        """Return the digits that each sum is made of: int64 (N, digits)."""
        return self.labels[self.chosen().to(self.labels.device)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, chosen in enumerate(self.chosen().split(self.batch_size)):
            chosen = sent(chosen, self.images.device)
            generator = self._generator(number)
            pictures = self.addition(self.images[chosen][:, :, 0], generator, self.reach)
            yield pictures, self.labels[chosen].sum(dim=1)

    def theta(self) -> Tensor:
        """Return where each digit lies, in the sums' order: θ from output to input.

        float32 (N, digits, 2, 3), on the CPU.
        """
        parts = enumerate(self.labels.split(self.batch_size))
        draw, reach = self.addition.draw, self.reach
        return torch.cat([draw(len(p), self._generator(k), reach) for k, p in parts])

    def _generator(self, number: int) -> torch.Generator:
        return generator_of("fixed sum", self.split, self.addition.name, number)
