"""Which pictures a step learns from: each once in every pass, from the seed and the step alone."""

import hashlib

import torch
from torch import Tensor


def generator_of(*key: int | str) -> torch.Generator:
    """Return a CPU generator that depends on the key alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Passes:
    """The pictures of each step, in an order that is new in each pass.

    A batch may reach from one pass into the next.

    Args:
        count: how many pictures there are.
        batch_size: how many of them a step takes.
        seed: of the order.
        what: what they are called in an error.
    """

    def __init__(self, count: int, batch_size: int, seed: int, what: str) -> None:
        if not 1 <= batch_size <= count:
            raise ValueError(
                f"batch_size must be 1 to {count}, the number of {what}, but {batch_size} was given"
            )
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def _chosen(self, number: int) -> Tensor:
        """Return the order of one pass, kept until another one is asked for."""
        if number != self._pass:
            self._order = torch.randperm(
                self.count, generator=generator_of("order", self.seed, number)
            )
            self._pass = number
        return self._order

    def __call__(self, step: int) -> Tensor:
        """Return the places of a step's pictures, int64 (batch_size,), on the CPU; 0 the first."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, but {step} was given")
        first, count = divmod(step * self.batch_size, self.count)
        chosen = self._chosen(first)[count : count + self.batch_size]
        if missing := self.batch_size - len(chosen):
            chosen = torch.cat([chosen, self._chosen(first + 1)[:missing]])
        return chosen
